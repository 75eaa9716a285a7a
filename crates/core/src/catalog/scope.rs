//! Scopes of snapshots: which targets the next one fills.
//!
//! One snapshot runs at a time. It begins after the producer has adopted the revisions that make its targets due, so that
//! its rows are newer than everything routed or rendered before, and every later change is routed to the targets too. It
//! ends when an applied checkpoint contains its end and the catalog states that its targets are filled: before that, a
//! return to an older checkpoint could lose rows.

use std::collections::BTreeSet;

use super::generation::{Catalog, Generation, State};
use super::name::{Due, IndexName, TargetId};
use crate::ports::{Checkpoint, SnapshotState};

/// Number of documents below which targets share a snapshot although they cover different collections. All of them are
/// filled at its end, so it must not take long.
const SHARED_DOCUMENTS: u64 = 100_000;

/// Maximum number of such targets: every checkpoint contains their names.
const SHARED_TARGETS: usize = 100;

/// A target that lost something: its collection is missing or was replaced, or records were skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The target.
    pub target: TargetId,
    /// Whether it lost something within the last minute, so that more may follow.
    pub recent: bool,
}

/// The scope of the snapshot that the producer begins now; `None` if it begins none. A running snapshot is replaced if a
/// newer revision has made one of its targets due again: the new scope contains the rest of the old one.
///
/// Serving targets precede kept ones, and those precede the others; then comes the smaller number of documents, as far as
/// it is known. Targets of the same rank share a snapshot if they cover the same collections or are small: each snapshot
/// takes a second or more, whatever it reads. A target that lost something waits until the catalog has made it due again.
pub fn next_scope(
    catalog: &Catalog,
    checkpoint: &Checkpoint,
    lost: &[Lost],
    documents: impl Fn(&IndexName) -> Option<u64>,
) -> Option<Vec<Due>> {
    if catalog.is_short_form() {
        return None;
    }
    let ready: Vec<(TargetId, &Generation)> = catalog
        .routed()
        .filter(|(target, generation)| {
            generation.due.max(generation.since) <= checkpoint.catalog && !is_lost(lost, target)
        })
        .collect();
    let due = || ready.iter().filter(|(_, generation)| !generation.is_filled());
    if is_running(checkpoint) {
        let in_scope = |target: &TargetId, generation: &Generation| is_in_scope(checkpoint, target, generation);
        let restarts = due().any(|(target, generation)| {
            in_scope(target, generation) && !is_answered_by(checkpoint, target, generation)
        });
        let rest = ready.iter().filter(|(target, generation)| in_scope(target, generation));
        return restarts.then(|| scope(rest));
    }
    if due().any(|(target, generation)| is_answered_by(checkpoint, target, generation)) {
        return None;
    }
    let placed = |(target, generation): &(TargetId, &Generation)| {
        let documents = documents(&target.index);
        (rank(generation), documents.is_none(), documents, target.clone())
    };
    let mut waiting: Vec<_> = due().map(|one| (placed(one), one.1)).collect();
    waiting.sort_by(|(a, _), (b, _)| a.cmp(b));
    let ((first_rank, ..), first) = waiting.first()?.clone();
    let (mut read, mut shared) = (0_u64, BTreeSet::new());
    for ((rank, _, documents, target), generation) in waiting {
        read = read.saturating_add(documents.unwrap_or(SHARED_DOCUMENTS));
        let is_small = read < SHARED_DOCUMENTS && shared.len() < SHARED_TARGETS;
        if rank == first_rank && (is_small || generation.declaration.source == first.declaration.source) {
            shared.insert(target);
        }
    }
    Some(scope(due().filter(|(target, _)| shared.contains(target))))
}

/// Whether the running snapshot fills nothing: each of its targets is lost, or no longer routed.
pub fn is_futile(catalog: &Catalog, checkpoint: &Checkpoint, lost: &[Lost]) -> bool {
    let is_filled = |due: &Due| {
        catalog.generation(&due.target).is_some_and(|generation| generation.state.is_routed())
            && !is_lost(lost, &due.target)
    };
    is_running(checkpoint) && !checkpoint.scope.is_empty() && !checkpoint.scope.iter().any(is_filled)
}

/// Whether the target lost something.
pub(super) fn is_lost(lost: &[Lost], target: &TargetId) -> bool {
    lost.iter().any(|lost| lost.target == *target)
}

/// Whether a snapshot is running or sweeping.
pub(super) fn is_running(checkpoint: &Checkpoint) -> bool {
    !matches!(checkpoint.snapshot, SnapshotState::Done { .. })
}

/// Whether the checkpoint's snapshot concerns the target. An empty scope is that of the short form.
pub(super) fn is_in_scope(checkpoint: &Checkpoint, target: &TargetId, generation: &Generation) -> bool {
    if checkpoint.scope.is_empty() {
        return generation.since == 0;
    }
    checkpoint.scope.iter().any(|due| due.target == *target)
}

/// Whether the checkpoint's snapshot is the one that the generation is due for.
pub(super) fn is_answered_by(checkpoint: &Checkpoint, target: &TargetId, generation: &Generation) -> bool {
    checkpoint.scope.iter().any(|due| due.target == *target && due.due == generation.due)
}

fn scope<'a, 'b: 'a>(targets: impl Iterator<Item = &'a (TargetId, &'b Generation)>) -> Vec<Due> {
    targets.map(|(target, generation)| Due { target: target.clone(), due: generation.due }).collect()
}

/// The place in the queue: lower is earlier.
fn rank(generation: &Generation) -> u8 {
    match generation.state {
        State::Serving => 0,
        State::Kept => 1,
        _ => 2,
    }
}

#[cfg(test)]
mod tests;
