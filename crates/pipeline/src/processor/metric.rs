//! Metrics of the processor.

use metrics::{Counter, counter};
use tidewheel_core::metric::{PROCESSOR_SUPERSEDED, PROCESSOR_TEXTS, PROCESSOR_TOKENS_SAVED};

/// Handles to the counters. They write to the recorder that is installed when they are created.
pub(super) struct ServiceMetrics {
    pub(super) embedded: Counter,
    pub(super) known: Saved,
    pub(super) repeated: Saved,
    pub(super) superseded: Counter,
}

/// Texts and tokens that were not embedded.
pub(super) struct Saved {
    pub(super) texts: Counter,
    pub(super) tokens: Counter,
}

impl ServiceMetrics {
    pub(super) fn new() -> Self {
        let saved = |origin: &'static str| Saved {
            texts: counter!(PROCESSOR_TEXTS, "origin" => origin),
            tokens: counter!(PROCESSOR_TOKENS_SAVED, "origin" => origin),
        };
        Self {
            embedded: counter!(PROCESSOR_TEXTS, "origin" => "embedder"),
            known: saved("index"),
            repeated: saved("batch"),
            superseded: counter!(PROCESSOR_SUPERSEDED),
        }
    }
}
