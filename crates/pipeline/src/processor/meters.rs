//! What the processor counts. The names are here and nowhere else.

use metrics::{Counter, counter, describe_counter};

/// Texts by where their vector came from: `embedder`, `index` (it had the vector already) or `batch` (another chunk of the batch
/// had the same text).
pub const TEXTS: &str = "tidewheel_processor_texts_total";
/// Tokens of texts that were not embedded, by where their vector came from: `index` or `batch`.
pub const TOKENS_SAVED: &str = "tidewheel_processor_tokens_saved_total";
/// Changes that were not embedded because a newer one of the same document was in the same batch.
pub const SUPERSEDED: &str = "tidewheel_processor_superseded_changes_total";

/// Handles to the counters. They write to the recorder that is installed when they are made.
pub(super) struct Meters {
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

impl Meters {
    pub(super) fn new() -> Self {
        describe_counter!(TEXTS, "Texts by where their vector came from");
        describe_counter!(TOKENS_SAVED, "Tokens of texts that were not embedded, by where their vector came from");
        describe_counter!(SUPERSEDED, "Changes that were not embedded because a newer one was in the same batch");
        let saved = |origin: &'static str| Saved {
            texts: counter!(TEXTS, "origin" => origin),
            tokens: counter!(TOKENS_SAVED, "origin" => origin),
        };
        Self {
            embedded: counter!(TEXTS, "origin" => "embedder"),
            known: saved("index"),
            repeated: saved("batch"),
            superseded: counter!(SUPERSEDED),
        }
    }
}
