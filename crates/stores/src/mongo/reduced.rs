//! Reduced requests for events that exceed MongoDB's reply limit of 16 MB.
//!
//! A resume token contains the `_id` in hexadecimal, and a reply contains the token of its last event twice. With the
//! document and the document key, the `_id` occurs nine times: above about 2 MB the reply exceeds 16 MB, and mongod
//! fails the command or closes the connection at every attempt. The event is then requested without its document and
//! key, and if that fails too, it is filtered out.

use bson::{Document, doc};
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::key::{CLIPPED, MAX_BYTES};
use tidewheel_core::ports::{FeedBatch, SourceEvent, Touched, Verdicts};

use super::extjson::{self, Elements, Form, Malformed};

/// The field that marks a reduced event and describes its key.
pub(super) const REDUCED: &[u8] = b"tidewheel";

/// The reason why a change has no document.
pub(super) const TOO_LARGE: &str = "the change is larger than the 16 MB that MongoDB delivers";

/// Maximum bytes of document, key and token together in an event that is requested whole: the largest document with a
/// small `_id`.
const MOST: i64 = (16 << 20) + 8 * 1024;

/// The requested part of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Level {
    /// The whole event.
    #[default]
    Whole,
    /// Large events without their document, and without a large key.
    Reduced,
    /// As [`Self::Reduced`], without events that have a large key.
    Filtered,
}

impl Level {
    /// The pipeline stages after those of the selection.
    pub(super) fn stages(self) -> Vec<Document> {
        let size = |field: &str| doc! { "$bsonSize": { "$ifNull": [field, {}] } };
        let most = i64::try_from(MAX_BYTES).unwrap_or(i64::MAX);
        let large_key = doc! { "$gt": [size("$documentKey"), most] };
        match self {
            Self::Whole => Vec::new(),
            Self::Reduced => {
                let whole = doc! { "$add": [size("$fullDocument"), { "$multiply": [size("$documentKey"), 5] }] };
                let large = doc! { "$or": [large_key.clone(), { "$gt": [whole, MOST] }] };
                // Expressions that cannot fail: `$substrCP` fails for invalid UTF-8.
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

/// The placeholder of a removed key.
pub(super) fn key(left_out: &[u8]) -> Result<String, Malformed> {
    // Validated here, so that the text is an object.
    Elements::new(left_out)?;
    Ok(format!(r#"{{"{CLIPPED}":{}}}"#, extjson::document(left_out, Form::Relaxed)?))
}

/// Adds an unreadable event to the first batch after a position that was passed only at [`Level::Filtered`]: it stands
/// for the events that were filtered out, whose number, namespaces and keys are unknown.
pub(super) fn left_out(batch: &mut FeedBatch, namespace: Namespace) {
    let time = batch.events.first().map_or(batch.through, |event| event.time);
    let key = format!(r#"{{"{CLIPPED}":{{}}}}"#);
    let event = SourceEvent {
        operation: Operation::Update,
        namespace,
        id: key.clone(),
        key,
        shard: String::new(),
        time,
        committed_at: u64::from(time.seconds) * 1_000,
        document: Some(Err("MongoDB cannot deliver a change, or several: the `_id` alone is too large".to_owned())),
        verdicts: Verdicts::default(),
        touched: Touched::All,
    };
    batch.events.insert(0, event);
}

/// The position of repeated read failures, at which less is requested.
#[derive(Debug, Default)]
pub(super) struct FailedReads {
    place: Option<String>,
    level: Level,
    failures: u32,
}

/// Failures at one position before less is requested. Connections break for many reasons, and the last level loses the
/// names of the documents, so it takes more failures.
const BEFORE_REDUCED: u32 = 2;
const BEFORE_FILTERED: u32 = 3;

impl FailedReads {
    /// The level for reads after this position.
    pub(super) fn level(&self, place: &str) -> Level {
        if self.place.as_deref() == Some(place) { self.level } else { Level::Whole }
    }

    /// Records a failure right after this position; `surely` if an event is known to be too large.
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

    /// Records a successful read past the position.
    pub(super) fn passed(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_is_requested_only_where_reads_keep_failing() {
        let mut failed_reads = FailedReads::default();
        assert_eq!(failed_reads.level("a"), Level::Whole);
        failed_reads.failed("a", false);
        assert_eq!(failed_reads.level("a"), Level::Whole, "one failure may be due to the network");
        failed_reads.failed("a", false);
        assert_eq!((failed_reads.level("a"), failed_reads.level("b")), (Level::Reduced, Level::Whole));
        failed_reads.failed("a", true);
        assert_eq!(failed_reads.level("a"), Level::Filtered);
        failed_reads.failed("b", true);
        assert_eq!((failed_reads.level("a"), failed_reads.level("b")), (Level::Whole, Level::Reduced));
        failed_reads.passed();
        assert_eq!(failed_reads.level("b"), Level::Whole);
    }
}
