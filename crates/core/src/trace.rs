//! Which trace a change belongs to, and what is told of it.
//!
//! Nothing of a trace travels in the streams. Its id and that of its root span follow from the change alone, which producer,
//! processor and upserter all have before them; so the spans of all three come together without a word between them, and a
//! change that is delivered again only gets more children under the same root.
//!
//! The ids are the beginning of a SHA-256: 16 bytes for the trace (of which OpenTelemetry wants the last seven to be
//! random), the next 8 for the root.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::change::Change;
use crate::hex::hex;
use crate::identity::Namespace;
use crate::ports::Spans;
use crate::version::Version;

/// Sets these hashes apart from all others. Changing it would part the spans of services of different releases.
const DOMAIN: &str = "tidewheel.trace";

/// The id of a trace. Printed as 32 hexadecimal digits, as every tool shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span. Printed as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

impl SpanId {
    /// One that nobody else has.
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

/// The trace of one change, and its root span: the way from the source's commit into stage 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeTrace {
    /// The trace.
    pub id: TraceId,
    /// The span that all others of the trace hang from.
    pub root: SpanId,
}

impl ChangeTrace {
    /// The trace of the change at `version` of the document with this `_id` (canonical extended JSON; empty for a change of a
    /// whole collection). A replay gives the change another version, and so a trace of its own.
    pub fn of(namespace: &Namespace, key: &str, version: Version) -> Self {
        let mut hash = Sha256::new();
        for part in [DOMAIN, namespace.as_str(), key, &version.to_string()] {
            hash.update(part.as_bytes());
            // No part holds a zero byte, so that two changes never give the same text.
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

/// Which share of all traces is recorded.
///
/// The id decides, by OpenTelemetry's rule for consistent sampling: its last 56 bits, as a number, have to reach a threshold.
/// So all services that have the same share record the same traces whole, and those of a smaller share are among those of a
/// larger one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    threshold: u64,
}

impl Share {
    /// Numbers that the last 56 bits of an id can make.
    const RANGE: u64 = 1 << 56;

    /// Every trace.
    pub const ALL: Self = Self { threshold: 0 };

    /// This share of all traces, from 0 to 1; what lies outside counts as the nearer end.
    pub fn new(share: f64) -> Self {
        let left_out = (1.0 - share).clamp(0.0, 1.0) * Self::RANGE as f64;
        Self { threshold: left_out as u64 }
    }

    /// Whether the trace is recorded.
    pub fn includes(self, id: TraceId) -> bool {
        let random = id.0[9..].iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        random >= self.threshold
    }
}

/// Most bytes of a text in a span: an `_id` or a reason may be of any length, and many spans wait for a collector at once.
pub const TEXT: usize = 1_024;

/// The beginning of a text, of [`TEXT`] bytes at most.
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
    /// The span that it is a part of; `None` for the root.
    pub parent: Option<SpanId>,
    /// What was done, in a word.
    pub name: &'static str,
    /// Its part in the exchange between services.
    pub kind: SpanKind,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What else is known of it, by names of OpenTelemetry's semantic conventions where there are any.
    pub attributes: Vec<(&'static str, Value)>,
    /// The [`beginning`] of why it failed, if it did.
    pub error: Option<String>,
}

/// The part of a span in the exchange between services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// It puts something into a stream.
    Producer,
    /// It takes something out of a stream.
    Consumer,
    /// It waits for the answer of a server.
    Client,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text that is always the same.
    Word(&'static str),
    /// The [`beginning`] of a text.
    Text(String),
    /// A whole number.
    Number(u64),
}

impl Value {
    /// The [`beginning`] of this text.
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

/// Says which changes are traced, and takes their spans. A service without one computes nothing.
#[derive(Clone)]
pub struct Tracer {
    share: Share,
    spans: Arc<dyn Spans>,
}

impl Tracer {
    /// Records this share of all traces.
    pub fn new(share: Share, spans: Arc<dyn Spans>) -> Self {
        Self { share, spans }
    }

    /// The trace of this change, if it is one of those that are recorded.
    pub fn trace(&self, change: &Change) -> Option<ChangeTrace> {
        Some(ChangeTrace::of_change(change)).filter(|trace| self.share.includes(trace.id))
    }

    /// Hands over spans that have ended.
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
    fn every_part_of_a_change_tells_its_trace_apart() {
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
    fn a_share_takes_about_that_many_and_a_larger_one_takes_the_same_and_more() {
        let namespace = Namespace::new("shop", "tickets");
        let ids: Vec<TraceId> =
            (0..10_000).map(|n| ChangeTrace::of(&namespace, &n.to_string(), version(1, 0)).id).collect();
        let taken = |share: f64| ids.iter().filter(|id| Share::new(share).includes(**id)).count();
        assert_eq!((taken(0.0), taken(1.0), taken(7.0)), (0, ids.len(), ids.len()));
        assert!((850..1_150).contains(&taken(0.1)), "{}", taken(0.1));
        assert!(ids.iter().all(|id| !Share::new(0.1).includes(*id) || Share::new(0.3).includes(*id)));
        assert_eq!(Share::new(1.0), Share::ALL);
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_keeps_no_room_for_the_rest() {
        let Value::Text(cut) = Value::from(format!("a{}", "ü".repeat(TEXT))) else { panic!("it is a text") };
        assert_eq!(cut, format!("a{}", "ü".repeat(TEXT / 2 - 1)));
        assert!(cut.capacity() <= TEXT, "{}", cut.capacity());
        assert_eq!(Value::from("short".to_owned()), Value::Text("short".into()));
    }

    #[test]
    fn the_last_56_bits_decide() {
        let id = |byte: u8| {
            let mut id = [0xff; 16];
            id[9..].fill(0);
            id[9] = byte;
            TraceId(id)
        };
        assert!(Share::new(0.5).includes(id(0x80)) && !Share::new(0.5).includes(id(0x7f)));
        assert!(Share::new(0.25).includes(id(0xc0)) && !Share::new(0.25).includes(id(0xbf)));
    }
}
