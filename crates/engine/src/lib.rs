//! The engines: what turns token ids into vectors.
//!
//! Every engine gives a text the same answer whatever else is computed beside it. Texts are never padded: what a tile
//! costs is what its tokens cost.

mod bert;
mod buffer;
pub mod hash;
mod kernel;
mod load;
pub mod model;
mod pack;
mod peak;
pub mod pieces;
mod select;
mod team;
pub mod tokens;
mod word;

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};

use crate::tokens::Encoding;

pub use buffer::Workspace;
pub use load::{ModelSource, ModelSpec, load};
pub use pack::pack;
pub use peak::measure_peak;
pub use select::Kernel;

/// With which numbers the matrices are multiplied. Sums, residuals, normalisation and softmax are always `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// The faster of [`Precision::F32`] and [`Precision::Bf16`] with this model's shapes, measured at load. Only
    /// [`Precision::F32`] where the processor has no instructions for bf16.
    #[default]
    Auto,
    /// IEEE single precision.
    F32,
    /// Operands rounded to eight significant bits. Where the processor has no instructions for it, [`Precision::F32`]
    /// is used: it is no slower there, and more exact.
    Bf16,
    /// Operands rounded to 8-bit integers: weights by column, activations by token. Where the processor has no
    /// instructions for it, [`Precision::F32`] is used.
    Int8,
}

impl Precision {
    /// As written in settings.
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

/// What an engine says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EngineInfo {
    /// The model's name.
    pub model: String,
    /// Tells two versions of a model of the same name apart: a fingerprint of its weights and settings, without the
    /// precision.
    pub revision: String,
    /// Values in a vector.
    pub dimension: usize,
    /// Tokens of a text that count, special tokens included.
    pub max_tokens: usize,
    /// Tokens that a tile should have: more gain nothing, far fewer cost speed.
    pub tile_tokens: usize,
    /// How tokens become one vector.
    pub pooling: &'static str,
    /// Whether vectors have length one.
    pub normalized: bool,
    /// What is computed with; never [`Precision::Auto`].
    pub precision: Precision,
    /// The instructions in use, for example `avx512-bf16`.
    pub kernel: &'static str,
    /// Belongs in front of a search's text.
    pub query_prefix: String,
    /// Belongs in front of a document's text.
    pub passage_prefix: String,
    /// Whether the tokens of a prefix are pooled too.
    pub include_prompt: bool,
    /// What was measured at load to choose precision and kernel; empty where there was no choice.
    pub measured: Vec<Measurement>,
}

/// One way to compute, and how fast it was with this model's shapes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurement {
    /// What is computed with.
    pub precision: Precision,
    /// The instructions.
    pub kernel: String,
    /// Tokens a second on one core, through all layers.
    pub tokens_per_second: u64,
}

/// One text for an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<'a> {
    /// Token ids, special tokens included.
    pub ids: &'a [u32],
    /// So many of the first tokens are read but not pooled: those of a prompt, in models that leave it out.
    pub unpooled: usize,
}

impl<'a> Text<'a> {
    /// A text whose tokens are all pooled.
    #[must_use]
    pub fn plain(ids: &'a [u32]) -> Self {
        Self { ids, unpooled: 0 }
    }

    /// Texts whose tokens are all pooled.
    #[must_use]
    pub fn list(batch: &[&'a [u32]]) -> Vec<Self> {
        batch.iter().copied().map(Self::plain).collect()
    }
}

/// What was measured, in a line for people; empty if nothing was.
#[must_use]
pub fn describe(measured: &[Measurement]) -> String {
    let one = |Measurement { precision, kernel, tokens_per_second }: &Measurement| {
        format!("{} ({kernel}) {tokens_per_second} tokens/s", precision.name())
    };
    measured.iter().map(one).collect::<Vec<_>>().join(" · ")
}

/// Turns texts into vectors. One engine serves any number of threads at once.
pub trait Engine: Send + Sync + 'static {
    /// What this engine is.
    fn info(&self) -> &EngineInfo;

    /// The token ids of one text, cut at the model's maximum. Prefixes are the caller's business.
    fn tokenize(&self, text: &str) -> Encoding;

    /// Tokens of a prefix that are read but not pooled; 0 in nearly all models. See [`Text::unpooled`].
    fn unpooled(&self, _prefix: &str) -> usize {
        0
    }

    /// The model's tokenizer in the form of `tokenizer.json`, if it has one.
    fn tokenizer_json(&self) -> Option<String> {
        None
    }

    /// The byte range of every token of the whole text: not cut, without special tokens.
    fn token_spans(&self, text: &str) -> Vec<Range<usize>>;

    /// Computes all texts of `batch` on the calling thread. Nothing is allocated once `workspace` has grown to the
    /// size of a tile, and no other thread is waited for. `out` receives one vector after the other, in order. A text
    /// without any token gives zeros.
    ///
    /// # Panics
    /// `out` has not `dimension` values for each text, a text is longer than `max_tokens`, or an id is not in the
    /// vocabulary.
    fn embed_tile(&self, batch: &[Text<'_>], workspace: &mut Workspace, out: &mut [f32]);

    /// Computes one text as fast as this machine can, on several cores if that helps. Calls at the same time do not
    /// wait for one another: whoever finds the other cores taken computes alone.
    ///
    /// # Panics
    /// As [`Engine::embed_tile`].
    fn embed_one(&self, text: Text<'_>, out: &mut [f32]);

    /// Computes a whole batch on `threads` threads (0: all cores): packs it into tiles that hold no padding, and hands
    /// the next one to whichever thread is free.
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

/// All cores that this process may use, where the caller did not say how many.
fn threads_or_all(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        some => some,
    }
}
