//! The exporter of trace spans.

use crate::trace::Span;

/// Exports spans that have ended.
///
/// Best effort, unlike the other ports: the pipeline never slows down because of it.
pub trait Spans: Send + Sync {
    /// Exports these spans. Never waits and never fails; excess spans are dropped.
    fn record(&self, spans: Vec<Span>);
}
