//! MongoDB: a feed of what changes, and scans of what is there.

use async_trait::async_trait;

use super::PortResult;
use crate::change::Operation;
use crate::error::PortError;
use crate::identity::Namespace;
use crate::version::ClusterTime;

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
    /// What happened. [`Operation::Read`] does not occur in a feed.
    pub operation: Operation,
    /// Where.
    pub namespace: Namespace,
    /// The document's [key](crate::key); empty for a drop.
    pub key: String,
    /// `_id` in relaxed extended JSON; empty for a drop.
    pub id: String,
    /// What else tells the document apart: the fields of its shard key, in canonical extended JSON. Empty where `_id` alone does.
    pub shard: String,
    /// When, in the source's logical time. Several events may share it.
    pub time: ClusterTime,
    /// When, by the source's wall clock, in milliseconds since the Unix epoch.
    pub committed_at: u64,
    /// The document. `None` for a delete and a drop, and for an update whose document was gone when the source looked it up: the
    /// event of its deletion follows.
    pub document: Option<Readable>,
}

/// A document in relaxed extended JSON, or why it cannot be read.
pub type Readable = Result<String, String>;

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
    /// Every event committed at this time or before is in this batch or in an earlier one. An idle source moves it forward too;
    /// never backwards, but for a source whose own time does. Zero where the source cannot tell.
    pub through: ClusterTime,
}

/// One row that a snapshot has read.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRow {
    /// The document's [key](crate::key).
    pub key: String,
    /// `_id` in relaxed extended JSON.
    pub id: String,
    /// The document.
    pub document: Readable,
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

    /// The database that the collections are in.
    fn database(&self) -> &str;

    /// Opens the feed. One batch ahead is fetched while the caller works on the last.
    async fn open(&self, start: StartAt) -> Result<Box<dyn Feed>, FeedError>;

    /// The collections that exist now and are selected, sorted by name.
    async fn collections(&self) -> PortResult<Vec<Namespace>>;

    /// About how many documents a collection has, for progress.
    async fn estimate(&self, namespace: &Namespace) -> PortResult<u64>;

    /// Reads a collection in the order of `_id`, after the row with this key if one is given, including
    /// everything committed at `at_least` or before. With a filter, a query of MongoDB in extended JSON, only what matches it.
    async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        filter: Option<&str>,
    ) -> PortResult<Box<dyn Scan>>;

    /// Which of these documents, given by their keys, exist, as of everything committed at `at_least` or before.
    /// None of a collection that is not selected does.
    async fn existing(&self, namespace: &Namespace, keys: &[String], at_least: ClusterTime) -> PortResult<Vec<bool>>;

    /// Those of these documents, given by their keys, that exist, as of everything committed at `at_least` or before,
    /// in any order. None of a collection that is not selected. All of them come at once: ask for no more than fit into
    /// memory.
    async fn fetch(&self, namespace: &Namespace, keys: &[String], at_least: ClusterTime) -> PortResult<Vec<SourceRow>>;
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
