//! The sources of replayed changes, page by page.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tidewheel_core::change::{Change, Operation, Route};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::key;
use tidewheel_core::ports::{
    Covered, EntryId, Extent, Feed, FeedError, PortResult, Scan, SourceFilter, SourceRow, StartAt, StreamLog,
};
use tidewheel_core::time::now_ms;
use tidewheel_core::version::{ClusterTime, Version};

use super::{Marked, Progress};
use crate::carries::Carries;
use crate::newest::{newest, refuse_newer};
use crate::producer;

/// Number of consecutive empty batches, each after a wait of a second except the first, after which a feed has caught
/// up.
const IDLE: u32 = 3;

/// Entries per page.
const PAGE: usize = 500;

/// Changes to replay. A failed call may be retried.
pub struct Pages {
    from: From,
    progress: Progress,
}

enum From {
    Entries(Entries<Change>),
    Rows {
        source: Covered,
        version: Version,
        left: Vec<(Namespace, Option<String>)>,
        scan: Option<Box<dyn Scan>>,
        filter: Option<SourceFilter>,
    },
    History {
        source: Covered,
        feed: Option<Box<dyn Feed>>,
        position: producer::Position,
        until: ClusterTime,
        replay: u32,
        idle: u32,
        /// A batch that was read, until the source has reported which of its documents still exist.
        read: Option<(u64, Vec<Change>, u64)>,
    },
}

impl Pages {
    pub(super) fn entries(entries: Entries<Change>) -> Self {
        let of = entries.of();
        Self::new(From::Entries(entries), of)
    }

    pub(super) fn rows(
        source: Covered,
        version: Version,
        collections: Vec<Namespace>,
        filter: Option<SourceFilter>,
        of: Option<u64>,
    ) -> Self {
        let left = collections.into_iter().rev().map(|namespace| (namespace, None)).collect();
        Self::new(From::Rows { source, version, left, scan: None, filter }, of)
    }

    pub(super) async fn history(
        source: Covered,
        epoch: u32,
        since: ClusterTime,
        until: ClusterTime,
        replay: u32,
    ) -> PortResult<Self> {
        let feed = source.open(StartAt::Time(since)).await.map_err(lost)?;
        let position = producer::Position::begin(epoch, since);
        let from = From::History { source, feed: Some(feed), position, until, replay, idle: 0, read: None };
        Ok(Self::new(from, None))
    }

    fn new(from: From, of: Option<u64>) -> Self {
        Self { from, progress: Progress { of, ..Progress::default() } }
    }

    /// The progress so far.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// The next page; `None` at the end. A page may be empty.
    pub async fn next(&mut self) -> PortResult<Option<Vec<Change>>> {
        let Some((read, changes, skipped)) = self.from.next().await? else { return Ok(None) };
        self.progress.read += read;
        self.progress.skipped += skipped;
        self.progress.replayed += changes.len() as u64;
        Ok(Some(changes))
    }
}

/// The number of entries or rows read, the records, and the number of unreadable ones; `None` at the end.
type Read<T> = Option<(u64, Vec<T>, u64)>;

/// The entries of a stage after a position, up to its newest entry at the start: the newest record of each document per
/// page, marked as replayed.
pub(super) struct Entries<T> {
    stream_log: Arc<dyn StreamLog<T>>,
    after: EntryId,
    extent: Extent,
    from_the_first: bool,
    replay: u32,
}

impl<T: Carries + Marked> Entries<T> {
    pub(super) async fn begin(stream_log: Arc<dyn StreamLog<T>>, after: EntryId, replay: u32) -> PortResult<Self> {
        let extent = stream_log.extent().await?;
        Ok(Self { stream_log, from_the_first: after == EntryId::zero(), after, extent, replay })
    }

    /// The number of entries, if known.
    pub(super) fn of(&self) -> Option<u64> {
        self.from_the_first.then_some(self.extent.entries)
    }

    /// The next page. A failed call may be retried.
    pub(super) async fn next(&mut self, max: usize) -> PortResult<Read<T>> {
        let mut page = self.stream_log.page(&self.after, max).await?;
        page.retain(|delivery| delivery.id <= self.extent.last);
        refuse_newer(&page)?;
        let Some(last) = page.last() else { return Ok(None) };
        self.after = last.id.clone();
        let (read, mut letters) = (page.len() as u64, Vec::new());
        let mut records: Vec<T> = newest(page, &mut letters).into_iter().map(|kept| kept.record).collect();
        records.iter_mut().for_each(|record| record.mark(self.replay));
        Ok(Some((read, records, letters.len() as u64)))
    }
}

impl From {
    async fn next(&mut self) -> PortResult<Read<Change>> {
        match self {
            Self::Entries(entries) => entries.next(PAGE).await,
            Self::Rows { source, version, left, scan, filter } => loop {
                let Some((namespace, after)) = left.last_mut() else { return Ok(None) };
                let open = match scan {
                    Some(open) => open,
                    None => {
                        let begin = source.scan(namespace, after.as_deref(), version.time, filter.as_ref());
                        scan.insert(begin.await?)
                    }
                };
                let rows = match open.next().await {
                    Ok(rows) => rows,
                    Err(error) => {
                        *scan = None;
                        return Err(error);
                    }
                };
                let Some(last) = rows.last() else {
                    *scan = None;
                    left.pop();
                    continue;
                };
                *after = Some(last.key.clone());
                let read = rows.len() as u64;
                let change = |row: SourceRow| {
                    Some(Change {
                        operation: Operation::Read,
                        namespace: namespace.clone(),
                        document: Some(row.document.ok().filter(|_| row.key.len() <= key::MAX_BYTES)?),
                        key: row.key,
                        id: row.id,
                        version: *version,
                        committed_at: now_ms(),
                        route: Route::Plain,
                    })
                };
                let changes: Vec<Change> = rows.into_iter().filter_map(change).collect();
                let skipped = read - changes.len() as u64;
                return Ok(Some((read, changes, skipped)));
            },
            Self::History { source, feed, position, until, replay, idle, read } => {
                if read.is_none() {
                    let Some(open) = feed else { return Ok(None) };
                    let batch = open.next().await.map_err(lost)?;
                    *idle = if batch.events.is_empty() { *idle + 1 } else { 0 };
                    let caught_up = *idle == IDLE || batch.events.last().is_some_and(|event| event.time > *until);
                    let count = batch.events.len() as u64;
                    let doubtful = position.doubtful(&batch);
                    let time = batch.events.first().map_or_else(ClusterTime::default, |event| event.time);
                    let present = match doubtful.is_empty() {
                        true => HashSet::new(),
                        false => producer::present(source, doubtful, time).await?,
                    };
                    let (mut changes, skipped) = position.follow(batch, &present);
                    changes.iter_mut().for_each(|change| change.mark(*replay));
                    if caught_up {
                        *feed = None;
                    }
                    *read = Some((count, changes, skipped));
                }
                let gone = match read {
                    Some((_, changes, _)) => gone(source, changes).await?,
                    None => HashSet::new(),
                };
                let (count, mut changes, skipped) = read.take().unwrap_or_default();
                changes.retain(|change| change.document.is_none() || !gone.contains(&change.document_id()));
                Ok(Some((count, changes, skipped)))
            }
        }
    }
}

/// The documents of these changes that no longer exist in the source. Their older states must not come back: their
/// tombstones may have been collected, and an interrupted replay never reaches the deletion itself.
async fn gone(source: &Covered, changes: &[Change]) -> PortResult<HashSet<DocumentId>> {
    let mut keys: BTreeMap<&Namespace, BTreeSet<&str>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.document.is_some()) {
        keys.entry(&change.namespace).or_default().insert(&change.key);
    }
    let mut gone = HashSet::new();
    if keys.is_empty() {
        return Ok(gone);
    }
    let now = source.now().await?;
    for (namespace, keys) in keys {
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        let exist = source.existing(namespace, &keys, now).await?;
        let absent = keys.iter().zip(exist).filter(|(_, exists)| !exists);
        gone.extend(absent.map(|(key, _)| DocumentId::new(namespace, key)));
    }
    Ok(gone)
}

fn lost(error: FeedError) -> PortError {
    match error {
        FeedError::HistoryLost(why) => {
            PortError::fatal(format!("MongoDB's history does not reach back to the requested time: {why}"))
                .with_hint("run the replay without --since to replay the whole source")
        }
        FeedError::Port(error) => error,
    }
}
