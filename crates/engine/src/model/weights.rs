//! The weights of a model, read from `model.safetensors` or its shards, one tensor at a time.
//!
//! No file is ever held in memory as a whole: the largest part, the vocabulary, is read directly into its buffer, and a
//! layer's matrices live only until the engine has packed them. Sizes come from the tensors' own shapes, which are
//! checked against `config.json` before anything is computed from it.

use std::path::PathBuf;

use super::files::Files;
use super::safetensors::Tensors;
use super::{Description, LoadError, shards};
use crate::hasher::Hasher;

/// A matrix with one row per output, and its bias.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Row-major, `outputs` rows of `inputs` values.
    pub weight: Vec<f32>,
    /// One value per output.
    pub bias: Vec<f32>,
    /// Number of rows.
    pub outputs: usize,
    /// Length of a row.
    pub inputs: usize,
}

/// Scale and shift of a layer normalisation.
#[derive(Clone, Debug, PartialEq)]
pub struct Norm {
    /// Multiplied with the normalised value.
    pub scale: Vec<f32>,
    /// Added to the scaled value.
    pub shift: Vec<f32>,
}

/// One transformer layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Query projection.
    pub query: Linear,
    /// Key projection.
    pub key: Linear,
    /// Value projection.
    pub value: Linear,
    /// Output projection of attention.
    pub output: Linear,
    /// After the first residual.
    pub attention_norm: Norm,
    /// First half of the feed-forward layer.
    pub up: Linear,
    /// Second half.
    pub down: Linear,
    /// After the second residual.
    pub output_norm: Norm,
}

const WORDS: &str = "embeddings.word_embeddings.weight";
const POSITIONS: &str = "embeddings.position_embeddings.weight";
const TYPES: &str = "embeddings.token_type_embeddings.weight";

/// The open weight files of a model, with tensor shapes validated against its description.
#[derive(Debug)]
pub struct Weights {
    model: PathBuf,
    shards: Vec<Tensors>,
    /// Prefix of every name: empty, `bert.`, `model.`, …
    prefix: String,
    hasher: Hasher,
}

impl Weights {
    /// Opens `model.safetensors`, or the shards of its index, and checks the tensors' shapes against the description.
    ///
    /// # Errors
    /// A file is missing or malformed, or a tensor is missing or has the wrong shape.
    pub fn open(model: &Description) -> Result<Self, LoadError> {
        let files = Files::new(&model.directory);
        let names = shards::names(&files, &model.folder)?;
        let shards = names.iter().map(|name| Tensors::open(&files.path(name))).collect::<Result<Vec<_>, _>>()?;
        let mut hasher = None;
        for shard in &shards {
            match &mut hasher {
                None => hasher = Some(Hasher::new(shard.header.hash)),
                Some(hasher) => hasher.write(shard.header.hash),
            }
        }
        let main = files.path(&names[0]);
        let mut prefixes: Vec<String> = shards
            .iter()
            .flat_map(|shard| shard.header.names())
            .filter_map(|name| name.strip_suffix(WORDS).map(str::to_owned))
            .collect();
        let (Some(prefix), Some(hasher)) = (prefixes.pop(), hasher) else {
            return Err(LoadError::malformed(&main, format!("missing tensor {WORDS}")));
        };
        if let Some(other) = prefixes.pop() {
            let problem = format!("found both {prefix}{WORDS} and {other}{WORDS} (supported: one network)");
            return Err(LoadError::unsupported(&model.directory, problem));
        }
        let weights = Self { model: model.directory.clone(), shards, prefix, hasher };
        weights.check(model)?;
        Ok(weights)
    }

    /// Checks the shapes of all tensors against the description, so that its sizes can be trusted afterwards.
    fn check(&self, model: &Description) -> Result<(), LoadError> {
        let hidden = model.hidden;
        self.expect(WORDS, &[model.vocabulary, hidden])?;
        self.expect(POSITIONS, &[model.positions, hidden])?;
        let types = self.shape(TYPES)?;
        if !matches!(types, [rows, width] if *rows > 0 && *width == hidden) {
            let cause = format!("tensor {}{TYPES} has shape {types:?}, expected rows of {hidden}", self.prefix);
            return Err(LoadError::malformed(&self.shards[0].path, cause));
        }
        // Last layer first, so that an excessive number of layers fails immediately.
        for layer in (0..model.layers).rev() {
            for (name, outputs, inputs) in linears(model) {
                self.expect(&format!("encoder.layer.{layer}.{name}.weight"), &[outputs, inputs])?;
            }
        }
        Ok(())
    }

    /// Reads the word embedding: `vocabulary` rows of `hidden` values.
    ///
    /// # Errors
    /// The tensor is missing or has the wrong shape.
    pub fn words(&mut self, model: &Description) -> Result<Vec<f32>, LoadError> {
        self.tensor(WORDS, &[model.vocabulary, model.hidden])
    }

    /// Reads the values added to the word embedding at each position: the position embedding plus that of token type 0,
    /// the only type in a single text. `max_tokens` rows of `hidden` values; in the RoBERTa family preceded by the row of
    /// the padding.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub fn places(&mut self, model: &Description) -> Result<Vec<f32>, LoadError> {
        let positions = self.tensor(POSITIONS, &[model.positions, model.hidden])?;
        let types = self.shape(TYPES)?.to_vec();
        let types = self.tensor(TYPES, &types)?;
        let first = model.padding.map_or(0, |id| id as usize);
        let count = model.max_tokens + usize::from(model.padding.is_some());
        let rows = positions.chunks_exact(model.hidden).skip(first).take(count);
        if rows.len() != count {
            let cause = format!("too few positions for {} tokens", model.max_tokens);
            return Err(LoadError::malformed(&self.shards[0].path, cause));
        }
        let kind = &types[..model.hidden];
        let mut places = Vec::with_capacity(count * model.hidden);
        for row in rows {
            places.extend(row.iter().zip(kind).map(|(a, b)| a + b));
        }
        Ok(places)
    }

    /// Reads the normalisation of the embeddings.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub fn embedding_norm(&mut self, model: &Description) -> Result<Norm, LoadError> {
        self.norm("embeddings.LayerNorm", model.hidden)
    }

    /// Reads one transformer layer.
    ///
    /// # Errors
    /// A tensor is missing or has the wrong shape.
    pub fn layer(&mut self, model: &Description, index: usize) -> Result<Layer, LoadError> {
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        let [query, key, value, output, up, down] = linears(model);
        let mut linear = |(part, outputs, inputs): (&str, usize, usize)| self.linear(&name(part), outputs, inputs);
        // The revision depends on this order.
        let (query, key, value, output) = (linear(query)?, linear(key)?, linear(value)?, linear(output)?);
        let attention_norm = self.norm(&name("attention.output.LayerNorm"), model.hidden)?;
        let mut linear = |(part, outputs, inputs): (&str, usize, usize)| self.linear(&name(part), outputs, inputs);
        let (up, down) = (linear(up)?, linear(down)?);
        let output_norm = self.norm(&name("output.LayerNorm"), model.hidden)?;
        Ok(Layer { query, key, value, output, attention_norm, up, down, output_norm })
    }

    /// Returns a fingerprint of the headers and of the tensors read so far.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.hasher.finish()
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Linear, LoadError> {
        Ok(Linear {
            weight: self.tensor(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: self.tensor(&format!("{name}.bias"), &[outputs])?,
            outputs,
            inputs,
        })
    }

    fn norm(&mut self, name: &str, size: usize) -> Result<Norm, LoadError> {
        // Checkpoints converted from the first BERT release use gamma and beta.
        let (scale, shift) =
            if self.shape(&format!("{name}.gamma")).is_ok() { ("gamma", "beta") } else { ("weight", "bias") };
        Ok(Norm {
            scale: self.tensor(&format!("{name}.{scale}"), &[size])?,
            shift: self.tensor(&format!("{name}.{shift}"), &[size])?,
        })
    }

    fn shape(&self, name: &str) -> Result<&[usize], LoadError> {
        let full = format!("{}{name}", self.prefix);
        let found = self.shards.iter().find_map(|shard| shard.header.shape(&full));
        found.ok_or_else(|| LoadError::malformed(&self.shards[0].path, format!("missing tensor {full}")))
    }

    fn expect(&self, name: &str, shape: &[usize]) -> Result<(), LoadError> {
        let found = self.shape(name)?;
        if found == shape {
            return Ok(());
        }
        let cause = format!("tensor {}{name} has shape {found:?}, config.json requires {shape:?}", self.prefix);
        Err(LoadError::malformed(&self.shards[0].path, cause))
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        self.expect(name, shape)?;
        let full = format!("{}{name}", self.prefix);
        let shard = self.shards.iter_mut().find(|shard| shard.header.shape(&full).is_some());
        let Some(shard) = shard else { unreachable!("its shape was found") };
        let (values, hash) = shard.read(&self.model, &full)?;
        self.hasher.write(hash);
        Ok(values)
    }
}

/// Returns the matrices of a layer: name, outputs, inputs.
fn linears(model: &Description) -> [(&'static str, usize, usize); 6] {
    let (hidden, intermediate) = (model.hidden, model.intermediate);
    [
        ("attention.self.query", hidden, hidden),
        ("attention.self.key", hidden, hidden),
        ("attention.self.value", hidden, hidden),
        ("attention.output.dense", hidden, hidden),
        ("intermediate.dense", intermediate, hidden),
        ("output.dense", hidden, intermediate),
    ]
}
