//! Metrics of the processor.

use metrics::{Counter, counter};
use tidewheel_core::catalog::IndexName;
use tidewheel_core::metric::{PROCESSOR_SUPERSEDED, PROCESSOR_TEXTS, PROCESSOR_TOKENS_SAVED};

use super::NAME;

/// Handle to the counter of changes that were not embedded. Handles write to the recorder that is installed when they are
/// created.
pub(super) fn superseded() -> Counter {
    counter!(PROCESSOR_SUPERSEDED)
}

/// Handles to the counters of texts of one index.
pub(super) struct IndexMetrics {
    pub(super) embedded: Counter,
    pub(super) known: Saved,
    pub(super) repeated: Saved,
}

/// Texts and tokens that were not embedded.
pub(super) struct Saved {
    pub(super) texts: Counter,
    pub(super) tokens: Counter,
}

impl IndexMetrics {
    /// Creates them, at zero.
    pub(super) fn new(index: &IndexName) -> Self {
        let texts = |origin: &'static str| counter!(PROCESSOR_TEXTS, "index" => index.to_string(), "origin" => origin);
        let saved = |origin: &'static str| Saved {
            texts: texts(origin),
            tokens: counter!(PROCESSOR_TOKENS_SAVED, "index" => index.to_string(), "origin" => origin),
        };
        crate::metric::parked(NAME, Some(index.as_str()), 0);
        Self { embedded: texts("embedder"), known: saved("index"), repeated: saved("batch") }
    }
}
