//! A source of changes in memory.
//!
//! It behaves like MongoDB where it matters: events of a transaction share their cluster time, an update's document is
//! looked up on delivery, a token is valid while the history reaches back to it, a scan reads the current data instead
//! of a snapshot, values of different types sort as in MongoDB, and filters are evaluated by the same code as those of
//! the real adapter.

mod inspector;
mod judging;
mod order;
mod reading;
mod state;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bson::Bson;
use serde_json::Value;
use tidewheel_core::catalog::Selector;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{
    Coverage, Covered, Feed, FeedError, Judged, PortResult, Scan, Source, SourceFilter, SourceRow, StartAt,
};
use tidewheel_core::version::ClusterTime;
use tidewheel_stores::mongo::Query;
use tokio::sync::watch;

use judging::{Judge, matches};
use order::Id;
use reading::{FakeFeed, FakeScan};
use state::{State, row};

use super::faults::Faults;
use super::process::Process;
use crate::source_write::SourceWrite;

/// Interval of no-op entries in an idle source, which advance its time. Ten seconds, as in MongoDB.
const NOOP: Duration = Duration::from_secs(10);

/// The initial cluster time.
const CLOCK_START: ClusterTime = ClusterTime { seconds: 1_000, increment: 0 };

/// Databases in memory. Clones share them.
#[derive(Clone, Debug)]
pub struct FakeSource {
    shared: Arc<Shared>,
    /// The database of its writes.
    database: String,
    /// The collections that operators inspect.
    selector: Selector,
    faults: Faults,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Changes with every write and every fault, so that waiting feeds check again.
    moved: watch::Sender<u64>,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    idle: Duration,
    page: usize,
}

/// A copy of a [`FakeSource`]'s data, for [`FakeSource::restore`].
#[derive(Clone, Debug)]
pub struct Backup(State);

impl FakeSource {
    /// An empty deployment, for writes to this database. An idle feed returns after 20 ms; a page of a scan has up to
    /// 1000 rows.
    pub fn new(database: &str) -> Self {
        Self::with(database, Duration::from_millis(20), 1_000)
    }

    /// An empty deployment whose feeds return after `idle` without events, and whose scans have pages of `page` rows.
    pub fn with(database: &str, idle: Duration, page: usize) -> Self {
        let shared = Shared {
            state: Mutex::new(State { clock: CLOCK_START, ..State::default() }),
            moved: watch::Sender::new(0),
            settings: Settings { idle, page },
        };
        Self {
            shared: Arc::new(shared),
            database: database.to_owned(),
            selector: Selector::of_database::<&str>(database, &[]),
            faults: Faults::default(),
        }
    }

    /// The same deployment, for writes to another database.
    #[must_use]
    pub fn in_database(&self, database: &str) -> Self {
        let selector = Selector::of_database::<&str>(database, &[]);
        Self { database: database.to_owned(), selector, ..self.clone() }
    }

    /// The same database, with only these collections selected, for operators and for [`Self::covered`].
    #[must_use]
    pub fn selecting(&self, collections: &[&str]) -> Self {
        Self { selector: Selector::of_database(&self.database, collections), ..self.clone() }
    }

    /// The source restricted to its selected collections.
    pub fn covered(&self) -> Covered {
        Covered::by(Arc::new(self.clone()), self.selector.clone())
    }

    /// Commits one write.
    ///
    /// # Panics
    /// If MongoDB would reject it, as for all writes.
    pub fn write(&self, write: SourceWrite) {
        self.transaction(vec![write]);
    }

    /// Commits several writes at one cluster time.
    pub fn transaction(&self, writes: Vec<SourceWrite>) {
        let mut state = self.state();
        state.tick();
        for write in writes {
            state.apply(&self.database, write);
        }
        drop(state);
        self.wake();
    }

    /// Commits several writes at one cluster time, followed by a change of a document's shard key: it is deleted on one
    /// shard and inserted on another, in either order of events.
    pub fn change_shard_key(&self, before: Vec<SourceWrite>, collection: &str, document: Value, insert_first: bool) {
        let mut state = self.state();
        state.tick();
        for write in before {
            state.apply(&self.database, write);
        }
        state.move_to_shard(&self.namespace(collection), document, insert_first);
        drop(state);
        self.wake();
    }

    /// Inserts a document given as extended JSON.
    pub fn insert(&self, collection: &str, document: Value) {
        self.write(SourceWrite::Insert { collection: collection.to_owned(), document });
    }

    /// Replaces the document with the same `_id`.
    pub fn replace(&self, collection: &str, document: Value) {
        self.write(SourceWrite::Replace { collection: collection.to_owned(), document });
    }

    /// Deletes the document with this `_id`.
    pub fn delete(&self, collection: &str, id: Value) {
        self.write(SourceWrite::Delete { collection: collection.to_owned(), id });
    }

    /// All rows of a collection: the expected content of its index.
    pub fn rows(&self, collection: &str) -> Vec<SourceRow> {
        let (state, judge) = (self.state(), Judge::default());
        let documents = state.collections.get(&self.namespace(collection)).into_iter().flatten();
        documents.map(|(id, document)| row(id, document, &judge)).collect()
    }

    /// The same database, with the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { faults: self.faults.used_by(process), ..self.clone() }
    }

    /// The faults of its calls: `now`, `check`, `collections`, `estimate`, `open`, `scan`, `existing`, `fetch`, `history`
    /// and `passed_over`, and for an open feed and an open scan `next` and `page`.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Number of opened feeds.
    pub fn opened(&self) -> u64 {
        self.state().opened
    }

    /// Returns the largest number of documents fetched in one call since the last call of this method.
    pub fn largest_fetch(&self) -> usize {
        std::mem::take(&mut self.state().largest)
    }

    /// Removes the history so far, like an oplog that is too small. The clock advances, as MongoDB's always does: a
    /// feed can be opened at the current time.
    pub fn lose_history(&self) {
        let mut state = self.state();
        state.history = state.log.len();
        state.tick();
    }

    /// Advances the source's clock, as writes to other collections do.
    pub fn pass(&self, time: Duration) {
        let mut state = self.state();
        state.clock.seconds += u32::try_from(time.as_secs()).expect("a test ends before the universe");
        state.clock.increment = 0;
        state.tick();
    }

    /// A copy of the data and the clock.
    pub fn backup(&self) -> Backup {
        Backup(self.state().clone())
    }

    /// Restores a copy: the clock goes back, and tokens issued since are unknown.
    pub fn restore(&self, backup: Backup) {
        let mut state = self.state();
        *state = backup.0;
        drop(state);
        self.wake();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().expect("no test panics while it holds the state")
    }

    fn wake(&self) {
        self.shared.moved.send_modify(|count| *count += 1);
    }

    fn namespace(&self, collection: &str) -> Namespace {
        Namespace::new(&self.database, collection)
    }
}

#[async_trait]
impl Source for FakeSource {
    async fn now(&self) -> PortResult<ClusterTime> {
        let now = || {
            let mut state = self.state();
            if state.ticked.is_none_or(|ticked| ticked.elapsed() >= NOOP) {
                state.tick();
            }
            Ok(state.clock)
        };
        self.faults().around("now", now).await
    }

    async fn check(&self, coverage: &Coverage) -> PortResult<()> {
        self.faults().around("check", || Judge::of(&coverage.filters).map(drop)).await
    }

    fn scope(&self, coverage: &Coverage) -> String {
        let mut selectors: Vec<String> = coverage.selectors.iter().map(Selector::identity).collect();
        selectors.sort_unstable();
        selectors.dedup();
        selectors.join(" ")
    }

    async fn open_narrow(
        &self,
        coverage: &Arc<Coverage>,
        start: StartAt,
        first: usize,
    ) -> Result<Box<dyn Feed>, FeedError> {
        self.faults().around("open", || Ok(())).await?;
        let judge = Judge::of(&coverage.filters)?;
        let mut state = self.state();
        let position = state.position(&start)?;
        state.opened += 1;
        drop(state);
        let (coverage, moved) = (Arc::clone(coverage), self.shared.moved.subscribe());
        Ok(Box::new(FakeFeed { source: self.clone(), coverage, judge, position, most: first.max(1), moved }))
    }

    async fn collections(&self, selector: &Selector) -> PortResult<Vec<Namespace>> {
        let selected = || {
            let state = self.state();
            Ok(state.collections.keys().filter(|namespace| selector.covers(namespace)).cloned().collect())
        };
        self.faults().around("collections", selected).await
    }

    async fn estimate(&self, namespace: &Namespace) -> PortResult<u64> {
        let count = || {
            let state = self.state();
            Ok(state.collections.get(namespace).map_or(0, |documents| documents.len() as u64))
        };
        self.faults().around("estimate", count).await
    }

    async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        judged: &Judged,
    ) -> PortResult<Box<dyn Scan>> {
        self.faults().around("scan", || Ok(())).await?;
        if at_least > self.state().clock {
            return Err(PortError::transient(format!("{at_least:?} is in the future")));
        }
        let after = match after {
            None => None,
            Some(key) => Some(Id(serde_json::from_str(key)
                .ok()
                .and_then(|value: Value| Bson::try_from(value).ok())
                .ok_or_else(|| PortError::fatal(format!("{key:?} is not a valid key")))?)),
        };
        let (judge, namespace) = (Judge::new(judged)?, namespace.clone());
        Ok(Box::new(FakeScan { source: self.clone(), namespace, after, judge }))
    }

    async fn existing(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
        filter: Option<&SourceFilter>,
    ) -> PortResult<Vec<bool>> {
        let existing = || {
            let query = filter.map(Query::of).transpose()?;
            let (state, judge) = (self.state(), Judge::default());
            if at_least > state.clock {
                return Err(PortError::transient(format!("{at_least:?} is in the future")));
            }
            let documents = state.collections.get(namespace).into_iter().flatten();
            let selected =
                documents.filter(|(_, document)| query.as_ref().is_none_or(|query| matches(query, document)));
            let there: HashSet<String> = selected.map(|(id, document)| row(id, document, &judge).key).collect();
            Ok(keys.iter().map(|key| there.contains(key)).collect())
        };
        self.faults().around("existing", existing).await
    }

    async fn fetch(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
        judged: &Judged,
    ) -> PortResult<Vec<SourceRow>> {
        let fetch = || {
            let judge = Judge::new(judged)?;
            let mut state = self.state();
            state.largest = state.largest.max(keys.len());
            if at_least > state.clock {
                return Err(PortError::transient(format!("{at_least:?} is in the future")));
            }
            let documents = state.collections.get(namespace).into_iter().flatten();
            let read = documents.filter(|(_, document)| judge.has_filters() || judge.admits(document));
            let rows = read.map(|(id, document)| row(id, document, &judge));
            Ok(rows.filter(|row| keys.contains(&row.key)).collect())
        };
        self.faults().around("fetch", fetch).await
    }
}
