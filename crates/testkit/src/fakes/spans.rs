//! Stores recorded spans.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidewheel_core::trace::{ChangeTrace, Span, Spans};

/// Stores every span. Clones share them.
#[derive(Clone, Default)]
pub struct FakeSpans(Arc<Mutex<Vec<Span>>>);

impl FakeSpans {
    /// Every span, in order of recording.
    pub fn all(&self) -> Vec<Span> {
        self.recorded().clone()
    }

    /// The spans of one change.
    pub fn of(&self, trace: ChangeTrace) -> Vec<Span> {
        self.recorded().iter().filter(|span| span.trace == trace.id).cloned().collect()
    }

    fn recorded(&self) -> MutexGuard<'_, Vec<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spans for FakeSpans {
    fn record(&self, spans: Vec<Span>) {
        self.recorded().extend(spans);
    }
}
