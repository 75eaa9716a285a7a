//! The source: its change stream, and scans of collections.

use async_trait::async_trait;

use super::PortResult;
use crate::change::Operation;
use crate::error::PortError;
use crate::identity::Namespace;
use crate::version::ClusterTime;

/// The resume token of a change stream: opaque to all but the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResumeToken(pub String);

/// A condition on documents, in the source's own query language. Opaque to all but the source, which validates it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFilter(pub String);

/// The start position of the change stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartAt {
    /// Right after this token.
    Token(ResumeToken),
    /// At this time, inclusive.
    Time(ClusterTime),
}

/// One event of the source, in the order in which the source committed them.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceEvent {
    /// The operation. Never [`Operation::Read`].
    pub operation: Operation,
    /// The namespace.
    pub namespace: Namespace,
    /// The document's [key](crate::key); empty for a drop.
    pub key: String,
    /// `_id` in relaxed extended JSON; empty for a drop.
    pub id: String,
    /// The fields of its shard key, in canonical extended JSON. Empty if `_id` alone identifies the document.
    pub shard: String,
    /// The cluster time. Several events may share it.
    pub time: ClusterTime,
    /// The commit time by the source's wall clock, in milliseconds since the Unix epoch.
    pub committed_at: u64,
    /// The document. `None` for a delete and a drop, and for an update whose document was already deleted when the
    /// source looked it up: the event of its deletion follows.
    pub document: Option<Readable>,
}

/// A document in relaxed extended JSON, or the reason why it cannot be read.
pub type Readable = Result<String, String>;

/// A batch of events.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedBatch {
    /// The events, possibly none: an idle source advances its token too.
    pub events: Vec<SourceEvent>,
    /// Collections that entered the selection with their documents, by a rename: no events cover those documents, so
    /// they have to be scanned. Rows of that scan need a time after these events, or a drop of the collection that was
    /// replaced would fence them off: wait until [`Source::now`] has passed them.
    pub appeared: Vec<Namespace>,
    /// Resuming here returns exactly the events after these.
    pub token: ResumeToken,
    /// Every event committed at or before this time is in this batch or in an earlier one. An idle source advances it
    /// too; it never goes backwards unless the source's own time does. Zero if unknown.
    pub through: ClusterTime,
}

/// One row read by a snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRow {
    /// The document's [key](crate::key).
    pub key: String,
    /// `_id` in relaxed extended JSON.
    pub id: String,
    /// The document.
    pub document: Readable,
}

/// The reason why a change stream cannot be opened or has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeedError {
    /// The source no longer has the history after the token: changes were missed.
    #[error("the source no longer has the changes after the saved position: {0}")]
    HistoryLost(String),
    /// Any other error.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// The selected source collections.
#[async_trait]
pub trait Source: Send + Sync {
    /// The source's current cluster time: everything committed before is visible to a scan that starts at it.
    async fn now(&self) -> PortResult<ClusterTime>;

    /// Identifies the filter of the change stream (its pipeline): a saved token is only valid for the same selection.
    fn selection(&self) -> String;

    /// The database of the collections.
    fn database(&self) -> &str;

    /// Opens the change stream. The next batch is prefetched while the caller processes the current one.
    async fn open(&self, start: StartAt) -> Result<Box<dyn Feed>, FeedError> {
        self.open_narrow(start, usize::MAX).await
    }

    /// Like [`Self::open`], with at most `first` events in the first batch, and at most twice as many in each later
    /// batch. Batches hold more where no token between two events can be saved.
    async fn open_narrow(&self, start: StartAt, first: usize) -> Result<Box<dyn Feed>, FeedError>;

    /// The existing selected collections, sorted by name.
    async fn collections(&self) -> PortResult<Vec<Namespace>>;

    /// Estimated number of documents of a collection, for progress reports.
    async fn estimate(&self, namespace: &Namespace) -> PortResult<u64>;

    /// Reads a collection in the order of `_id`, after the row with this key if one is given, including everything
    /// committed at or before `at_least`. With a filter, only matching documents; an invalid one fails as fatal.
    async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        filter: Option<&SourceFilter>,
    ) -> PortResult<Box<dyn Scan>>;

    /// Whether each of these documents, given by their keys, exists, including everything committed at or before
    /// `at_least`. Always false for a collection that is not selected.
    async fn existing(&self, namespace: &Namespace, keys: &[String], at_least: ClusterTime) -> PortResult<Vec<bool>>;

    /// The existing documents among these, given by their keys, including everything committed at or before `at_least`,
    /// in any order. Empty for a collection that is not selected. All are returned at once: request no more than fit
    /// into memory.
    async fn fetch(&self, namespace: &Namespace, keys: &[String], at_least: ClusterTime) -> PortResult<Vec<SourceRow>>;
}

/// An open change stream. Dropping it closes it.
#[async_trait]
pub trait Feed: Send {
    /// The events since the last call; waits about a second for the first, then returns the new token without events.
    /// Cancel-safe: a dropped call loses nothing.
    async fn next(&mut self) -> Result<FeedBatch, FeedError>;
}

/// Reads a collection page by page.
#[async_trait]
pub trait Scan: Send {
    /// The next rows; empty at the end. Cancel-safe.
    async fn next(&mut self) -> PortResult<Vec<SourceRow>>;
}
