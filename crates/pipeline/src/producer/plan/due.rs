//! Plans scopes: which targets a snapshot fills, and which ones the catalog has to make due.

use std::sync::Arc;

use tidewheel_core::catalog::{Catalog, Due, Generation, Index, IndexName, Needs, Rows, TargetId};
use tidewheel_core::ports::{Checkpoint, SnapshotState};
use tidewheel_core::version::ClusterTime;

use super::super::step::Step;
use super::{read_again, saving};
use crate::targets::{Applied, Target};

/// What a snapshot has to do for a target that was filled: add what is missing, and remove what is gone.
pub const COMPLETE: Needs = Needs { rows: Rows::Missing, sweep: true };

/// The scope of a snapshot of everything: every target that changes are routed to. Empty before a catalog is applied.
pub fn everything(catalog: &Catalog) -> Vec<Due> {
    if catalog.is_short_form() {
        return Vec::new();
    }
    catalog.routed().map(|(target, generation)| Due { target, due: generation.due }).collect()
}

/// What a target that may have missed changes is due for; `None` if it is due for that already, and no snapshot has
/// begun that may have passed over them. It lacks documents until then: a wait for them tells it by these needs from a
/// target that only takes up another selection.
pub fn missed(generation: &Generation) -> Option<Needs> {
    let Needs { rows, sweep } = generation.needs;
    let is_due = !generation.is_filled() && sweep && (generation.filled == 0 || rows >= Needs::COMPARISON.rows);
    (!is_due).then_some(Needs::COMPARISON)
}

/// The indexes in which this revision makes targets due that changes are routed to.
pub fn made_due(
    catalog: &Catalog,
    revision: u64,
    needs: impl Fn(&TargetId, &Generation) -> Option<Needs>,
) -> Vec<(IndexName, Option<Index>)> {
    let mut changed = Vec::new();
    for (name, index) in &catalog.indexes {
        let mut next = index.clone();
        for (number, generation) in &mut next.generations {
            if generation.state.is_routed()
                && let Some(needs) = needs(&name.target(*number), generation)
            {
                generation.make_due(revision, needs);
            }
        }
        if next != *index {
            changed.push((name.clone(), Some(next)));
        }
    }
    changed
}

/// The targets that the checkpoint's snapshot fills, in the order of their names, and what it has to do for each.
pub fn filled_by(checkpoint: &Checkpoint, applied: &Applied) -> Vec<(Arc<Target>, Needs)> {
    let needs = |generation: &Generation| if generation.is_filled() { COMPLETE } else { generation.needs };
    let in_scope = applied.routed().filter(|target| is_in_scope(checkpoint, target));
    in_scope.map(|target| (target.clone(), needs(&target.generation))).collect()
}

/// Whether a snapshot that concerns the target is running.
pub fn is_being_filled(checkpoint: &Checkpoint, target: &Target) -> bool {
    is_running(checkpoint) && is_in_scope(checkpoint, target)
}

/// Whether a snapshot that began before a catalog was applied is still running. It covers everything of the plain target.
pub fn is_of_short_form(checkpoint: &Checkpoint) -> bool {
    is_running(checkpoint) && checkpoint.scope.is_empty()
}

fn is_running(checkpoint: &Checkpoint) -> bool {
    !matches!(checkpoint.snapshot, SnapshotState::Done { .. })
}

/// Whether the checkpoint's snapshot, running or done, concerns the target. An empty scope is that of the target that
/// existed before a catalog was applied.
pub fn is_in_scope(checkpoint: &Checkpoint, target: &Target) -> bool {
    if checkpoint.scope.is_empty() {
        return target.generation.since == 0;
    }
    checkpoint.scope.iter().any(|due| due.target == target.id)
}

/// The step that begins a snapshot of this scope at `time`, after everything that was appended.
pub fn begin(checkpoint: &Checkpoint, time: ClusterTime, scope: Vec<Due>) -> Step {
    saving(Checkpoint { scope, ..read_again(checkpoint.clone(), time) })
}

/// The step that ends a snapshot without having filled anything.
pub fn abandon(checkpoint: &Checkpoint) -> Step {
    let (SnapshotState::Running { time, rows, .. }
    | SnapshotState::Sweeping { time, rows, .. }
    | SnapshotState::Done { time, rows }) = checkpoint.snapshot;
    saving(Checkpoint { snapshot: SnapshotState::Done { time, rows }, scope: Vec::new(), ..checkpoint.clone() })
}
