//! One period of work of a producer: from taking the lease to whatever ends it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{
    Appended, Checkpoint, Feed, FeedBatch, FeedError, Journal, PortResult, Scan, SnapshotState, Source, SourceRow,
    StartAt,
};
use tidewheel_core::version::ClusterTime;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::FOLLOW;
use super::options::ProducerOptions;
use super::plan::{self, Start, Step};
use crate::health::Health;

/// How often an idle feed's token is saved. Often enough that a resume is quick and that a wiped Redis is noticed,
/// seldom enough to cost nothing.
const IDLE_SAVE: Duration = Duration::from_secs(5);

/// How often a paused producer looks whether stage 1 has drained.
const PAUSE: Duration = Duration::from_millis(200);

/// After how many appended entries the length of stage 1 is looked at again. With pages and batches of up to 1,000
/// entries the high-water mark is exceeded by two of them at most.
const LOOK_EVERY: u64 = 1_000;

/// How often a running snapshot reports its progress.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    Shutdown,
    /// The checkpoint is not the one this session saw last.
    Conflict,
    /// Another producer has the lease.
    StandBy,
    Failed(PortError),
}

impl From<PortError> for Ended {
    fn from(error: PortError) -> Self {
        Self::Failed(error)
    }
}

pub(super) struct Session<'a> {
    pub(super) options: &'a ProducerOptions,
    pub(super) source: &'a dyn Source,
    pub(super) journal: &'a dyn Journal,
    pub(super) health: &'a Health,
    pub(super) shutdown: &'a CancellationToken,
}

impl Session<'_> {
    /// Works until something ends it; also says whether anything was achieved, so that the caller knows whether to
    /// back off.
    pub(super) async fn run(&self) -> (Ended, bool) {
        let mut progressed = false;
        let Err(ended) = self.work(&mut progressed).await;
        (ended, progressed)
    }

    async fn work(&self, progressed: &mut bool) -> Result<std::convert::Infallible, Ended> {
        if !self.journal.lease(&self.options.owner, self.options.lease).await? {
            return Err(Ended::StandBy);
        }
        let (mut feed, checkpoint) = self.open().await?;
        self.health.works(FOLLOW);
        self.health.started();
        *progressed = true;
        info!(at = checkpoint.last.0.seconds, snapshot = ?checkpoint.snapshot, "ready");

        let mut writer = Writer { session: self, checkpoint, since_look: 0, saved_at: Instant::now() };
        let mut snapshot = Snapshot::of(&writer.checkpoint, self.source).await?;
        let third = self.options.lease / 3;
        let mut renew = tokio::time::interval_at(tokio::time::Instant::now() + third, third);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Ended::Shutdown),
                _ = renew.tick() => {
                    if !self.journal.lease(&self.options.owner, self.options.lease).await? {
                        return Err(Ended::StandBy);
                    }
                }
                batch = feed.next() => match batch {
                    Ok(batch) => {
                        if writer.follow(batch).await? {
                            snapshot = Snapshot::of(&writer.checkpoint, self.source).await?;
                        }
                    }
                    Err(error) => return Err(self.lost(error)),
                },
                page = snapshot.next(self.source) => match page? {
                    Page::Rows(namespace, rows) => {
                        let step = plan::read(&writer.checkpoint, &namespace, rows, now_ms());
                        writer.append(step).await?;
                        snapshot.report(&writer.checkpoint);
                    }
                    Page::Read(namespace) => {
                        writer.append(plan::sweep(&writer.checkpoint, &namespace, now_ms())).await?;
                        snapshot.next_collection();
                    }
                    Page::End => {
                        writer.append(plan::read_all(&writer.checkpoint)).await?;
                        snapshot.finish(&writer.checkpoint);
                    }
                },
            }
        }
    }

    /// Opens the feed where the checkpoint says, or begins anew.
    async fn open(&self) -> Result<(Box<dyn Feed>, Checkpoint), Ended> {
        let saved = self.journal.load().await?;
        let selection = self.source.selection();
        match (plan::start(saved.as_ref(), &selection), saved) {
            (Start::Resume(at), Some(saved)) => match self.source.open(at).await {
                Ok(feed) => Ok((feed, saved)),
                Err(FeedError::HistoryLost(why)) => self.begin_again(Some(saved), None, &why).await,
                Err(FeedError::Port(error)) => Err(error.into()),
            },
            (Start::Reselect(at), saved) => {
                self.begin_again(saved, Some(at), "the selection of collections has changed").await
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
        warn!("everything will be read again: {why}");
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
            _ => self.source.now().await?,
        };
        let mut feed = self.source.open(StartAt::Time(time)).await.map_err(|error| self.lost(error))?;
        // The token of the feed's start comes with its first batch, whose events must not be lost: they are appended
        // right after the checkpoint that they follow.
        let first = feed.next().await.map_err(|error| self.lost(error))?;
        let begun =
            plan::begun(saved.as_ref(), self.source.selection(), first.token.clone(), time, self.options.snapshot);
        let step = plan::follow(&begun, first)?;
        match self.journal.append(saved.as_ref(), &step.changes, &step.next).await? {
            Appended::Saved => Ok((feed, step.next)),
            Appended::Conflict => Err(Ended::Conflict),
        }
    }

    /// A time of the source after `time`: an idle MongoDB moves its time forward every ten seconds.
    async fn after(&self, time: ClusterTime) -> Result<ClusterTime, Ended> {
        loop {
            let now = self.source.now().await?;
            if now > time {
                return Ok(now);
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Ended::Shutdown),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// A feed that lost its history fails like an outage: the next session finds the token unusable and begins again.
    fn lost(&self, error: FeedError) -> Ended {
        Ended::Failed(match error {
            FeedError::HistoryLost(why) => PortError::transient(format!("{HISTORY}: {why}")),
            FeedError::Port(error) => error,
        })
    }
}

/// In the message of a lost history, so that a failed reopening is told from an outage.
const HISTORY: &str = "MongoDB no longer has the changes after the saved position";

/// Appends steps to stage 1, one after the other.
struct Writer<'a> {
    session: &'a Session<'a>,
    checkpoint: Checkpoint,
    /// Entries appended since stage 1 was last looked at.
    since_look: u64,
    saved_at: Instant,
}

impl Writer<'_> {
    /// Appends what the feed gave; says whether a new snapshot begins with it.
    async fn follow(&mut self, mut batch: FeedBatch) -> Result<bool, Ended> {
        let idle = batch.events.is_empty() && batch.appeared.is_empty();
        if idle && (batch.token == self.checkpoint.token || self.saved_at.elapsed() < IDLE_SAVE) {
            return Ok(false);
        }
        let appeared = std::mem::take(&mut batch.appeared);
        let step = plan::follow(&self.checkpoint, batch)?;
        if appeared.is_empty() {
            self.append(step).await?;
            return Ok(false);
        }
        warn!(collections = ?appeared, "collections were renamed into the selection; everything will be read again");
        let time = self.session.after(step.next.last.0).await?;
        self.append(plan::read_again(step, time)).await?;
        Ok(true)
    }

    async fn append(&mut self, step: Step) -> Result<(), Ended> {
        self.wait_for_room().await?;
        let appended = self.session.journal.append(Some(&self.checkpoint), &step.changes, &step.next).await?;
        if appended == Appended::Conflict {
            return Err(Ended::Conflict);
        }
        if !step.changes.is_empty() {
            debug!(entries = step.changes.len(), "appended");
        }
        self.since_look += step.changes.len() as u64;
        self.checkpoint = step.next;
        self.saved_at = Instant::now();
        Ok(())
    }

    /// Waits while stage 1 is above its high-water mark.
    async fn wait_for_room(&mut self) -> Result<(), Ended> {
        if self.since_look < LOOK_EVERY {
            return Ok(());
        }
        let (session, high_water) = (self.session, self.session.options.high_water);
        let mut paused = None;
        loop {
            let backlog = session.journal.backlog().await?;
            if backlog < high_water {
                break;
            }
            if paused.is_none() {
                info!(backlog, high_water, "stage 1 is full; waiting for the processors");
            }
            let begun = paused.get_or_insert_with(Instant::now);
            if begun.elapsed() > session.options.lease / 3 {
                // Keep the lease over a long pause.
                if !session.journal.lease(&session.options.owner, session.options.lease).await? {
                    return Err(Ended::StandBy);
                }
                *begun = Instant::now();
            }
            tokio::select! {
                () = session.shutdown.cancelled() => return Err(Ended::Shutdown),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        if paused.is_some() {
            info!("stage 1 has room again");
        }
        self.since_look = 0;
        Ok(())
    }
}

/// A page of a snapshot.
enum Page {
    Rows(Namespace, Vec<SourceRow>),
    /// The whole collection has been read.
    Read(Namespace),
    End,
}

/// The snapshot that runs beside the feed, if one does.
struct Snapshot {
    running: Option<Reading>,
}

struct Reading {
    /// What is still to be read; the last is the current one.
    collections: Vec<(Namespace, Option<String>)>,
    scan: Option<Box<dyn Scan>>,
    checkpoint: Checkpoint,
    estimate: u64,
    begun: (Instant, u64),
    reported: Instant,
}

impl Snapshot {
    async fn of(checkpoint: &Checkpoint, source: &dyn Source) -> PortResult<Self> {
        let SnapshotState::Running { after, rows, .. } = &checkpoint.snapshot else {
            return Ok(Self { running: None });
        };
        let all = source.collections().await?;
        let mut estimate = 0;
        for namespace in &all {
            estimate += source.estimate(namespace).await?;
        }
        info!(collections = all.len(), documents = estimate, read = rows, "reading what is already there");
        let mut collections = plan::remaining(all, after.as_ref());
        collections.reverse();
        let now = Instant::now();
        let checkpoint = checkpoint.clone();
        Ok(Self {
            running: Some(Reading {
                collections,
                scan: None,
                checkpoint,
                estimate,
                begun: (now, *rows),
                reported: now,
            }),
        })
    }

    /// The next page. Never ready when no snapshot runs. Cancel-safe.
    async fn next(&mut self, source: &dyn Source) -> PortResult<Page> {
        let Some(reading) = &mut self.running else {
            return std::future::pending().await;
        };
        let SnapshotState::Running { time, .. } = reading.checkpoint.snapshot else {
            return Ok(Page::End);
        };
        let Some((namespace, after)) = reading.collections.last() else {
            return Ok(Page::End);
        };
        let scan = match &mut reading.scan {
            Some(scan) => scan,
            None => reading.scan.insert(source.scan(namespace, after.as_deref(), time).await?),
        };
        let rows = scan.next().await?;
        Ok(if rows.is_empty() { Page::Read(namespace.clone()) } else { Page::Rows(namespace.clone(), rows) })
    }

    /// Goes on to the next collection. Not a part of `next`, because a dropped call of that must not skip one.
    fn next_collection(&mut self) {
        if let Some(reading) = &mut self.running {
            reading.scan = None;
            reading.collections.pop();
        }
    }

    fn report(&mut self, checkpoint: &Checkpoint) {
        let (Some(reading), SnapshotState::Running { rows, .. }) = (&mut self.running, &checkpoint.snapshot) else {
            return;
        };
        if reading.reported.elapsed() < REPORT_EVERY {
            return;
        }
        reading.reported = Instant::now();
        let (begun, before) = reading.begun;
        let rate = (rows - before) as f64 / begun.elapsed().as_secs_f64();
        let left = reading.estimate.saturating_sub(*rows) as f64 / rate.max(1e-9);
        info!(rows, of = reading.estimate, rows_per_second = rate as u64, eta_seconds = left as u64, "reading");
    }

    fn finish(&mut self, checkpoint: &Checkpoint) {
        if let (Some(reading), SnapshotState::Done { rows, .. }) = (self.running.take(), &checkpoint.snapshot) {
            info!(rows, seconds = reading.begun.0.elapsed().as_secs(), "everything that was there has been read");
        }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
