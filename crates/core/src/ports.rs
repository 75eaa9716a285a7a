//! The seams: what the stages need from MongoDB, Redis, Qdrant and the embedder.
//!
//! Each trait is implemented by an adapter for the real server and by a fake in memory, and both pass the same
//! contract tests. Every method may fail with a [`PortError`], whose class says whether to wait, to park the input or
//! to stop. Methods do not retry by themselves: how long to wait is decided in one place, by the stages.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::change::{Change, Operation};
use crate::embedded::{Embedded, Vectors};
use crate::error::PortError;
use crate::identity::{DocumentId, Namespace};
use crate::tokens::Tokens;
use crate::version::{ClusterTime, Version};

/// The answer of a port.
pub type PortResult<T> = Result<T, PortError>;

// ---------------------------------------------------------------------------------------------- source (MongoDB)

/// Where a change stream continues: opaque to all but the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResumeToken(pub String);

/// Where to open the feed of changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// Right after what this token covers.
    Token(ResumeToken),
    /// At this time, inclusive.
    Time(ClusterTime),
}

/// One event of the source, in the order in which the source committed them.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceEvent {
    /// What happened. [`Operation::Read`] and [`Operation::Sweep`] do not occur in a feed.
    pub operation: Operation,
    /// Where.
    pub namespace: Namespace,
    /// `_id` in canonical extended JSON; empty for a drop.
    pub key: String,
    /// `_id` in relaxed extended JSON; empty for a drop.
    pub id: String,
    /// When, in the source's logical time. Several events may share it.
    pub time: ClusterTime,
    /// When, by the source's wall clock, in milliseconds since the Unix epoch.
    pub committed_at: u64,
    /// The document in relaxed extended JSON. `None` for a delete and a drop, and for an update whose document was
    /// gone when the source looked it up: the event of its deletion follows.
    pub document: Option<String>,
}

/// What a feed has accumulated.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedBatch {
    /// The events, possibly none: an idle source moves its token forward too.
    pub events: Vec<SourceEvent>,
    /// Collections that came into the selection together with their documents, by a rename: no event tells of those
    /// documents, so they have to be scanned. Rows of that scan need a time after these events, or a drop of the
    /// collection that was replaced would fence them off: wait until [`Source::now`] has passed them.
    pub appeared: Vec<Namespace>,
    /// Resuming here gives exactly the events after these.
    pub token: ResumeToken,
}

/// One row that a snapshot has read.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRow {
    /// `_id` in canonical extended JSON.
    pub key: String,
    /// `_id` in relaxed extended JSON.
    pub id: String,
    /// The document in relaxed extended JSON.
    pub document: String,
}

/// Why a feed cannot be opened or has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The source no longer has the history after the token: changes were missed.
    #[error("the source no longer has the changes after the saved position: {0}")]
    HistoryLost(String),
    /// Anything else.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// The collections that are kept in the index.
#[async_trait]
pub trait Source: Send + Sync {
    /// The source's current logical time: everything committed before is visible to a scan that starts at it.
    async fn now(&self) -> PortResult<ClusterTime>;

    /// Identifies which events the feed lets through (the change stream's pipeline): a saved token is only good for
    /// the same selection.
    fn selection(&self) -> String;

    /// Opens the feed. One batch ahead is fetched while the caller works on the last.
    async fn open(&self, start: StartAt) -> Result<Box<dyn Feed>, FeedError>;

    /// The collections that exist now and are selected, sorted by name.
    async fn collections(&self) -> PortResult<Vec<Namespace>>;

    /// About how many documents a collection has, for progress.
    async fn estimate(&self, namespace: &Namespace) -> PortResult<u64>;

    /// Reads a collection in the order of `_id`, after the row with this canonical key if one is given, including
    /// everything committed at `at_least` or before.
    async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
    ) -> PortResult<Box<dyn Scan>>;
}

/// Follows the source's changes. Dropping it closes it.
#[async_trait]
pub trait Feed: Send {
    /// What has accumulated since the last call; waits about a second for something to happen, then gives the new
    /// token with no events. Cancel-safe: a call that is dropped loses nothing.
    async fn next(&mut self) -> Result<FeedBatch, FeedError>;
}

/// Reads a collection page by page.
#[async_trait]
pub trait Scan: Send {
    /// The next rows; none at the end. Cancel-safe.
    async fn next(&mut self) -> PortResult<Vec<SourceRow>>;
}

// ------------------------------------------------------------------------------------------- stage 1, producer side

/// How far a snapshot has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// Still reading.
    Running {
        /// Its rows carry this time.
        time: ClusterTime,
        /// The last row appended: collection and canonical key. `None` at the very beginning.
        after: Option<(Namespace, String)>,
        /// Rows appended so far.
        rows: u64,
    },
    /// Everything that was there at this time has been read.
    Done {
        /// The time of its rows.
        time: ClusterTime,
        /// Rows appended in all.
        rows: u64,
    },
}

/// How far the source has been read. Saved in one step with the entries that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where to resume the feed.
    pub token: ResumeToken,
    /// The time of the last event, and how many events of that time have been appended: the next one's ordinal is one more.
    pub last: (ClusterTime, u32),
    /// The epoch of the versions given out.
    pub epoch: u32,
    /// The [`Source::selection`] that the token belongs to.
    pub selection: String,
    /// The snapshot.
    pub snapshot: SnapshotState,
}

/// How an append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Entries and checkpoint were saved together.
    Saved,
    /// The checkpoint was not the expected one: another producer is at work, or Redis lost some of its history.
    /// Nothing was saved. Forget everything and load the checkpoint again.
    Conflict,
}

/// Stage 1 as the producer sees it.
#[async_trait]
pub trait Journal: Send + Sync {
    /// The saved checkpoint; `None` if there is none.
    async fn load(&self) -> PortResult<Option<Checkpoint>>;

    /// Appends the changes and replaces the checkpoint, both or neither, if the saved checkpoint is `expected`.
    /// If it is not known whether an append happened (the answer was lost), the call finds out before it answers.
    async fn append(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        next: &Checkpoint,
    ) -> PortResult<Appended>;

    /// Takes or renews the lease for `time_to_live`; false while another owner has it. It keeps a second producer from doing the
    /// work twice; safety does not rest on it but on the expected checkpoint.
    async fn lease(&self, owner: &str, time_to_live: Duration) -> PortResult<bool>;

    /// Gives the lease back, if this owner has it.
    async fn release(&self, owner: &str) -> PortResult<()>;

    /// How many entries stage 1 holds that its group has not acknowledged, delivered or not.
    async fn backlog(&self) -> PortResult<u64>;
}

// --------------------------------------------------------------------------------------------- both streams, readers

/// The id of a stream entry, `milliseconds-sequence`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub String);

/// An entry that was delivered.
#[derive(Clone, Debug)]
pub struct Delivery<T> {
    /// Its id, to acknowledge it with.
    pub id: EntryId,
    /// Its record, or why it could not be read.
    pub record: Result<T, crate::wire::WireError>,
}

/// What was taken over from consumers that no longer work on it.
#[derive(Clone, Debug)]
pub struct Claimed<T> {
    /// The entries, now this consumer's.
    pub deliveries: Vec<Delivery<T>>,
    /// Entries that were pending but are no longer in the stream: somebody trimmed or deleted what was not confirmed.
    pub lost: Vec<EntryId>,
}

/// An entry that no attempt could process, on its way to the dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The entry in its stream.
    pub id: EntryId,
    /// Why it was given up.
    pub reason: String,
    /// How often it was tried, not counting attempts that failed for a transient reason.
    pub attempts: u32,
}

/// A stage's stream, as one consumer of its group sees it. Entries stay this consumer's until they are acknowledged.
#[async_trait]
pub trait Queue<T>: Send + Sync {
    /// Up to `max` new entries; waits up to `wait` for the first. Not cancel-safe: an answer that is dropped leaves its
    /// entries pending until they are claimed.
    async fn read(&self, max: usize, wait: Duration) -> PortResult<Vec<Delivery<T>>>;

    /// Takes over up to `max` entries that have been pending with anyone for at least `idle`.
    async fn claim(&self, idle: Duration, max: usize) -> PortResult<Claimed<T>>;

    /// Says that this consumer still works on these entries, so that nobody claims them.
    async fn keep(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Gives up these entries, unconfirmed: anyone may claim them at once, whatever the idle time. For a clean shutdown.
    async fn hand_back(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Confirms these entries: their effect is durable.
    async fn acknowledge(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Moves entries to the stage's dead letters and confirms them, in one step.
    async fn park(&self, letters: &[DeadLetter]) -> PortResult<()>;

    /// Removes this consumer from the group if nothing is pending with it; says whether it did.
    async fn leave(&self) -> PortResult<bool>;

    /// Removes entries that every group has confirmed and that the retention no longer covers; says how many. Entries
    /// that any group has yet to read or to acknowledge are never touched.
    async fn trim(&self, retention: Retention) -> PortResult<u64>;
}

/// How much of what is confirmed stays in a stream, to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Confirmed entries older than this go.
    pub age: Duration,
    /// Confirmed entries go, oldest first, while the stream is longer than this.
    pub entries: u64,
}

/// A stage as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StageStatus {
    /// The stream's key.
    pub stream: String,
    /// The group that works on it.
    pub group: String,
    /// Entries in the stream, confirmed ones that are kept for replay included.
    pub length: u64,
    /// Entries that the group has not been given yet. `None` when Redis cannot tell.
    pub lag: Option<u64>,
    /// Entries given to a consumer and not yet confirmed.
    pub pending: u64,
    /// Age in milliseconds of the oldest entry that is not confirmed, by Redis' clock.
    pub oldest_age_ms: Option<u64>,
    /// Entries in the stage's dead letters.
    pub dead_letters: u64,
    /// The group's consumers.
    pub consumers: Vec<ConsumerStatus>,
}

/// One consumer of a group.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// Entries pending with it.
    pub pending: u64,
    /// Milliseconds since it last asked for work.
    pub idle_ms: u64,
}

/// The step from stage 1 to stage 2.
#[async_trait]
pub trait Handover: Send + Sync {
    /// Appends the records to stage 2 and acknowledges the entries on stage 1, in one atomic step.
    async fn hand_over(&self, records: &[Embedded], acknowledge: &[EntryId]) -> PortResult<()>;
}

// ------------------------------------------------------------------------------------------------------- embedder

/// What a text is for. Some models want a prefix that depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// It goes into the index.
    Passage,
    /// It is searched for.
    Query,
}

/// What an embedder says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbedderInfo {
    /// The model's name.
    pub model: String,
    /// Numbers in a vector.
    pub dimension: usize,
    /// Most tokens of a text that count, without the special tokens; what is beyond them is not embedded.
    pub max_tokens: usize,
}

/// Turns texts into vectors.
#[async_trait]
pub trait Embedder: Send + Sync {
    /// The model's name and limits.
    async fn info(&self) -> PortResult<EmbedderInfo>;

    /// The model's tokeniser, or the best estimate of it.
    async fn tokens(&self) -> PortResult<Arc<dyn Tokens>>;

    /// One vector for each text, in order. Fails with [`crate::error::ErrorClass::Poison`] if a text can never be embedded; the
    /// answer always has as many vectors as there are texts, all finite.
    async fn embed(&self, texts: &[String], purpose: Purpose) -> PortResult<Vectors>;
}

// --------------------------------------------------------------------------------------------------- index (Qdrant)

/// A point to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Its id: [`DocumentId::point`] of its chunk.
    pub id: Uuid,
    /// Its vector.
    pub vector: Vec<f32>,
    /// The user's document as plain JSON, and `_tidewheel`.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// All points of one document at one version: chunk 0, 1, … in order, at least one.
#[derive(Clone, Debug, PartialEq)]
pub struct DocumentPoints {
    /// The document.
    pub document: DocumentId,
    /// Its version.
    pub version: Version,
    /// Its points in the order of their chunks.
    pub points: Vec<Point>,
}

/// Everything of this document (or collection) that is older than the version has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// What the fence guards.
    pub target: FenceTarget,
    /// Points with a smaller version are behind the fence.
    pub version: Version,
}

/// What a [`Fence`] guards.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FenceTarget {
    /// One document.
    Document(DocumentId),
    /// All documents of a collection.
    Namespace(Namespace),
}

/// What the index says of one document after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The version of its chunk 0, which every version has; `None` if there is no such point.
    pub version: Option<Version>,
    /// Whether the chunk right after the last of the version just written exists. Chunks of an older version are left
    /// over in a row, so this one tells whether there are any.
    pub surplus: bool,
}

/// The collection in Qdrant.
#[async_trait]
pub trait Index: Send + Sync {
    /// Creates the collection and its payload indexes if they are missing. Fails as fatal if there is one of another
    /// dimension or distance.
    async fn prepare(&self, dimension: usize) -> PortResult<()>;

    /// Writes the points of each document, except points that exist at the same or a newer version; in as few calls
    /// as size limits allow. Answers when everything is durable. No document may occur twice.
    async fn upsert(&self, documents: &[&DocumentPoints]) -> PortResult<()>;

    /// For each document and the number of chunks that it should have: what is there now.
    async fn stored(&self, documents: &[(DocumentId, u32)]) -> PortResult<Vec<Stored>>;

    /// Deletes every point behind the fences, in as few calls as size limits allow. Answers when everything is durable.
    async fn delete(&self, fences: &[Fence]) -> PortResult<()>;

    /// The points nearest to the vector, best first. `filter` is a filter in Qdrant's own JSON form.
    async fn search(&self, vector: Vec<f32>, limit: usize, filter: Option<&serde_json::Value>) -> PortResult<Vec<Hit>>;

    /// How many points there are, exactly; `None` if there is no collection.
    async fn count(&self) -> PortResult<Option<u64>>;

    /// Up to `limit` points in the order of their ids from `after` on, exclusively, without vectors; for comparing
    /// the index with the source.
    async fn page(&self, after: Option<Uuid>, limit: usize) -> PortResult<Vec<IndexedPoint>>;
}

/// A point found by a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// The point's id.
    pub id: Uuid,
    /// Cosine similarity, from −1 to 1.
    pub score: f32,
    /// Its payload.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// A point as it lies in the index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexedPoint {
    /// Its id.
    pub id: Uuid,
    /// Its payload.
    pub payload: serde_json::Map<String, serde_json::Value>,
}

/// The memory of deletions, outside the user's collection.
#[async_trait]
pub trait Tombstones: Send + Sync {
    /// Remembers that everything of these targets up to their versions is gone. Never lowers a version.
    async fn raise(&self, fences: &[Fence]) -> PortResult<()>;

    /// The versions remembered for these targets.
    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>>;
}
