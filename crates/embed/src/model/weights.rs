//! The weights of a model, read from `model.safetensors` one tensor at a time.
//!
//! The file is never held as a whole: its largest part, the vocabulary, is read straight into place, and a layer's
//! matrices live only until the engine has packed them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata};

use super::{Description, LoadError};
use crate::hash::{Hasher, hash_bytes};

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
    /// Added to it.
    pub shift: Vec<f32>,
}

/// One transformer layer.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Produces the queries.
    pub query: Linear,
    /// Produces the keys.
    pub key: Linear,
    /// Produces the values.
    pub value: Linear,
    /// Applied to what attention gathered.
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

/// An open weights file whose tensors have been found to be those of a BERT.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors begin in the file.
    start: u64,
    /// In front of every name: nothing, `bert.`, `model.`, …
    prefix: String,
    hasher: Hasher,
}

/// Largest header that is read; the format allows 100 MB, a BERT's is some tens of kilobytes.
const MAX_HEADER: u64 = 16 << 20;

impl Weights {
    /// Opens `model.safetensors` in the model's directory.
    ///
    /// # Errors
    /// The file is missing, is no safetensors file, or has no word embedding.
    pub fn open(directory: &Path) -> Result<Self, LoadError> {
        let path = directory.join("model.safetensors");
        let io = |cause| LoadError::io(&path, cause);
        let mut file = File::open(&path).map_err(io)?;
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER {
            return Err(LoadError::malformed(&path, format!("it claims a header of {length} bytes")));
        }
        let mut header = vec![0; usize::try_from(length).expect("at most 16 MB")];
        file.read_exact(&mut header).map_err(io)?;
        let metadata: Metadata =
            serde_json::from_slice(&header).map_err(|cause| LoadError::malformed(&path, cause.to_string()))?;
        let end = 8 + length + metadata.data_len() as u64;
        let size = file.metadata().map_err(io)?.len();
        if size != end {
            return Err(LoadError::malformed(&path, format!("it has {size} bytes, its header describes {end}")));
        }
        let word = "embeddings.word_embeddings.weight";
        let prefix = metadata
            .offset_keys()
            .iter()
            .find_map(|name| name.strip_suffix(word).map(str::to_owned))
            .ok_or_else(|| LoadError::malformed(&path, format!("no tensor is named {word}")))?;
        Ok(Self { path, file, metadata, start: 8 + length, prefix, hasher: Hasher::new(hash_bytes(&header)) })
    }

    /// The word embedding: `vocabulary` rows of `hidden` values.
    ///
    /// # Errors
    /// The tensor is missing or of another shape.
    pub fn words(&mut self, model: &Description) -> Result<Vec<f32>, LoadError> {
        self.tensor("embeddings.word_embeddings.weight", &[model.vocabulary, model.hidden])
    }

    /// What is added to the word embedding at each place of a text: the position's embedding plus that of token type
    /// 0, the only type in a single text. `max_tokens` rows of `hidden` values.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn places(&mut self, model: &Description) -> Result<Vec<f32>, LoadError> {
        let positions = self.rows("embeddings.position_embeddings.weight", model.hidden)?;
        let types = self.rows("embeddings.token_type_embeddings.weight", model.hidden)?;
        let first = model.first_position * model.hidden;
        let wanted = positions.get(first..first + model.max_tokens * model.hidden).ok_or_else(|| {
            LoadError::malformed(&self.path, format!("it has no positions for {} tokens", model.max_tokens))
        })?;
        let kind = types
            .get(..model.hidden)
            .ok_or_else(|| LoadError::malformed(&self.path, "it has no embedding of token type 0"))?;
        Ok(wanted.chunks(model.hidden).flat_map(|row| row.iter().zip(kind).map(|(a, b)| a + b)).collect())
    }

    /// The normalisation of the embeddings.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn embedding_norm(&mut self, model: &Description) -> Result<Norm, LoadError> {
        self.norm("embeddings.LayerNorm", model.hidden)
    }

    /// One transformer layer.
    ///
    /// # Errors
    /// A tensor is missing or of another shape.
    pub fn layer(&mut self, model: &Description, index: usize) -> Result<Layer, LoadError> {
        let hidden = model.hidden;
        let name = |part: &str| format!("encoder.layer.{index}.{part}");
        Ok(Layer {
            query: self.linear(&name("attention.self.query"), hidden, hidden)?,
            key: self.linear(&name("attention.self.key"), hidden, hidden)?,
            value: self.linear(&name("attention.self.value"), hidden, hidden)?,
            output: self.linear(&name("attention.output.dense"), hidden, hidden)?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"), hidden)?,
            up: self.linear(&name("intermediate.dense"), model.intermediate, hidden)?,
            down: self.linear(&name("output.dense"), hidden, model.intermediate)?,
            output_norm: self.norm(&name("output.LayerNorm"), hidden)?,
        })
    }

    /// A number that is the same exactly when header and tensors read so far are the same.
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
        // Checkpoints converted from the first BERT release say gamma and beta.
        let (scale, shift) = if self.metadata.info(&format!("{}{name}.gamma", self.prefix)).is_some() {
            ("gamma", "beta")
        } else {
            ("weight", "bias")
        };
        Ok(Norm {
            scale: self.tensor(&format!("{name}.{scale}"), &[size])?,
            shift: self.tensor(&format!("{name}.{shift}"), &[size])?,
        })
    }

    /// A matrix with rows of this width, however many.
    fn rows(&mut self, name: &str, width: usize) -> Result<Vec<f32>, LoadError> {
        let rows = self.metadata.info(&format!("{}{name}", self.prefix)).and_then(|info| info.shape.first().copied());
        self.tensor(name, &[rows.unwrap_or(0), width])
    }

    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let name = format!("{}{name}", self.prefix);
        let Some(info) = self.metadata.info(&name) else {
            return Err(LoadError::malformed(&self.path, format!("the tensor {name} is missing")));
        };
        if info.shape != shape {
            let cause = format!("the tensor {name} has the shape {:?}, config.json says {shape:?}", info.shape);
            return Err(LoadError::malformed(&self.path, cause));
        }
        let (begin, end) = info.data_offsets;
        let dtype = info.dtype;
        let mut bytes = vec![0; end - begin];
        self.file
            .seek(SeekFrom::Start(self.start + begin as u64))
            .and_then(|_| self.file.read_exact(&mut bytes))
            .map_err(|cause| LoadError::io(&self.path, cause))?;
        self.hasher.write(hash_bytes(&bytes));
        match dtype {
            Dtype::F32 => Ok(bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect()),
            Dtype::F16 => Ok(bytes.as_chunks().0.iter().map(|value| f16_to_f32(u16::from_le_bytes(*value))).collect()),
            Dtype::BF16 => Ok(bytes
                .as_chunks()
                .0
                .iter()
                .map(|value| f32::from_bits(u32::from(u16::from_le_bytes(*value)) << 16))
                .collect()),
            other => Err(LoadError::malformed(
                &self.path,
                format!("the tensor {name} is of type {other:?}; the engine reads F32, F16 and BF16"),
            )),
        }
    }
}

/// IEEE 754 binary16 to binary32: exact.
fn f16_to_f32(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 31;
    let fraction = u32::from(half) & 0x3ff;
    let magnitude = match exponent {
        // Zero and subnormals: a multiple of 2^-24.
        #[expect(clippy::cast_precision_loss, reason = "ten bits")]
        0 => (fraction as f32 * 2f32.powi(-24)).to_bits(),
        31 => 0x7f80_0000 | fraction << 13,
        _ => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

#[cfg(test)]
mod tests {
    use super::f16_to_f32;

    #[test]
    fn half_precision_is_read_exactly() {
        for (half, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0400, 6.103_515_6e-5),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(f16_to_f32(half).to_bits(), f32::to_bits(value), "{half:#x}");
        }
        assert_eq!(f16_to_f32(0x8000).to_bits(), (-0f32).to_bits());
        assert!(f16_to_f32(0x7e00).is_nan());
    }
}
