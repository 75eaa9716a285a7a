//! The dead-letter queues of both stages, from an operator's point of view.

use async_trait::async_trait;

use super::PortResult;
use super::queue::EntryId;
use super::record::RecordError;
use crate::embedded::Embedded;
use crate::stage::Stage;

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
    pub record: Result<Embedded, RecordError>,
    /// Whether its document has to be read from the source again before a retry: the entry has no document, or a key of
    /// an earlier release, whose tombstone may be stored under another key.
    pub reread: bool,
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
