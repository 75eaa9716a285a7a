//! A source of changes in memory.
//!
//! It behaves like MongoDB where it matters: events of a transaction share their cluster time, an update's document is
//! looked up on delivery, a token is valid while the history reaches back to it, a scan reads the current data instead
//! of a snapshot, and values of different types sort as in MongoDB.

mod inspector;
mod order;
mod query;
mod state;

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bson::Bson;
use serde_json::Value;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Feed, FeedBatch, FeedError, PortResult, Scan, Source, SourceFilter, SourceRow, StartAt};
use tidewheel_core::version::ClusterTime;
use tokio::sync::watch;

use order::Id;
use query::Query;
use state::{State, row};

use super::faults::Faults;
use super::process::Process;
use crate::source_write::SourceWrite;

/// Interval of no-op entries in an idle source, which advance its time. Ten seconds, as in MongoDB.
const NOOP: Duration = Duration::from_secs(10);

/// The initial cluster time.
const CLOCK_START: ClusterTime = ClusterTime { seconds: 1_000, increment: 0 };

/// A database in memory. Clones share it.
#[derive(Clone, Debug)]
pub struct FakeSource {
    shared: Arc<Shared>,
    database: String,
    /// Empty: every collection.
    selected: Vec<String>,
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
    /// An empty database with all collections selected. An idle feed returns after 20 ms; a page of a scan has up to
    /// 1000 rows.
    pub fn new(database: &str) -> Self {
        Self::with(database, Duration::from_millis(20), 1_000)
    }

    /// An empty database whose feeds return after `idle` without events, and whose scans have pages of `page` rows.
    pub fn with(database: &str, idle: Duration, page: usize) -> Self {
        let shared = Shared {
            state: Mutex::new(State { clock: CLOCK_START, ..State::default() }),
            moved: watch::Sender::new(0),
            settings: Settings { idle, page },
        };
        Self {
            shared: Arc::new(shared),
            database: database.to_owned(),
            selected: Vec::new(),
            faults: Faults::default(),
        }
    }

    /// The same database, with only these collections selected.
    #[must_use]
    pub fn selecting(&self, collections: &[&str]) -> Self {
        Self { selected: collections.iter().map(ToString::to_string).collect(), ..self.clone() }
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
            state.apply(write);
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
            state.apply(write);
        }
        state.move_to_shard(collection, document, insert_first);
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
        self.state().collections.get(collection).into_iter().flatten().map(|(id, document)| row(id, document)).collect()
    }

    /// The same database, with the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { faults: self.faults.used_by(process), ..self.clone() }
    }

    /// The faults of its calls: `now`, `collections`, `estimate`, `open`, `scan`, `existing`, `fetch`, `history` and
    /// `passed_over`, and for an open feed and an open scan `next` and `page`.
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

    fn selects(&self, collection: &str) -> bool {
        self.selected.is_empty() || self.selected.iter().any(|name| name == collection)
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

    fn selection(&self) -> String {
        format!("{}{:?}", self.database, self.selected)
    }

    fn database(&self) -> &str {
        &self.database
    }

    async fn open_narrow(&self, start: StartAt, first: usize) -> Result<Box<dyn Feed>, FeedError> {
        self.faults().around("open", || Ok(())).await?;
        let mut state = self.state();
        let position = state.position(&start)?;
        state.opened += 1;
        drop(state);
        let moved = self.shared.moved.subscribe();
        Ok(Box::new(FakeFeed { source: self.clone(), position, most: first.max(1), moved }))
    }

    async fn collections(&self) -> PortResult<Vec<Namespace>> {
        let selected = || {
            let state = self.state();
            let names = state.collections.keys().filter(|name| self.selects(name));
            Ok(names.map(|name| Namespace::new(&self.database, name)).collect())
        };
        self.faults().around("collections", selected).await
    }

    async fn estimate(&self, namespace: &Namespace) -> PortResult<u64> {
        let count = || {
            let state = self.state();
            Ok(state.collections.get(namespace.collection()).map_or(0, |documents| documents.len() as u64))
        };
        self.faults().around("estimate", count).await
    }

    async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        filter: Option<&SourceFilter>,
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
        let query = filter.map(|filter| Query::read(&filter.0)).transpose()?.unwrap_or_default();
        Ok(Box::new(FakeScan { source: self.clone(), collection: namespace.collection().to_owned(), after, query }))
    }

    async fn existing(&self, namespace: &Namespace, keys: &[String], at_least: ClusterTime) -> PortResult<Vec<bool>> {
        let existing = || {
            let state = self.state();
            if at_least > state.clock {
                return Err(PortError::transient(format!("{at_least:?} is in the future")));
            }
            let ours = namespace.database() == self.database && self.selects(namespace.collection());
            let documents = state.collections.get(namespace.collection()).filter(|_| ours);
            let there: std::collections::HashSet<String> =
                documents.into_iter().flatten().map(|(id, document)| row(id, document).key).collect();
            Ok(keys.iter().map(|key| there.contains(key)).collect())
        };
        self.faults().around("existing", existing).await
    }

    async fn fetch(&self, namespace: &Namespace, keys: &[String], at_least: ClusterTime) -> PortResult<Vec<SourceRow>> {
        let fetch = || {
            let mut state = self.state();
            state.largest = state.largest.max(keys.len());
            if at_least > state.clock {
                return Err(PortError::transient(format!("{at_least:?} is in the future")));
            }
            let ours = namespace.database() == self.database && self.selects(namespace.collection());
            let documents = state.collections.get(namespace.collection()).filter(|_| ours);
            let rows = documents.into_iter().flatten().map(|(id, document)| row(id, document));
            Ok(rows.filter(|row| keys.contains(&row.key)).collect())
        };
        self.faults().around("fetch", fetch).await
    }
}

struct FakeFeed {
    source: FakeSource,
    position: usize,
    /// Maximum events in the next batch.
    most: usize,
    moved: watch::Receiver<u64>,
}

#[async_trait]
impl Feed for FakeFeed {
    async fn next(&mut self) -> Result<FeedBatch, FeedError> {
        let deadline = tokio::time::Instant::now() + self.source.shared.settings.idle;
        loop {
            self.moved.mark_unchanged();
            let (batch, position) = {
                let state = self.source.state();
                if !(state.history..=state.log.len()).contains(&self.position) {
                    return Err(FeedError::HistoryLost(format!("position {} is not in the history", self.position)));
                }
                state.batch(&self.source, self.position, self.most)
            };
            let idle = batch.events.is_empty() && batch.appeared.is_empty();
            if !idle || tokio::time::Instant::now() >= deadline {
                // A batch with a lost response stays lost, as with a cursor: only a new feed returns it again.
                let (moved, most) = (&mut self.position, &mut self.most);
                let give = || {
                    *moved = position;
                    *most = most.saturating_mul(if idle { 1 } else { 2 });
                    Ok(batch)
                };
                return Ok(self.source.faults().around("next", give).await?);
            }
            // Checks again either way; the sender lives as long as the source, which this feed holds.
            let _ = tokio::time::timeout_at(deadline, self.moved.changed()).await;
        }
    }
}

struct FakeScan {
    source: FakeSource,
    collection: String,
    after: Option<Id>,
    query: Query,
}

#[async_trait]
impl Scan for FakeScan {
    async fn next(&mut self) -> PortResult<Vec<SourceRow>> {
        use std::ops::Bound::{Excluded, Unbounded};
        let after = &mut self.after;
        let page = || {
            let state = self.source.state();
            let Some(documents) = state.collections.get(&self.collection) else { return Ok(Vec::new()) };
            let from = after.clone().map_or(Unbounded, Excluded);
            let matching = documents.range((from, Unbounded)).filter(|(_, document)| self.query.matches(document));
            let page: Vec<_> = matching.take(self.source.shared.settings.page).collect();
            let rows = page.iter().map(|(id, document)| row(id, document)).collect();
            if let Some((id, _)) = page.last() {
                *after = Some((*id).clone());
            }
            Ok(rows)
        };
        self.source.faults().around("page", page).await
    }
}
