//! The answer to a query for a document.

use serde::Serialize;
use tidewheel_core::version::Version;

use super::facts::{Deletions, IndexFacts, LetterFacts, SourceFacts, StageFacts};
use super::verdict::DocumentVerdict;
use crate::Probe;

/// The answer to a query.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The id as given.
    pub asked: String,
    /// Types of `_id` that the id may have.
    pub read_as: Vec<&'static str>,
    /// The collections that were searched.
    pub namespaces: Vec<String>,
    /// The known documents; several if the id may have several types.
    pub documents: Vec<DocumentReport>,
}

/// One document.
#[derive(Clone, Debug, Serialize)]
pub struct DocumentReport {
    /// `database.collection`.
    pub namespace: String,
    /// Canonical extended JSON of `_id`.
    pub key: String,
    /// The type of `_id`.
    pub kind: &'static str,
    /// The document identity that all its points share.
    pub document: String,
    /// The serving generation of the index; `None` before a catalog is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Its state with an explanation.
    pub verdict: DocumentVerdict,
    /// The document in the source.
    pub source: Probe<SourceFacts>,
    /// Its entries in stage 1.
    pub raw: Probe<StageFacts>,
    /// Its entries in stage 2.
    pub embedded: Probe<StageFacts>,
    /// Its points; `None` if the index has none.
    pub index: Probe<Option<IndexFacts>>,
    /// Its tombstones.
    pub deleted: Probe<Deletions>,
    /// Its dead letters.
    pub dead_letters: Probe<Vec<LetterFacts>>,
    /// Latencies of its newest change.
    pub hops: Vec<Hop>,
}

impl DocumentReport {
    /// The version of the newest change known to any server.
    pub fn newest(&self) -> Option<Version> {
        let entries = [&self.raw, &self.embedded].into_iter().flat_map(Probe::known).flat_map(|stage| &stage.entries);
        let changes = entries.filter_map(|entry| entry.change.as_ref());
        // A dropped collection is a separate change with its own trace.
        let entries = changes.filter(|change| change.operation != "drop").map(|change| &change.version);
        let index = self.index.known().and_then(Option::as_ref).map(|index| &index.version);
        let deleted = self.deleted.known().and_then(|deleted| deleted.document.as_ref());
        let letters = self.dead_letters.known().into_iter().flatten().map(|letter| &letter.version);
        let versions = entries.chain(index).chain(deleted).chain(letters);
        versions.filter_map(|version| version.parse().ok()).max()
    }
}

/// A hop of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Start and end.
    pub name: &'static str,
    /// Duration. Between servers it is as accurate as their clocks.
    pub took_ms: u64,
}
