//! The engine for BERT-like models.

mod forward;
mod pooling;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "other architectures have a single candidate"))]
mod probe;
mod shape;
#[cfg(test)]
mod tests;
mod weights;

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use tidewheel_core::tokens::Tokens;

use self::forward::Pass;
#[cfg(target_arch = "x86_64")]
pub(super) use self::probe::{Candidate, fastest};
use self::shape::{Layout, Shape};
use self::weights::{PackedLinear, places};
use super::buffer::{Buffer, Workspace};
use super::kernel::{AttentionElement, Element, Isa};
use super::thread_pool::ThreadPool;
use super::{Engine, EngineInfo, Text};
use crate::model::{Activation, Description, Layer, LoadError, Norm, Pooling, Weights};
use crate::tokens::{Encoding, Tokenizer};

/// Tokens of a full tile: enough to reuse each weight panel many times while it is cached, few enough that the residual
/// and the heads stay cached too.
pub(super) const TILE_TOKENS: usize = 256;

/// A layer normalisation with zero padding, so that padded values stay zero.
#[derive(Debug)]
struct PaddedNorm {
    scale: Buffer,
    shift: Buffer,
}

#[derive(Debug)]
struct LayerWeights {
    /// All heads, followed by padding.
    query: PackedLinear,
    /// The keys of all heads, then the values.
    key_value: PackedLinear,
    output: PackedLinear,
    attention_norm: PaddedNorm,
    /// By chunk of the feed-forward layer.
    up: Vec<PackedLinear>,
    down: Vec<PackedLinear>,
    output_norm: PaddedNorm,
}

/// The weights of a model, packed for one instruction set and operand form; attention has its own operand form.
#[derive(Debug)]
struct Network<V, E, A> {
    isa: V,
    shape: Shape,
    activation: Activation,
    norm_epsilon: f32,
    max_tokens: usize,
    vocabulary: usize,
    /// The padding id, if it has its own position.
    padding: Option<u32>,
    words: Vec<f32>,
    places: Vec<f32>,
    embedding_norm: PaddedNorm,
    layers: Vec<LayerWeights>,
    forms: PhantomData<(E, A)>,
}

impl<V: Isa, E: Element<V>, A: AttentionElement<V>> Network<V, E, A> {
    fn load(isa: V, shape: Shape, model: &Description, source: &mut Weights) -> Result<Self, LoadError> {
        Ok(Self {
            isa,
            shape,
            activation: model.activation,
            norm_epsilon: model.norm_epsilon,
            max_tokens: model.max_tokens,
            vocabulary: model.vocabulary,
            padding: model.padding,
            words: source.words(model)?,
            places: source.places(model)?,
            embedding_norm: Self::norm(&shape, &source.embedding_norm(model)?),
            layers: (0..model.layers)
                .map(|index| Ok(Self::layer(&shape, model.intermediate, &source.layer(model, index)?)))
                .collect::<Result<_, LoadError>>()?,
            forms: PhantomData,
        })
    }

    fn layer(shape: &Shape, intermediate: usize, layer: &Layer) -> LayerWeights {
        let Shape { hidden, padded_hidden, heads, head, padded_head, gathered, chunks, chunk } = *shape;
        let hidden_places = places(0, hidden, padded_hidden);
        let head_places: Vec<_> = (0..heads).flat_map(|n| places(n * head, head, padded_head)).collect();
        let mut gathered_places = head_places.clone();
        gathered_places.resize(gathered, None);
        // Softmax uses powers of two.
        #[expect(clippy::cast_precision_loss, reason = "the width of a head")]
        let query_factor = std::f32::consts::LOG2_E / (head as f32).sqrt();
        let parts = (0..chunks)
            .map(|part| {
                let start = (part * chunk).min(intermediate);
                places(start, chunk.min(intermediate - start), chunk)
            })
            .collect::<Vec<_>>();
        LayerWeights {
            query: PackedLinear::new::<V, E>(
                &[(&layer.query, gathered_places.clone(), query_factor)],
                &hidden_places,
                true,
            ),
            key_value: PackedLinear::new::<V, E>(
                &[(&layer.key, head_places.clone(), 1.0), (&layer.value, head_places, 1.0)],
                &hidden_places,
                true,
            ),
            output: PackedLinear::new::<V, E>(&[(&layer.output, hidden_places.clone(), 1.0)], &gathered_places, true),
            attention_norm: Self::norm(shape, &layer.attention_norm),
            up: parts
                .iter()
                .map(|part| PackedLinear::new::<V, E>(&[(&layer.up, part.clone(), 1.0)], &hidden_places, true))
                .collect(),
            down: parts
                .iter()
                .enumerate()
                .map(|(n, part)| PackedLinear::new::<V, E>(&[(&layer.down, hidden_places.clone(), 1.0)], part, n == 0))
                .collect(),
            output_norm: Self::norm(shape, &layer.output_norm),
        }
    }

    fn norm(shape: &Shape, norm: &Norm) -> PaddedNorm {
        let pad = |values: &[f32]| {
            let mut padded = Buffer::zeroed(shape.padded_hidden);
            padded.floats_mut()[..values.len()].copy_from_slice(values);
            padded
        };
        PaddedNorm { scale: pad(&norm.scale), shift: pad(&norm.shift) }
    }
}

/// The thread pool with its layout and memory.
#[derive(Debug)]
struct PoolWork {
    pool: ThreadPool,
    layout: Layout,
    workspace: Workspace,
}

/// A model of the BERT family.
#[derive(Debug)]
pub(super) struct Bert<V, E, A> {
    info: EngineInfo,
    tokenizer: Tokenizer,
    network: Network<V, E, A>,
    pooling: Pooling,
    include_prompt: bool,
    layout: Layout,
    /// Held while computing one text on all cores.
    pool: Mutex<PoolWork>,
    /// Workspaces for callers that find the thread pool in use.
    spare: Mutex<Vec<Workspace>>,
}

impl<V: Isa, E: Element<V>, A: AttentionElement<V>> Bert<V, E, A> {
    /// Loads tokenizer and weights. `info` is complete except for the revision.
    pub(super) fn load(
        isa: V,
        model: &Description,
        mut source: Weights,
        mut info: EngineInfo,
        threads: usize,
    ) -> Result<Self, LoadError> {
        let tokenizer = Tokenizer::load(model)?;
        let too_large = || LoadError::unsupported(&model.directory, "one text needs more than 8 GiB of memory");
        let shape = Shape::new::<V, E, A>(model).ok_or_else(too_large)?;
        let longest = model.max_tokens;
        let pool = ThreadPool::new(threads);
        let layout = |tokens, members| Layout::new::<V, E, A>(&shape, tokens, longest, members).ok_or_else(too_large);
        let (layout, team_layout) = (layout(TILE_TOKENS.max(longest), 1)?, layout(longest, pool.size())?);
        if layout.capacity / V::ROWS * shape.chunks >= ThreadPool::MOST_UNITS {
            return Err(too_large());
        }
        let network = Network::load(isa, shape, model, &mut source)?;
        let suffix = model.revision_suffix(tokenizer.cuts_left(), tokenizer.is_overridden());
        info.revision = format!("{:016x}{suffix}", source.revision());
        Ok(Self {
            info,
            tokenizer,
            network,
            pooling: model.pooling,
            include_prompt: model.include_prompt,
            layout,
            pool: Mutex::new(PoolWork { pool, layout: team_layout, workspace: Workspace::default() }),
            spare: Mutex::default(),
        })
    }

    fn pool(&self, texts: &[Text<'_>], residual: &[f32], out: &mut [f32]) {
        let mut rows = residual.chunks_exact(self.network.shape.padded_hidden);
        for (text, out) in texts.iter().zip(out.chunks_exact_mut(self.info.dimension)) {
            pooling::pool(self.pooling, rows.by_ref().take(text.ids.len()), text.unpooled, out);
            if self.info.normalized {
                pooling::normalize(out);
            }
        }
    }
}

impl<V: Isa, E: Element<V>, A: AttentionElement<V>> Engine for Bert<V, E, A> {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn tokenize(&self, text: &str) -> Encoding {
        self.tokenizer.encode(text)
    }

    fn unpooled(&self, prefix: &str) -> usize {
        if self.include_prompt { 0 } else { self.tokenizer.prompt_tokens(prefix) }
    }

    fn tokenizer_json(&self) -> Option<String> {
        self.tokenizer.to_json()
    }

    fn token_spans(&self, text: &str) -> Vec<Range<usize>> {
        self.tokenizer.spans(text)
    }

    fn embed_tile(&self, batch: &[Text<'_>], workspace: &mut Workspace, out: &mut [f32]) {
        assert_eq!(out.len(), batch.len() * self.info.dimension, "one vector for each text");
        let memory = workspace.places(self.layout.places);
        let (mut batch, mut out) = (batch, out);
        while !batch.is_empty() {
            // A batch larger than a tile is split.
            let mut tokens = 0;
            let fits = batch.iter().take_while(|text| {
                tokens += text.ids.len();
                tokens <= self.layout.capacity
            });
            let count = fits.count().max(1);
            let (texts, others) = batch.split_at(count);
            let (vectors, rest) = out.split_at_mut(count * self.info.dimension);
            let mut pass = Pass::new(&self.network, &self.layout, texts, memory);
            pass.alone();
            self.pool(texts, pass.residual(), vectors);
            (batch, out) = (others, rest);
        }
    }

    fn embed_one(&self, text: Text<'_>, out: &mut [f32]) {
        assert_eq!(out.len(), self.info.dimension, "one vector");
        // A panic with the lock held leaves only values that the next pass overwrites.
        let work = match self.pool.try_lock() {
            Ok(work) => Some(work),
            Err(std::sync::TryLockError::Poisoned(work)) => Some(work.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        };
        match work {
            Some(mut work) if work.pool.size() > 1 => {
                let PoolWork { pool, layout, workspace } = &mut *work;
                let texts = [text];
                let mut pass = Pass::new(&self.network, layout, &texts, workspace.places(layout.places));
                share(&pass, pool);
                self.pool(&texts, pass.residual(), out);
            }
            _ => {
                let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner);
                let mut workspace = spare().pop().unwrap_or_default();
                self.embed_tile(&[text], &mut workspace, out);
                spare().push(workspace);
            }
        }
    }
}

/// Computes a pass on a thread pool.
#[allow(unsafe_code)]
fn share<V: Isa, E: Element<V>, A: AttentionElement<V>>(pass: &Pass<'_, V, E, A>, pool: &mut ThreadPool) {
    // SAFETY: the pool computes each unit once and each step after the previous one, its threads have distinct indices,
    // and the layout of a shared pass was made for this pool.
    pool.run(&pass.units(), &|step, unit, member| unsafe { pass.unit(step, unit, member) });
}
