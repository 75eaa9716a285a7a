//! Where replayed changes come from, page by page.

use std::sync::Arc;

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Archive, DeadLetter, EntryId, Extent, Feed, FeedError, PortResult, Scan, Source, StartAt};
use tidewheel_core::version::{ClusterTime, Version};

use super::{Marked, Progress};
use crate::newest::newest;
use crate::producer;

/// A feed that has nothing to give this often in a row, waiting a second each time but the first, has reached the present.
const IDLE: u32 = 3;

/// Entries read at a time.
const PAGE: usize = 500;

/// Changes to replay. A call that fails may be repeated.
pub struct Pages {
    from: From,
    progress: Progress,
}

enum From {
    Entries {
        archive: Arc<dyn Archive<Change>>,
        after: EntryId,
        until: EntryId,
        replay: u32,
    },
    Rows {
        source: Arc<dyn Source>,
        version: Version,
        left: Vec<(Namespace, Option<String>)>,
        scan: Option<Box<dyn Scan>>,
        filter: Option<String>,
    },
    History {
        feed: Option<Box<dyn Feed>>,
        position: producer::Position,
        until: ClusterTime,
        replay: u32,
        idle: u32,
    },
}

impl Pages {
    pub(super) fn entries(archive: Arc<dyn Archive<Change>>, after: EntryId, extent: Extent, replay: u32) -> Self {
        let of = (after == EntryId::zero()).then_some(extent.entries);
        Self::new(From::Entries { archive, after, until: extent.last, replay }, of)
    }

    pub(super) fn rows(
        source: Arc<dyn Source>,
        version: Version,
        collections: Vec<Namespace>,
        filter: Option<String>,
        of: Option<u64>,
    ) -> Self {
        let left = collections.into_iter().rev().map(|namespace| (namespace, None)).collect();
        Self::new(From::Rows { source, version, left, scan: None, filter }, of)
    }

    pub(super) async fn history(
        source: Arc<dyn Source>,
        epoch: u32,
        since: ClusterTime,
        until: ClusterTime,
        replay: u32,
    ) -> PortResult<Self> {
        let feed = source.open(StartAt::Time(since)).await.map_err(lost)?;
        let position = producer::Position::begin(epoch, since);
        Ok(Self::new(From::History { feed: Some(feed), position, until, replay, idle: 0 }, None))
    }

    fn new(from: From, of: Option<u64>) -> Self {
        Self { from, progress: Progress { of, ..Progress::default() } }
    }

    /// How far it has come.
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

/// How many entries or rows were read, the changes, and how many of them could not be read.
type Read = Option<(u64, Vec<Change>, u64)>;

impl From {
    async fn next(&mut self) -> PortResult<Read> {
        match self {
            Self::Entries { archive, after, until, replay } => {
                let mut page = archive.page(after, PAGE).await?;
                page.retain(|delivery| delivery.id <= *until);
                let Some(last) = page.last() else { return Ok(None) };
                *after = last.id.clone();
                let (read, mut letters) = (page.len() as u64, Vec::<DeadLetter>::new());
                let mut changes: Vec<Change> =
                    newest(page, &mut letters).into_iter().map(|(change, _)| change).collect();
                changes.iter_mut().for_each(|change| change.mark(*replay));
                Ok(Some((read, changes, letters.len() as u64)))
            }
            Self::Rows { source, version, left, scan, filter } => loop {
                let Some((namespace, after)) = left.last_mut() else { return Ok(None) };
                let open = match scan {
                    Some(open) => open,
                    None => {
                        let begin = source.scan(namespace, after.as_deref(), version.time, filter.as_deref());
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
                let changes = rows.into_iter().map(|row| Change {
                    operation: Operation::Read,
                    namespace: namespace.clone(),
                    key: row.key,
                    id: row.id,
                    version: *version,
                    committed_at: producer::now_ms(),
                    document: Some(row.document),
                });
                return Ok(Some((read, changes.collect(), 0)));
            },
            Self::History { feed, position, until, replay, idle } => {
                let Some(open) = feed else { return Ok(None) };
                let batch = open.next().await.map_err(lost)?;
                *idle = if batch.events.is_empty() { *idle + 1 } else { 0 };
                let caught_up = *idle == IDLE || batch.events.last().is_some_and(|event| event.time > *until);
                let read = batch.events.len() as u64;
                let mut changes = position.follow(batch)?;
                changes.iter_mut().for_each(|change| change.mark(*replay));
                if caught_up {
                    *feed = None;
                }
                Ok(Some((read, changes, 0)))
            }
        }
    }
}

fn lost(error: FeedError) -> PortError {
    match error {
        FeedError::HistoryLost(why) => {
            PortError::fatal(format!("MongoDB's history does not reach back as far as that: {why}"))
                .with_hint("replay the source as a whole, without --since")
        }
        FeedError::Port(error) => error,
    }
}
