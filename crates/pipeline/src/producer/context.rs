//! The state of a session, and what its parts have in common.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tidewheel_core::catalog::{Declaration, Generation, Needs, Selector, TargetId};
use tidewheel_core::error::PortError;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{Checkpoint, FeedBatch};
use tidewheel_core::trace::Tracer;
use tidewheel_core::version::ClusterTime;
use tokio_util::sync::CancellationToken;
use tracing::warn;
use uuid::Uuid;

use super::admission::{Limits, Rules};
use super::adopted::Adopted;
use super::moves::present;
use super::narrowing::Narrowings;
use super::options::ProducerOptions;
use super::step::Step;
use super::{NAME, ProducerPorts, plan};
use crate::parking::report_changes;
use crate::spans;

/// How often an idle source is polled for its time.
pub(super) const PAUSE: Duration = Duration::from_millis(200);

/// The reason why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    Shutdown,
    /// The checkpoint is not the one that this session saved last.
    Conflict,
    /// Another producer holds the lease.
    StandBy,
    /// The next session continues from another checkpoint.
    Restarted,
    /// The next session reads the same changes in smaller steps.
    Narrowed,
    /// The next session adopts another catalog, for which the feed has to be opened again.
    Adopted,
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
    /// Size limits of stage 1.
    pub(super) limits: OnceLock<Limits>,
    /// Step sizes, across sessions.
    pub(super) narrowings: &'a Mutex<Narrowings>,
    /// The search for the newest version in the index, across sessions.
    pub(super) newest: &'a tokio::sync::Mutex<Newest>,
}

impl Session<'_> {
    /// The step for a batch of the feed, and whether a snapshot starts after it.
    pub(super) async fn step(
        &self,
        adopted: &Adopted,
        checkpoint: &Checkpoint,
        mut batch: FeedBatch,
    ) -> Result<(Step, bool), Ended> {
        let appeared = std::mem::take(&mut batch.appeared);
        let present = present(&adopted.source, plan::doubtful(checkpoint, &batch), checkpoint.last.0).await?;
        let (mut step, too_many) = plan::follow(checkpoint, batch, &present, self.rules(adopted));
        if !appeared.is_empty() {
            warn!(collections = ?appeared, "collections were renamed into the selection; comparing all documents");
        } else if too_many {
            warn!("a transaction exceeded the maximum number of changes; comparing all documents");
        } else {
            return Ok((step, false));
        }
        if adopted.revision() > 0 {
            // Before the step is appended: a crash in between only repeats it. A snapshot begins once the catalog that
            // states it is adopted.
            let covers = |source: &Selector| appeared.iter().any(|namespace| source.covers(namespace));
            let is_due = |declaration: &Declaration| too_many || covers(&declaration.source);
            let needs =
                |_: &TargetId, generation: &Generation| is_due(&generation.declaration).then_some(Needs::COMPARISON);
            self.make_due(adopted, needs).await?;
            return Ok((step, false));
        }
        let time = self.after(step.next.last.0).await?;
        step.next = plan::read_again(step.next, time);
        Ok((step, true))
    }

    pub(super) fn narrowings(&self) -> MutexGuard<'_, Narrowings> {
        self.narrowings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where changes go, and the rules for those that may not be appendable.
    pub(super) fn rules<'r>(&self, adopted: &'r Adopted) -> Rules<'r> {
        let limits = self.limits.get().copied().unwrap_or(Limits::of(None));
        Rules { limits, routes: Some(&adopted.routes) }
    }

    /// Waits for a time of the source after `time`: an idle MongoDB advances its time every ten seconds.
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

    /// Acquires or renews the lease.
    pub(super) async fn renew(&self) -> Result<(), Ended> {
        let ours = self.ports.journal.lease(&self.options.owner, self.options.lease).await?;
        if ours { Ok(()) } else { Err(Ended::StandBy) }
    }

    /// Waits, unless the service shuts down.
    pub(super) async fn pause(&self, duration: Duration) -> Result<(), Ended> {
        tokio::select! {
            () = self.shutdown.cancelled() => Err(Ended::Shutdown),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }

    /// Reports a step that was appended: its parked changes, and the spans of all its changes.
    pub(super) fn appended(&self, step: &Step) {
        if !step.parked.is_empty() {
            let applied = self.ports.targets.current();
            report_changes(NAME, &step.parked, applied.target(None).map(|plain| &plain.id.index));
        }
        spans::appended(self.tracer, &step.changes, &step.parked);
        self.progressed.store(true, Ordering::Relaxed);
    }
}

/// The progress of reading the newest version from the index. Kept across sessions: a failure of another server must not
/// restart a read of the whole index.
#[derive(Debug, Default)]
pub(super) struct Newest {
    /// The last point read of each target.
    pub(super) after: BTreeMap<TargetId, Uuid>,
    pub(super) newest: Option<(u32, ClusterTime)>,
}
