//! A memory of the spans that were told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidewheel_core::ports::Spans;
use tidewheel_core::trace::{ChangeTrace, Span};

/// Keeps every span. Clones share their memory.
#[derive(Clone, Default)]
pub struct FakeSpans(Arc<Mutex<Vec<Span>>>);

impl FakeSpans {
    /// Every span, in the order in which they were told.
    pub fn all(&self) -> Vec<Span> {
        self.told().clone()
    }

    /// Those of one change.
    pub fn of(&self, trace: ChangeTrace) -> Vec<Span> {
        self.told().iter().filter(|span| span.trace == trace.id).cloned().collect()
    }

    fn told(&self) -> MutexGuard<'_, Vec<Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spans for FakeSpans {
    fn record(&self, spans: Vec<Span>) {
        self.told().extend(spans);
    }
}
