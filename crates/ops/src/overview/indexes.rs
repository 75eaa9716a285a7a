//! The indexes of an overview: the generations of each, what is under way, and what the settings declare. Pure.
//!
//! ```text
//!  catalog, checkpoint, collections, aliases, reports ──indexes──▶ an IndexOverview for each index
//! ```
//!
//! Before a catalog is applied, the one index is that of the local settings.

mod facts;
mod operation;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use tidewheel_core::catalog::{Generation, Index, IndexName, State, TargetId};
use tidewheel_core::ports::CollectionState;

pub(super) use self::facts::{Facts, fingerprints, moved_alias};
pub use self::operation::Operation;
use super::figures::{audit_of, latency_of};
use super::{Audit, Latency, SyncState};

/// An index.
#[derive(Clone, Debug, Serialize)]
pub struct IndexOverview {
    /// Its name.
    pub name: IndexName,
    /// Its state.
    pub state: SyncState,
    /// The generation that searches read; `None` before the first one exists.
    pub serving: Option<ServingOverview>,
    /// Its generations, by number.
    pub generations: Vec<GenerationOverview>,
    /// What is being done for it; `None` if nothing is.
    pub operation: Option<Operation>,
    /// What the settings of the running services declare, compared with what is applied.
    pub declared: Declared,
    /// Points in the serving collection; an estimate above one million.
    pub points: Option<u64>,
    /// The last audit; `None` if the active producer has not finished one.
    pub drift: Option<Audit>,
    /// Its dead letters; `None` if they may belong to other indexes.
    pub dead_letters: Option<u64>,
    /// Commit-to-searchable latency within the last minute; `None` if no change became searchable.
    pub latency: Option<Latency>,
    /// What the alias names instead of the serving collection; `None` if it is where it belongs, or there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias_moved: Option<MovedAlias>,
    /// An embedding that a processor lacks; `None` if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding_missing: Option<MissingEmbedding>,
}

/// The generation that searches read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServingOverview {
    /// Its number.
    pub generation: u32,
    /// Its collection.
    pub collection: String,
}

/// A generation of an index.
#[derive(Clone, Debug, Serialize)]
pub struct GenerationOverview {
    /// Its number.
    pub number: u32,
    /// Its state.
    pub state: State,
    /// Its collection.
    pub collection: String,
    /// Qdrant's status of the collection: `green`, `yellow`, `grey` or `red`. Up to some overviews old.
    pub status: Option<String>,
    /// Points in the collection; up to some overviews old.
    pub points: Option<u64>,
    /// Documents in the last comparison with MongoDB.
    pub documents: Option<u64>,
    /// Whether a snapshot has satisfied everything that is due.
    pub filled: bool,
    /// Why it does not advance.
    pub problem: Option<String>,
    /// What it lost; it is filled again.
    pub lost: Option<String>,
    /// Of a kept generation: when it is retired, in milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
}

/// The declaration of an index in the settings of the running services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Declared {
    /// The one that was applied.
    Applied,
    /// Another one, which no service uses.
    Differs,
    /// None; the index is still kept up.
    Absent,
    /// No service with declarations reports.
    Unknown,
}

/// An alias that is not where it belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MovedAlias {
    /// The collection that it names; `None` if the alias does not exist.
    pub to: Option<String>,
}

/// An embedding that processors lack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MissingEmbedding {
    /// Its name.
    pub name: String,
    /// The processes without it.
    pub processes: Vec<String>,
    /// Whether the other indexes wait for it.
    pub blocks: bool,
}

impl IndexOverview {
    /// The serving generation.
    pub fn serving_generation(&self) -> Option<&GenerationOverview> {
        let serving = self.serving.as_ref()?;
        self.generations.iter().find(|generation| generation.number == serving.generation)
    }

    /// Whether searches of it read the collection or alias of this name.
    pub(super) fn is_read_by(&self, name: &str) -> bool {
        self.name.as_str() == name || self.serving.as_ref().is_some_and(|serving| serving.collection == name)
    }

    /// Whether a kept generation is complete, so that a rollback is possible.
    pub fn can_roll_back(&self) -> bool {
        self.generations
            .iter()
            .any(|generation| generation.state == State::Kept && generation.filled && generation.lost.is_none())
    }

    /// Whether documents are missing in the serving collection until a snapshot ends that runs, or waits to run.
    pub fn is_being_filled(&self) -> bool {
        let serving = self.serving.as_ref().map(|serving| serving.generation);
        self.operation.as_ref().is_some_and(|operation| operation.is_filling() && Some(operation.generation) == serving)
    }
}

/// Describes each index, by name. `stalled` returns for how many seconds the progress of a target has not changed.
pub(super) fn indexes(facts: &Facts<'_>, stalled: &mut dyn FnMut(TargetId, String) -> f64) -> Vec<IndexOverview> {
    let applied = facts.catalog.indexes.iter().map(|(name, index)| describe(facts, name, index, stalled));
    let mut all: Vec<IndexOverview> = applied.collect();
    all.extend(facts.not_applied().into_iter().map(not_applied));
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn describe(
    facts: &Facts<'_>,
    name: &IndexName,
    index: &Index,
    stalled: &mut dyn FnMut(TargetId, String) -> f64,
) -> IndexOverview {
    let generations: Vec<GenerationOverview> =
        index.generations.iter().map(|(number, generation)| described(facts, name, *number, generation)).collect();
    let serving = index
        .serving_generation()
        .map(|(generation, serving)| ServingOverview { generation, collection: serving.collection.clone() });
    let points = serving
        .as_ref()
        .and_then(|serving| generations.iter().find(|generation| generation.number == serving.generation))
        .and_then(|generation| generation.points);
    IndexOverview {
        state: SyncState::Unknown,
        serving,
        generations,
        operation: operation::operation(facts, name, index, stalled),
        declared: facts.declared(name),
        points,
        drift: audit_of(facts.figures, name),
        dead_letters: facts.dead_letters(),
        latency: latency_of(facts.figures, name),
        alias_moved: facts.aliases.and_then(|aliases| moved_alias(name, index, facts.lost, aliases)),
        embedding_missing: facts.missing_embedding(index),
        name: name.clone(),
    }
}

fn described(facts: &Facts<'_>, name: &IndexName, number: u32, generation: &Generation) -> GenerationOverview {
    let target = name.target(number);
    let collection = facts.collection(&generation.collection);
    let lost = facts.lost.iter().find(|(lost, _)| *lost == target);
    GenerationOverview {
        number,
        state: generation.state,
        collection: generation.collection.clone(),
        status: collection.map(|collection| collection.status.clone()),
        points: collection.map(|collection| collection.points),
        documents: generation.compared.map(|compared| compared.documents),
        filled: generation.is_filled(),
        problem: generation.problem.clone(),
        lost: lost.map(|(_, text)| text.clone()),
        until_ms: generation.until_ms,
    }
}

/// An index that is declared and does not exist yet.
fn not_applied(name: IndexName) -> IndexOverview {
    IndexOverview {
        name,
        state: SyncState::Unknown,
        serving: None,
        generations: Vec::new(),
        operation: None,
        declared: Declared::Differs,
        points: None,
        drift: None,
        dead_letters: None,
        latency: None,
        alias_moved: None,
        embedding_missing: None,
    }
}

/// The generation that does not serve yet.
fn coming(index: &Index) -> Option<u32> {
    let is_coming = |state| matches!(state, State::Creating | State::Filling | State::Comparing | State::Ready);
    index.generations.iter().rev().find(|(_, generation)| is_coming(generation.state)).map(|(number, _)| *number)
}

/// The states of collections by name; `None` of one that does not exist.
pub(super) type CollectionStates = BTreeMap<String, Option<CollectionState>>;
