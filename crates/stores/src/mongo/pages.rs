//! Splits replies of a change stream into batches.

use mongodb::raw_batch_cursor::RawBatch;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{FeedBatch, ResumeToken, SourceEvent, Touched};
use tidewheel_core::version::ClusterTime;

use super::event::{Decoder, Meaning, dropped, token, token_size};
use super::extjson::Malformed;
use super::reply::Reply;
use super::selection::Selection;

/// Maximum events in a batch: the producer appends a batch in one step.
pub(super) const MAX_EVENTS: usize = 500;

/// A reply of this many bytes may have ended because the next event does not fit: MongoDB's limit is 16 MB. A shorter
/// one can be full too, if the next event exceeds 15 MB; that matters only if both belong to one transaction.
const FULL: usize = 1024 * 1024;

/// Maximum bytes of text in a batch, except the last event.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Larger tokens are not returned: they would be saved with every append. MongoDB sends a short token for the time
/// after the event within ten seconds, unless another event follows sooner.
const MAX_TOKEN: usize = 64 * 1024;

/// Events whose token is too long to save: they wait for a later token.
#[derive(Debug, Default)]
pub(super) struct Held {
    events: Vec<SourceEvent>,
    appeared: Vec<Namespace>,
}

/// Splits one reply into batches of bounded size.
pub(super) struct Pages<'a> {
    reply: Reply<'a>,
    decoder: &'a mut Decoder,
    selection: &'a Selection,
    held: &'a mut Held,
    /// The token of an invalidate event, the last of its cursor.
    pub(super) invalidated: Option<String>,
    finished: bool,
    /// Whether the server may hold back events: a router does not wait for all shards.
    pub(super) may_hold_back: bool,
    /// Documents read from the reply so far, and the reply's bytes.
    read: usize,
    bytes: usize,
}

impl<'a> Pages<'a> {
    pub(super) fn new(
        batch: &'a RawBatch,
        decoder: &'a mut Decoder,
        selection: &'a Selection,
        held: &'a mut Held,
    ) -> Result<Self, Malformed> {
        let bytes = batch.as_raw_document().as_bytes().len();
        Ok(Self {
            reply: Reply::read(batch)?,
            decoder,
            selection,
            held,
            invalidated: None,
            finished: false,
            may_hold_back: true,
            read: 0,
            bytes,
        })
    }

    /// Whether the reply had no events.
    pub(super) fn is_empty(&self) -> bool {
        self.read == 0
    }

    /// The next batch, of at most `most` events; `None` at the end of the reply.
    pub(super) fn next(&mut self, most: usize) -> Result<Option<FeedBatch>, Malformed> {
        if self.finished {
            return Ok(None);
        }
        let Held { mut events, mut appeared } = std::mem::take(self.held);
        let mut bytes = 0;
        // The token of an event with a long `_id` is as long: the events read so far wait for the next token.
        let mut is_long = false;
        // The last complete event.
        let mut last: Option<&[u8]> = None;
        // At least one event, however many wait for a token.
        while last.is_none() || (events.len() < most && bytes < MAX_BYTES) || is_long {
            let Some(event) = self.reply.next()? else { break };
            self.read += 1;
            let Some(meaning) = self.decoder.read(event)? else { continue };
            last = Some(event);
            is_long = token_size(event)? > MAX_TOKEN;
            match meaning {
                Meaning::Change(change) => {
                    bytes += text_size(&change);
                    events.push(change);
                }
                Meaning::Renamed { from, to, at } => {
                    if self.selection.contains(&from) {
                        events.push(dropped(from, at));
                    }
                    // A previous collection of that name is gone without an event of its own.
                    if self.selection.contains(&to) {
                        events.push(dropped(to.clone(), at));
                        appeared.push(to);
                    }
                }
                Meaning::Invalidate => self.invalidated = Some(token(event)?),
                Meaning::Nothing => {}
            }
        }
        self.finished = self.reply.documents.is_at_end();
        // The reply's token is ahead of the last event's if the server scanned further without a match; but between two
        // fragments it is inside an event.
        let whole = (self.finished && !self.decoder.inside_an_event()).then(|| self.reply.token.take()).flatten();
        let position = match (whole, last) {
            (Some(whole), _) => Some(whole),
            (None, Some(event)) => Some(token(event)?),
            (None, None) => None,
        };
        let Some(position) = position.filter(|position| position.len() <= MAX_TOKEN) else {
            *self.held = Held { events, appeared };
            return Ok(None);
        };
        let through = self.through(&position, last.is_some());
        // The time in a token is only used if it is consistent with the last event.
        let fits = match (last, events.last()) {
            (Some(event), Some(change)) => time_of(&token(event)?).is_none_or(|time| time >= change.time),
            _ => true,
        };
        let through = if fits { through } else { ClusterTime::default() };
        Ok(Some(FeedBatch { events, appeared, token: ResumeToken(position), through }))
    }

    /// The time up to which no event follows this position.
    ///
    /// A reply that is not full ends where the server has no more events. If it is full, or the server may hold back
    /// events, events of the same time may follow, such as those of one transaction.
    fn through(&self, position: &str, has_events: bool) -> ClusterTime {
        let time = time_of(position).unwrap_or_default();
        let is_full = self.read >= MAX_EVENTS || self.bytes >= FULL;
        let ended = self.finished && !self.decoder.inside_an_event() && !is_full && !self.may_hold_back;
        if ended || !has_events { time } else { time.before() }
    }
}

/// Bytes of the text in an event.
fn text_size(event: &SourceEvent) -> usize {
    let document = event.document.as_ref().and_then(|document| document.as_ref().ok()).map_or(0, String::len);
    let paths = match &event.touched {
        Touched::Paths(paths) => paths.iter().map(String::len).sum(),
        Touched::All | Touched::Nothing => 0,
    };
    document + event.key.len() + paths
}

/// The cluster time in a resume token.
///
/// The order of tokens is documented. Their prefix, the type byte of a timestamp and its eight bytes, seconds first, is
/// that of every version since 4.2; a token without it yields no time.
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
    fn resume_token_yields_its_cluster_time() {
        let token = r#"{"_data":"8265F00000000000072B022C0100296E5A1004"}"#;
        assert_eq!(time_of(token), Some(ClusterTime { seconds: 0x65F0_0000, increment: 7 }));
        for other in ["", "{}", r#"{"_data":""}"#, r#"{"_data":"8165F0000000000007"}"#, r#"{"_data":"8265"}"#] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }
}
