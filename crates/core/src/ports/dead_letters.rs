//! The dead letters of both stages, as an operator sees them.

use async_trait::async_trait;

use super::PortResult;
use super::queue::EntryId;
use crate::change::Change;
use crate::embedded::Embedded;
use crate::key;
use crate::streams::Stage;
use crate::wire::{RawFields, Record as _, WireError};

/// Fields that a parked entry has beyond its own, in the order in which they are added behind them.
pub const ABOUT: [&str; 5] = ["stream", "entry", "reason", "attempts", "parked_at"];

/// A parked entry.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Its id among the dead letters of its stage.
    pub id: EntryId,
    /// The stream that it was in.
    pub stream: String,
    /// The id that it had there.
    pub entry: EntryId,
    /// Why it was given up.
    pub reason: String,
    /// How often it was tried, not counting attempts that failed for a passing reason.
    pub attempts: u32,
    /// When it was given up, in milliseconds since the Unix epoch.
    pub parked_at: u64,
    /// Its record, or why that cannot be read. One of stage 1 has no vectors yet.
    pub record: Result<Embedded, WireError>,
    /// It cannot be put back as it is: it has no document, or a key of an earlier release, whose deletion may be known under another
    /// one. Its document has to be read from MongoDB again.
    pub reread: bool,
}

impl Letter {
    /// Reads a parked entry of `stage`. What is missing of what is known about it stays empty: a person may want to look at it
    /// all the same.
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

/// What became of letters that were to be put back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retried {
    /// How many were put back.
    pub moved: u64,
    /// Those that are older than a deletion that was forgotten.
    pub outdated: Vec<EntryId>,
}

/// The dead letters of both stages.
#[async_trait]
pub trait DeadLetters: Send + Sync {
    /// Up to `max` letters of a stage behind `after`, of about [`READ_BYTES`](super::READ_BYTES) together, oldest first. None at the
    /// end alone.
    async fn letters(&self, stage: Stage, after: &EntryId, max: usize) -> PortResult<Vec<Letter>>;

    /// How many letters a stage has.
    async fn count(&self, stage: Stage) -> PortResult<u64>;

    /// Puts these letters back at the end of their stage, as the entries that they were. Each one moves in one step: nobody sees it
    /// in both places or in none. No deletion is forgotten until they have left the streams.
    ///
    /// A letter that is older than a deletion that was forgotten stays where it is: its document may have been deleted since, and
    /// nothing would fence it off.
    async fn retry(&self, stage: Stage, ids: &[EntryId]) -> PortResult<Retried>;

    /// Deletes these letters; says how many were still there.
    async fn discard(&self, stage: Stage, ids: &[EntryId]) -> PortResult<u64>;
}
