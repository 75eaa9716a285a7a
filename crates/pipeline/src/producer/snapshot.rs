//! Reads what is there, beside the feed: all rows of the source, then all points of the index.
//!
//! ```text
//!  rows of the source, page by page ──▶ those that the index does not have like this ──▶ append
//!  points of the index, page by page ──▶ those that the source does not have ──▶ append their deletion
//! ```
//!
//! Where the index already holds something, both halves begin only when everything that was appended before is in the
//! index: an older change that is still on its way could otherwise undo what the comparison found to be right.
//! The index may be away: rows are then appended without being compared, and the second half waits for it, while the feed goes
//! on.

mod reading;
mod sweeping;

use tidewheel_core::ports::{Checkpoint, PortResult, SnapshotState};
use tidewheel_core::version::Version;

use super::ProducerPorts;
use super::plan::{PageRead, PageSwept};
use reading::Reading;
use sweeping::Sweeping;

/// What comes next of a snapshot.
pub(super) enum Page {
    /// Rows of a collection.
    Rows(PageRead),
    /// The whole collection has been read.
    CollectionRead,
    /// Everything has been read.
    AllRead,
    /// Points of the index, and which of their documents are gone.
    Points(PageSwept),
    /// All points have been looked at.
    Swept,
}

/// The snapshot that runs beside the feed, if one does.
pub(super) struct Snapshot<'a> {
    ports: &'a ProducerPorts,
    half: Option<Half<'a>>,
    /// The barrier that has to pass before the half may begin.
    gate: Option<u64>,
}

enum Half<'a> {
    Reading(Reading),
    Sweeping(Sweeping<'a>),
}

impl<'a> Snapshot<'a> {
    /// What the checkpoint says is to be done; `barrier` is the next one to begin.
    pub(super) async fn of(checkpoint: &Checkpoint, ports: &'a ProducerPorts, barrier: u64) -> PortResult<Self> {
        let version = |time| Version::of_snapshot(checkpoint.epoch, time);
        let (half, gate) = match &checkpoint.snapshot {
            SnapshotState::Done { .. } => (None, None),
            SnapshotState::Sweeping { time, after, .. } => {
                (Some(Half::Sweeping(Sweeping::new(version(*time), *after, ports))), Some(barrier))
            }
            SnapshotState::Running { time, after, rows } => {
                let reading = Reading::begin(version(*time), after.as_ref(), *rows, ports).await?;
                let gate = reading.compares().then_some(barrier);
                (Some(Half::Reading(reading)), gate)
            }
        };
        Ok(Self { ports, half, gate })
    }

    /// Says that this barrier has passed.
    pub(super) fn passed(&mut self, barrier: u64) {
        if self.gate.is_some_and(|gate| barrier >= gate) {
            self.gate = None;
        }
    }

    /// What comes next. Never ready when there is nothing to do. Cancel-safe.
    pub(super) async fn next(&mut self) -> PortResult<Page> {
        match &mut self.half {
            Some(_) if self.gate.is_some() => std::future::pending().await,
            None => std::future::pending().await,
            Some(Half::Reading(reading)) => reading.next(&*self.ports.source).await,
            Some(Half::Sweeping(sweeping)) => Ok(sweeping.next().await),
        }
    }

    /// Leaves out the rows that the index has already.
    pub(super) async fn compare(&mut self, page: PageRead) -> PageRead {
        match &mut self.half {
            Some(Half::Reading(reading)) => reading.compare(&*self.ports.index, page).await,
            _ => page,
        }
    }

    /// Tells how far it has come, from time to time.
    pub(super) fn report(&mut self, checkpoint: &Checkpoint) {
        if let (Some(Half::Reading(reading)), SnapshotState::Running { rows, .. }) =
            (&mut self.half, &checkpoint.snapshot)
        {
            reading.report(*rows);
        }
    }

    /// Goes on to the next collection. Not a part of `next`, because a dropped call of that must not skip one.
    pub(super) fn next_collection(&mut self) {
        if let Some(Half::Reading(reading)) = &mut self.half {
            reading.next_collection();
        }
    }

    /// Goes on to the second half, behind this barrier.
    pub(super) fn sweep(&mut self, barrier: u64) {
        if let Some(Half::Reading(reading)) = self.half.take() {
            reading.finish();
            self.half = Some(Half::Sweeping(Sweeping::new(reading.version(), None, self.ports)));
            self.gate = Some(barrier);
        }
    }

    /// Whether the sweep has come so far since its place was saved that it should be saved again. Says so once.
    pub(super) fn is_to_be_saved(&mut self) -> bool {
        match &mut self.half {
            Some(Half::Sweeping(sweeping)) => sweeping.is_to_be_saved(),
            _ => false,
        }
    }

    /// There is no more to do.
    pub(super) fn finish(&mut self) {
        if let Some(Half::Sweeping(sweeping)) = self.half.take() {
            sweeping.finish();
        }
    }
}
