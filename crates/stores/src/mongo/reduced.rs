//! Events that MongoDB cannot deliver whole.
//!
//! A resume token holds the `_id` once more, in hexadecimal, and an answer holds the token of its last event twice. Together with
//! the document and the document key that is nine times the `_id`: from about 2 MB on an answer has more than 16 MB, and
//! mongod fails the command or closes the connection, for ever at the same place. Then the event is asked for without its
//! document and its key, and if that is still too much, not at all.
//!
//! This does not get past every such event: with an `_id` of 3 MB and more, mongod 6.0.5 was seen to close the connection again and
//! again. An `_id` of 1 MB is tested.

use bson::{Document, doc};
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::key::{CLIPPED, MAX_BYTES};
use tidewheel_core::ports::{FeedBatch, SourceEvent};

use super::extjson::{self, Elements, Form, Malformed};

/// The field of an event that says what was left out of it.
pub(super) const REDUCED: &[u8] = b"tidewheel";

/// Why a change has no document.
pub(super) const TOO_LARGE: &str = "the change is larger than the 16 MB that MongoDB delivers";

/// Most bytes of document, key and token together in an event that stays whole: the largest document with a small `_id`.
const MOST: i64 = (16 << 20) + 8 * 1024;

/// How much of an event is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Level {
    /// All that is needed.
    #[default]
    Whole,
    /// Large events without their document, and without their key where that is large.
    Reduced,
    /// The same, without the events whose key is large.
    Filtered,
}

impl Level {
    /// The stages behind the selection's own.
    pub(super) fn stages(self) -> Vec<Document> {
        let size = |field: &str| doc! { "$bsonSize": { "$ifNull": [field, {}] } };
        let most = i64::try_from(MAX_BYTES).unwrap_or(i64::MAX);
        let large_key = doc! { "$gt": [size("$documentKey"), most] };
        match self {
            Self::Whole => Vec::new(),
            Self::Reduced => {
                let whole = doc! { "$add": [size("$fullDocument"), { "$multiply": [size("$documentKey"), 5] }] };
                let large = doc! { "$or": [large_key.clone(), { "$gt": [whole, MOST] }] };
                // Nothing that could fail, as a part of a string does where that is not UTF-8.
                let about = doc! {
                    "type": { "$type": "$documentKey._id" },
                    "bytes": { "$bsonSize": "$documentKey" },
                };
                vec![doc! { "$set": {
                    "tidewheel": { "$cond": [large_key.clone(), about, { "$cond": [large.clone(), {}, "$$REMOVE"] }] },
                    "fullDocument": { "$cond": [large, "$$REMOVE", "$fullDocument"] },
                    "documentKey": { "$cond": [large_key, "$$REMOVE", "$documentKey"] },
                } }]
            }
            Self::Filtered => {
                let mut stages = vec![doc! { "$match": { "$expr": { "$not": [large_key] } } }];
                stages.extend(Self::Reduced.stages());
                stages
            }
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Whole => Self::Reduced,
            Self::Reduced | Self::Filtered => Self::Filtered,
        }
    }
}

/// What stands for a key that was left out.
pub(super) fn key(left_out: &[u8]) -> Result<String, Malformed> {
    // Checked here, so that the text is sure to be an object.
    Elements::new(left_out)?;
    Ok(format!(r#"{{"{CLIPPED}":{}}}"#, extjson::document(left_out, Form::Relaxed)?))
}

/// Adds to the first batch behind a place that only [`Level::Filtered`] has passed that something was left out there: nothing else is
/// known of it.
pub(super) fn left_out(batch: &mut FeedBatch, database: &str) {
    let time = batch.events.first().map_or(batch.through, |event| event.time);
    let key = format!(r#"{{"{CLIPPED}":{{}}}}"#);
    let event = SourceEvent {
        operation: Operation::Update,
        namespace: Namespace::new(database, "unknown"),
        id: key.clone(),
        key,
        shard: String::new(),
        time,
        committed_at: u64::from(time.seconds) * 1_000,
        document: Some(Err("MongoDB cannot deliver a change, or several: the `_id` alone is too large".to_owned())),
    };
    batch.events.insert(0, event);
}

/// Remembers where reading failed, to ask for less there.
#[derive(Debug, Default)]
pub(super) struct Stumbling {
    place: Option<String>,
    level: Level,
    failures: u32,
}

/// Failures at one position before the feed asks for less. A connection breaks for many reasons; the last level loses the names
/// of the documents, so the feed takes its time before that one.
const BEFORE_REDUCED: u32 = 2;
const BEFORE_FILTERED: u32 = 3;

impl Stumbling {
    /// How much to ask for behind this place.
    pub(super) fn level(&self, place: &str) -> Level {
        if self.place.as_deref() == Some(place) { self.level } else { Level::Whole }
    }

    /// Reading has failed right behind this place; `surely` if it is known that an event was too large.
    pub(super) fn failed(&mut self, place: &str, surely: bool) {
        if self.place.as_deref() != Some(place) {
            *self = Self { place: Some(place.to_owned()), ..Self::default() };
        }
        self.failures += 1;
        let enough = if self.level == Level::Whole { BEFORE_REDUCED } else { BEFORE_FILTERED };
        if surely || self.failures >= enough {
            self.level = self.level.next();
            self.failures = 0;
        }
    }

    /// Reading has gone on.
    pub(super) fn passed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_asked_for_only_where_reading_keeps_failing() {
        let mut stumbling = Stumbling::default();
        assert_eq!(stumbling.level("a"), Level::Whole);
        stumbling.failed("a", false);
        assert_eq!(stumbling.level("a"), Level::Whole, "it may have been the network");
        stumbling.failed("a", false);
        assert_eq!((stumbling.level("a"), stumbling.level("b")), (Level::Reduced, Level::Whole));
        stumbling.failed("a", true);
        assert_eq!(stumbling.level("a"), Level::Filtered);
        stumbling.failed("b", true);
        assert_eq!((stumbling.level("a"), stumbling.level("b")), (Level::Whole, Level::Reduced));
        stumbling.passed();
        assert_eq!(stumbling.level("b"), Level::Whole);
    }
}
