//! Facts about a document, hop by hop.

use serde::Serialize;
use tidewheel_core::version::Version;

use super::verdict::Verdict;
use crate::cli::StageName;
use crate::probe::Probe;

/// The answer to a query.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Inspection {
    /// The id as given.
    pub(crate) asked: String,
    /// Types of `_id` that the id may have.
    pub(crate) read_as: Vec<&'static str>,
    /// The collections that were searched.
    pub(crate) namespaces: Vec<String>,
    /// The known documents; several if the id may have several types.
    pub(crate) documents: Vec<DocumentReport>,
}

/// One document.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DocumentReport {
    pub(crate) namespace: String,
    /// Canonical extended JSON of `_id`.
    pub(crate) key: String,
    /// The type of `_id`.
    pub(crate) kind: &'static str,
    /// The document identity that all its points share.
    pub(crate) document: String,
    pub(crate) verdict: Verdict,
    pub(crate) source: Probe<SourceFacts>,
    pub(crate) raw: Probe<StageFacts>,
    pub(crate) embedded: Probe<StageFacts>,
    pub(crate) index: Probe<Option<IndexFacts>>,
    pub(crate) deleted: Probe<Deletions>,
    pub(crate) dead_letters: Probe<Vec<LetterFacts>>,
    /// Latencies of its newest change.
    pub(crate) hops: Vec<Hop>,
}

impl DocumentReport {
    /// The version of the newest change known to any server.
    pub(crate) fn newest(&self) -> Option<Version> {
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

/// The document in MongoDB.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SourceFacts {
    pub(crate) exists: bool,
    /// Digest for the comparison with the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// Length of its extended JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<usize>,
}

/// Entries of the document in a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct StageFacts {
    /// Newest first.
    pub(crate) entries: Vec<EntryFacts>,
    /// Number of entries scanned, starting with the newest.
    pub(crate) looked_at: u64,
    /// Whether all entries were scanned.
    pub(crate) complete: bool,
}

/// An entry of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct EntryFacts {
    pub(crate) id: String,
    /// Time of the append, RFC 3339 in UTC.
    pub(crate) added_at: String,
    pub(crate) state: Progress,
    #[serde(flatten)]
    pub(crate) change: Option<ChangeFacts>,
    /// Why it is unreadable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unreadable: Option<String>,
    /// Fields about its embedding: the model, the number of chunks, a fingerprint.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub(crate) embedding: serde_json::Map<String, serde_json::Value>,
}

/// Delivery state of an entry.
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
    /// Id of its OpenTelemetry trace, recorded or not.
    pub(crate) trace_id: String,
    /// Milliseconds since the Unix epoch, by MongoDB's clock.
    pub(crate) committed_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
}

/// The document in the index.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct IndexFacts {
    /// Version of chunk 0.
    pub(crate) version: String,
    /// OpenTelemetry trace id of the change that wrote it.
    pub(crate) trace_id: String,
    pub(crate) digest: String,
    /// Expected number of chunks.
    pub(crate) chunks: u32,
    /// Number of expected chunks present at this version.
    pub(crate) present: u32,
    /// Number of chunks beyond the last one, or of another version.
    pub(crate) surplus: u32,
    /// Other metadata of the point: the model, a fingerprint.
    pub(crate) made: serde_json::Map<String, serde_json::Value>,
    /// The first point.
    pub(crate) point: String,
}

/// Tombstones of the document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Deletions {
    /// Version of the document's deletion.
    pub(crate) document: Option<String>,
    /// Version at which its collection was dropped.
    pub(crate) collection: Option<String>,
}

/// A dead letter of the document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LetterFacts {
    pub(crate) stage: StageName,
    pub(crate) id: String,
    pub(crate) version: String,
    /// OpenTelemetry trace id; `None` if the dead letter is unreadable.
    pub(crate) trace_id: Option<String>,
    pub(crate) reason: String,
    /// RFC 3339 in UTC.
    pub(crate) parked_at: String,
}

/// A hop of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Hop {
    /// Start and end.
    pub(crate) name: &'static str,
    /// Duration. Between servers it is as accurate as their clocks.
    pub(crate) took_ms: u64,
}
