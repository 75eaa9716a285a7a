//! What is being done for an index.

use serde::Serialize;
use tidewheel_core::catalog::{Due, Generation, Index, IndexName, State, TargetId};
use tidewheel_core::ports::{Checkpoint, SnapshotState};

use super::{Facts, coming};

/// What is being done for a generation of an index. One of the short form has no time without progress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// The generation.
    pub generation: u32,
    /// The step.
    pub step: OperationStep,
    /// Documents read by the snapshot; `None` outside of one.
    pub rows: Option<u64>,
    /// Estimated total; `None` if the producer does not report it.
    pub of: Option<u64>,
    /// Documents read per second.
    pub rows_per_second: Option<f64>,
    /// Seconds until all are read.
    pub eta_seconds: Option<f64>,
    /// Seconds without progress. Counts from this process's first sample.
    pub stalled_seconds: f64,
    /// Why it does not advance.
    pub problem: Option<String>,
}

/// A step of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OperationStep {
    /// The collection is created.
    Creating,
    /// A snapshot is due, and another one runs first, or none yet.
    Queued,
    /// A snapshot adds what is missing.
    Filling,
    /// Orphaned points are removed.
    Sweeping,
    /// The collection is compared with MongoDB.
    Comparing,
    /// Settings of the collection are changed.
    Altering,
    /// The alias moves as soon as the pipeline is empty.
    Switching,
    /// It is ready, and was submitted not to switch.
    Held,
    /// The collection is deleted.
    Retiring,
}

impl OperationStep {
    /// Whether a snapshot runs, or waits to run.
    pub fn is_filling(self) -> bool {
        matches!(self, Self::Queued | Self::Filling | Self::Sweeping)
    }

    /// What is done, for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Queued => "waiting for a snapshot",
            Self::Filling => "filling",
            Self::Sweeping => "sweeping orphaned points",
            Self::Comparing => "comparing with MongoDB",
            Self::Altering => "changing settings of the collection",
            Self::Switching => "waiting for an empty pipeline",
            Self::Held => "ready, held",
            Self::Retiring => "deleting",
        }
    }
}

/// The operation of an index: the move of its alias, else its coming generation, else the snapshot of the serving one,
/// else the end of another.
pub(super) fn operation(
    facts: &Facts<'_>,
    name: &IndexName,
    index: &Index,
    stalled: &mut dyn FnMut(TargetId, String) -> f64,
) -> Option<Operation> {
    let serving = || index.serving.filter(|number| is_due(facts, name, *number, index.generations.get(number)));
    let retiring = || {
        let mut generations = index.generations.iter();
        generations.find(|(_, generation)| generation.state == State::Retiring).map(|(number, _)| *number)
    };
    let other = || {
        let mut generations = index.generations.iter();
        generations
            .find(|(number, generation)| {
                is_due(facts, name, **number, Some(*generation)) || generation.problem.is_some()
            })
            .map(|(number, _)| *number)
    };
    let switching = index.switching.map(|switch| switch.to);
    let number = switching.or_else(|| coming(index)).or_else(serving).or_else(other).or_else(retiring)?;
    let generation = index.generations.get(&number)?;
    let target = name.target(number);
    let step = step(facts, &target, index, generation);
    let in_progress = matches!(step, OperationStep::Filling | OperationStep::Sweeping);
    let snapshot = facts.snapshot.filter(|_| in_progress);
    let position = facts.audits.get(&target).cloned().flatten();
    let key = progress(generation, facts.checkpoint, position.as_deref());
    let is_waiting = step == OperationStep::Held || facts.catalog.is_short_form();
    let stalled_seconds = if is_waiting { 0.0 } else { stalled(target, key) };
    Some(Operation {
        generation: number,
        step,
        rows: snapshot.map(|snapshot| snapshot.rows),
        of: snapshot.and_then(|snapshot| snapshot.of),
        rows_per_second: snapshot.and_then(|snapshot| snapshot.rows_per_second),
        eta_seconds: snapshot.and_then(|snapshot| snapshot.eta_seconds),
        stalled_seconds,
        problem: generation.problem.clone(),
    })
}

fn step(facts: &Facts<'_>, target: &TargetId, index: &Index, generation: &Generation) -> OperationStep {
    if index.switching.is_some_and(|switch| switch.to == target.generation) {
        return OperationStep::Switching;
    }
    match generation.state {
        State::Creating => OperationStep::Creating,
        State::Comparing => OperationStep::Comparing,
        State::Ready if generation.hold => OperationStep::Held,
        State::Ready => OperationStep::Switching,
        State::Retiring => OperationStep::Retiring,
        State::Filling | State::Serving | State::Kept => match running(facts.checkpoint, target, generation) {
            Some(SnapshotState::Sweeping { .. }) => OperationStep::Sweeping,
            Some(_) => OperationStep::Filling,
            None if is_read(facts.checkpoint, target, generation) => OperationStep::Filling,
            None if generation.is_filled() => OperationStep::Altering,
            None => OperationStep::Queued,
        },
    }
}

/// Whether the snapshot that the generation is due for has read everything, so that it only has to arrive.
fn is_read(checkpoint: Option<&Checkpoint>, target: &TargetId, generation: &Generation) -> bool {
    let due = Due { target: target.clone(), due: generation.due };
    !generation.is_filled() && checkpoint.is_some_and(|checkpoint| checkpoint.scope.contains(&due))
}

/// Whether a snapshot of the generation is due, or running.
fn is_due(facts: &Facts<'_>, name: &IndexName, number: u32, generation: Option<&Generation>) -> bool {
    generation.is_some_and(|generation| {
        let target = name.target(number);
        generation.state.is_routed()
            && (!generation.is_filled() || running(facts.checkpoint, &target, generation).is_some())
    })
}

/// The snapshot that fills the target, unless it is done.
fn running<'a>(
    checkpoint: Option<&'a Checkpoint>,
    target: &TargetId,
    generation: &Generation,
) -> Option<&'a SnapshotState> {
    let is_running = |checkpoint: &&Checkpoint| !matches!(checkpoint.snapshot, SnapshotState::Done { .. });
    let checkpoint = checkpoint.filter(is_running)?;
    // An empty scope is that of the short form.
    let in_scope = match checkpoint.scope.as_slice() {
        [] => generation.since == 0,
        scope => scope.iter().any(|due| due.target == *target),
    };
    in_scope.then_some(&checkpoint.snapshot)
}

/// What changes while a generation advances. One snapshot runs at a time, so that a generation that waits for another
/// one's snapshot advances with it.
fn progress(generation: &Generation, checkpoint: Option<&Checkpoint>, audit: Option<&str>) -> String {
    let Generation { state, since, due, filled, rounds, compared, .. } = generation;
    let snapshot = checkpoint.map(|checkpoint| &checkpoint.snapshot);
    format!("{state} {since} {due} {filled} {rounds} {compared:?} {snapshot:?} {audit:?}")
}
