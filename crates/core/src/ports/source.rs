//! The source: its change stream, and scans of collections.
//!
//! What is read, and the conditions that are judged, belong to the [`Coverage`] of a call: a source itself selects
//! nothing.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::PortResult;
use super::coverage::Coverage;
use crate::catalog::Selector;
use crate::change::Operation;
use crate::error::PortError;
use crate::identity::Namespace;
use crate::version::ClusterTime;

/// The resume token of a change stream: opaque to all but the source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResumeToken(pub String);

/// A condition on documents, in the source's own query language. Opaque to all but the source, which validates it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceFilter(pub String);

/// The conditions of a scan or a lookup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judged {
    /// The conditions that are judged for each row. Their places are the numbers of the [`Verdicts`].
    pub filters: Vec<SourceFilter>,
    /// Rows are returned only for documents that match this, as the source itself compares. With `filters`, it only
    /// saves reading: the source ignores it where its comparison may differ from the judged one.
    pub pushed: Option<SourceFilter>,
}

impl Judged {
    /// Judges nothing, and reads only matching documents; all of them without a condition.
    pub fn only(pushed: Option<SourceFilter>) -> Self {
        Self { filters: Vec::new(), pushed }
    }
}

/// For each filter of a [`Coverage`] or [`Judged`]: whether the document matches. Empty if there is no document, or none
/// that can be read. Without allocation up to 64 filters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    count: usize,
    first: u64,
    rest: Vec<u64>,
}

impl Verdicts {
    /// The verdict on this filter; `None` if the document was not judged.
    pub fn get(&self, number: usize) -> Option<bool> {
        if number >= self.count {
            return None;
        }
        let word = if number < 64 { self.first } else { *self.rest.get(number / 64 - 1)? };
        Some((word >> (number % 64)) & 1 == 1)
    }

    /// Number of filters judged.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether no filter was judged.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl FromIterator<bool> for Verdicts {
    fn from_iter<I: IntoIterator<Item = bool>>(matches: I) -> Self {
        let mut verdicts = Self::default();
        for matches in matches {
            let (word, bit) = (verdicts.count / 64, u64::from(matches) << (verdicts.count % 64));
            if word == 0 {
                verdicts.first |= bit;
            } else {
                verdicts.rest.resize(word, 0);
                verdicts.rest[word - 1] |= bit;
            }
            verdicts.count += 1;
        }
        verdicts
    }
}

/// The paths of the document that an event changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Touched {
    /// Possibly all: a replacement, an insert into a sharded collection, and whenever it is unknown.
    #[default]
    All,
    /// None that an earlier version of the document had: an insert into an unsharded collection.
    Nothing,
    /// These, with dots between names. Elements of arrays by their index.
    Paths(Vec<String>),
}

impl Touched {
    /// Whether a condition on these paths may have changed: if a touched path is part of one of them, or contains it.
    /// Array indexes are ignored, because a path without them addresses all elements.
    pub fn concerns(&self, paths: &[String]) -> bool {
        match self {
            Self::All => true,
            Self::Nothing => false,
            Self::Paths(touched) => touched.iter().any(|touched| paths.iter().any(|path| overlap(touched, path))),
        }
    }
}

/// Whether one of the paths begins with the other, apart from array indexes.
fn overlap(a: &str, b: &str) -> bool {
    fn names(path: &str) -> impl Iterator<Item = &str> {
        path.split('.').filter(|name| name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_digit()))
    }
    names(a).zip(names(b)).all(|(a, b)| a == b)
}

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
    /// The verdicts of the coverage's filters on that document.
    pub verdicts: Verdicts,
    /// The paths that the event changed.
    pub touched: Touched,
}

/// A document in relaxed extended JSON, or the reason why it cannot be read.
pub type Readable = Result<String, String>;

/// A batch of events.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedBatch {
    /// The events, possibly none: an idle source advances its token too.
    pub events: Vec<SourceEvent>,
    /// Collections that entered the coverage with their documents, by a rename: no events cover those documents, so
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
    /// The verdicts of the judged filters on it.
    pub verdicts: Verdicts,
}

impl SourceRow {
    /// A row without verdicts.
    pub fn new(key: impl Into<String>, id: impl Into<String>, document: Readable) -> Self {
        Self { key: key.into(), id: id.into(), document, verdicts: Verdicts::default() }
    }
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

/// The source databases.
#[async_trait]
pub trait Source: Send + Sync {
    /// The source's current cluster time: everything committed before is visible to a scan that starts at it.
    async fn now(&self) -> PortResult<ClusterTime>;

    /// Checks that the coverage can be read.
    ///
    /// # Errors
    /// Fatal, with the name of what is invalid: an unsupported filter, a collection without a change stream, a missing
    /// right.
    async fn check(&self, coverage: &Coverage) -> PortResult<()>;

    /// Identifies the events of the change stream of this coverage: a saved token is only valid for the same scope.
    /// Filters do not change it.
    fn scope(&self, coverage: &Coverage) -> String;

    /// Opens the change stream. The next batch is prefetched while the caller processes the current one.
    async fn open(&self, coverage: &Arc<Coverage>, start: StartAt) -> Result<Box<dyn Feed>, FeedError> {
        self.open_narrow(coverage, start, usize::MAX).await
    }

    /// Like [`Self::open`], with at most `first` events in the first batch, and at most twice as many in each later
    /// batch. Batches hold more where no token between two events can be saved.
    async fn open_narrow(
        &self,
        coverage: &Arc<Coverage>,
        start: StartAt,
        first: usize,
    ) -> Result<Box<dyn Feed>, FeedError>;

    /// The existing selected collections, sorted by name.
    async fn collections(&self, selector: &Selector) -> PortResult<Vec<Namespace>>;

    /// Estimated number of documents of a collection, for progress reports.
    async fn estimate(&self, namespace: &Namespace) -> PortResult<u64>;

    /// Documents of a collection, for estimates: at most `most`, each judged by the filters. A source may choose them at
    /// random, some of them twice, and may return fewer if they are large; by default it returns the first ones.
    async fn sample(&self, namespace: &Namespace, most: usize, filters: &[SourceFilter]) -> PortResult<Vec<SourceRow>> {
        let judged = Judged { filters: filters.to_vec(), pushed: None };
        let mut scan = self.scan(namespace, None, ClusterTime::default(), &judged).await?;
        let mut rows = Vec::new();
        while rows.len() < most {
            let page = scan.next().await?;
            if page.is_empty() {
                break;
            }
            rows.extend(page);
        }
        rows.truncate(most);
        Ok(rows)
    }

    /// Reads a collection in the order of `_id`, after the row with this key if one is given, including everything
    /// committed at or before `at_least`. An invalid condition fails as fatal.
    async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        judged: &Judged,
    ) -> PortResult<Box<dyn Scan>>;

    /// Whether each of these documents, given by their keys, exists, and matches the filter if there is one, including
    /// everything committed at or before `at_least`.
    async fn existing(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
        filter: Option<&SourceFilter>,
    ) -> PortResult<Vec<bool>>;

    /// The existing documents among these, given by their keys, including everything committed at or before `at_least`,
    /// in any order. All are returned at once: request no more than fit into memory.
    async fn fetch(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
        judged: &Judged,
    ) -> PortResult<Vec<SourceRow>>;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_returned_by_number() {
        for count in [0, 1, 63, 64, 65, 128, 200] {
            let matches = |number: usize| number % 3 == 1 || number == count - 1;
            let verdicts: Verdicts = (0..count).map(matches).collect();
            assert_eq!((verdicts.len(), verdicts.is_empty()), (count, count == 0));
            assert!((0..count).all(|number| verdicts.get(number) == Some(matches(number))), "{count}");
            assert_eq!(verdicts.get(count), None);
        }
    }

    #[test]
    fn touched_path_concerns_what_it_contains_and_what_contains_it() {
        let concerns = |touched: &str, path: &str| Touched::Paths(vec![touched.into()]).concerns(&[path.into()]);
        for (touched, path) in
            [("a", "a"), ("a", "a.b"), ("a.b", "a"), ("a.0.b", "a.b"), ("a.b", "a.3.b"), ("a.7", "a")]
        {
            assert!(concerns(touched, path), "{touched} {path}");
        }
        for (touched, path) in [("a", "b"), ("a.b", "a.c"), ("ab", "a"), ("a.0.b", "a.c")] {
            assert!(!concerns(touched, path), "{touched} {path}");
        }
    }

    #[test]
    fn unknown_changes_concern_every_condition() {
        assert!(Touched::All.concerns(&["a".into()]));
        assert!(!Touched::Nothing.concerns(&["a".into()]));
        assert!(!Touched::Paths(Vec::new()).concerns(&["a".into()]));
        assert_eq!(Touched::default(), Touched::All);
    }
}
