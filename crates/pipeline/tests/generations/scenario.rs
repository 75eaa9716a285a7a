//! What a history is made of: where it begins, what operators and clients do, and what goes wrong.

use tidewheel_core::catalog::{Declaration, EmbeddingSpec, IndexName, Provider, Selector};
use tidewheel_core::change::Operation;
use tidewheel_core::ports::SourceFilter;

use crate::state::Mishaps;

/// An operation on the document.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Write {
    /// Inserts or replaces the document; it matches the filter.
    In,
    /// Inserts or replaces the document; it does not match the filter.
    Out,
    /// Updates the field of the filter; the document no longer matches.
    Leave,
    /// Deletes the document.
    Delete,
}

impl Write {
    /// The operation in the change stream, given whether the document existed before.
    pub fn operation(self, existed: bool) -> Operation {
        match self {
            Self::In | Self::Out if existed => Operation::Replace,
            Self::In | Self::Out => Operation::Insert,
            Self::Leave => Operation::Update,
            Self::Delete => Operation::Delete,
        }
    }
}

/// Every history of this many operations, from a source without the document.
pub fn histories(length: usize) -> Vec<Vec<Write>> {
    let mut all = vec![Vec::new()];
    for _ in 0..length {
        all = all.iter().flat_map(|history| longer(history)).collect();
    }
    all
}

fn longer(history: &[Write]) -> Vec<Vec<Write>> {
    let exists = history.last().is_some_and(|last| *last != Write::Delete);
    let of_existing: &[Write] = if exists { &[Write::Leave, Write::Delete] } else { &[] };
    let next = [Write::In, Write::Out].into_iter().chain(of_existing.iter().copied());
    next.map(|write| history.iter().copied().chain([write]).collect()).collect()
}

/// What an index is declared to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Declared {
    /// The model.
    pub model: &'static str,
    /// The template.
    pub text: &'static str,
    /// Whether it has a filter.
    pub is_filtered: bool,
}

/// An index of every document.
pub const EVERYTHING: Declared = Declared { model: "small", text: "subject", is_filtered: false };

/// An index of the documents that match the filter.
pub const MATCHING: Declared = Declared { is_filtered: true, ..EVERYTHING };

impl Declared {
    /// With another model.
    pub const fn remodelled(self) -> Self {
        Self { model: "large", ..self }
    }

    /// With another text.
    pub const fn rewritten(self, text: &'static str) -> Self {
        Self { text, ..self }
    }

    /// The declaration.
    pub fn declaration(self, name: &IndexName) -> Declaration {
        let source = Selector::of_database("shop", &["tickets"]);
        let model = EmbeddingSpec::new("default", Provider::own(), self.model);
        let mut declaration = Declaration::new(name.clone(), source, model);
        declaration.text.template = Some(self.text.to_owned());
        declaration.filter = self.is_filtered.then(|| SourceFilter(r#"{"status":"open"}"#.to_owned()));
        declaration
    }
}

/// The catalog in which a history begins. Everything is in the index, and the source is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// No index.
    Nothing,
    /// The short form.
    ShortForm(Declared),
    /// An index that serves its first generation.
    Serving(Declared),
    /// Its second generation is to be filled, and the producer has not adopted that.
    Filling(Declared, Declared),
    /// The second generation was given up while it was being filled, and nobody but the store has that catalog.
    Retiring(Declared, Declared),
    /// The second generation is whole.
    Ready(Declared, Declared),
    /// The second generation serves, and the first one is kept.
    Switched(Declared, Declared),
}

/// What an operator does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// Applies this declaration.
    Apply(Declared),
    /// Applies no declaration.
    Drop,
    /// Returns to the kept generation.
    RollBack,
}

/// A set of histories.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The start.
    pub start: Start,
    /// The commands, in this order, each at any time or never.
    pub commands: Vec<Command>,
    /// What may go wrong.
    pub mishaps: Mishaps,
    /// Whether a processor and an upserter may keep the catalog from before a command.
    pub has_stale: bool,
    /// Whether the time for which a generation is kept may pass.
    pub passes_time: bool,
}

impl Scenario {
    /// A scenario in which nothing goes wrong but crashes of the producer.
    pub fn new(start: Start, commands: &[Command]) -> Self {
        let commands = commands.to_vec();
        Self { start, commands, mishaps: Mishaps::default(), has_stale: false, passes_time: false }
    }

    /// With mishaps.
    pub fn with(self, mishaps: Mishaps) -> Self {
        Self { mishaps, ..self }
    }

    /// With services that are slow to follow the catalog.
    pub fn with_stale_services(self) -> Self {
        Self { has_stale: true, ..self }
    }

    /// With time that passes.
    pub fn with_time(self) -> Self {
        Self { passes_time: true, ..self }
    }
}
