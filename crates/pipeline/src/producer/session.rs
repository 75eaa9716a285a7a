//! One session of a producer: from acquiring the lease to its end.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewheel_core::error::PortError;
use tidewheel_core::health::Health;
use tidewheel_core::payload::{STAMP, version_of};
use tidewheel_core::ports::{
    Appended, Checkpoint, Damage, Feed, FeedError, Repair, ResumeToken, SnapshotState, StartAt,
};
use tidewheel_core::time::now_ms;
use tidewheel_core::version::ClusterTime;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::{debug, info, warn};

use super::admission::Limits;
use super::auditing::Auditing;
use super::barrier::Barrier;
use super::collecting::Collecting;
use super::context::{Ended, Newest, Session};
use super::metric;
use super::narrowing::{Part, Place};
use super::plan::{self, Recovery, Start};
use super::snapshot::{Page, Snapshot};
use super::writer::{Saving, Writer};
use super::{FOLLOW, POINTS};
use crate::retry::report_recovery;

/// How often the positions of both stages are read: bounds how soon damage is detected and how long a snapshot waits at
/// least.
const LOOK: Duration = Duration::from_millis(500);

/// The same while changes are in flight: a client that waits until they are searchable waits at most this much longer.
const LOOK_CLOSELY: Duration = Duration::from_millis(100);

/// Pause after each page of the index while the newest version is read, for the requests of other clients.
const NEWEST_PAUSE: Duration = Duration::from_millis(10);

impl Session<'_> {
    /// Runs until the session ends; also returns whether it made progress, so that the caller can reset its backoff.
    pub(super) async fn run(&self) -> (Ended, bool) {
        let Err(ended) = self.work().await;
        (ended, self.progressed.load(Ordering::Relaxed))
    }

    async fn work(&self) -> Result<Infallible, Ended> {
        self.renew().await?;
        let limits = Limits::of(self.ports.journal.most_bytes().await?);
        let _ = self.limits.set(limits);
        let (mut feed, checkpoint) = self.open().await?;
        self.health.started();
        metric::leads(true);
        // While the session is active, the feed has to return batches, even if empty ones.
        let _busy = Busy::new(self.health);
        info!(at = checkpoint.last.0.seconds, snapshot = ?checkpoint.snapshot, "ready");

        let mut writer = Writer::new(self, checkpoint);
        let mut keeper = Keeper::new(self);
        let mut snapshot = self.snapshot(&writer, &keeper).await?;
        let mut renew = every(self.options.lease / 3);
        let mut auditing = Auditing::new(self.options.audit_interval, self.options.left_out.clone(), self.ports);
        let mut collecting = Collecting::new(self.ports.tombstones.clone(), self.options.tombstone_grace);
        let mut look = std::pin::pin!(tokio::time::sleep(LOOK));
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Ended::Shutdown),
                _ = renew.tick() => self.renew().await?,
                () = &mut look => {
                    let settled = keeper.look(&mut writer).await?;
                    snapshot.passed(keeper.barrier.passed());
                    collecting.settle(keeper.settled(&writer.checkpoint));
                    look.as_mut().reset(Instant::now() + if settled { LOOK } else { LOOK_CLOSELY });
                }
                () = auditing.next() => {}
                () = collecting.next() => {}
                batch = feed.next() => match batch {
                    Ok(batch) => {
                        self.health.progresses();
                        let read_again = writer.follow(batch).await?;
                        report_recovery(self.health, FOLLOW);
                        if read_again {
                            snapshot = self.snapshot(&writer, &keeper).await?;
                        }
                    }
                    Err(error) => return Err(lost(error)),
                },
                page = snapshot.next() => match page? {
                    Page::Rows(page) => {
                        let page = snapshot.compare(page).await;
                        let most = self.narrowings().most(Part::Snapshot);
                        for part in plan::parts(page, most) {
                            writer.append(plan::read(&writer.checkpoint, part, now_ms(), self.rules())).await?;
                        }
                        snapshot.report(&writer.checkpoint);
                    }
                    Page::CollectionRead => snapshot.next_collection(),
                    Page::AllRead => {
                        writer.append(plan::read_all(&writer.checkpoint)).await?;
                        snapshot.sweep(keeper.barrier.next());
                    }
                    Page::Points(page) if page.absent.is_empty() && !snapshot.is_to_be_saved() => {}
                    Page::Points(page) => {
                        writer.append(plan::gone(&writer.checkpoint, page, now_ms())).await?;
                    }
                    Page::Swept => {
                        writer.append(plan::swept(&writer.checkpoint)).await?;
                        snapshot.finish();
                    }
                },
            }
        }
    }

    async fn snapshot<'s>(&'s self, writer: &Writer<'_>, keeper: &Keeper<'_>) -> Result<Snapshot<'s>, Ended> {
        let most = self.narrowings().most(Part::Snapshot);
        Ok(Snapshot::of(&writer.checkpoint, self.ports, keeper.barrier.next(), most).await?)
    }

    /// Opens the feed at the checkpoint, or starts over.
    async fn open(&self) -> Result<(Box<dyn Feed>, Checkpoint), Ended> {
        let saved = self.ports.journal.load().await?;
        let of_source = self.ports.source.scope();
        let selection = plan::selection(&of_source);
        let most = self.narrowings().most(Part::Feed);
        match (plan::start(saved.as_ref(), &selection), saved) {
            (Start::Resume(at), Some(saved)) => match self.ports.source.open_narrow(at, most).await {
                Ok(feed) => Ok((feed, saved)),
                Err(FeedError::HistoryLost(why)) => self.begin_again(Some(saved), None, &why).await,
                Err(FeedError::Port(error)) => Err(error.into()),
            },
            (Start::Reselect(at), saved) => {
                let former = saved.as_ref().is_some_and(|saved| saved.selection == of_source);
                let why =
                    if former { "the form of keys has changed" } else { "the selection of collections has changed" };
                self.begin_again(saved, Some(at), why).await
            }
            (_, saved) => self.begin(saved, None).await,
        }
    }

    async fn begin_again(
        &self,
        saved: Option<Checkpoint>,
        at: Option<StartAt>,
        why: &str,
    ) -> Result<(Box<dyn Feed>, Checkpoint), Ended> {
        warn!("comparing all documents with the index: {why}");
        match self.begin(saved.clone(), at).await {
            Err(Ended::Failed(error)) if error.message.contains(HISTORY) => self.begin(saved, None).await,
            outcome => outcome,
        }
    }

    /// Opens the feed at a time, saves that as the checkpoint, and starts a snapshot of everything that existed at that
    /// time. The feed is opened first: it covers changes made while the snapshot reads.
    async fn begin(
        &self,
        saved: Option<Checkpoint>,
        at: Option<StartAt>,
    ) -> Result<(Box<dyn Feed>, Checkpoint), Ended> {
        let time = match at {
            Some(StartAt::Time(time)) => time,
            _ => self.ports.source.now().await?,
        };
        let most = self.narrowings().most(Part::Feed);
        let mut feed = self.ports.source.open_narrow(StartAt::Time(time), most).await.map_err(lost)?;
        // The first batch carries the token of the feed's start; its events must not be lost, so they are appended
        // together with that checkpoint.
        let first = feed.next().await.map_err(lost)?;
        let known = self.newest(saved.as_ref()).await?;
        let selection = plan::selection(&self.ports.source.scope());
        let begun = plan::begun(known, selection, first.token.clone(), time, self.options.snapshot);
        let (step, _) = self.step(&begun, first).await?;
        let token = saved.as_ref().map_or(ResumeToken(String::new()), |saved| saved.token.clone());
        let place = Place::Feed(token, (time, 0));
        let saving = Saving { session: self, saved: saved.as_ref(), place, repair: Some(Repair::Everything) };
        let (appended, step) = saving.save(step).await?;
        match appended {
            Appended::Saved => {
                self.appended(&step);
                *self.newest.lock().await = Newest::default();
                Ok((feed, step.next))
            }
            Appended::Conflict => Err(Ended::Conflict),
        }
    }

    /// Epoch and time of the newest known change. Without a checkpoint, they are read from the index: with a lower
    /// epoch, the index would reject every change as outdated.
    async fn newest(&self, saved: Option<&Checkpoint>) -> Result<Option<(u32, ClusterTime)>, Ended> {
        if let Some(saved) = saved {
            return Ok(Some((saved.epoch, saved.last.0)));
        }
        let mut search = self.newest.lock().await;
        loop {
            let page = match self.ports.index.page(search.after, POINTS, STAMP).await {
                Ok(page) => page,
                Err(error) => {
                    warn!("failed to read the newest version from the index, treating it as empty: {error}");
                    return Ok(None);
                }
            };
            let Some(last) = page.last() else { return Ok(search.newest) };
            search.after = Some(last.id);
            let versions = page.iter().filter_map(|point| version_of(&point.payload));
            search.newest = search.newest.max(versions.map(|version| (version.epoch, version.time)).max());
            self.renew().await?;
            self.pause(NEWEST_PAUSE).await?;
        }
    }

    /// Continues from a checkpoint that repairs the damage. Always ends the session.
    async fn repair(&self, writer: &mut Writer<'_>, damage: Damage) -> Result<Infallible, Ended> {
        let applied = self.ports.journal.applied().await?;
        match plan::recover(&writer.checkpoint, applied, &damage) {
            Recovery::Rewind(applied) => {
                warn!(from = applied.last.0.seconds, "appending lost changes again: {damage}");
                writer.restart(applied, Repair::Entries).await?;
            }
            Recovery::Compare(from) if self.options.snapshot => {
                warn!("comparing all documents with the index: {damage}");
                let time = self.ports.source.now().await?;
                writer.restart(plan::read_again(from, time), Repair::Everything).await?;
            }
            Recovery::Compare(from) => {
                warn!("damage not repaired, because producer.snapshot is \"never\": {damage}");
                writer.restart(from, Repair::Everything).await?;
            }
        }
        Err(Ended::Restarted)
    }
}

/// Marks the service as busy while it lives: progress is expected.
struct Busy<'a>(&'a Health);

impl<'a> Busy<'a> {
    fn new(health: &'a Health) -> Self {
        health.begins();
        Self(health)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.ends();
    }
}

/// Maintains the applied checkpoint, and detects damage.
struct Keeper<'a> {
    session: &'a Session<'a>,
    barrier: Barrier,
    applied: Option<Checkpoint>,
}

impl<'a> Keeper<'a> {
    fn new(session: &'a Session<'a>) -> Self {
        Self { session, barrier: Barrier::default(), applied: None }
    }

    /// The time up to which all entries of the streams have been acknowledged; `None` if unknown, or while a snapshot
    /// is running.
    fn settled(&self, checkpoint: &Checkpoint) -> Option<u64> {
        let applied =
            self.applied.as_ref().is_some_and(|applied| matches!(applied.snapshot, SnapshotState::Done { .. }));
        let done = matches!(checkpoint.snapshot, SnapshotState::Done { .. });
        (applied && done && self.barrier.passed() > 0).then(|| self.barrier.settled())
    }

    /// Reads the positions; returns whether everything appended is in the index.
    async fn look(&mut self, writer: &mut Writer<'_>) -> Result<bool, Ended> {
        let journal = &self.session.ports.journal;
        let positions = journal.positions().await?;
        let mut applied = self.barrier.advance(&writer.checkpoint, &positions);
        if applied.is_some() {
            // The next barrier begins with the same positions, and passes at once if nothing is in flight.
            applied = self.barrier.advance(&writer.checkpoint, &positions).or(applied);
        }
        if let Some(damage) = positions.damage {
            let Err(ended) = self.session.repair(writer, damage).await;
            return Err(ended);
        }
        let Some(applied) = applied else { return Ok(self.applied.as_ref() == Some(&writer.checkpoint)) };
        if self.applied.as_ref() != Some(&applied) {
            if journal.confirm(&writer.checkpoint, &applied).await? == Appended::Conflict {
                return Err(Ended::Conflict);
            }
            debug!(at = applied.last.0.seconds, "checkpoint applied");
        }
        let settled = applied == writer.checkpoint;
        self.applied = Some(applied);
        Ok(settled)
    }
}

/// A feed that lost its history fails like an outage: the next session finds the token unusable and starts over.
fn lost(error: FeedError) -> Ended {
    Ended::Failed(match error {
        FeedError::HistoryLost(why) => PortError::transient(format!("{HISTORY}: {why}")),
        FeedError::Port(error) => error,
    })
}

/// Prefix of the error of a lost history, which distinguishes a failed reopening from an outage.
const HISTORY: &str = "MongoDB no longer has the changes after the saved position";

/// First tick after one period: at the start there is nothing to do.
fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
