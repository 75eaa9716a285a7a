//! Generations of an index, and the catalog of all indexes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::collection::TargetRecord;
use super::declaration::Declaration;
use super::embedding::EmbedderIdentity;
use super::name::{IndexName, TargetId};

/// What was applied: every index with its generations. Immutable at one revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Catalog {
    /// The revision: see [`Catalog::next_revision`]. 0 is the short form, which is made from local settings.
    pub revision: u64,
    /// The indexes.
    pub indexes: BTreeMap<IndexName, Index>,
    /// The last generation of each index that was dropped: see [`Index::last`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<IndexName, u32>,
}

impl Catalog {
    /// The layout of stored keys that an applied catalog requires: targets have keys of their own.
    pub const LAYOUT: u32 = 2;

    /// The catalog of the short form: one plain index, whose collection has its name.
    pub fn short_form(declaration: Arc<Declaration>) -> Self {
        let name = declaration.name.clone();
        let generation = Generation {
            collection: name.as_str().to_owned(),
            state: State::Serving,
            ..Generation::new(&name.target(1), declaration, 0)
        };
        let generations = BTreeMap::from([(1, generation)]);
        let index = Index { plain: true, serving: Some(1), generations, ..Index::default() };
        Self { indexes: BTreeMap::from([(name, index)]), ..Self::default() }
    }

    /// Adds or replaces the entry of a store under the name of an index: the index, or the last number of a dropped one.
    pub fn insert(&mut self, name: IndexName, index: Index) {
        if index.is_dropped() {
            self.indexes.remove(&name);
            self.dropped.insert(name, index.last);
        } else {
            self.dropped.remove(&name);
            self.indexes.insert(name, index);
        }
    }

    /// Everything that a store keeps under the name of an index.
    pub fn stored(&self) -> impl Iterator<Item = (IndexName, Index)> {
        let dropped = self.dropped.iter().map(|(name, last)| (name.clone(), Index { last: *last, ..Index::default() }));
        self.indexes.iter().map(|(name, index)| (name.clone(), index.clone())).chain(dropped)
    }

    /// Whether it is made from local settings.
    pub fn is_short_form(&self) -> bool {
        self.revision == 0
    }

    /// The revision of the next catalog, given the clock of its store in milliseconds since the Unix epoch. A revision
    /// that a failover or a wipe has lost is never given to another catalog.
    pub fn next_revision(&self, now_ms: u64) -> u64 {
        now_ms.max(self.revision + 1)
    }

    /// The generation of a target.
    pub fn generation(&self, target: &TargetId) -> Option<&Generation> {
        self.indexes.get(&target.index)?.generations.get(&target.generation)
    }

    /// Every generation, by index and number.
    pub fn targets(&self) -> impl Iterator<Item = (TargetId, &Generation)> {
        self.indexes.iter().flat_map(|(name, index)| index.targets(name))
    }

    /// Every generation that live changes are routed to.
    pub fn routed(&self) -> impl Iterator<Item = (TargetId, &Generation)> {
        self.targets().filter(|(_, generation)| generation.state.is_routed())
    }
}

/// An index with its generations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Index {
    /// Whether a collection has its name, and no alias: the short form, until the first switch.
    pub plain: bool,
    /// The generation whose collection the alias names.
    pub serving: Option<u32>,
    /// The intended move of the alias, saved before the alias moves.
    pub switching: Option<Switch>,
    /// The generations, by number.
    pub generations: BTreeMap<u32, Generation>,
    /// The highest number of a generation that is gone; 0 if there is none. No number is given twice: a late request, an
    /// entry or a dead letter may still name it.
    #[serde(skip_serializing_if = "is_zero")]
    pub last: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Index {
    /// The highest number that a generation has or had; 0 if there was none.
    pub fn highest(&self) -> u32 {
        self.generations.keys().next_back().copied().unwrap_or_default().max(self.last)
    }

    /// Removes a generation, and remembers its number.
    pub fn remove(&mut self, number: u32) {
        self.generations.remove(&number);
        self.last = self.last.max(number);
    }

    /// The entry of the index after it is dropped: the highest number of its generations.
    #[must_use]
    pub fn dropped(&self) -> Self {
        Self { last: self.highest(), ..Self::default() }
    }

    /// Whether this is the entry of a dropped index.
    pub fn is_dropped(&self) -> bool {
        self.generations.is_empty() && self.last > 0
    }

    /// The serving generation with its number.
    pub fn serving_generation(&self) -> Option<(u32, &Generation)> {
        let number = self.serving?;
        Some((number, self.generations.get(&number)?))
    }

    /// Its generations by number, of an index of this name.
    pub fn targets<'a>(&'a self, name: &'a IndexName) -> impl Iterator<Item = (TargetId, &'a Generation)> {
        self.generations.iter().map(|(number, generation)| (name.target(*number), generation))
    }

    /// Whether the generation of this number is the one in the plain collection.
    pub fn is_plain(&self, name: &IndexName, number: u32) -> bool {
        self.plain && self.generations.get(&number).is_some_and(|generation| generation.collection == name.as_str())
    }

    /// What the collection of a generation records; `None` if there is no such generation.
    pub fn record(&self, name: &IndexName, number: u32, revision: u64) -> Option<TargetRecord> {
        let generation = self.generations.get(&number)?;
        Some(TargetRecord {
            index: name.clone(),
            generation: number,
            plain: self.is_plain(name, number),
            state: generation.state,
            parts: generation.declaration.parts(),
            declaration: Declaration::clone(&generation.declaration),
            embedder: generation.embedder.clone(),
            revision,
        })
    }
}

/// A move of an index's alias to another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The generation that served before.
    #[serde(default)]
    pub from: Option<u32>,
    /// The generation that serves afterwards.
    pub to: u32,
    /// Whether the alias replaces the plain collection, which is deleted first.
    #[serde(default)]
    pub plain: bool,
}

/// One collection of an index.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    /// The name of its collection: `tickets.g2`, or that of the index if it is plain.
    pub collection: String,
    /// Its state.
    pub state: State,
    /// The declaration to which its points conform once it is filled.
    #[serde(with = "shared")]
    pub declaration: Arc<Declaration>,
    /// What the embedder reported when the collection was created; `None` before that.
    #[serde(default)]
    pub embedder: Option<EmbedderIdentity>,
    /// The revision from which on live changes are routed to it; of a retiring generation, from which on they are not.
    #[serde(default)]
    pub since: u64,
    /// The newest revision that requires a snapshot.
    #[serde(default)]
    pub due: u64,
    /// What that snapshot has to do.
    #[serde(default)]
    pub needs: Needs,
    /// The last [`Generation::due`] that a snapshot has satisfied; 0 if it was never whole.
    #[serde(default)]
    pub filled: u64,
    /// Number of snapshots after a failed comparison, at most [`Generation::MOST_ROUNDS`].
    #[serde(default)]
    pub rounds: u8,
    /// Documents per second that the last long snapshot has read and brought into the collection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<u64>,
    /// The last comparison with the source.
    #[serde(default)]
    pub compared: Option<Compared>,
    /// Of a kept generation: when it is retired, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub until_ms: Option<u64>,
    /// Whether the alias does not move to it, although it is ready.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
    /// Why it does not advance; `None` if it does.
    #[serde(default)]
    pub problem: Option<String>,
}

impl Generation {
    /// Maximum of [`Generation::rounds`].
    pub const MOST_ROUNDS: u8 = 3;

    /// A new generation, which the catalog of this revision creates and declares due.
    pub fn new(target: &TargetId, declaration: Arc<Declaration>, revision: u64) -> Self {
        Self {
            collection: target.collection(),
            state: State::Creating,
            declaration,
            embedder: None,
            since: revision,
            due: revision,
            needs: Needs { rows: Rows::Missing, sweep: true },
            filled: 0,
            rounds: 0,
            pace: None,
            compared: None,
            until_ms: None,
            hold: false,
            problem: None,
        }
    }

    /// Requires a snapshot because of this revision, in addition to what one is already due for.
    pub fn make_due(&mut self, revision: u64, needs: Needs) {
        self.needs = if self.is_filled() { needs } else { self.needs.and(needs) };
        self.due = revision;
        if matches!(self.state, State::Comparing | State::Ready) {
            self.state = State::Filling;
        }
        self.compared = None;
        self.problem = None;
    }

    /// Ends the routing of live changes to it, from this revision on.
    pub fn retire(&mut self, revision: u64) {
        self.state = State::Retiring;
        self.since = revision;
        self.until_ms = None;
        self.hold = false;
        self.problem = None;
    }

    /// Whether a snapshot has satisfied everything that is due.
    pub fn is_filled(&self) -> bool {
        self.filled >= self.due
    }

    /// Whether entries wait for it while its collection or its embedder is unavailable.
    pub fn may_block(&self) -> bool {
        self.state == State::Kept || (self.state == State::Serving && self.filled > 0)
    }
}

/// The state of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its collection may not exist yet.
    Creating,
    /// Live changes are routed to it, and a snapshot adds the rest.
    Filling,
    /// It is compared with the source.
    Comparing,
    /// It is whole, and the alias moves to it as soon as nothing is in flight.
    Ready,
    /// The alias names it.
    Serving,
    /// The alias named it. It is kept up, so that the alias can return.
    Kept,
    /// Live changes are no longer routed to it, and its collection is deleted.
    Retiring,
}

impl State {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Creating, Self::Filling, Self::Comparing, Self::Ready, Self::Serving, Self::Kept, Self::Retiring];

    /// Whether live changes are routed to the generation.
    pub const fn is_routed(self) -> bool {
        matches!(self, Self::Filling | Self::Comparing | Self::Ready | Self::Serving | Self::Kept)
    }

    /// The name in JSON, metrics and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Filling => "filling",
            Self::Comparing => "comparing",
            Self::Ready => "ready",
            Self::Serving => "serving",
            Self::Kept => "kept",
            Self::Retiring => "retiring",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a snapshot has to do for a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Needs {
    /// The documents to append.
    pub rows: Rows,
    /// Whether to remove points of documents that do not belong to the index.
    pub sweep: bool,
}

impl Needs {
    /// Brings a collection of any content into agreement with the source and the declaration. Appends nothing that is in
    /// place.
    pub const COMPARISON: Self = Self { rows: Rows::Text, sweep: true };

    /// What satisfies both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { rows: self.rows.max(other.rows), sweep: self.sweep || other.sweep }
    }
}

/// The documents that a snapshot appends. Each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rows {
    /// Documents that the collection lacks, or has in an older version with another content.
    #[default]
    Missing,
    /// Also documents whose points carry a payload of another declaration.
    Payload,
    /// Also documents whose points have a text of another declaration.
    Text,
    /// Every document.
    All,
}

/// The result of comparing a generation with the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Compared {
    /// Documents compared.
    pub documents: u64,
    /// Documents that differ.
    pub drift: u64,
    /// Documents that differ and have no dead letter.
    pub unexplained: u64,
    /// When it ended, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The revision of the catalog at its end.
    pub revision: u64,
}

/// Shared values in JSON.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Arc<T>, serializer: S) -> Result<S::Ok, S::Error> {
        T::serialize(value, serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<T>, D::Error> {
        T::deserialize(deserializer).map(Arc::new)
    }
}

#[cfg(test)]
mod tests;
