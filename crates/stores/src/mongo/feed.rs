//! The change stream.
//!
//! One task owns the cursor and is never interrupted: the driver's futures must not be dropped half-way. It asks for
//! the next events only when the last ones have been taken, so that one batch is ahead, and whatever happens
//! meanwhile comes in one answer. A `getMore` answers as soon as there is an event, and after [`AWAIT`] without one.
//!
//! ```text
//!  mongod ──getMore──▶ task: BSON → text, ≤ 500 events, ≤ 4 MB ──[one slot]──▶ Feed::next
//! ```
//!
//! The driver's own change stream is not used: it resumes by itself, which hides errors from the stages, and it
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
use super::reduced::{self, Level, Stumbling};
use super::selection::Selection;
use super::server::{ANSWER, Server};

/// How long a `getMore` waits for an event. A dropped feed is gone after this time, and an idle one saves its token as
/// often.
const AWAIT: Duration = Duration::from_secs(1);

/// Answers that are read without the events that are left out, unless nothing is left to read before.
const ANSWERS_FILTERED: usize = 4;

/// Opens a change stream and starts its task.
pub(super) async fn open(
    server: Server,
    selection: Arc<Selection>,
    stumbling: Arc<Mutex<Stumbling>>,
    start: StartAt,
) -> Result<Box<dyn Feed>, FeedError> {
    let place = place(&start);
    let level = locked(&stumbling).level(&place);
    if level != Level::Whole {
        warn!(?level, "reading failed here before; events that are too large are asked for in part");
    }
    let position = match start {
        StartAt::Token(ResumeToken(text)) => Position::After(parse_token(&text).ok_or_else(|| {
            FeedError::HistoryLost(format!("the saved position {text:?} is not a resume token of MongoDB"))
        })?),
        StartAt::Time(time) => Position::At(Timestamp { time: time.seconds, increment: time.increment }),
    };
    let (opened, is_open) = oneshot::channel();
    let (sender, batches) = mpsc::channel(1);
    let follower = Follower {
        server: server.clone(),
        decoder: Decoder::new(selection.database()),
        selection,
        sender,
        stumbling,
        place: Some(place),
        level,
        answers: 0,
        held: Held::default(),
        is_router: false,
    };
    tokio::spawn(follower.run(position, opened));
    // The command itself takes no time, so this waits only for a server that does not answer.
    match tokio::time::timeout(2 * ANSWER, is_open).await {
        Ok(opened) => opened.unwrap_or_else(|_| Err(ended(&server)))?,
        Err(_) => {
            let message = format!("opening a change stream on {}: no answer", server.name());
            return Err(FeedError::Port(PortError::transient(message)));
        }
    }
    Ok(Box::new(MongoFeed { server, batches }))
}

struct MongoFeed {
    server: Server,
    batches: mpsc::Receiver<Result<FeedBatch, FeedError>>,
}

#[async_trait]
impl Feed for MongoFeed {
    async fn next(&mut self) -> Result<FeedBatch, FeedError> {
        match self.server.batch(&mut self.batches).await? {
            Some(batch) => batch,
            None => Err(ended(&self.server)),
        }
    }
}

fn ended(server: &Server) -> FeedError {
    FeedError::Port(PortError::transient(format!("following {}: the change stream has ended", server.name())))
}

/// Where a cursor begins.
enum Position {
    After(Document),
    At(Timestamp),
}

struct Follower {
    server: Server,
    selection: Arc<Selection>,
    sender: mpsc::Sender<Result<FeedBatch, FeedError>>,
    decoder: Decoder,
    stumbling: Arc<Mutex<Stumbling>>,
    /// The position at which the feed was opened, until a batch ends at a later one.
    place: Option<String>,
    level: Level,
    /// Answers at this level.
    answers: usize,
    held: Held,
    is_router: bool,
}

/// How following a cursor ended, other than by an error.
enum End {
    /// Nobody listens any more.
    Unheard,
    /// The database was dropped, or a place was passed where less had to be asked for: a new cursor is needed, behind this token.
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
                Ok(End::Unheard) => return,
                Ok(End::Over(token)) => {
                    (self.level, self.answers) = (Level::Whole, 0);
                    self.cursor(Position::After(token)).await
                }
                Err((error, surely)) => {
                    if let Some(place) = &self.place {
                        locked(&self.stumbling).failed(place, surely);
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
        let doing = format!("opening a change stream on {}", self.server.name());
        self.is_router = self.server.is_router().await?;
        let splits = self.server.splits_large_events().await?;
        let command = command(&self.selection, self.level, position, splits);
        // An answer ends with the position of its last event once more: with one event it has the least.
        let most = if self.level == Level::Reduced { 1 } else { MAX_EVENTS as u32 };
        let mut run = self.server.database().run_cursor_command(command).batch_size(most).max_time(AWAIT);
        if let Some(criteria) = self.server.selection_criteria() {
            run = run.selection_criteria(criteria);
        }
        run.batch().await.map_err(|error| feed_error(&doing, &error))
    }

    /// Hands on what the cursor gives; a failure says whether it is known that an event was too large.
    async fn follow(&mut self, cursor: &mut RawBatchCursor) -> Result<End, (FeedError, bool)> {
        let doing = format!("following {}", self.server.name());
        loop {
            let Ok(slot) = self.sender.clone().reserve_owned().await else { return Ok(End::Unheard) };
            let Some(batch) = cursor.next().await else {
                return Err((ended(&self.server), false));
            };
            let level = self.level;
            let failed = |error: Error| match is_too_large(&error) {
                // The next attempt asks for less.
                true if level != Level::Filtered => {
                    (FeedError::Port(PortError::transient(format!("{doing}: {}", error.kind))), true)
                }
                _ => (feed_error(&doing, &error), false),
            };
            let batch = batch.map_err(failed)?;
            let unreadable =
                |error: Malformed| (FeedError::Port(PortError::transient(format!("{doing}: {error}"))), false);
            let mut pages =
                Pages::new(&batch, &mut self.decoder, &self.selection, &mut self.held).map_err(unreadable)?;
            pages.may_hold_back = self.is_router;
            let mut passed = None;
            let mut slot = Some(slot);
            while let Some(mut page) = pages.next().map_err(unreadable)? {
                // The first answer of a cursor is empty and repeats the position at which it was opened.
                let advances = self.place.as_deref() != Some(place(&StartAt::Token(page.token.clone())).as_str());
                if level == Level::Filtered && self.place.is_some() && advances {
                    reduced::left_out(&mut page, self.selection.database());
                }
                let slot = match slot.take() {
                    Some(slot) => slot,
                    None => match self.sender.clone().reserve_owned().await {
                        Ok(slot) => slot,
                        Err(_) => return Ok(End::Unheard),
                    },
                };
                if advances {
                    if self.place.take().is_some() {
                        locked(&self.stumbling).passed();
                    }
                    passed = Some(page.token.0.clone());
                }
                slot.send(Ok(page));
            }
            let (invalidated, caught_up) = (pages.invalidated.take(), pages.is_empty());
            let over = match (invalidated, passed) {
                (Some(token), _) => Some(token),
                (None, Some(token)) => {
                    self.answers += 1;
                    let behind = match level {
                        Level::Whole => false,
                        Level::Reduced => caught_up || self.decoder.has_met_a_reduced_event(),
                        // What was left out is not seen: after so many answers it lies behind.
                        Level::Filtered => caught_up || self.answers > ANSWERS_FILTERED,
                    };
                    behind.then_some(token)
                }
                (None, None) => None,
            };
            if let Some(token) = over {
                let token = parse_token(&token).ok_or_else(|| unreadable(Malformed("a token that is no document")))?;
                return Ok(End::Over(token));
            }
        }
    }
}

/// A position by which a failure is recognised as one at the same place.
fn place(start: &StartAt) -> String {
    format!("{start:?}")
}

fn locked(stumbling: &Mutex<Stumbling>) -> MutexGuard<'_, Stumbling> {
    stumbling.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command that opens the cursor. Its first batch is empty, so that it answers at once with a token; everything
/// that may take long happens in a `getMore`.
fn command(selection: &Selection, level: Level, position: Position, splits: bool) -> Document {
    let mut stream = doc! { "fullDocument": "updateLookup" };
    match position {
        // And not `resumeAfter`, which fails behind an invalidate.
        Position::After(token) => stream.insert("startAfter", token),
        Position::At(time) => stream.insert("startAtOperationTime", time),
    };
    let mut pipeline = vec![doc! { "$changeStream": stream }];
    pipeline.extend(selection.pipeline());
    pipeline.extend(level.stages());
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
