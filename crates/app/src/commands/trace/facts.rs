//! What is known of one document, hop by hop.

use serde::Serialize;
use tidewheel_core::version::Version;

use super::verdict::Verdict;
use crate::cli::StageName;

/// Something that was asked, and what it said.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Told<T> {
    Known(T),
    Unknown { error: String },
}

impl<T> Told<T> {
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(known) => Some(known),
            Self::Unknown { .. } => None,
        }
    }
}

/// The answer to one question.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Trace {
    /// What was typed.
    pub(crate) asked: String,
    /// As what it was read: types of `_id`.
    pub(crate) read_as: Vec<&'static str>,
    /// Where it was looked for.
    pub(crate) namespaces: Vec<String>,
    /// The documents that anything is known of; several, where the text may mean several `_id`s.
    pub(crate) documents: Vec<DocumentTrace>,
}

/// One document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DocumentTrace {
    pub(crate) namespace: String,
    /// Canonical extended JSON of `_id`.
    pub(crate) key: String,
    /// The type of `_id`.
    pub(crate) kind: &'static str,
    /// The identity that all its points share.
    pub(crate) document: String,
    pub(crate) verdict: Verdict,
    pub(crate) source: Told<SourceFacts>,
    pub(crate) raw: Told<StageFacts>,
    pub(crate) embedded: Told<StageFacts>,
    pub(crate) index: Told<Option<IndexFacts>>,
    pub(crate) deleted: Told<Deletions>,
    pub(crate) dead_letters: Told<Vec<LetterFacts>>,
    /// What its newest change took from hop to hop.
    pub(crate) hops: Vec<Hop>,
}

impl DocumentTrace {
    /// The version of the newest change that any server knows of.
    pub(crate) fn newest(&self) -> Option<Version> {
        let entries = [&self.raw, &self.embedded].into_iter().flat_map(Told::known).flat_map(|stage| &stage.entries);
        let changes = entries.filter_map(|entry| entry.change.as_ref());
        // The end of a whole collection is a change of another kind, with a trace of its own.
        let entries = changes.filter(|change| change.operation != "drop").map(|change| &change.version);
        let index = self.index.known().and_then(Option::as_ref).map(|index| &index.version);
        let deleted = self.deleted.known().and_then(|deleted| deleted.document.as_ref());
        let letters = self.dead_letters.known().into_iter().flatten().map(|letter| &letter.version);
        let versions = entries.chain(index).chain(deleted).chain(letters);
        versions.filter_map(|version| version.parse().ok()).max()
    }
}

/// What MongoDB has.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SourceFacts {
    pub(crate) exists: bool,
    /// Tells whether the index has the same document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// Length of its extended JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<usize>,
}

/// What a stage holds of the document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct StageFacts {
    /// Newest first.
    pub(crate) entries: Vec<EntryFacts>,
    /// How many of the stage's entries were looked at, from the newest on.
    pub(crate) looked_at: u64,
    /// Whether that was all of them.
    pub(crate) complete: bool,
}

/// An entry of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EntryFacts {
    pub(crate) id: String,
    /// RFC 3339 in UTC: when it was added.
    pub(crate) added_at: String,
    pub(crate) state: Progress,
    #[serde(flatten)]
    pub(crate) change: Option<ChangeFacts>,
    /// Why it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unreadable: Option<String>,
    /// Other fields that say something of its embedding: the model, the number of chunks, a fingerprint.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub(crate) embedding: serde_json::Map<String, serde_json::Value>,
}

/// How far an entry has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum Progress {
    Waiting,
    Pending { consumer: String, idle_ms: u64, deliveries: u64 },
    Confirmed,
}

/// The change in an entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct ChangeFacts {
    pub(crate) operation: String,
    pub(crate) version: String,
    /// Of its OpenTelemetry trace, whether it is recorded or not.
    pub(crate) trace_id: String,
    /// Milliseconds since the Unix epoch, by MongoDB's clock.
    pub(crate) committed_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
}

/// What the index has.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct IndexFacts {
    /// Of chunk 0.
    pub(crate) version: String,
    /// Of the OpenTelemetry trace of the change that it is from.
    pub(crate) trace_id: String,
    pub(crate) digest: String,
    /// How many chunks the document should have.
    pub(crate) chunks: u32,
    /// How many of them are there, at this version.
    pub(crate) present: u32,
    /// Chunks beyond the last, or of another version.
    pub(crate) surplus: u32,
    /// What else the point says of its making: the model, a fingerprint.
    pub(crate) made: serde_json::Map<String, serde_json::Value>,
    /// The first point.
    pub(crate) point: String,
}

/// Deletions that are remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Deletions {
    /// The version of the document's own.
    pub(crate) document: Option<String>,
    /// The version at which its collection was dropped.
    pub(crate) collection: Option<String>,
}

/// A dead letter of the document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LetterFacts {
    pub(crate) stage: StageName,
    pub(crate) id: String,
    pub(crate) version: String,
    /// Of its OpenTelemetry trace; `None` where the letter cannot be read.
    pub(crate) trace_id: Option<String>,
    pub(crate) reason: String,
    /// RFC 3339 in UTC.
    pub(crate) parked_at: String,
}

/// A step on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Hop {
    /// From where to where.
    pub(crate) name: &'static str,
    /// How long it took. Between servers it is as right as their clocks.
    pub(crate) took_ms: u64,
}
