//! Trace ids of changes, sampling, and spans.
//!
//! The streams carry no trace context. The ids of the trace and its root span are derived from the change alone, which
//! producer, processor and upserter all have; so their spans join one trace without coordination, and redelivery of a
//! change only adds children under the same root.
//!
//! The ids are a prefix of a SHA-256: 16 bytes for the trace (OpenTelemetry requires the last seven to be random), the
//! next 8 for the root.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::change::Change;
use crate::hex::hex;
use crate::identity::Namespace;
use crate::version::Version;

/// Domain separator of these hashes. Changing it would split traces across services of different releases.
const DOMAIN: &str = "tidewheel.trace";

/// A trace id. Printed as 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// A span id. Printed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl SpanId {
    /// Returns a random id.
    pub fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The trace of one change, and its root span, which covers the time from the source's commit to stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeTrace {
    /// The trace.
    pub id: TraceId,
    /// The root span of the trace.
    pub root: SpanId,
}

impl ChangeTrace {
    /// The trace of the change at `version` of the document with this `_id` (canonical extended JSON; empty for a
    /// change of a whole collection). A replay changes the version, so it gets its own trace.
    pub fn of(namespace: &Namespace, key: &str, version: Version) -> Self {
        let mut hash = Sha256::new();
        for part in [DOMAIN, namespace.as_str(), key, &version.to_string()] {
            hash.update(part.as_bytes());
            // No part contains a zero byte, so two changes never hash the same input.
            hash.update([0]);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let (mut id, mut root) = ([0; 16], [0; 8]);
        id.copy_from_slice(&hash[..16]);
        root.copy_from_slice(&hash[16..24]);
        Self { id: TraceId(id), root: SpanId(root) }
    }

    /// The trace of this change.
    pub fn of_change(change: &Change) -> Self {
        Self::of(&change.namespace, &change.key, change.version)
    }
}

/// The sampling ratio of traces.
///
/// Sampling follows OpenTelemetry's consistent probability sampling: the last 56 bits of the id, as a number, have to
/// reach a threshold. Services with the same ratio record the same traces completely; traces sampled at a lower ratio
/// are a subset of those sampled at a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SamplingRatio {
    threshold: u64,
}

impl SamplingRatio {
    /// Number of values of the last 56 bits of an id.
    const RANGE: u64 = 1 << 56;

    /// Every trace.
    pub const ALL: Self = Self { threshold: 0 };

    /// Samples this ratio of all traces, clamped to 0–1.
    pub fn new(ratio: f64) -> Self {
        let dropped = (1.0 - ratio).clamp(0.0, 1.0) * Self::RANGE as f64;
        Self { threshold: dropped as u64 }
    }

    /// Whether the trace is sampled.
    pub fn includes(self, id: TraceId) -> bool {
        let random = id.0[9..].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        random >= self.threshold
    }
}

/// Maximum size of a string in a span, in bytes: an `_id` or a reason has no size limit, and many spans may be queued
/// for a collector.
pub const TEXT: usize = 1_024;

/// Truncates a text to at most [`TEXT`] bytes.
pub fn beginning(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT)].to_owned()
}

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its own id.
    pub id: SpanId,
    /// Its parent span; `None` for the root.
    pub parent: Option<SpanId>,
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: SpanKind,
    /// Start time.
    pub began: SystemTime,
    /// End time.
    pub ended: SystemTime,
    /// Its attributes, named after OpenTelemetry's semantic conventions where they exist.
    pub attributes: Vec<(&'static str, Value)>,
    /// The error, truncated by [`beginning`], if it failed.
    pub error: Option<String>,
}

/// The kind of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// Appends to a stream.
    Producer,
    /// Reads from a stream.
    Consumer,
    /// Waits for a server's response.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A static string.
    Word(&'static str),
    /// A string truncated by [`beginning`].
    Text(String),
    /// An integer.
    Number(u64),
}

impl Value {
    /// Truncates this text by [`beginning`].
    pub fn text(text: &str) -> Self {
        Self::Text(beginning(text))
    }
}

impl From<&'static str> for Value {
    fn from(word: &'static str) -> Self {
        Self::Word(word)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::text(&text)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(number as u64)
    }
}

/// Exports spans that have ended.
///
/// Best effort, unlike the [ports](crate::ports): the pipeline never slows down because of it.
pub trait Spans: Send + Sync {
    /// Exports these spans. Never waits and never fails; excess spans are dropped.
    fn record(&self, spans: Vec<Span>);
}

/// Decides which changes are sampled, and records their spans. A service without a tracer computes no ids.
#[derive(Clone)]
pub struct Tracer {
    ratio: SamplingRatio,
    spans: Arc<dyn Spans>,
}

impl Tracer {
    /// Samples traces at this ratio.
    pub fn new(ratio: SamplingRatio, spans: Arc<dyn Spans>) -> Self {
        Self { ratio, spans }
    }

    /// The trace of this change, if it is sampled.
    pub fn trace(&self, change: &Change) -> Option<ChangeTrace> {
        Some(ChangeTrace::of_change(change)).filter(|trace| self.ratio.includes(trace.id))
    }

    /// Records spans that have ended.
    pub fn record(&self, spans: Vec<Span>) {
        if !spans.is_empty() {
            self.spans.record(spans);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::version::ClusterTime;

    fn version(ordinal: u32, replay: u32) -> Version {
        Version { epoch: 0, time: ClusterTime { seconds: 1_700_000_000, increment: 3 }, ordinal, replay }
    }

    #[test]
    fn ids_never_change_between_releases() {
        let trace = ChangeTrace::of(&Namespace::new("shop", "tickets"), r#"{"$numberInt":"7"}"#, version(1, 0));
        assert_eq!(trace.id.to_string(), "59e69e9c587dbfcd07d0ccbbd73d5ba7");
        assert_eq!(trace.root.to_string(), "bda9f3898749420e");
    }

    #[test]
    fn trace_id_depends_on_every_part_of_a_change() {
        let of = |namespace: &str, key: &str, version| {
            ChangeTrace::of(&Namespace::parse(namespace).unwrap(), key, version).id
        };
        let ids = [
            of("a.b", "1", version(1, 0)),
            of("a.b1", "", version(1, 0)),
            of("a.b", "2", version(1, 0)),
            of("a.b", "1", version(2, 0)),
            of("a.b", "1", version(1, 9)),
        ];
        let distinct: std::collections::HashSet<_> = ids.into_iter().collect();
        assert_eq!(distinct.len(), ids.len());
    }

    #[test]
    fn sampled_traces_match_the_ratio_and_are_a_subset_at_a_higher_one() {
        let namespace = Namespace::new("shop", "tickets");
        let ids: Vec<TraceId> =
            (0..10_000).map(|n| ChangeTrace::of(&namespace, &n.to_string(), version(1, 0)).id).collect();
        let sampled = |ratio: f64| ids.iter().filter(|id| SamplingRatio::new(ratio).includes(**id)).count();
        assert_eq!((sampled(0.0), sampled(1.0), sampled(7.0)), (0, ids.len(), ids.len()));
        assert!((850..1_150).contains(&sampled(0.1)), "{}", sampled(0.1));
        assert!(ids.iter().all(|id| !SamplingRatio::new(0.1).includes(*id) || SamplingRatio::new(0.3).includes(*id)));
        assert_eq!(SamplingRatio::new(1.0), SamplingRatio::ALL);
    }

    #[test]
    fn long_text_is_truncated_at_a_character_and_its_capacity_released() {
        let Value::Text(cut) = Value::from(format!("a{}", "ü".repeat(TEXT))) else { panic!("it is a text") };
        assert_eq!(cut, format!("a{}", "ü".repeat(TEXT / 2 - 1)));
        assert!(cut.capacity() <= TEXT, "{}", cut.capacity());
        assert_eq!(Value::from("short".to_owned()), Value::Text("short".into()));
    }

    #[test]
    fn last_56_bits_of_the_id_decide_sampling() {
        let id = |byte: u8| {
            let mut id = [0xff; 16];
            id[9..].fill(0);
            id[9] = byte;
            TraceId(id)
        };
        assert!(SamplingRatio::new(0.5).includes(id(0x80)) && !SamplingRatio::new(0.5).includes(id(0x7f)));
        assert!(SamplingRatio::new(0.25).includes(id(0xc0)) && !SamplingRatio::new(0.25).includes(id(0xbf)));
    }
}
