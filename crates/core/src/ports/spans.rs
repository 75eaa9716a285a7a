//! Whoever is told what became of the changes that are traced.

use crate::trace::Span;

/// Takes spans that have ended, to show them to somebody some day.
///
/// Unlike the other ports it promises nothing: the pipeline goes on at the same speed whether anybody looks or not.
pub trait Spans: Send + Sync {
    /// Takes these spans. Never waits and never fails; what cannot be taken is dropped.
    fn record(&self, spans: Vec<Span>);
}
