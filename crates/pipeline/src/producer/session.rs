//! One period of work of a producer: from taking the lease to whatever ends it.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewheel_core::error::PortError;
use tidewheel_core::payload::{STAMP, version_of};
use tidewheel_core::ports::{Appended, Checkpoint, Damage, Feed, FeedBatch, FeedError, Repair, SnapshotState, StartAt};
use tidewheel_core::trace::Tracer;
use tidewheel_core::version::ClusterTime;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::admission::Limits;
use super::auditing::Auditing;
use super::barrier::Barrier;
use super::collecting::Collecting;
use super::meters;
use super::moves::present;
use super::options::ProducerOptions;
use super::plan::{self, Recovery, Start, Step};
use super::snapshot::{Page, Snapshot};
use super::writer::{Writer, report_parked};
use super::{FOLLOW, POINTS, ProducerPorts};
use crate::health::Health;
use crate::spans;

/// How often the positions of both stages are looked at: how soon damage is noticed and how long a snapshot waits at least.
const LOOK: Duration = Duration::from_millis(500);

/// How often while something is on its way: whoever waits until it is searchable waits this much longer at most.
const LOOK_CLOSELY: Duration = Duration::from_millis(100);

/// How often a waiting source is asked for its time.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    Shutdown,
    /// The checkpoint is not the one this session saw last.
    Conflict,
    /// Another producer has the lease.
    StandBy,
    /// The next session goes on from another checkpoint.
    Restarted,
    Failed(PortError),
}

impl From<PortError> for Ended {
    fn from(error: PortError) -> Self {
        Self::Failed(error)
    }
}

pub(super) struct Session<'a> {
    pub(super) options: &'a ProducerOptions,
    pub(super) ports: &'a ProducerPorts,
    pub(super) tracer: Option<&'a Tracer>,
    pub(super) health: &'a Health,
    pub(super) shutdown: &'a CancellationToken,
    /// Whether this session has appended anything.
    pub(super) progressed: AtomicBool,
    /// What stage 1 takes.
    pub(super) limits: OnceLock<Limits>,
}

impl Session<'_> {
    /// Works until something ends it; also says whether anything was achieved, so that the caller knows whether to
    /// back off.
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
        meters::leads(true);
        // As long as it is at work, the feed has to say something, if only that nothing happened.
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
                        if let Some((lasted, attempts)) = self.health.works(FOLLOW) {
                            info!(attempts, seconds = lasted.as_secs(), "can {FOLLOW} again");
                        }
                        if read_again {
                            snapshot = self.snapshot(&writer, &keeper).await?;
                        }
                    }
                    Err(error) => return Err(lost(error)),
                },
                page = snapshot.next() => match page? {
                    Page::Rows(page) => {
                        let page = snapshot.compare(page).await;
                        writer.append(plan::read(&writer.checkpoint, page, now_ms(), self.limits())).await?;
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
        Ok(Snapshot::of(&writer.checkpoint, self.ports, keeper.barrier.next()).await?)
    }

    /// Opens the feed where the checkpoint says, or begins anew.
    async fn open(&self) -> Result<(Box<dyn Feed>, Checkpoint), Ended> {
        let saved = self.ports.journal.load().await?;
        let of_source = self.ports.source.selection();
        let selection = plan::selection(&of_source);
        match (plan::start(saved.as_ref(), &selection), saved) {
            (Start::Resume(at), Some(saved)) => match self.ports.source.open(at).await {
                Ok(feed) => Ok((feed, saved)),
                Err(FeedError::HistoryLost(why)) => self.begin_again(Some(saved), None, &why).await,
                Err(FeedError::Port(error)) => Err(error.into()),
            },
            (Start::Reselect(at), saved) => {
                let former = saved.as_ref().is_some_and(|saved| saved.selection == of_source);
                let why = if former { "keys have a new form" } else { "the selection of collections has changed" };
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
        warn!("everything will be compared with the index: {why}");
        match self.begin(saved.clone(), at).await {
            Err(Ended::Failed(error)) if error.message.contains(HISTORY) => self.begin(saved, None).await,
            outcome => outcome,
        }
    }

    /// Opens the feed at a time, saves that as the checkpoint, and has everything read that was there at that time.
    /// The feed comes first: what changes while the snapshot reads is in the feed.
    async fn begin(
        &self,
        saved: Option<Checkpoint>,
        at: Option<StartAt>,
    ) -> Result<(Box<dyn Feed>, Checkpoint), Ended> {
        let time = match at {
            Some(StartAt::Time(time)) => time,
            _ => self.ports.source.now().await?,
        };
        let mut feed = self.ports.source.open(StartAt::Time(time)).await.map_err(lost)?;
        // The token of the feed's start comes with its first batch, whose events must not be lost: they are appended
        // with the checkpoint that they belong to.
        let first = feed.next().await.map_err(lost)?;
        let known = self.newest(saved.as_ref()).await?;
        let selection = plan::selection(&self.ports.source.selection());
        let begun = plan::begun(known, selection, first.token.clone(), time, self.options.snapshot);
        let (step, _) = self.step(&begun, first).await?;
        let Step { changes, parked, next } = &step;
        let appended = self.ports.journal.restart(saved.as_ref(), changes, parked, next, Repair::Everything).await?;
        match appended {
            Appended::Saved => {
                report_parked(parked);
                self.progressed.store(true, Ordering::Relaxed);
                spans::appended(self.tracer, &step.changes);
                Ok((feed, step.next))
            }
            Appended::Conflict => Err(Ended::Conflict),
        }
    }

    /// Epoch and time of the newest change that is known. A checkpoint that is gone must not take the epoch with it, or the index
    /// would refuse every change as an old one: then what the index itself holds tells.
    async fn newest(&self, saved: Option<&Checkpoint>) -> Result<Option<(u32, ClusterTime)>, Ended> {
        if let Some(saved) = saved {
            return Ok(Some((saved.epoch, saved.last.0)));
        }
        let (mut after, mut newest) = (None, None);
        loop {
            let page = match self.ports.index.page(after, POINTS, STAMP).await {
                Ok(page) => page,
                Err(error) => {
                    warn!("cannot look for the newest version in the index, which is taken for empty: {error}");
                    return Ok(None);
                }
            };
            let Some(last) = page.last() else { return Ok(newest) };
            after = Some(last.id);
            let versions = page.iter().filter_map(|point| version_of(&point.payload));
            newest = newest.max(versions.map(|version| (version.epoch, version.time)).max());
            self.renew().await?;
        }
    }

    /// Goes on from a checkpoint that makes the damage good. Always ends the session.
    async fn repair(&self, writer: &mut Writer<'_>, damage: Damage) -> Result<Infallible, Ended> {
        let applied = self.ports.journal.applied().await?;
        match plan::recover(&writer.checkpoint, applied, &damage) {
            Recovery::Rewind(applied) => {
                warn!(from = applied.last.0.seconds, "what was lost will be appended again: {damage}");
                writer.restart(applied, Repair::Entries).await?;
            }
            Recovery::Compare(from) if self.options.snapshot => {
                warn!("everything will be compared with the index: {damage}");
                let time = self.ports.source.now().await?;
                writer.restart(plan::read_again(from, time), Repair::Everything).await?;
            }
            Recovery::Compare(from) => {
                warn!("not repaired, because producer.snapshot is \"never\": {damage}");
                writer.restart(from, Repair::Everything).await?;
            }
        }
        Err(Ended::Restarted)
    }

    /// The step for a batch of the feed, and whether a snapshot begins behind it.
    pub(super) async fn step(&self, checkpoint: &Checkpoint, mut batch: FeedBatch) -> Result<(Step, bool), Ended> {
        let appeared = std::mem::take(&mut batch.appeared);
        let present = present(&*self.ports.source, plan::doubtful(checkpoint, &batch), checkpoint.last.0).await?;
        let (mut step, too_many) = plan::follow(checkpoint, batch, &present, self.limits());
        if !appeared.is_empty() {
            warn!(collections = ?appeared, "collections were renamed into the selection; everything will be compared");
        } else if too_many {
            warn!("a transaction had more changes than can be numbered; everything will be compared");
        } else {
            return Ok((step, false));
        }
        let time = self.after(step.next.last.0).await?;
        step.next = plan::read_again(step.next, time);
        Ok((step, true))
    }

    fn limits(&self) -> Limits {
        self.limits.get().copied().unwrap_or(Limits::of(None))
    }

    /// A time of the source after `time`: an idle MongoDB moves its time forward every ten seconds.
    pub(super) async fn after(&self, time: ClusterTime) -> Result<ClusterTime, Ended> {
        loop {
            let now = self.ports.source.now().await?;
            if now > time {
                return Ok(now);
            }
            self.renew().await?;
            self.pause(PAUSE).await?;
        }
    }

    /// Takes or renews the lease.
    pub(super) async fn renew(&self) -> Result<(), Ended> {
        let ours = self.ports.journal.lease(&self.options.owner, self.options.lease).await?;
        if ours { Ok(()) } else { Err(Ended::StandBy) }
    }

    /// Waits, unless the service is asked to stop.
    pub(super) async fn pause(&self, duration: Duration) -> Result<(), Ended> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Ended::Shutdown),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }
}

/// While it lives, something has to get done.
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

/// Keeps the record of what is applied, and looks for damage.
struct Keeper<'a> {
    session: &'a Session<'a>,
    barrier: Barrier,
    applied: Option<Checkpoint>,
}

impl<'a> Keeper<'a> {
    fn new(session: &'a Session<'a>) -> Self {
        Self { session, barrier: Barrier::default(), applied: None }
    }

    /// Up to when everything that was in the streams has been acknowledged; `None` if that is not known, or while a snapshot runs.
    fn settled(&self, checkpoint: &Checkpoint) -> Option<u64> {
        let applied =
            self.applied.as_ref().is_some_and(|applied| matches!(applied.snapshot, SnapshotState::Done { .. }));
        let done = matches!(checkpoint.snapshot, SnapshotState::Done { .. });
        (applied && done && self.barrier.passed() > 0).then(|| self.barrier.settled())
    }

    /// Says whether everything that was appended is in the index.
    async fn look(&mut self, writer: &mut Writer<'_>) -> Result<bool, Ended> {
        let journal = &self.session.ports.journal;
        let positions = journal.positions().await?;
        let mut applied = self.barrier.advance(&writer.checkpoint, &positions);
        if applied.is_some() {
            // The next one begins with the same positions, and passes at once where nothing is on its way.
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
            debug!(at = applied.last.0.seconds, "everything up to here is in the index");
        }
        let settled = applied == writer.checkpoint;
        self.applied = Some(applied);
        Ok(settled)
    }
}

/// A feed that lost its history fails like an outage: the next session finds the token unusable and begins again.
fn lost(error: FeedError) -> Ended {
    Ended::Failed(match error {
        FeedError::HistoryLost(why) => PortError::transient(format!("{HISTORY}: {why}")),
        FeedError::Port(error) => error,
    })
}

/// In the message of a lost history, so that a failed reopening is told from an outage.
const HISTORY: &str = "MongoDB no longer has the changes after the saved position";

/// First after one period: at the start there is nothing to do yet.
fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// By this machine's clock, in milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
