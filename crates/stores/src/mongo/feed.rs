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

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, Document, Timestamp, doc};
use futures::StreamExt as _;
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Feed, FeedBatch, FeedError, ResumeToken, StartAt};
use tidewheel_core::version::ClusterTime;
use tokio::sync::{mpsc, oneshot};

use super::event::{Decoder, Meaning, dropped, token};
use super::extjson::Malformed;
use super::failure::feed_error;
use super::keys::parse_token;
use super::reply::Reply;
use super::selection::Selection;
use super::server::{ANSWER, Server};

/// How long a `getMore` waits for an event. A dropped feed is gone after this time, and an idle one saves its token as
/// often.
const AWAIT: Duration = Duration::from_secs(1);

/// Most events in a batch: what the producer appends in one step.
const MAX_EVENTS: usize = 500;

/// An answer of this many bytes may have ended because the next event does not fit: MongoDB's limit is 16 MB. A shorter one can be
/// full too, where the next event is larger than 15 MB; that matters only if it is of the same transaction as the last.
const FULL: usize = 1024 * 1024;

/// Most bytes of text in a batch, but for the last event.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Opens a change stream and starts its task.
pub(super) async fn open(
    server: Server,
    selection: Arc<Selection>,
    start: StartAt,
) -> Result<Box<dyn Feed>, FeedError> {
    let position = match start {
        StartAt::Token(ResumeToken(text)) => Position::After(parse_token(&text).ok_or_else(|| {
            FeedError::HistoryLost(format!("the saved position {text:?} is not a resume token of MongoDB"))
        })?),
        StartAt::Time(time) => Position::At(Timestamp { time: time.seconds, increment: time.increment }),
    };
    let (opened, is_open) = oneshot::channel();
    let (sender, batches) = mpsc::channel(1);
    let follower =
        Follower { server: server.clone(), selection, sender, decoder: Decoder::default(), is_router: false };
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
    is_router: bool,
}

/// How following a cursor ended, other than by an error.
enum End {
    /// Nobody listens any more.
    Unheard,
    /// The database was dropped: a new cursor is needed, behind this token.
    Invalidated(Document),
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
                Ok(End::Invalidated(token)) => self.cursor(Position::After(token)).await,
                Err(error) => Err(error),
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
        let command = command(&self.selection, position, splits);
        let mut run = self.server.database().run_cursor_command(command).batch_size(MAX_EVENTS as u32).max_time(AWAIT);
        if let Some(criteria) = self.server.selection_criteria() {
            run = run.selection_criteria(criteria);
        }
        run.batch().await.map_err(|error| feed_error(&doing, &error))
    }

    async fn follow(&mut self, cursor: &mut RawBatchCursor) -> Result<End, FeedError> {
        let doing = format!("following {}", self.server.name());
        loop {
            let Ok(slot) = self.sender.clone().reserve_owned().await else { return Ok(End::Unheard) };
            let Some(batch) = cursor.next().await else {
                return Err(ended(&self.server));
            };
            let batch = batch.map_err(|error| feed_error(&doing, &error))?;
            let unreadable = |error: Malformed| PortError::transient(format!("{doing}: {error}"));
            let mut pages = Pages::new(&batch, &mut self.decoder, &self.selection).map_err(unreadable)?;
            pages.may_hold_back = self.is_router;
            let mut slot = Some(slot);
            while let Some(page) = pages.next().map_err(unreadable)? {
                let slot = match slot.take() {
                    Some(slot) => slot,
                    None => match self.sender.clone().reserve_owned().await {
                        Ok(slot) => slot,
                        Err(_) => return Ok(End::Unheard),
                    },
                };
                slot.send(Ok(page));
            }
            if let Some(token) = pages.invalidated {
                let token = parse_token(&token).ok_or_else(|| unreadable(Malformed("a token that is no document")))?;
                return Ok(End::Invalidated(token));
            }
        }
    }
}

/// The command that opens the cursor. Its first batch is empty, so that it answers at once with a token; everything
/// that may take long happens in a `getMore`.
fn command(selection: &Selection, position: Position, splits: bool) -> Document {
    let mut stream = doc! { "fullDocument": "updateLookup" };
    match position {
        // And not `resumeAfter`, which fails behind an invalidate.
        Position::After(token) => stream.insert("startAfter", token),
        Position::At(time) => stream.insert("startAtOperationTime", time),
    };
    let mut pipeline = vec![doc! { "$changeStream": stream }];
    pipeline.extend(selection.pipeline());
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

/// Cuts one answer of the server into batches of bounded size.
struct Pages<'a> {
    reply: Reply<'a>,
    decoder: &'a mut Decoder,
    selection: &'a Selection,
    /// The token of an invalidate event, which is the last of its cursor.
    invalidated: Option<String>,
    finished: bool,
    /// Whether the server may have more to give than it has given: a router does not wait for all shards.
    may_hold_back: bool,
    /// Documents of the answer so far, and its bytes.
    read: usize,
    bytes: usize,
}

impl<'a> Pages<'a> {
    fn new(batch: &'a RawBatch, decoder: &'a mut Decoder, selection: &'a Selection) -> Result<Self, Malformed> {
        let bytes = batch.as_raw_document().as_bytes().len();
        Ok(Self {
            reply: Reply::read(batch)?,
            decoder,
            selection,
            invalidated: None,
            finished: false,
            may_hold_back: true,
            read: 0,
            bytes,
        })
    }

    fn next(&mut self) -> Result<Option<FeedBatch>, Malformed> {
        if self.finished {
            return Ok(None);
        }
        let (mut events, mut appeared, mut bytes) = (Vec::new(), Vec::new(), 0);
        // The last event that is complete.
        let mut last: Option<&[u8]> = None;
        while events.len() < MAX_EVENTS && bytes < MAX_BYTES {
            let Some(event) = self.reply.next()? else { break };
            self.read += 1;
            let Some(meaning) = self.decoder.read(event)? else { continue };
            last = Some(event);
            match meaning {
                Meaning::Change(change) => {
                    bytes += change.document.as_ref().map_or(0, String::len) + change.key.len();
                    events.push(change);
                }
                Meaning::Renamed { from, to, at } => {
                    let namespace = |collection: &str| Namespace::new(self.selection.database(), collection);
                    if self.selection.contains(&from) {
                        events.push(dropped(namespace(&from), at));
                    }
                    // If there was a collection of that name it has gone, and no event of its own says so.
                    if self.selection.contains(&to) {
                        events.push(dropped(namespace(&to), at));
                        appeared.push(namespace(&to));
                    }
                }
                Meaning::Invalidate => self.invalidated = Some(token(event)?),
                Meaning::Nothing => {}
            }
        }
        self.finished = self.reply.documents.is_at_end();
        // The token of the whole answer is ahead of the last event's if the server has read on without finding more;
        // but between two fragments it is in the middle of an event.
        let whole = (self.finished && !self.decoder.inside_an_event()).then(|| self.reply.token.take()).flatten();
        let position = match (whole, last) {
            (Some(whole), _) => Some(whole),
            (None, Some(event)) => Some(token(event)?),
            (None, None) => None,
        };
        let Some(position) = position else { return Ok(None) };
        let through = self.through(&position, last.is_some());
        // What a token says is only believed where an event says the same.
        let fits = match (last, events.last()) {
            (Some(event), Some(change)) => time_of(&token(event)?).is_none_or(|time| time >= change.time),
            _ => true,
        };
        let through = if fits { through } else { ClusterTime::default() };
        Ok(Some(FeedBatch { events, appeared, token: ResumeToken(position), through }))
    }

    /// Up to which time nothing more will come behind this position.
    ///
    /// An answer ends where the server has nothing more to give, unless it is full: then, or if there may be more, events of the
    /// same time may follow, as those of one transaction do.
    fn through(&self, position: &str, has_events: bool) -> ClusterTime {
        let time = time_of(position).unwrap_or_default();
        let is_full = self.read >= MAX_EVENTS || self.bytes >= FULL;
        let ended = self.finished && !self.decoder.inside_an_event() && !is_full && !self.may_hold_back;
        if ended || !has_events { time } else { time.before() }
    }
}

/// The cluster time in a resume token.
///
/// That tokens sort as their events do is documented. That they begin with the type of a timestamp and its eight bytes, seconds
/// first, is how every version since 4.2 writes them; a token that does not look like that has no time.
fn time_of(token: &str) -> Option<ClusterTime> {
    let (_, data) = token.split_once("\"_data\"")?;
    let hex = data.split('"').nth(1)?.strip_prefix("82")?;
    let part = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok();
    Some(ClusterTime { seconds: part(0)?, increment: part(8)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_begins_with_its_time() {
        let token = r#"{"_data":"8265F00000000000072B022C0100296E5A1004"}"#;
        assert_eq!(time_of(token), Some(ClusterTime { seconds: 0x65F0_0000, increment: 7 }));
        for other in ["", "{}", r#"{"_data":""}"#, r#"{"_data":"8165F0000000000007"}"#, r#"{"_data":"8265"}"#] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }
}
