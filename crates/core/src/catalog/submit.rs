//! Submit: the catalog that declarations lead to, and what that means for each index.
//!
//! A plan prints the actions, and an apply saves the catalog. What is guaranteed:
//!
//! - **Nothing by halves**: with a refusal, the catalog stays as it is.
//! - **Once**: submitting the same again changes nothing.
//! - **By name**: only generations change that an action names. A serving generation keeps its declaration if a difference
//!   requires a new generation, which takes all differences; so a rollback returns to the whole earlier declaration.
//! - **By revision**: the result belongs to the revision that it was made from. Saving it against another revision is a
//!   conflict, and it has to be made again.

mod change;
mod refuse;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use change::{Change, create, drop_index, roll_back};

use super::action::Action;
use super::declaration::Declaration;
use super::embedding::EmbedderIdentity;
use super::generation::{Catalog, Index, Needs};
use super::name::IndexName;
use super::parts::Difference;

/// What to submit.
#[derive(Clone, Debug, PartialEq)]
pub enum Choice {
    /// The declarations.
    Declared(ApplyOptions),
    /// The return of this index to its kept generation.
    Rollback(IndexName),
}

/// How to submit declarations, and what is known about them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ApplyOptions {
    /// The indexes to consider; empty for all.
    pub only: BTreeSet<IndexName>,
    /// Require a new generation of every index that differs, and of every index in `only`.
    pub forced: bool,
    /// Leave the alias where it is when a new generation is ready, until the declarations are submitted without this.
    pub hold: bool,
    /// Switch to a generation that differs from the source in at most this many documents.
    pub accept_missing: Option<u64>,
    /// Give up all kept generations.
    pub drop_kept: bool,
    /// Save the short form as the first catalog even if nothing differs: declarations replace the settings that it was
    /// made from.
    pub adopt: bool,
    /// What the declared embedder of each index reports now, as far as it is known.
    pub reported: BTreeMap<IndexName, EmbedderIdentity>,
    /// The existing collections.
    pub collections: BTreeSet<String>,
    /// The existing aliases, each with the collection that it names.
    pub aliases: BTreeMap<String, String>,
}

/// The result of a submission.
#[derive(Clone, Debug, PartialEq)]
pub struct Submitted {
    /// The revision from which it was made.
    pub expected: u64,
    /// The catalog to save; the given one if there is nothing to do, or something is refused.
    pub catalog: Catalog,
    /// What is done for each index, by name; also what would be done if nothing were refused.
    pub actions: Vec<IndexAction>,
    /// What prevents it.
    pub refused: Vec<Refusal>,
}

impl Submitted {
    /// Whether there is something to do for an index.
    pub fn has_work(&self) -> bool {
        self.actions.iter().any(|action| action.action != Action::None)
    }

    /// Whether there is a catalog to save.
    pub fn is_new(&self) -> bool {
        self.catalog.revision != self.expected
    }

    /// The indexes to save, given the catalog that it was made from; `None` removes one. Nothing of the short form is
    /// saved yet, so that all of it is to be saved.
    pub fn changes(&self, current: &Catalog) -> Vec<(IndexName, Option<Index>)> {
        let names: BTreeSet<&IndexName> = current.indexes.keys().chain(self.catalog.indexes.keys()).collect();
        let is_first = current.is_short_form() && !self.catalog.is_short_form();
        names
            .into_iter()
            .filter(|name| is_first || current.indexes.get(*name) != self.catalog.indexes.get(*name))
            .map(|name| (name.clone(), self.catalog.indexes.get(name).cloned()))
            .collect()
    }
}

/// What is done for an index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexAction {
    /// The index.
    pub index: IndexName,
    /// The most expensive step.
    pub action: Action,
    /// The parts in which its declaration differs.
    pub difference: Difference,
    /// The generation that is created, changed or switched to.
    pub generation: Option<u32>,
    /// The generations that end.
    pub ended: Vec<u32>,
    /// The collections that are deleted in the end, except kept ones.
    pub deleted: Vec<String>,
    /// What a snapshot has to do; `None` without a snapshot.
    pub needs: Option<Needs>,
    /// The declaration so far.
    pub before: Option<Arc<Declaration>>,
    /// The declaration from now on.
    pub after: Option<Arc<Declaration>>,
    /// Whether the alias moves in the end, or replaces a plain collection.
    pub switches: bool,
    /// Whether searches fail for a moment, when an alias replaces a plain collection.
    pub interrupts: bool,
    /// How long a rollback is possible after the switch; `None` if it is not.
    pub keep: Option<Duration>,
    /// What else there is to know.
    pub details: Vec<String>,
}

impl IndexAction {
    fn none(index: &IndexName) -> Self {
        Self {
            index: index.clone(),
            action: Action::None,
            difference: Difference::default(),
            generation: None,
            ended: Vec::new(),
            deleted: Vec::new(),
            needs: None,
            before: None,
            after: None,
            switches: false,
            interrupts: false,
            keep: None,
            details: Vec::new(),
        }
    }
}

/// A reason why nothing is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The index; `None` if it concerns none in particular.
    pub index: Option<IndexName>,
    /// The reason.
    pub reason: String,
    /// What to do about it, in the imperative.
    pub hint: String,
}

/// Submits declarations or a rollback to a catalog. `now_ms` is the clock of the catalog's store, in milliseconds since
/// the Unix epoch.
///
/// Revision 0 with the index of the short form is the catalog before the first one is saved; without an index, that of a
/// new installation. The declared index with the name of the short form's continues its plain collection.
pub fn submit(current: &Catalog, declared: &[Declaration], choice: &Choice, now_ms: u64) -> Submitted {
    let next = current.next_revision(now_ms);
    let mut catalog = current.clone();
    if current.is_short_form() {
        // The points of the short form conform to it; snapshots have been recorded in the checkpoint only.
        for generation in catalog.indexes.values_mut().flat_map(|index| index.generations.values_mut()) {
            (generation.due, generation.filled) = (next - 1, next - 1);
        }
    }
    let (actions, refused) = match choice {
        Choice::Declared(options) => declare(&mut catalog, declared, options, next),
        Choice::Rollback(name) => match roll_back(name, catalog.indexes.get_mut(name)) {
            Ok(action) => (vec![action], Vec::new()),
            Err(refusal) => (Vec::new(), vec![refusal]),
        },
    };
    let has_work = actions.iter().any(|action| action.action != Action::None);
    let adopts = matches!(choice, Choice::Declared(options) if options.adopt)
        && current.is_short_form()
        && !current.indexes.is_empty();
    if (has_work || adopts) && refused.is_empty() {
        catalog.revision = next;
    } else {
        catalog = current.clone();
    }
    Submitted { expected: current.revision, catalog, actions, refused }
}

fn declare(
    catalog: &mut Catalog,
    declared: &[Declaration],
    options: &ApplyOptions,
    next: u64,
) -> (Vec<IndexAction>, Vec<Refusal>) {
    let mut refused = refuse::refusals(catalog, declared, options);
    let wanted: BTreeMap<&IndexName, &Declaration> =
        declared.iter().rev().map(|declaration| (&declaration.name, declaration)).collect();
    let existing: Vec<IndexName> = catalog.indexes.keys().cloned().collect();
    let names: BTreeSet<&IndexName> = existing.iter().chain(wanted.keys().copied()).collect();
    let mut actions = Vec::new();
    for name in names.into_iter().filter(|name| options.only.is_empty() || options.only.contains(*name)) {
        let result = match (catalog.indexes.get(name), wanted.get(name)) {
            (Some(index), Some(wanted)) => {
                Change::new(index.clone(), Arc::new(Declaration::clone(wanted)), options, next).declare().map(Some)
            }
            (None, Some(wanted)) => {
                let last = catalog.dropped.get(name).copied().unwrap_or_default();
                Ok(Some(create(Arc::new(Declaration::clone(wanted)), last, options, next)))
            }
            (Some(index), None) => Ok(drop_index(name, index.clone(), options, next)),
            (None, None) => Ok(None),
        };
        match result {
            Ok(Some((index, action))) => {
                catalog.insert(name.clone(), index);
                actions.push(action);
            }
            // It is being dropped already.
            Ok(None) => {}
            Err(refusal) => refused.push(refusal),
        }
    }
    (actions, refused)
}

#[cfg(test)]
mod tests;
