//! The change stream.
//!
//! One task owns the cursor and is never cancelled: the driver's futures must not be dropped before completion. It
//! requests the next events only after the last ones were taken, so one batch is prefetched, and events in between
//! arrive in one reply. A `getMore` returns on the first event, or after [`AWAIT`] without one.
//!
//! ```text
//!  mongod ──getMore──▶ task: BSON → text, ≤ 500 events, ≤ 4 MB ──[one slot]──▶ Feed::next
//! ```
//!
//! The driver's own change stream is not used: it resumes automatically, which hides errors from the stages, and it
//! copies each event three times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, Timestamp, doc};
use futures::StreamExt as _;
use mongodb::error::Error;
use mongodb::raw_batch_cursor::RawBatchCursor;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Feed, FeedBatch, FeedError, ResumeToken, StartAt};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::event::Decoder;
use super::extjson::Malformed;
use super::failure::{feed_error, is_too_large};
use super::keys::parse_token;
use super::pages::{Held, MAX_EVENTS, Pages};
use super::pipeline;
use super::reduced::{self, FailedReads, Level};
use super::selection::{Selection, Stream};
use super::server::{REPLY_TIMEOUT, Server};

/// How long a `getMore` waits for an event. A dropped feed ends within this time, and an idle one saves its token at
/// this interval.
const AWAIT: Duration = Duration::from_secs(1);

/// Maximum replies read at [`Level::Filtered`], unless the stream is caught up earlier.
const MAX_FILTERED_REPLIES: usize = 4;

/// Opens a change stream and starts its task.
pub(super) async fn open(
    server: Server,
    selection: Arc<Selection>,
    failed_reads: Arc<Mutex<FailedReads>>,
    start: StartAt,
    first: usize,
) -> Result<Box<dyn Feed>, FeedError> {
    let place = place(&start);
    let level = locked(&failed_reads).level(&place);
    if level != Level::Whole {
        warn!(?level, "an earlier read failed at this position; requesting oversized events in part");
    }
    let position = match start {
        StartAt::Token(ResumeToken(text)) => Position::After(
            parse_token(&text).ok_or_else(|| FeedError::HistoryLost(format!("invalid saved resume token {text:?}")))?,
        ),
        StartAt::Time(time) => Position::At(Timestamp { time: time.seconds, increment: time.increment }),
    };
    let (opened, is_open) = oneshot::channel();
    let (sender, batches) = mpsc::channel(1);
    let name = selection.stream().name(&server);
    let follower = Follower {
        server: server.clone(),
        name: name.clone(),
        decoder: Decoder::new(Arc::clone(&selection)),
        selection,
        sender,
        failed_reads,
        place: Some(place),
        level,
        replies: 0,
        most: first.clamp(1, MAX_EVENTS),
        held: Held::default(),
        is_router: false,
    };
    tokio::spawn(follower.run(position, opened));
    // The command itself is quick, so only an unresponsive server runs into this timeout.
    match tokio::time::timeout(2 * REPLY_TIMEOUT, is_open).await {
        Ok(opened) => opened.unwrap_or_else(|_| Err(ended(&name)))?,
        Err(_) => {
            let message = format!("failed to open a change stream on {name}: no reply");
            return Err(FeedError::Port(PortError::transient(message)));
        }
    }
    Ok(Box::new(MongoFeed { server, name, batches }))
}

struct MongoFeed {
    server: Server,
    /// What the change stream is of.
    name: String,
    batches: mpsc::Receiver<Result<FeedBatch, FeedError>>,
}

#[async_trait]
impl Feed for MongoFeed {
    async fn next(&mut self) -> Result<FeedBatch, FeedError> {
        match self.server.batch(&mut self.batches).await? {
            Some(batch) => batch,
            None => Err(ended(&self.name)),
        }
    }
}

fn ended(name: &str) -> FeedError {
    FeedError::Port(PortError::transient(format!("failed to read the change stream of {name}: it has ended")))
}

/// The start position of a cursor.
enum Position {
    After(Document),
    At(Timestamp),
}

struct Follower {
    server: Server,
    /// What the change stream is of.
    name: String,
    selection: Arc<Selection>,
    sender: mpsc::Sender<Result<FeedBatch, FeedError>>,
    decoder: Decoder,
    failed_reads: Arc<Mutex<FailedReads>>,
    /// The position at which the feed was opened, until a batch ends at a later one.
    place: Option<String>,
    level: Level,
    /// Replies read at this level.
    replies: usize,
    /// Maximum events in the next batch.
    most: usize,
    held: Held,
    is_router: bool,
}

/// How reading a cursor ended, other than by an error.
enum End {
    /// The receiver was dropped.
    Closed,
    /// The database was dropped, or a position with a reduced request was passed: a new cursor is needed, after this
    /// token.
    Over(Document),
}

impl Follower {
    async fn run(mut self, start: Position, opened: oneshot::Sender<Result<(), FeedError>>) {
        let mut cursor = match self.cursor(start).await {
            Ok(cursor) => cursor,
            Err(error) => {
                let _ = opened.send(Err(error));
                return;
            }
        };
        if opened.send(Ok(())).is_err() {
            return;
        }
        loop {
            let next = match self.follow(&mut cursor).await {
                Ok(End::Closed) => return,
                Ok(End::Over(token)) => {
                    (self.level, self.replies) = (Level::Whole, 0);
                    self.cursor(Position::After(token)).await
                }
                Err((error, surely)) => {
                    if let Some(place) = &self.place {
                        locked(&self.failed_reads).failed(place, surely);
                    }
                    Err(error)
                }
            };
            match next {
                Ok(next) => cursor = next,
                Err(error) => {
                    let _ = self.sender.send(Err(error)).await;
                    return;
                }
            }
        }
    }

    async fn cursor(&mut self, position: Position) -> Result<RawBatchCursor, FeedError> {
        let doing = format!("open a change stream on {}", self.name);
        self.is_router = self.server.is_router().await?;
        let splits = self.server.splits_large_events().await?;
        let command = command(&self.selection, self.level, position, splits);
        // A reply repeats the token of its last event: with a single event it is smallest.
        let most = if self.level == Level::Reduced { 1 } else { MAX_EVENTS as u32 };
        let database = self.selection.stream().database(&self.server);
        let mut run = database.run_cursor_command(command).batch_size(most).max_time(AWAIT);
        if let Some(criteria) = self.server.selection_criteria() {
            run = run.selection_criteria(criteria);
        }
        run.batch().await.map_err(|error| self.failed(&doing, &error))
    }

    fn failed(&self, doing: &str, error: &Error) -> FeedError {
        match feed_error(doing, error) {
            FeedError::Port(error) => FeedError::Port(self.selection.stream().explain(error)),
            lost @ FeedError::HistoryLost(_) => lost,
        }
    }

    /// Forwards the cursor's events; an error includes whether an event is known to be too large.
    async fn follow(&mut self, cursor: &mut RawBatchCursor) -> Result<End, (FeedError, bool)> {
        let doing = format!("read the change stream of {}", self.name);
        loop {
            let Ok(slot) = self.sender.clone().reserve_owned().await else { return Ok(End::Closed) };
            let Some(batch) = cursor.next().await else {
                return Err((ended(&self.name), false));
            };
            let level = self.level;
            let failed = |error: Error| match is_too_large(&error) {
                // The next attempt requests less.
                true if level != Level::Filtered => {
                    (FeedError::Port(PortError::transient(format!("failed to {doing}: {}", error.kind))), true)
                }
                _ => (self.failed(&doing, &error), false),
            };
            let batch = batch.map_err(failed)?;
            let unreadable = |error: Malformed| {
                (FeedError::Port(PortError::transient(format!("failed to {doing}: {error}"))), false)
            };
            let mut pages =
                Pages::new(&batch, &mut self.decoder, &self.selection, &mut self.held).map_err(unreadable)?;
            pages.may_hold_back = self.is_router;
            let mut passed = None;
            let mut slot = Some(slot);
            while let Some(mut page) = pages.next(self.most).map_err(unreadable)? {
                if !page.events.is_empty() {
                    self.most = (2 * self.most).min(MAX_EVENTS);
                }
                // The first reply of a cursor is empty and repeats the position at which it was opened.
                let advances = self.place.as_ref().is_none_or(|at| *at != place(&StartAt::Token(page.token.clone())));
                if level == Level::Filtered && self.place.is_some() && advances {
                    reduced::left_out(&mut page, self.selection.unknown());
                }
                let slot = match slot.take() {
                    Some(slot) => slot,
                    None => match self.sender.clone().reserve_owned().await {
                        Ok(slot) => slot,
                        Err(_) => return Ok(End::Closed),
                    },
                };
                if advances {
                    if self.place.take().is_some() {
                        locked(&self.failed_reads).passed();
                    }
                    passed = Some(page.token.0.clone());
                }
                slot.send(Ok(page));
            }
            let (invalidated, caught_up) = (pages.invalidated.take(), pages.is_empty());
            let over = match (invalidated, passed) {
                (Some(token), _) => Some(token),
                (None, Some(token)) => {
                    self.replies += 1;
                    let behind = match level {
                        Level::Whole => false,
                        Level::Reduced => caught_up || self.decoder.take_reduced(),
                        // Omitted events are invisible: after this many replies they are behind.
                        Level::Filtered => caught_up || self.replies > MAX_FILTERED_REPLIES,
                    };
                    behind.then_some(token)
                }
                (None, None) => None,
            };
            if let Some(token) = over {
                let token =
                    parse_token(&token).ok_or_else(|| unreadable(Malformed("resume token is not a document")))?;
                return Ok(End::Over(token));
            }
        }
    }
}

/// Identifies a position, to recognise repeated failures at the same one.
fn place(start: &StartAt) -> String {
    format!("{start:?}")
}

fn locked(failed_reads: &Mutex<FailedReads>) -> MutexGuard<'_, FailedReads> {
    failed_reads.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command that opens the cursor. Its first batch is empty, so that it returns a token immediately; all slow work
/// happens in a `getMore`.
fn command(selection: &Selection, level: Level, position: Position, splits: bool) -> Document {
    let mut stream = doc! { "fullDocument": "updateLookup" };
    if *selection.stream() == Stream::Deployment {
        stream.insert("allChangesForCluster", true);
    }
    match position {
        // Not `resumeAfter`, which fails after an invalidate.
        Position::After(token) => stream.insert("startAfter", token),
        Position::At(time) => stream.insert("startAtOperationTime", time),
    };
    let mut pipeline = vec![doc! { "$changeStream": stream }];
    pipeline.extend(pipeline::stages(selection, level));
    if splits {
        pipeline.push(doc! { "$changeStreamSplitLargeEvent": {} });
    }
    doc! {
        "aggregate": 1,
        "pipeline": pipeline.into_iter().map(Bson::Document).collect::<Vec<_>>(),
        "cursor": { "batchSize": 0 },
        "readConcern": { "level": "majority" },
    }
}
