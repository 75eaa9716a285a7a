//! The servers from an operator's point of view. Read-only.

use async_trait::async_trait;

use super::queue::{EntryId, StageStatus};
use super::{PortResult, RecordError};
use crate::change::Change;
use crate::identity::Namespace;
use crate::report::ProcessReport;
use crate::stage::Stage;
use crate::version::ClusterTime;

/// The state of the stages and of the producer.
#[async_trait]
pub trait StageInspector: Send + Sync {
    /// A stage's status. A missing stream or group counts as empty.
    async fn status(&self, stage: Stage) -> PortResult<StageStatus>;

    /// The producer that holds the lease, if any.
    async fn leader(&self) -> PortResult<Option<String>>;
}

/// Delivery state of an entry in its stage's consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryState {
    /// Not delivered yet.
    Waiting,
    /// Delivered to a consumer and not acknowledged.
    Pending {
        /// The consumer's name.
        consumer: String,
        /// Milliseconds since its delivery, or since the consumer last renewed its claim.
        idle_ms: u64,
        /// Number of deliveries.
        deliveries: u64,
    },
    /// Acknowledged, and kept for replays.
    Confirmed,
}

/// An entry without its vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundEntry {
    /// The entry id.
    pub id: EntryId,
    /// Its delivery state; meaningless in a dead-letter queue.
    pub state: EntryState,
    /// The namespace that it names, `database.collection`; empty if it names none.
    pub namespace: String,
    /// The canonical key of its document; empty for a whole collection.
    pub key: String,
    /// Whether it concerns the whole collection.
    pub is_drop: bool,
    /// Its change, or why it cannot be decoded. The change of a dead letter may lack its document.
    pub change: Result<Change, RecordError>,
    /// Number of chunks; in stage 2 only.
    pub chunks: Option<usize>,
    /// What else describes its embedding, such as the model, as names and values.
    pub embedding: Vec<(String, String)>,
    /// Why it was parked; for a dead letter only.
    pub parked: Option<ParkedReason>,
}

/// Why and when an entry became a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedReason {
    /// The reason.
    pub reason: String,
    /// When it was parked, in milliseconds since the Unix epoch.
    pub parked_at: u64,
}

/// Result of a lookup in a stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FoundEntries {
    /// The entries, newest first.
    pub entries: Vec<FoundEntry>,
    /// Number of entries scanned, newest first.
    pub looked_at: u64,
    /// Whether the whole stream was scanned.
    pub complete: bool,
}

/// Lookup of documents' entries, which are not indexed: a scan from the newest entry.
#[async_trait]
pub trait EntryFinder: Send + Sync {
    /// The entries of these documents, given by namespace and canonical key, and of their whole collections, among the
    /// newest `most` entries of a stage.
    async fn entries_of(&self, stage: Stage, documents: &[(Namespace, String)], most: u64) -> PortResult<FoundEntries>;

    /// The dead letters of these documents among the newest `most` dead letters of a stage.
    async fn letters_of(&self, stage: Stage, documents: &[(Namespace, String)], most: u64) -> PortResult<FoundEntries>;
}

/// The window of the source's history. A producer that was down for longer misses changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryWindow {
    /// The oldest entry.
    pub first: ClusterTime,
    /// The newest entry.
    pub last: ClusterTime,
}

impl HistoryWindow {
    /// The window's length in seconds.
    pub fn seconds(&self) -> u64 {
        u64::from(self.last.seconds.saturating_sub(self.first.seconds))
    }
}

/// The history of the source: its window and fill level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceHistory {
    /// The oldest and the newest entry.
    pub window: HistoryWindow,
    /// Size in bytes, and the size at which the source removes the oldest entries; `None` without permission.
    pub bytes: Option<(u64, u64)>,
}

impl SourceHistory {
    /// Estimated seconds until the entry at `time` is removed, at the average write rate of the window. 0 if it has
    /// been removed.
    pub fn seconds_left(&self, time: ClusterTime) -> u64 {
        let window = self.window.seconds();
        let behind = u64::from(time.seconds.saturating_sub(self.window.first.seconds));
        if time < self.window.first {
            return 0;
        }
        // Nothing is removed below the limit.
        let until_full = match self.bytes {
            Some((used, limit)) if used > 0 => {
                (window.max(1) as f64 * limit.saturating_sub(used) as f64 / used as f64) as u64
            }
            _ => 0,
        };
        behind + until_full
    }
}

/// The state of the source.
#[async_trait]
pub trait SourceInspector: Send + Sync {
    /// The source's current cluster time, as [`Source::now`](super::Source::now).
    async fn cluster_time(&self) -> PortResult<ClusterTime>;

    /// The window and fill level of the history. Cheap enough for a call every few seconds. `None` if the source does not
    /// report it, or without permission.
    async fn history(&self) -> PortResult<Option<SourceHistory>>;

    /// The names of the database's collections if the selection matches none of them; empty otherwise.
    async fn passed_over(&self) -> PortResult<Vec<String>>;
}

/// The server of the stages' queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueServer {
    /// Host and port, without credentials.
    pub address: String,
    /// Its version.
    pub version: String,
    /// Memory in use, in bytes.
    pub memory_bytes: u64,
    /// Memory limit in bytes; `None` if unlimited.
    pub memory_limit_bytes: Option<u64>,
}

/// The state of the queues' server.
#[async_trait]
pub trait QueueServerInspector: Send + Sync {
    /// Its current state.
    async fn queue_server(&self) -> PortResult<QueueServer>;
}

/// A report that a process published.
#[derive(Clone, Debug)]
pub struct PublishedReport {
    /// The process: host, process id and a random suffix.
    pub process: String,
    /// Milliseconds since it was published, by the server's clock.
    pub age_ms: u64,
    /// The report.
    pub report: ProcessReport,
}

/// The reports that processes publish about themselves.
#[async_trait]
pub trait ReportReader: Send + Sync {
    /// The latest report of each process, in any order, without those of processes that ended or have been silent for a
    /// minute. A report that cannot be decoded is left out.
    async fn reports(&self) -> PortResult<Vec<PublishedReport>>;
}

/// The server of the index, and the collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexState {
    /// The server's version.
    pub version: String,
    /// The collection; `None` if it does not exist.
    pub collection: Option<CollectionState>,
}

/// The collection of the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectionState {
    /// `green` (all segments ready), `yellow` (being optimised), `grey` (optimisation pending) or `red` (broken).
    pub status: String,
    /// Approximate number of points.
    pub points: u64,
    /// Approximate number of indexed vectors; the others are scanned.
    pub indexed_vectors: u64,
    /// Dimension of the unnamed vector; `None` if the collection has none.
    pub dimension: Option<u64>,
}

/// The state of the index.
#[async_trait]
pub trait IndexInspector: Send + Sync {
    /// Its current state.
    async fn index_state(&self) -> PortResult<IndexState>;
}

/// An interpretation of an `_id` typed by a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdReading {
    /// The type, for people: `ObjectId`, `text`, …
    pub kind: &'static str,
    /// The [key](crate::key).
    pub key: String,
    /// Relaxed extended JSON.
    pub id: String,
}
