//! Facts about a document, server by server.

use serde::Serialize;
use tidewheel_core::payload::digest;
use tidewheel_core::ports::SourceRow;
use tidewheel_core::stage::Stage;

/// The document in MongoDB.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SourceFacts {
    /// Whether it exists.
    pub exists: bool,
    /// Whether it exists and does not match the filter of the index.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub excluded: bool,
    /// Digest for the comparison with the index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Length of its extended JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
}

impl SourceFacts {
    /// The facts about a row, regardless of a filter; `None` if the document does not exist.
    pub(super) fn of(row: Option<&SourceRow>) -> Self {
        let document = row.and_then(|row| row.document.as_ref().ok());
        Self {
            exists: row.is_some(),
            excluded: false,
            digest: document.map(|document| digest(document)),
            bytes: document.map(String::len),
        }
    }

    /// Whether the document exists and belongs to the index.
    pub fn belongs(&self) -> bool {
        self.exists && !self.excluded
    }
}

/// Entries of the document in a stage.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct StageFacts {
    /// Newest first.
    pub entries: Vec<EntryFacts>,
    /// Number of entries scanned, starting with the newest.
    pub looked_at: u64,
    /// Whether all entries were scanned.
    pub complete: bool,
}

/// An entry of a stage.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EntryFacts {
    /// Its id.
    pub id: String,
    /// Time of the append, RFC 3339 in UTC.
    pub added_at: String,
    /// Its delivery state.
    pub state: Progress,
    /// Its change; `None` if it is unreadable.
    #[serde(flatten)]
    pub change: Option<ChangeFacts>,
    /// Why it is unreadable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
    /// Fields about its embedding: the model, the number of chunks, a fingerprint.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    pub embedding: serde_json::Map<String, serde_json::Value>,
}

/// Delivery state of an entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Progress {
    /// Not delivered yet.
    Waiting,
    /// Delivered to a consumer and not acknowledged.
    Pending {
        /// The consumer's name.
        consumer: String,
        /// Milliseconds since its delivery.
        idle_ms: u64,
        /// Number of deliveries.
        deliveries: u64,
    },
    /// Acknowledged.
    Confirmed,
}

/// The change in an entry.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ChangeFacts {
    /// The operation.
    pub operation: String,
    /// Its version.
    pub version: String,
    /// Id of its OpenTelemetry trace, recorded or not.
    pub trace_id: String,
    /// Milliseconds since the Unix epoch, by MongoDB's clock.
    pub committed_at: u64,
    /// Digest of its document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// The document in the index.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct IndexFacts {
    /// Version of chunk 0.
    pub version: String,
    /// OpenTelemetry trace id of the change that wrote it.
    pub trace_id: String,
    /// Digest of the document at that version.
    pub digest: String,
    /// Expected number of chunks.
    pub chunks: u32,
    /// Number of expected chunks present at this version.
    pub present: u32,
    /// Number of chunks beyond the last one, or of another version.
    pub surplus: u32,
    /// Other metadata of the point: the model, a fingerprint.
    pub made: serde_json::Map<String, serde_json::Value>,
    /// The first point.
    pub point: String,
}

/// Tombstones of the document.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Deletions {
    /// Version of the document's deletion.
    pub document: Option<String>,
    /// Version at which its collection was dropped.
    pub collection: Option<String>,
}

/// A dead letter of the document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LetterFacts {
    /// Its stage.
    pub stage: Stage,
    /// Its id in the dead-letter queue.
    pub id: String,
    /// Version of its change; empty if it is unreadable.
    pub version: String,
    /// OpenTelemetry trace id; `None` if the dead letter is unreadable.
    pub trace_id: Option<String>,
    /// The reason for parking it.
    pub reason: String,
    /// RFC 3339 in UTC.
    pub parked_at: String,
}
