//! Advance: the next step of an index towards what its catalog entry states.
//!
//! The active producer asks for one step at a time and executes it. Each step is idempotent, and each follows from the
//! catalog and the observed facts alone, so that any producer continues at any point. What is guaranteed:
//!
//! - **The alias** moves to another generation only if that is whole: routed, filled, compared, without a loss, and with
//!   nothing in flight that the other one already has. A rollback may give up waiting for the last part: both generations
//!   are whole, and differ by what is in flight. Only if the serving generation lost something, the alias goes to a kept
//!   one at once.
//! - **Routing** ends only for retiring generations, and only kept ones retire on their own.
//! - **A collection** is deleted only if the alias does not name it, its record states that it ends, and everything is
//!   applied that was routed to it.

mod alias;
mod lifecycle;

use std::collections::{BTreeMap, BTreeSet};

use super::collection::TargetRecord;
use super::generation::{Compared, Generation, Index, Switch};
use super::name::{IndexName, TargetId};
use super::scope::{Lost, is_in_scope, is_lost, is_running};
use crate::ports::Checkpoint;

/// Maximum backlog, in entries of both stages, with which a quiesce begins.
const QUIESCE_BACKLOG: u64 = 1_000;

/// What is known about an index at one moment. Facts that a step depends on are read after the step before it.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The revision of the catalog that the index belongs to.
    pub revision: u64,
    /// The clock of the catalog's store, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// The saved checkpoint.
    pub current: &'a Checkpoint,
    /// The newest checkpoint known to be in the index with everything that it covers.
    pub applied: Option<&'a Checkpoint>,
    /// The targets that lost something, read after `applied`.
    pub lost: &'a [Lost],
    /// Whether the streams have damage that is not yet repaired.
    pub damaged: bool,
    /// Entries of both stages that are not acknowledged.
    pub backlog: u64,
    /// Inside a quiesce: whether everything appended is applied, and nothing is appended until the next step is done.
    pub quiet: bool,
    /// Whether a quiesce for the intended move has ended, by its time limit, without becoming quiet.
    pub expired: bool,
    /// The existing collections.
    pub collections: &'a BTreeSet<String>,
    /// The collection that the index's alias names; `None` without an alias.
    pub alias: Option<&'a str>,
    /// The records of the index's collections, by generation. A collection without a record, or with the record of
    /// another target, has none.
    pub records: &'a BTreeMap<u32, TargetRecord>,
    /// Whether the collection of the generation to compare is settled, or has had ten minutes to settle.
    pub settled: bool,
    /// The result of comparing the generation in [`State::Comparing`](super::State::Comparing). The comparison began in
    /// that state.
    pub audit: Option<&'a Compared>,
    /// Generations in the catalog whose collection and stored state were deleted completely.
    pub deleted: &'a BTreeSet<u32>,
}

impl Facts<'_> {
    /// The revision under which a step saves the index: see [`Catalog::next_revision`](super::Catalog::next_revision).
    pub fn next_revision(&self) -> u64 {
        self.now_ms.max(self.revision + 1)
    }
}

/// A step of an index.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Creates the collection of this generation with its payload indexes, marks it, and writes its record. Whatever
    /// exists already is checked and left.
    Create(u32),
    /// Points the alias to the collection of this generation; `None` deletes it.
    Alias {
        /// The generation.
        to: Option<u32>,
    },
    /// Saves the index in the catalog, under [`Facts::next_revision`].
    Save(Index),
    /// Saves the index, which makes these generations due because they lost something, and then forgets those losses as
    /// they were read.
    Refill {
        /// The index.
        index: Index,
        /// The generations.
        lost: Vec<u32>,
    },
    /// Leaves nothing of the index in the catalog but [`Index::dropped`].
    Remove,
    /// Compares this generation with the source.
    Compare(u32),
    /// Begins a quiesce, so that the alias can move to this generation: stops appending and waits until everything is
    /// applied.
    Quiesce(u32),
    /// Moves the alias as intended. A plain collection is deleted immediately before, and its stored state afterwards.
    Move(Switch),
    /// Makes settings and payload indexes of the collection conform to the declaration, and then writes its record. Of a
    /// generation that ends, the record alone differs.
    Alter(u32),
    /// Deletes the collection of this generation, and then everything stored about the target. Both may be missing.
    Delete(u32),
}

/// The next step of an index; `None` while there is nothing to do, or something to wait for. Without an applied catalog
/// there is never a step.
pub fn advance(name: &IndexName, index: &Index, facts: &Facts<'_>) -> Option<Step> {
    advance_beside(name, index, facts, |_| false)
}

/// The next step of an index, apart from steps of single generations for which `waits` is true: those that are running, or
/// are repeated later. They delay neither other generations nor a move of the alias.
pub fn advance_beside(
    name: &IndexName,
    index: &Index,
    facts: &Facts<'_>,
    waits: impl Fn(&Step) -> bool,
) -> Option<Step> {
    if facts.revision == 0 {
        return None;
    }
    let view = View { name, index, facts };
    if let Some(step) = view.finished_move().or_else(|| view.interrupted_move()) {
        return Some(step);
    }
    // Until the producer has adopted the catalog, entries are not routed by it.
    let adopted = facts.current.catalog >= facts.revision;
    let quiet_step = || if adopted { view.quiet_move() } else { None };
    let step = quiet_step().or_else(|| view.misplaced_alias());
    if step.is_some() || !adopted {
        return step;
    }
    let next = |number: u32, generation: &Generation| view.next(number, generation).filter(|step| !waits(step));
    let of_generations = index.generations.iter().find_map(|(number, generation)| next(*number, generation));
    of_generations.or_else(|| view.obsolete_intent()).or_else(|| view.quiesce())
}

/// An index and the facts.
#[derive(Clone, Copy)]
struct View<'a> {
    name: &'a IndexName,
    index: &'a Index,
    facts: &'a Facts<'a>,
}

impl View<'_> {
    fn target(&self, number: u32) -> TargetId {
        self.name.target(number)
    }

    fn is_lost(&self, number: u32) -> bool {
        is_lost(self.facts.lost, &self.target(number))
    }

    fn exists(&self, generation: &Generation) -> bool {
        self.facts.collections.contains(&generation.collection)
    }

    /// Whether the alias names the collection of the generation.
    fn is_named(&self, generation: &Generation) -> bool {
        self.facts.alias == Some(generation.collection.as_str())
    }

    /// Whether a snapshot that concerns the generation is running.
    fn is_being_filled(&self, number: u32, generation: &Generation) -> bool {
        is_running(self.facts.current) && is_in_scope(self.facts.current, &self.target(number), generation)
    }

    /// Whether the generation holds everything that was applied.
    fn is_whole(&self, number: u32, generation: &Generation) -> bool {
        generation.state.is_routed()
            && generation.is_filled()
            && !self.facts.damaged
            && !self.is_lost(number)
            && !self.is_being_filled(number, generation)
            && self.exists(generation)
    }

    /// The index with one generation changed.
    fn with(&self, number: u32, change: impl FnOnce(&mut Generation)) -> Index {
        let mut next = self.index.clone();
        if let Some(generation) = next.generations.get_mut(&number) {
            change(generation);
        }
        next
    }
}

#[cfg(test)]
mod tests;
