//! The snapshot beside the feed: reads all rows of the source, then all points of the index.
//!
//! ```text
//!  rows of the source, page by page ──▶ those that differ from the index ──▶ append
//!  points of the index, page by page ──▶ those that the source does not have ──▶ append their deletion
//! ```
//!
//! If the index is not empty, both halves begin only when everything appended before is in the index: an older change
//! in flight could otherwise invalidate the comparison. If the index is unreachable, rows are appended without
//! comparison, and the second half waits for it, while the feed continues.

mod reading;
mod sweeping;

use tidewheel_core::ports::{Checkpoint, PortResult, SnapshotState};
use tidewheel_core::version::Version;

use super::ProducerPorts;
use super::plan::{PageRead, PageSwept};
use reading::Reading;
use sweeping::Sweeping;

/// The next step of a snapshot.
pub(super) enum Page {
    /// Rows of a collection.
    Rows(PageRead),
    /// The whole collection has been read.
    CollectionRead,
    /// Everything has been read.
    AllRead,
    /// Points of the index, and which of their documents no longer exist.
    Points(PageSwept),
    /// All points have been swept.
    Swept,
}

/// The snapshot beside the feed, if one is running.
pub(super) struct Snapshot<'a> {
    ports: &'a ProducerPorts,
    half: Option<Half<'a>>,
    /// The barrier that has to pass before the half may begin.
    gate: Option<u64>,
    /// Maximum points in the first page of the sweep.
    points: usize,
}

enum Half<'a> {
    Reading(Reading),
    Sweeping(Sweeping<'a>),
}

impl<'a> Snapshot<'a> {
    /// The remaining work according to the checkpoint; `barrier` is the next one to begin, `points` the maximum number
    /// of points in the first page of the sweep.
    pub(super) async fn of(
        checkpoint: &Checkpoint,
        ports: &'a ProducerPorts,
        barrier: u64,
        points: usize,
    ) -> PortResult<Self> {
        let version = |time| Version::of_snapshot(checkpoint.epoch, time);
        let (half, gate) = match &checkpoint.snapshot {
            SnapshotState::Done { .. } => (None, None),
            SnapshotState::Sweeping { time, after, .. } => {
                let after = after.as_ref().map(|swept| swept.point);
                (Some(Half::Sweeping(Sweeping::new(version(*time), after, ports, points))), Some(barrier))
            }
            SnapshotState::Running { time, after, rows } => {
                let reading = Reading::begin(version(*time), after.as_ref(), *rows, ports).await?;
                let gate = reading.compares().then_some(barrier);
                (Some(Half::Reading(reading)), gate)
            }
        };
        Ok(Self { ports, half, gate, points })
    }

    /// Reports that this barrier has passed.
    pub(super) fn passed(&mut self, barrier: u64) {
        if self.gate.is_some_and(|gate| barrier >= gate) {
            self.gate = None;
        }
    }

    /// The next step. Never ready if there is nothing to do. Cancel-safe.
    pub(super) async fn next(&mut self) -> PortResult<Page> {
        match &mut self.half {
            Some(_) if self.gate.is_some() => std::future::pending().await,
            None => std::future::pending().await,
            Some(Half::Reading(reading)) => reading.next(&self.ports.source).await,
            Some(Half::Sweeping(sweeping)) => Ok(sweeping.next().await),
        }
    }

    /// Removes the rows that the index already has.
    pub(super) async fn compare(&mut self, page: PageRead) -> PageRead {
        match &mut self.half {
            Some(Half::Reading(reading)) => reading.compare(&*self.ports.index, page).await,
            _ => page,
        }
    }

    /// Logs progress periodically.
    pub(super) fn report(&mut self, checkpoint: &Checkpoint) {
        if let (Some(Half::Reading(reading)), SnapshotState::Running { rows, .. }) =
            (&mut self.half, &checkpoint.snapshot)
        {
            reading.report(*rows);
        }
    }

    /// Advances to the next collection. Not part of `next`, because a dropped call of `next` must not skip one.
    pub(super) fn next_collection(&mut self) {
        if let Some(Half::Reading(reading)) = &mut self.half {
            reading.next_collection();
        }
    }

    /// Starts the second half after this barrier.
    pub(super) fn sweep(&mut self, barrier: u64) {
        if let Some(Half::Reading(reading)) = self.half.take() {
            reading.finish();
            let sweeping = Sweeping::new(reading.version(), None, self.ports, self.points);
            self.half = Some(Half::Sweeping(sweeping));
            self.gate = Some(barrier);
        }
    }

    /// Whether the position of the sweep is due to be saved; true once.
    pub(super) fn is_to_be_saved(&mut self) -> bool {
        match &mut self.half {
            Some(Half::Sweeping(sweeping)) => sweeping.is_to_be_saved(),
            _ => false,
        }
    }

    /// Finishes the snapshot.
    pub(super) fn finish(&mut self) {
        if let Some(Half::Sweeping(sweeping)) = self.half.take() {
            sweeping.finish();
        }
    }
}
