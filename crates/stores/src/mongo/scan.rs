//! Scans a collection in `_id` order.
//!
//! Pages by index bounds (`hint` and `min`), because `$gt` compares only values of the same type and would stop after
//! the numbers. Reads with majority read concern, at or after the caller's time, so a rolled-back row is never read,
//! and a lagging member cannot hide one.
//!
//! As in a feed, one task owns the cursor, and one page is prefetched.

use async_trait::async_trait;
use bson::{Bson, Document, RawDocumentBuf, Timestamp, doc};
use futures::StreamExt as _;
use mongodb::error::Error;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{PortResult, Scan, SourceRow};
use tidewheel_core::version::ClusterTime;
use tokio::sync::mpsc;

use super::event::row_of;
use super::extjson::Malformed;
use super::failure::{cursor_is_gone, port_error};
use super::filters::Filters;
use super::keys::{RawId, with_field};
use super::reply::Reply;
use super::server::Server;

/// Maximum rows in a page.
const MAX_ROWS: usize = 1_000;

/// Maximum bytes of text in a page, except the last row.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The greatest possible `_id`.
const MAX_KEY: &str = r#"{"$maxKey":1}"#;

/// Starts a scan of the rows that match `pushed`, as the server compares, each judged by the filters. Errors are
/// reported with the first page.
pub(super) fn open(
    server: Server,
    namespace: &Namespace,
    after: Option<&str>,
    at_least: ClusterTime,
    filters: Filters,
    pushed: Option<Document>,
) -> PortResult<Box<dyn Scan>> {
    let after = match after {
        Some(key) => Some((key.to_owned(), RawId::parse(key)?)),
        None => None,
    };
    let (sender, pages) = mpsc::channel(1);
    let reader = Reader {
        doing: format!("read {namespace}"),
        server,
        namespace: namespace.clone(),
        at_least: Timestamp { time: at_least.seconds, increment: at_least.increment },
        filters,
        pushed,
        sender,
    };
    let scan = MongoScan { server: reader.server.clone(), doing: reader.doing.clone(), pages, ended: false };
    tokio::spawn(reader.run(after));
    Ok(Box::new(scan))
}

struct MongoScan {
    server: Server,
    doing: String,
    pages: mpsc::Receiver<PortResult<Vec<SourceRow>>>,
    ended: bool,
}

#[async_trait]
impl Scan for MongoScan {
    async fn next(&mut self) -> PortResult<Vec<SourceRow>> {
        if self.ended {
            return Ok(Vec::new());
        }
        let page =
            self.server.batch(&mut self.pages).await?.unwrap_or_else(|| {
                Err(PortError::transient(format!("failed to {}: the scan ended early", self.doing)))
            })?;
        self.ended = page.is_empty();
        Ok(page)
    }
}

struct Reader {
    doing: String,
    server: Server,
    namespace: Namespace,
    at_least: Timestamp,
    filters: Filters,
    pushed: Option<Document>,
    sender: mpsc::Sender<PortResult<Vec<SourceRow>>>,
}

/// Why reading a cursor stopped.
enum Stop {
    /// The receiver was dropped.
    Closed,
    /// The server dropped the cursor.
    Gone(Error),
    /// Permanently.
    Failed(PortError),
}

impl Reader {
    async fn run(self, mut after: Option<(String, RawId)>) {
        let last = loop {
            let before = after.as_ref().map(|(key, _)| key.clone());
            match self.read(&mut after).await {
                Ok(()) => break Ok(Vec::new()),
                Err(Stop::Closed) => return,
                // A slow consumer lets the cursor expire: continue at the last row if there was progress.
                Err(Stop::Gone(_)) if after.as_ref().map(|(key, _)| key) != before.as_ref() => {}
                Err(Stop::Gone(error)) => break Err(port_error(&self.doing, &error)),
                Err(Stop::Failed(error)) => break Err(error),
            }
        };
        let _ = self.sender.send(last).await;
    }

    /// Reads to the end of the collection. `after` is always the last row sent.
    async fn read(&self, after: &mut Option<(String, RawId)>) -> Result<(), Stop> {
        // Nothing follows MaxKey, and `min` rejects it.
        if after.as_ref().is_some_and(|(key, _)| key == MAX_KEY) {
            return Ok(());
        }
        let resumed = after.is_some();
        let mut all = command(self.namespace.collection(), self.at_least);
        if let Some(filter) = &self.pushed {
            all.insert("filter", filter.clone());
        }
        let all = match after {
            Some((_, id)) => with_field(&all, "min", &id.alone()),
            None => RawDocumentBuf::try_from(&all),
        };
        self.drain(all, after).await?;
        // With `min`, the upper bound is MaxKey, exclusive.
        if resumed {
            let mut last = command(self.namespace.collection(), self.at_least);
            let is_last = doc! { "_id": Bson::MaxKey };
            let filter = match &self.pushed {
                Some(filter) => doc! { "$and": [filter.clone(), is_last] },
                None => is_last,
            };
            last.insert("filter", filter);
            self.drain(RawDocumentBuf::try_from(&last), after).await?;
        }
        Ok(())
    }

    /// Sends the command's results, except the row `after` itself, which `min` includes.
    async fn drain(
        &self,
        command: Result<RawDocumentBuf, bson::error::Error>,
        after: &mut Option<(String, RawId)>,
    ) -> Result<(), Stop> {
        let command =
            command.map_err(|error| Stop::Failed(PortError::fatal(format!("failed to {}: {error}", self.doing))))?;
        let failed = |error: Error| match cursor_is_gone(&error) {
            true => Stop::Gone(error),
            false => Stop::Failed(port_error(&self.doing, &error)),
        };
        let unreadable =
            |error: Malformed| Stop::Failed(PortError::transient(format!("failed to {}: {error}", self.doing)));
        let mut slot = self.sender.clone().reserve_owned().await.map_err(|_| Stop::Closed)?;
        let mut cursor = self.cursor(command).await.map_err(failed)?;
        let mut skip = after.as_ref().map(|(key, _)| key.clone());
        while let Some(batch) = cursor.next().await {
            let batch = batch.map_err(failed)?;
            let mut rows = Rows::read(&batch).map_err(unreadable)?;
            while let Some(page) = rows.page(&mut skip, &self.filters).map_err(unreadable)? {
                let Some(last) = page.last() else { continue };
                *after = Some((last.key.clone(), RawId::parse(&last.key).map_err(Stop::Failed)?));
                slot.send(Ok(page));
                slot = self.sender.clone().reserve_owned().await.map_err(|_| Stop::Closed)?;
            }
        }
        Ok(())
    }

    async fn cursor(&self, command: RawDocumentBuf) -> Result<RawBatchCursor, Error> {
        let database = self.server.database(self.namespace.database());
        let mut run = database.run_raw_cursor_command(command).batch_size(MAX_ROWS as u32);
        if let Some(criteria) = self.server.selection_criteria() {
            run = run.selection_criteria(criteria);
        }
        run.batch().await
    }
}

fn command(collection: &str, at_least: Timestamp) -> Document {
    doc! {
        "find": collection,
        "sort": { "_id": 1 },
        "hint": { "_id": 1 },
        "batchSize": MAX_ROWS as i32,
        "readConcern": { "level": "majority", "afterClusterTime": at_least },
    }
}

/// Splits one reply into pages of bounded size.
struct Rows<'a> {
    reply: Reply<'a>,
}

impl<'a> Rows<'a> {
    fn read(batch: &'a RawBatch) -> Result<Self, Malformed> {
        Ok(Self { reply: Reply::read(batch)? })
    }

    /// The next page; `None` at the end of the reply. Skips a first row with the key `skip`, once.
    fn page(&mut self, skip: &mut Option<String>, filters: &Filters) -> Result<Option<Vec<SourceRow>>, Malformed> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while let Some(document) = self.reply.next()? {
            let row = row_of(document, filters)?;
            if skip.take().is_some_and(|skipped| skipped == row.key) {
                continue;
            }
            bytes += row.document.as_ref().map_or(0, String::len) + row.key.len();
            rows.push(row);
            if rows.len() >= MAX_ROWS || bytes >= MAX_BYTES {
                break;
            }
        }
        Ok((!rows.is_empty()).then_some(rows))
    }
}
