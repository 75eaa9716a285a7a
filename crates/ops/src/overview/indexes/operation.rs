//! What is being done for an index.

use serde::Serialize;
use tidewheel_core::catalog::{Due, Generation, Index, IndexName, State, TargetId};
use tidewheel_core::ports::{Checkpoint, SnapshotState};

use super::{Facts, coming};
use crate::indexes::{Progress, Step};

/// What is being done for a generation of an index. One of the short form has no time without progress.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// The generation.
    pub generation: u32,
    /// The step.
    pub step: Step,
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

impl Operation {
    /// One line, without the name of the index and without the problem.
    pub fn line(&self, index: &IndexName) -> String {
        let seconds_left = self.eta_seconds.map(|seconds| seconds.ceil() as u64);
        let progress = Progress::new(index, Some(self.generation), self.step);
        let (documents, of, per_second) = (self.rows, self.of, self.rows_per_second);
        Progress { documents, of, per_second, seconds_left, ..progress }.line()
    }

    /// Whether a snapshot runs, or waits to run.
    pub(super) fn is_filling(&self) -> bool {
        matches!(self.step, Step::Queued | Step::Filling)
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
    let snapshot = facts.snapshot.filter(|_| step == Step::Filling);
    let position = facts.audits.get(&target).cloned().flatten();
    let key = progress(generation, facts.checkpoint, position.as_deref());
    let is_waiting = step == Step::Held || facts.catalog.is_short_form();
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

fn step(facts: &Facts<'_>, target: &TargetId, index: &Index, generation: &Generation) -> Step {
    if index.switching.is_some_and(|switch| switch.to == target.generation) {
        return Step::Switching;
    }
    match generation.state {
        State::Creating => Step::Creating,
        State::Comparing => Step::Comparing,
        State::Ready if generation.hold => Step::Held,
        State::Ready => Step::Ready,
        State::Retiring => Step::Deleting,
        State::Filling | State::Serving | State::Kept => match running(facts.checkpoint, target, generation) {
            Some(_) => Step::Filling,
            // Everything is read, and only has to arrive.
            None if is_read(facts.checkpoint, target, generation) => Step::Filling,
            None if generation.is_filled() => Step::Altering,
            None => Step::Queued,
        },
    }
}

/// Whether the snapshot that the generation is due for has read everything.
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
