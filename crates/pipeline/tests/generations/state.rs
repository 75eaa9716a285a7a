//! The state of the model: what the source and the servers have, and what the session of the producer remembers.

use tidewheel_core::catalog::Declaration;

/// Maximum number of generations in a history.
pub const GENERATIONS: usize = 3;

/// The place of a generation in arrays.
pub fn at(number: u32) -> usize {
    number as usize - 1
}

/// A catalog, by its number in the [model](crate::model::Model).
pub type CatalogId = usize;

/// Everything at one moment.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    /// Operations committed in the source.
    pub committed: u8,
    /// The source's time. Operations have the times of [`time_of`]; snapshots begin and sweeps look in between.
    pub time: u8,
    /// Commands executed.
    pub commands: u8,
    /// Whether the time is over for which generations are kept.
    pub is_late: bool,
    /// The saved catalog.
    pub catalog: CatalogId,
    /// The catalog of a processor and an upserter that have not followed the last command yet.
    pub stale: Option<CatalogId>,
    /// The saved checkpoint.
    pub current: Mark,
    /// The applied checkpoint.
    pub applied: Mark,
    /// The session of the producer.
    pub session: Session,
    /// Entries and records that are not acknowledged, in no order.
    pub work: Vec<Work>,
    /// The collection of each generation, with its tombstones.
    pub collections: [Collection; GENERATIONS],
    /// The generation whose collection the alias names.
    pub alias: Option<u32>,
    /// The generations that lost something.
    pub lost: [bool; GENERATIONS],
    /// Whether the streams lost an entry.
    pub is_damaged: bool,
    /// A record that an upserter still applies after its acknowledgement, and the catalog that this upserter has.
    pub duplicate: Option<(Record, CatalogId)>,
    /// The generation that a request of an earlier producer still points the alias to.
    pub late_alias: Option<u32>,
    /// What may still go wrong.
    pub left: Mishaps,
}

/// The time of an operation.
pub fn time_of(operation: u8) -> u8 {
    16 * operation
}

impl State {
    /// The next time of the source.
    ///
    /// # Panics
    /// There is none before the next operation.
    pub fn later(&self) -> u8 {
        assert!(self.time + 1 < time_of(self.committed + 1), "too many snapshots between two operations");
        self.time + 1
    }

    /// The clock of the catalog's store, in milliseconds.
    pub fn now_ms(&self) -> u64 {
        if self.is_late { 1_000_000_000 } else { 0 }
    }

    /// Whether everything that was appended is in the index, and nothing is appended.
    pub fn is_quiet(&self) -> bool {
        let is_applied = self.work.is_empty() && self.applied == self.current && !self.is_damaged;
        self.session.is_resting && is_applied && self.session.found.is_none()
    }

    /// The catalogs that processors and upserters have.
    pub fn views(&self) -> impl Iterator<Item = CatalogId> {
        [self.catalog].into_iter().chain(self.stale)
    }
}

/// A checkpoint.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Mark {
    /// Operations appended.
    pub position: u8,
    /// The catalog that routes the entries after it.
    pub catalog: CatalogId,
    /// The snapshot.
    pub phase: Phase,
    /// The time of the snapshot's rows.
    pub begun: u8,
    /// The generations that the snapshot fills, and the revision for which it fills each.
    pub scope: Vec<(u32, u64)>,
}

/// The progress of a snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Phase {
    /// The row is not appended.
    Reading,
    /// The deletions are not appended.
    Sweeping,
    /// Everything is appended.
    Done,
}

/// What the producer remembers. A crash loses it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Session {
    /// Whether the snapshot may read.
    pub gate: Gate,
    /// What the snapshot has read and not appended.
    pub found: Option<Found>,
    /// Whether feed and snapshot rest, so that the alias can move.
    pub is_resting: bool,
    /// Whether the last rest ended by its limit.
    pub has_expired: bool,
    /// The step of the controller that is decided and not executed.
    pub pending: Option<Effect>,
    /// The last comparison: whether the generation differs, and the revision at its end.
    pub compared: Option<(bool, u64)>,
    /// The generations that are deleted completely.
    pub deleted: [bool; GENERATIONS],
    /// The catalog of the routes; differs from that of the checkpoint only if that safeguard is removed.
    pub routes: CatalogId,
}

impl Session {
    /// A new session, which routes by this catalog.
    pub fn new(gate: Gate, routes: CatalogId) -> Self {
        Self {
            gate,
            found: None,
            is_resting: false,
            has_expired: false,
            pending: None,
            compared: None,
            deleted: [false; GENERATIONS],
            routes,
        }
    }
}

/// Whether a snapshot may read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Gate {
    /// Not until everything appended is in the index.
    Closed,
    /// It may.
    Open,
    /// It may, and it compares nothing: its targets had no points.
    Blind,
}

/// What a snapshot has read.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Found {
    /// The row, and the generations that lack it; none if every one has it, or the document does not belong to them.
    Row {
        /// The content of the document.
        value: u8,
        /// The generations.
        targets: Vec<u32>,
    },
    /// The generations that have the document although it did not belong to them at this time.
    Orphans {
        /// The time.
        time: u8,
        /// The generations.
        targets: Vec<u32>,
    },
}

/// A step of the controller outside the catalog.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Effect {
    /// Creates the collection.
    Create(u32),
    /// Points the alias to the collection of a generation, or deletes it.
    Alias(Option<u32>),
    /// Compares the generation with the source.
    Compare(u32),
    /// Moves the alias to this generation.
    Move(u32),
    /// Deletes a plain collection, so that the alias can replace it.
    Clear {
        /// The plain generation.
        from: u32,
        /// The generation that the alias is to name.
        to: u32,
    },
    /// Deletes the collection.
    Delete(u32),
}

/// Work that is not acknowledged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Work {
    /// Of stage 1.
    Entry(Entry),
    /// Of stage 2.
    Record(Record),
}

/// A change, as stage 1 carries it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Entry {
    /// Its version.
    pub version: u8,
    /// The content of the document; `None` of a deletion.
    pub value: Option<u8>,
    /// The generations that receive it.
    pub targets: Vec<u32>,
    /// The generations that the document leaves.
    pub leaves: Vec<u32>,
    /// Whether it is a deletion only because the document leaves its targets.
    pub is_leave: bool,
    /// The revision that routed it.
    pub stamp: u64,
}

/// A change of one generation, as stage 2 carries it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Record {
    /// The generation.
    pub target: u32,
    /// Its version.
    pub version: u8,
    /// The content of the document, and what its text and vector were made by; `None` of a deletion.
    pub content: Option<(u8, Made)>,
    /// Whether the document leaves the generation.
    pub is_leave: bool,
    /// The revision of the processor.
    pub stamp: u64,
}

/// What the text and the vector of a point were made by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Made {
    model: Option<char>,
    text: Option<char>,
}

impl Made {
    /// What a declaration makes.
    pub fn by(declaration: &Declaration) -> Self {
        let template = declaration.text.template.as_deref().unwrap_or_default();
        Self { model: declaration.embedding.model.chars().next(), text: template.chars().next() }
    }

    /// Whether this declaration makes the same text.
    pub fn has_text_of(self, declaration: &Declaration) -> bool {
        self.text == Self::by(declaration).text
    }
}

/// The collection of a generation, and its tombstones.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Collection {
    /// Whether it exists.
    pub exists: bool,
    /// The points of the document.
    pub document: Option<Document>,
    /// The tombstone of the document; 0 without one.
    pub tombstone: u8,
}

/// The points of the document.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Document {
    /// Its version.
    pub version: u8,
    /// Its content.
    pub value: u8,
    /// What its text and vector were made by.
    pub made: Made,
}

/// What may go wrong, and how often.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Debug)]
pub struct Mishaps {
    /// Records that are skipped.
    pub gaps: u8,
    /// Records that are applied a second time after their acknowledgement.
    pub duplicates: u8,
    /// Collections of kept generations that are deleted by another client.
    pub losses: u8,
    /// Entries that a stream loses.
    pub damages: u8,
    /// Requests for the alias that arrive after the crash of their producer.
    pub late_requests: u8,
}

/// The states that may follow.
#[derive(Default)]
pub struct Next {
    /// The states, and what leads to each.
    pub states: Vec<(&'static str, State)>,
    /// Whether a service does something sooner or later without an event from outside.
    pub has_progress: bool,
}

impl Next {
    /// Adds what a service does sooner or later.
    pub fn progress(&mut self, step: &'static str, state: State) {
        self.has_progress = true;
        self.chance(step, state);
    }

    /// Adds what may never happen.
    pub fn chance(&mut self, step: &'static str, mut state: State) {
        // Work has no order: states that differ in it are one.
        state.work.sort_unstable();
        self.states.push((step, state));
    }
}
