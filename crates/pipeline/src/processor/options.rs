//! Resolved settings of the processor.

use super::blank::Blank;
use crate::consumer::ConsumerOptions;
use crate::parking::OnDeadLetter;

/// What the processor does with a document.
#[derive(Clone, Debug)]
pub struct ProcessorOptions {
    /// How entries are taken from stage 1.
    pub consumer: ConsumerOptions,
    /// With this many unconfirmed entries in stage 2 nothing more is handed over; stage 1 buffers meanwhile.
    pub high_water: u64,
    /// What of a document is embedded.
    pub text: TextOptions,
    /// Most tokens in a chunk; `None` for what the model reads at most.
    pub chunk_tokens: Option<usize>,
    /// Tokens that a chunk repeats from the one before, so that a sentence cut in two is whole in one of them.
    pub chunk_overlap: usize,
    /// What becomes of a document without any text.
    pub blank: Blank,
    /// What a parked change does to the version in the index.
    pub on_dead_letter: OnDeadLetter,
    /// Most chunks of a document; one with more is parked.
    pub max_chunks: usize,
}

/// What of a document is embedded: the template if there is one, else the fields, else (also of a document that has none of
/// the fields) every string.
#[derive(Clone, Debug, Default)]
pub struct TextOptions {
    /// A minijinja template over the document's fields.
    pub template: Option<String>,
    /// Paths of fields whose texts are joined by newlines: see [`tidewheel_core::paths`].
    pub fields: Vec<String>,
    /// Paths of fields that are left out where every string counts: the chunks' texts are a part of the payload too.
    pub exclude: Vec<String>,
}
