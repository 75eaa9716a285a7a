//! Resolved settings of the processor.

pub use tidewheel_core::catalog::Blank;

use crate::consumer::ConsumerOptions;
use crate::parking::OnDeadLetter;

/// Settings of the processor.
#[derive(Clone, Debug)]
pub struct ProcessorOptions {
    /// How entries are consumed from stage 1.
    pub consumer: ConsumerOptions,
    /// Number of unacknowledged entries in stage 2 above which nothing is handed over; stage 1 buffers meanwhile.
    pub high_water: u64,
    /// The text of a document to embed.
    pub text: TextOptions,
    /// Maximum number of tokens per chunk, with the prefix; `None` for the model's limit.
    pub chunk_tokens: Option<usize>,
    /// A template over the document's fields, whose text precedes every chunk in the input of the embedder, on a line of
    /// its own. Its tokens count.
    pub chunk_prefix: Option<String>,
    /// Tokens that a chunk repeats from the previous one, so that a split sentence is complete in one of them.
    pub chunk_overlap: usize,
    /// The handling of documents without text.
    pub blank: Blank,
    /// Effect of a parked change on the indexed version.
    pub on_dead_letter: OnDeadLetter,
    /// Maximum number of chunks of a document; a document with more is parked.
    pub max_chunks: usize,
}

/// The text of a document to embed: the template if set, else the fields, else (also for a document without any of the
/// fields) every string.
#[derive(Clone, Debug, Default)]
pub struct TextOptions {
    /// A minijinja template over the document's fields.
    pub template: Option<String>,
    /// Paths of fields whose texts are joined by newlines: see [`tidewheel_core::paths`].
    pub fields: Vec<String>,
    /// Paths of fields that are excluded when every string is embedded: the texts of chunks are part of the payload
    /// too.
    pub exclude: Vec<String>,
}
