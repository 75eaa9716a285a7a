//! The dead-letter queues of both stages, from an operator's point of view.

use async_trait::async_trait;

use super::PortResult;
use super::queue::EntryId;
use crate::change::Change;
use crate::embedded::Embedded;
use crate::key;
use crate::streams::Stage;
use crate::wire::{RawFields, Record as _, WireError};

/// Fields appended to a parked entry, in order.
pub const ABOUT: [&str; 5] = ["stream", "entry", "reason", "attempts", "parked_at"];

/// A parked entry.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Its id in the dead-letter queue of its stage.
    pub id: EntryId,
    /// The entry's original stream.
    pub stream: String,
    /// The entry's id in that stream.
    pub entry: EntryId,
    /// The reason for parking it.
    pub reason: String,
    /// Number of failed attempts while the server worked for others.
    pub attempts: u32,
    /// When it was parked, in milliseconds since the Unix epoch.
    pub parked_at: u64,
    /// Its record, or the decoding error. A record of stage 1 has no vectors yet.
    pub record: Result<Embedded, WireError>,
    /// Whether its document has to be read from MongoDB again before a retry: the entry has no document, or a key of an
    /// earlier release, whose tombstone may be stored under another key.
    pub reread: bool,
}

impl Letter {
    /// Parses a parked entry of `stage`. Missing fields stay empty, so that an operator can still inspect the entry.
    pub fn read(stage: Stage, id: EntryId, fields: RawFields) -> Self {
        let text = |name: &str| {
            let value = fields.iter().rev().find(|(field, _)| field == name.as_bytes());
            value.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
        };
        let (stream, entry, reason) = (text("stream"), EntryId(text("entry")), text("reason"));
        let (attempts, parked_at) = (text("attempts").parse().unwrap_or(0), text("parked_at").parse().unwrap_or(0));
        let former = !key::is_canonical(&text("key"));
        let record = if stage.stream == crate::streams::RAW {
            Change::decode_parked(fields).map(Embedded::without_vectors)
        } else {
            Embedded::decode(fields)
        };
        let reread = record
            .as_ref()
            .is_ok_and(|record| record.change.operation.has_document() && (former || record.change.document.is_none()));
        Self { id, stream, entry, reason, attempts, parked_at, record, reread }
    }
}

/// The result of retrying dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// Number of entries moved back to their stage.
    pub moved: u64,
    /// Dead letters older than a collected tombstone.
    pub outdated: Vec<EntryId>,
}

/// The dead-letter queues of both stages.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Up to `max` dead letters of a stage after `after`, of about [`READ_BYTES`](super::READ_BYTES) together, oldest
    /// first. Empty only at the end.
    async fn letters(&self, stage: Stage, after: &EntryId, max: usize) -> PortResult<Vec<Letter>>;

    /// Number of dead letters of a stage.
    async fn count(&self, stage: Stage) -> PortResult<u64>;

    /// Appends these dead letters to their stage as their original entries. Each one moves atomically: it is never
    /// visible in both places or in neither. No tombstone is collected until the entries have left the streams.
    ///
    /// A dead letter older than a collected tombstone stays: its document may have been deleted since, and no fence
    /// would reject the write.
    async fn retry(&self, stage: Stage, ids: &[EntryId]) -> PortResult<Retried>;

    /// Deletes these dead letters; returns how many still existed.
    async fn discard(&self, stage: Stage, ids: &[EntryId]) -> PortResult<u64>;
}
