//! The snapshot beside the feed: reads all rows of the source, then all points of the index.
//!
//! ```text
//!  rows of the source, page by page ──▶ those that differ from a target ──▶ append, for the targets that differ
//!  points of each target, page by page ──▶ those that do not belong to it ──▶ append their deletion from that target
//! ```
//!
//! It fills the targets in its scope, and does for each what the catalog requires: which rows differ, and whether the
//! second half is needed. If a target is not empty, both halves begin only when everything appended before is in the
//! index: an older change in flight could otherwise invalidate the comparison. If a target is unreachable, rows are
//! appended without comparison, and the second half waits for it unless it has lost something, while the feed continues.

mod comparing;
mod reading;
mod sweeping;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tidewheel_core::catalog::Lost;
use tidewheel_core::ports::{Checkpoint, PortResult, SnapshotState};
use tidewheel_core::version::Version;

use super::adopted::Adopted;
use super::plan::{self, PageRead, PageSwept, Read};
use crate::targets::Target;
use reading::Reading;
use sweeping::Sweeping;

/// The next step of a snapshot.
pub(super) enum Page {
    /// Rows of a collection.
    Rows(Read),
    /// The whole collection has been read.
    CollectionRead,
    /// Everything has been read.
    AllRead,
    /// Points of a target, and which of their documents do not belong to it.
    Points(PageSwept),
    /// All points have been swept.
    Swept,
}

/// The snapshot beside the feed, if one is running.
pub(super) struct Snapshot {
    adopted: Adopted,
    half: Option<Half>,
    /// The barrier that has to pass before the half may begin.
    gate: Option<u64>,
    /// Maximum points in the first page of the sweep.
    points: usize,
}

enum Half {
    Reading(Reading),
    Sweeping(Sweeping),
}

impl Snapshot {
    /// The remaining work according to the checkpoint; `barrier` is the next one to begin, `points` the maximum number
    /// of points in the first page of the sweep.
    pub(super) async fn of(
        checkpoint: &Checkpoint,
        adopted: &Adopted,
        barrier: u64,
        points: usize,
    ) -> PortResult<Self> {
        let version = |time| Version::of_snapshot(checkpoint.epoch, time);
        let filled = plan::filled_by(checkpoint, &adopted.applied);
        let (half, gate) = match &checkpoint.snapshot {
            SnapshotState::Done { .. } => (None, None),
            SnapshotState::Sweeping { time, after, .. } => {
                let swept = filled.into_iter().filter(|(_, needs)| needs.sweep).map(|(target, _)| target).collect();
                let swept = plan::still_swept(swept, after.as_ref());
                (Some(Half::Sweeping(Sweeping::new(version(*time), swept, &adopted.source, points))), Some(barrier))
            }
            SnapshotState::Running { time, after, rows } => {
                let reading = Reading::begin(version(*time), after.as_ref(), *rows, filled, &adopted.source).await?;
                let gate = reading.compares().then_some(barrier);
                (Some(Half::Reading(reading)), gate)
            }
        };
        Ok(Self { adopted: adopted.clone(), half, gate, points })
    }

    /// Continues with another catalog that the feed is open for. Its targets are filled as before: a catalog that
    /// requires something else of them begins another snapshot.
    pub(super) fn adopt(&mut self, adopted: &Adopted) {
        self.adopted = adopted.clone();
        if let Some(Half::Sweeping(sweeping)) = &mut self.half {
            sweeping.retain(|target| adopted.applied.routed().any(|routed| routed.id == target.id));
        }
    }

    /// Stops to sweep targets that lost something. They are filled again, and must not delay the others.
    pub(super) fn leave_out(&mut self, lost: &[Lost]) {
        if let Some(Half::Sweeping(sweeping)) = self.half.as_mut().filter(|_| !lost.is_empty()) {
            sweeping.retain(|target| lost.iter().all(|lost| lost.target != target.id));
        }
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
            Some(Half::Reading(reading)) => reading.next(&self.adopted.source).await,
            Some(Half::Sweeping(sweeping)) => Ok(sweeping.next().await),
        }
    }

    /// Removes the rows that every target already has, and routes the others to those that differ.
    pub(super) async fn compare(&mut self, page: Read) -> PageRead {
        match &mut self.half {
            Some(Half::Reading(reading)) => reading.compare(&self.adopted.routes, page).await,
            _ => unreachable!("a page of rows was read"),
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
            let (version, swept) = (reading.version(), reading.into_swept());
            let swept: Vec<(Arc<Target>, _)> = swept.into_iter().map(|target| (target, None)).collect();
            self.gate = (!swept.is_empty()).then_some(barrier);
            self.half = Some(Half::Sweeping(Sweeping::new(version, swept, &self.adopted.source, self.points)));
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
