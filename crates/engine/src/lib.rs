//! The embedding engines: compute vectors from token ids.
//!
//! A text's vector never depends on the other texts of a batch. Texts are never padded: a tile costs only what its tokens
//! cost.

mod bert;
mod buffer;
pub mod hash;
mod hasher;
mod kernel;
mod load;
pub mod model;
mod pack;
mod peak;
pub mod pieces;
mod select;
mod spec;
mod thread_pool;
pub mod tokens;
mod word;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::tokens::Encoding;

pub use buffer::Workspace;
pub use load::load;
pub use pack::pack;
pub use peak::measure_peak;
pub use spec::{Kernel, ModelSource, ModelSpec};

/// The number format of matrix multiplications. Sums, residuals, normalisation and softmax are always `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The faster of [`Precision::F32`] and [`Precision::Bf16`] for this model's shapes, measured at load. Always
    /// [`Precision::F32`] on CPUs without bf16 instructions.
    #[default]
    Auto,
    /// IEEE single precision.
    F32,
    /// Operands rounded to eight significant bits. Falls back to [`Precision::F32`] on CPUs without bf16 instructions,
    /// where it is no slower and more exact.
    Bf16,
    /// Operands rounded to 8-bit integers: weights per column, activations per token. Falls back to [`Precision::F32`] on
    /// CPUs without int8 instructions.
    Int8,
}

impl Precision {
    /// Returns the name used in settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

/// Properties of an engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineInfo {
    /// The model's name.
    pub model: String,
    /// Fingerprint of the model's weights and settings, without the precision: distinguishes versions of a model with the
    /// same name.
    pub revision: String,
    /// Vector dimension.
    pub dimension: usize,
    /// Maximum tokens of a text, including special tokens.
    pub max_tokens: usize,
    /// Target tokens per tile: more gain nothing, far fewer cost speed.
    pub tile_tokens: usize,
    /// Pooling of token vectors.
    pub pooling: &'static str,
    /// Whether vectors have unit length.
    pub normalized: bool,
    /// Number format in use; never [`Precision::Auto`].
    pub precision: Precision,
    /// Instruction set in use, for example `avx512-bf16`.
    pub kernel: &'static str,
    /// Prefix to prepend to search queries.
    pub query_prefix: String,
    /// Prefix to prepend to document texts.
    pub passage_prefix: String,
    /// Whether prefix tokens are pooled too.
    pub include_prompt: bool,
    /// Measurements at load that selected precision and kernel; empty if there was no choice.
    pub measured: Vec<Measurement>,
}

/// The measured speed of one precision and kernel with this model's shapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// Number format.
    pub precision: Precision,
    /// Instruction set.
    pub kernel: String,
    /// Tokens per second on one core, through all layers.
    pub tokens_per_second: u64,
}

/// One tokenized text as engine input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<'a> {
    /// Token ids, including special tokens.
    pub ids: &'a [u32],
    /// Number of leading tokens excluded from pooling: those of a prompt, in models that exclude it.
    pub unpooled: usize,
}

impl<'a> Text<'a> {
    /// Creates a text with all tokens pooled.
    #[must_use]
    pub fn plain(ids: &'a [u32]) -> Self {
        Self { ids, unpooled: 0 }
    }

    /// Creates texts with all tokens pooled.
    #[must_use]
    pub fn list(batch: &[&'a [u32]]) -> Vec<Self> {
        batch.iter().copied().map(Self::plain).collect()
    }
}

/// Formats measurements in one line; empty if there are none.
#[must_use]
pub fn describe(measured: &[Measurement]) -> String {
    let one = |Measurement { precision, kernel, tokens_per_second }: &Measurement| {
        format!("{} ({kernel}) {tokens_per_second} tokens/s", precision.name())
    };
    measured.iter().map(one).collect::<Vec<_>>().join(" · ")
}

/// Computes vectors of texts. May be used from any number of threads concurrently.
pub trait Engine: Send + Sync + 'static {
    /// Returns the engine's properties.
    fn info(&self) -> &EngineInfo;

    /// Tokenizes one text, truncated at the model's maximum. The caller adds prefixes.
    fn tokenize(&self, text: &str) -> Encoding;

    /// Returns the number of prefix tokens excluded from pooling; 0 in nearly all models. See [`Text::unpooled`].
    fn unpooled(&self, _prefix: &str) -> usize {
        0
    }

    /// Returns the model's tokenizer as a `tokenizer.json`, if it has one.
    fn tokenizer_json(&self) -> Option<String> {
        None
    }

    /// Returns the byte range of every token of the text, untruncated and without special tokens.
    fn token_spans(&self, text: &str) -> Vec<Range<usize>>;

    /// Computes all texts of `batch` on the calling thread. Allocates nothing once `workspace` has grown to the size of a
    /// tile, and waits for no other thread. Writes the concatenated vectors to `out`, in order. A text without tokens
    /// yields zeros.
    ///
    /// # Panics
    /// `out` does not have `dimension` values per text, a text is longer than `max_tokens`, or an id is not in the
    /// vocabulary.
    fn embed_tile(&self, batch: &[Text<'_>], workspace: &mut Workspace, out: &mut [f32]);

    /// Computes one text with minimal latency, on several cores if that helps. Concurrent calls do not wait for each
    /// other: if the thread pool is in use, the calling thread computes alone.
    ///
    /// # Panics
    /// As [`Engine::embed_tile`].
    fn embed_one(&self, text: Text<'_>, out: &mut [f32]);

    /// Computes a whole batch on `threads` threads (0: all cores): packs it into tiles without padding, and gives each
    /// idle thread the next tile.
    ///
    /// # Panics
    /// As [`Engine::embed_tile`].
    fn embed(&self, batch: &[Text<'_>], threads: usize) -> Vec<f32> {
        let dimension = self.info().dimension;
        let lengths: Vec<usize> = batch.iter().map(|text| text.ids.len()).collect();
        let tiles = pack(&lengths, self.info().tile_tokens);
        let next = AtomicUsize::new(0);
        let work = || {
            let mut workspace = Workspace::default();
            let mut done = Vec::new();
            while let Some(tile) = tiles.get(next.fetch_add(1, Ordering::Relaxed)) {
                let texts: Vec<Text<'_>> = tile.iter().map(|&index| batch[index]).collect();
                let mut vectors = vec![0.0; texts.len() * dimension];
                self.embed_tile(&texts, &mut workspace, &mut vectors);
                done.push((tile, vectors));
            }
            done
        };
        let threads = threads_or_all(threads).min(tiles.len());
        let done = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            let mut done = work();
            for other in others {
                done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            done
        });
        let mut out = vec![0.0; batch.len() * dimension];
        for (tile, vectors) in done {
            for (&index, vector) in tile.iter().zip(vectors.chunks_exact(dimension)) {
                out[index * dimension..][..dimension].copy_from_slice(vector);
            }
        }
        out
    }
}

/// Resolves 0 to the number of available cores.
fn threads_or_all(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    }
}
