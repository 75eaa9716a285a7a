//! Appends steps to stage 1 in sequence, below its high-water mark.

use std::time::Duration;

use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::ports::{Appended, Checkpoint, FeedBatch, PortResult, Repair};
use tokio::time::Instant;
use tracing::{debug, info};

use super::admission::parkings;
use super::adopted::Adopted;
use super::context::{Ended, Session};
use super::metric::ServiceMetrics;
use super::narrowing::{Next, Place};
use super::plan;
use super::step::Step;
use crate::backpressure::{PAUSE, Room};

/// How often an idle feed's token is saved, if it has advanced. Often enough for a quick resume, for detecting a wiped
/// Redis, and so that a client waiting until a write is searchable does not wait for the save; seldom enough to cost
/// nothing.
const IDLE_SAVE: Duration = Duration::from_millis(500);

pub(super) struct Writer<'a> {
    session: &'a Session<'a>,
    /// The checkpoint that this session saved last.
    pub(super) checkpoint: Checkpoint,
    /// The catalog that routes what is appended.
    pub(super) adopted: Adopted,
    /// Room in stage 1.
    room: Room,
    saved_at: Instant,
    metrics: ServiceMetrics,
}

impl<'a> Writer<'a> {
    pub(super) fn new(session: &'a Session<'a>, checkpoint: Checkpoint, adopted: Adopted) -> Self {
        let room = Room::new("stage 1", "the processors", session.options.high_water);
        let metrics = ServiceMetrics::new(&adopted.applied);
        Self { session, checkpoint, adopted, room, saved_at: Instant::now(), metrics }
    }

    /// Routes what is appended from here on by this catalog, for which the feed is open. The step that states it has no
    /// entries, and needs no room.
    pub(super) async fn adopt(&mut self, adopted: Adopted) -> Result<(), Ended> {
        let catalog = adopted.revision();
        self.metrics.adopt(&adopted.applied);
        self.adopted = adopted;
        if self.checkpoint.catalog != catalog {
            let next = Checkpoint { catalog, ..self.checkpoint.clone() };
            self.save(plan::saving(next)).await?;
            info!(revision = catalog, "adopted the applied catalog");
        }
        Ok(())
    }

    /// Appends a batch of the feed; returns whether a new snapshot starts with it.
    pub(super) async fn follow(&mut self, batch: FeedBatch) -> Result<bool, Ended> {
        let idle = batch.events.is_empty() && batch.appeared.is_empty();
        let moved = batch.token != self.checkpoint.token || batch.through > self.checkpoint.through;
        if idle && !(moved && self.saved_at.elapsed() >= IDLE_SAVE) {
            return Ok(false);
        }
        let (step, read_again) = self.session.step(&self.adopted, &self.checkpoint, batch).await?;
        self.append(step).await?;
        Ok(read_again)
    }

    pub(super) async fn append(&mut self, step: Step) -> Result<(), Ended> {
        self.wait_for_room(step.changes.len()).await?;
        self.save(step).await
    }

    async fn save(&mut self, step: Step) -> Result<(), Ended> {
        let place = Place::of(&self.checkpoint, &step.next);
        let saving = Saving { session: self.session, saved: Some(&self.checkpoint), place, repair: None };
        let (appended, step) = saving.save(step).await?;
        self.saved(appended, step)
    }

    /// Continues from another checkpoint than the last one.
    pub(super) async fn restart(&mut self, next: Checkpoint, repair: Repair) -> Result<(), Ended> {
        let step = plan::saving(next);
        let appended = self.session.ports.journal.restart(Some(&self.checkpoint), &[], &[], &step.next, repair).await?;
        self.saved(appended, step)
    }

    fn saved(&mut self, appended: Appended, step: Step) -> Result<(), Ended> {
        if appended == Appended::Conflict {
            return Err(Ended::Conflict);
        }
        if !step.changes.is_empty() {
            debug!(entries = step.changes.len(), "appended");
        }
        self.session.appended(&step);
        self.metrics.appended(&step.changes, &step.next);
        self.session.health.progresses();
        self.checkpoint = step.next;
        self.saved_at = Instant::now();
        Ok(())
    }

    /// Waits while stage 1 is above its high-water mark.
    async fn wait_for_room(&mut self, entries: usize) -> Result<(), Ended> {
        let (session, paused) = (self.session, &self.metrics.paused);
        let backlog = || async move { session.ports.backlog.backlog().await.map_err(Ended::from) };
        let mut renewed = Instant::now();
        let pause = || {
            paused.set(1.0);
            // Keep the lease during a long wait.
            let is_due = renewed.elapsed() > session.options.lease / 3;
            if is_due {
                renewed = Instant::now();
            }
            async move {
                if is_due {
                    session.renew().await?;
                }
                session.pause(PAUSE).await
            }
        };
        self.room.wait(entries as u64, backlog, pause).await?;
        paused.set(0.0);
        Ok(())
    }
}

/// The append of a step at a place of the source.
pub(super) struct Saving<'a> {
    pub(super) session: &'a Session<'a>,
    /// The checkpoint before the step.
    pub(super) saved: Option<&'a Checkpoint>,
    pub(super) place: Place,
    /// The damage that the step repairs.
    pub(super) repair: Option<Repair>,
}

impl Saving<'_> {
    /// Returns the outcome, and the step as it was appended: with parked changes if Redis rejects them.
    pub(super) async fn save(&self, step: Step) -> Result<(Appended, Step), Ended> {
        let outcome = match self.attempt(&step).await {
            Ok(appended) => Ok((appended, step)),
            Err(error) => self.failed(&step, error).await,
        };
        if matches!(outcome, Ok((Appended::Saved, _))) {
            self.session.narrowings().succeeded(&self.place);
        }
        outcome
    }

    async fn attempt(&self, step: &Step) -> PortResult<Appended> {
        let (Step { changes, parked, next }, journal) = (step, &self.session.ports.journal);
        match self.repair {
            None => journal.append_and_park(self.saved, changes, parked, next).await,
            Some(repair) => journal.restart(self.saved, changes, parked, next, repair).await,
        }
    }

    /// Handles a failed append: retries it, reads it again in smaller steps, or parks the change that fails alone.
    async fn failed(&self, step: &Step, error: PortError) -> Result<(Appended, Step), Ended> {
        let count = step.changes.len() + step.parked.len();
        let needs_proof = self.session.narrowings().needs_proof(&self.place, count, &error);
        let works = needs_proof && self.works().await;
        let next = self.session.narrowings().failed(&self.place, count, &error, works);
        match next {
            Next::Wait => {}
            Next::Narrow(most) => {
                debug!(changes = count, most, "an append keeps failing, reading its changes in smaller steps: {error}");
                return Err(Ended::Narrowed);
            }
            Next::Park => {
                for parking in parkings(step, &format!("Redis rejects the change: {error}")) {
                    match self.attempt(&parking).await {
                        Ok(appended) => return Ok((appended, parking)),
                        Err(error) => debug!(parked = parking.parked.len(), "failed to park: {error}"),
                    }
                }
            }
        }
        // Waited out: whether a change is at fault is decided above.
        let class = if error.class == ErrorClass::Poison { ErrorClass::Transient } else { error.class };
        Err(Ended::Failed(PortError { class, ..error }))
    }

    /// Whether Redis appends: an empty append, which saves the checkpoint that is saved already. A conflict proves
    /// nothing: the failed append may have been executed, which the next session detects. Without a checkpoint no proof
    /// is possible or needed: the next session begins after the changes that failed, and a snapshot reads them.
    async fn works(&self) -> bool {
        let Some(saved) = self.saved else { return false };
        let appended = self.session.ports.journal.append(Some(saved), &[], saved).await;
        appended.inspect_err(|error| debug!("an empty append failed too: {error}")) == Ok(Appended::Saved)
    }
}
