//! How far an index is on its way to what its catalog entry states, without I/O.

use serde::Serialize;
use tidewheel_core::catalog::{Index, IndexName, State, TargetId};
use tidewheel_core::ports::{Checkpoint, SnapshotState};

use crate::text::{estimate, short, thousands};

/// The step at which an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The producer has not read the catalog yet.
    Submitted,
    /// A collection is being created.
    Creating,
    /// Another snapshot precedes the one that fills the collection.
    Queued,
    /// A snapshot fills the collection.
    Filling,
    /// The collection is being compared with the source.
    Comparing,
    /// The alias moves as soon as nothing is in flight.
    Ready,
    /// The alias is moving.
    Switching,
    /// The collection is being altered.
    Altering,
    /// Collections are being deleted.
    Deleting,
    /// The generation is ready, and the alias stays where it is.
    Held,
    /// Nothing is left to do.
    Done,
}

impl Step {
    /// Whether no other step follows.
    pub fn is_last(self) -> bool {
        matches!(self, Self::Held | Self::Done)
    }

    /// The step in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Submitted => "waiting for the producer",
            Self::Creating => "creating",
            Self::Queued => "waiting for another snapshot",
            Self::Filling => "filling",
            Self::Comparing => "comparing",
            Self::Ready => "waiting for an empty pipeline",
            Self::Switching => "switching",
            Self::Altering => "changing settings",
            Self::Deleting => "deleting",
            Self::Held => "ready, not switched because of --hold",
            Self::Done => "done",
        }
    }
}

/// The progress of an index.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// The index.
    pub index: IndexName,
    /// The generation that is being worked on, or that serves.
    pub generation: Option<u32>,
    /// The step.
    pub step: Step,
    /// Documents read by the snapshot that fills it.
    pub documents: Option<u64>,
    /// Documents that it reads, estimated.
    pub of: Option<u64>,
    /// Documents per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub per_second: Option<f64>,
    /// Seconds until they are read.
    pub seconds_left: Option<u64>,
    /// Why it does not advance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether the problem is the result of a comparison, which is not made again without an operator.
    #[serde(skip)]
    pub is_judged: bool,
}

impl Progress {
    /// The progress without numbers.
    pub fn new(index: &IndexName, generation: Option<u32>, step: Step) -> Self {
        Self {
            index: index.clone(),
            generation,
            step,
            documents: None,
            of: None,
            per_second: None,
            seconds_left: None,
            problem: None,
            is_judged: false,
        }
    }

    /// One line, without the name of the index.
    pub fn line(&self) -> String {
        let mut line = self.generation.map(|number| format!("generation {number}: ")).unwrap_or_default();
        line += match (self.step, self.generation) {
            (Step::Done, None) => "dropped",
            (step, _) => step.text(),
        };
        if let Some(documents) = self.documents {
            line += &format!(" {}", thousands(documents));
            line += &self.of.map(|of| format!(" of {}", thousands(of))).unwrap_or_default();
            line += " documents";
        }
        if let Some(rate) = self.per_second {
            line += &format!(", {} docs/s", short(rate));
        }
        if let Some(seconds) = self.seconds_left {
            line += &format!(", ETA {}", estimate(seconds as f64));
        }
        match &self.problem {
            Some(problem) => format!("{line}: {problem}"),
            None => line,
        }
    }
}

/// What is known beside the catalog.
pub(super) struct Facts<'a> {
    /// The revision of the catalog.
    pub(super) revision: u64,
    /// The saved checkpoint.
    pub(super) checkpoint: Option<&'a Checkpoint>,
    /// Documents that the running snapshot reads, estimated.
    pub(super) expected: Option<u64>,
    /// Whether the record of the serving collection states what the catalog does; `None` if it was not read.
    pub(super) is_recorded: Option<bool>,
}

/// The progress of an index; `index` is `None` for one that is not in the catalog.
pub(super) fn progress(name: &IndexName, index: Option<&Index>, facts: &Facts<'_>) -> Progress {
    let Some(index) = index else { return Progress::new(name, None, Step::Done) };
    if let Some(switch) = index.switching {
        return Progress::new(name, Some(switch.to), Step::Switching);
    }
    let is_coming = |state| matches!(state, State::Creating | State::Filling | State::Comparing | State::Ready);
    let coming = index.generations.iter().rev().find(|(_, generation)| is_coming(generation.state));
    if let Some((number, generation)) = coming {
        let is_held = generation.hold && index.serving.is_some();
        let progress = match generation.state {
            State::Creating => Progress::new(name, Some(*number), Step::Creating),
            State::Comparing => Progress::new(name, Some(*number), Step::Comparing),
            State::Ready => Progress::new(name, Some(*number), if is_held { Step::Held } else { Step::Ready }),
            _ => filling(&name.target(*number), facts),
        };
        let is_judged = generation.state == State::Comparing && generation.compared.is_some();
        return Progress { problem: generation.problem.clone(), is_judged, ..progress };
    }
    let serving = index.serving_generation();
    if let Some((number, generation)) = serving.filter(|(_, generation)| !generation.is_filled()) {
        return Progress { problem: generation.problem.clone(), ..filling(&name.target(number), facts) };
    }
    if facts.is_recorded == Some(false) {
        return Progress::new(name, index.serving, Step::Altering);
    }
    if index.generations.values().any(|generation| generation.state == State::Retiring) {
        return Progress::new(name, index.serving, Step::Deleting);
    }
    let is_adopted = facts.checkpoint.is_some_and(|checkpoint| checkpoint.catalog >= facts.revision);
    Progress::new(name, index.serving, if is_adopted { Step::Done } else { Step::Submitted })
}

/// The progress of a target that is not filled.
fn filling(target: &TargetId, facts: &Facts<'_>) -> Progress {
    let new = |step| Progress::new(&target.index, Some(target.generation), step);
    let Some(checkpoint) = facts.checkpoint else { return new(Step::Submitted) };
    let is_in_scope = checkpoint.scope.iter().any(|due| due.target == *target);
    match &checkpoint.snapshot {
        SnapshotState::Done { .. } if checkpoint.catalog < facts.revision => new(Step::Submitted),
        SnapshotState::Done { .. } => new(Step::Filling),
        _ if !is_in_scope => new(Step::Queued),
        SnapshotState::Running { rows, .. } => {
            let of = facts.expected.map(|of| of.max(*rows));
            Progress { documents: Some(*rows), of, ..new(Step::Filling) }
        }
        SnapshotState::Sweeping { rows, .. } => {
            Progress { documents: Some(*rows), of: Some(*rows), ..new(Step::Filling) }
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::{Catalog, Due, Generation, Switch};
    use tidewheel_core::version::ClusterTime;
    use tidewheel_testkit::contracts::samples::checkpoint;

    use super::*;
    use crate::samples::{catalog, index, target};

    const REVISION: u64 = 7;

    fn at(catalog: u64, snapshot: SnapshotState, scope: &[&str]) -> Checkpoint {
        let scope = scope.iter().map(|name| Due { target: target(name), due: catalog }).collect();
        Checkpoint { catalog, snapshot, scope, ..checkpoint(1) }
    }

    fn done(catalog: u64) -> Checkpoint {
        at(catalog, SnapshotState::Done { time: ClusterTime::default(), rows: 0 }, &[])
    }

    fn running(scope: &[&str]) -> Checkpoint {
        at(REVISION, SnapshotState::Running { time: ClusterTime::default(), after: None, rows: 40 }, scope)
    }

    fn of(catalog: &Catalog, checkpoint: Option<&Checkpoint>) -> Progress {
        let name = index("tickets");
        let facts = Facts { revision: REVISION, checkpoint, expected: Some(100), is_recorded: Some(true) };
        progress(&name, catalog.indexes.get(&name), &facts)
    }

    fn step(catalog: &Catalog, checkpoint: Option<&Checkpoint>) -> Step {
        of(catalog, checkpoint).step
    }

    fn serving() -> Catalog {
        catalog(REVISION, &[("tickets", State::Serving)])
    }

    /// With a second generation in this state.
    fn coming(state: State, change: impl Fn(&mut Generation)) -> Catalog {
        let mut catalog = serving();
        let tickets = catalog.indexes.get_mut(&index("tickets")).unwrap();
        let mut second = Generation::new(&target("tickets.g2"), tickets.generations[&1].declaration.clone(), REVISION);
        second.state = state;
        change(&mut second);
        tickets.generations.insert(2, second);
        catalog
    }

    #[test]
    fn index_is_done_once_the_producer_has_adopted_the_catalog() {
        assert_eq!(step(&serving(), Some(&done(REVISION))), Step::Done);
        assert_eq!(step(&serving(), Some(&done(REVISION - 1))), Step::Submitted);
        assert_eq!(step(&serving(), None), Step::Submitted);
        assert_eq!(of(&Catalog::default(), None).line(), "dropped");
        assert_eq!(of(&serving(), Some(&done(REVISION))).line(), "generation 1: done");
    }

    #[test]
    fn generation_passes_through_every_step() {
        let adopted = done(REVISION);
        for (state, expected) in [
            (State::Creating, Step::Creating),
            (State::Filling, Step::Filling),
            (State::Comparing, Step::Comparing),
            (State::Ready, Step::Ready),
            (State::Kept, Step::Done),
            (State::Retiring, Step::Deleting),
        ] {
            assert_eq!(step(&coming(state, |_| {}), Some(&adopted)), expected, "{state}");
        }
        assert_eq!(step(&coming(State::Ready, |generation| generation.hold = true), Some(&adopted)), Step::Held);
        let mut switching = coming(State::Ready, |_| {});
        let tickets = switching.indexes.get_mut(&index("tickets")).unwrap();
        tickets.switching = Some(Switch { from: Some(1), to: 2, plain: false });
        assert_eq!(of(&switching, Some(&adopted)).line(), "generation 2: switching");
        let failed = coming(State::Comparing, |generation| generation.problem = Some("3 documents differ".into()));
        assert_eq!(of(&failed, Some(&adopted)).line(), "generation 2: comparing: 3 documents differ");
    }

    #[test]
    fn snapshot_in_progress_shows_its_numbers() {
        let catalog = coming(State::Filling, |_| {});
        let filling = of(&catalog, Some(&running(&["tickets.g2"])));
        assert_eq!((filling.documents, filling.of), (Some(40), Some(100)));
        let filling = Progress { per_second: Some(3_120.0), seconds_left: Some(240), ..filling };
        let line = "generation 2: filling 40 of 100 documents, 3.1k docs/s, ETA 4 min";
        assert_eq!(filling.line(), line);
        assert_eq!(step(&catalog, Some(&running(&["notes.g1"]))), Step::Queued);
        assert_eq!(step(&catalog, Some(&done(REVISION - 1))), Step::Submitted);
        let mut changed = serving();
        let tickets = changed.indexes.get_mut(&index("tickets")).unwrap();
        tickets.generations.get_mut(&1).unwrap().due = REVISION + 1;
        assert_eq!(of(&changed, Some(&running(&["tickets.g1"]))).documents, Some(40));
    }

    #[test]
    fn collection_is_altered_until_its_record_conforms() {
        let (name, catalog, adopted) = (index("tickets"), serving(), done(REVISION));
        let facts = Facts { revision: REVISION, checkpoint: Some(&adopted), expected: None, is_recorded: Some(false) };
        assert_eq!(progress(&name, catalog.indexes.get(&name), &facts).step, Step::Altering);
    }
}
