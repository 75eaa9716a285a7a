//! The options of a model load: source, number format, instruction set.

use std::path::PathBuf;

use crate::Precision;
use crate::model::LoadError;

/// The source of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelSource {
    /// A sentence-transformers directory.
    Directory(PathBuf),
    /// No model: hash-based vectors of this dimension.
    Hash(usize),
}

/// Options for loading a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The model.
    pub source: ModelSource,
    /// Name shown in `/info`. Empty: the directory's name.
    pub name: String,
    /// Number format of the computation.
    pub precision: Precision,
    /// Instruction set; `None` selects the fastest that this CPU supports.
    pub kernel: Option<Kernel>,
    /// Cores that one text may use ([`embed_one`](crate::Engine::embed_one)); 0 means all.
    pub threads: usize,
    /// Prefix of search queries; overrides the model's files.
    pub query_prefix: Option<String>,
    /// Prefix of document texts; overrides the model's files.
    pub passage_prefix: Option<String>,
}

impl ModelSpec {
    /// Creates options with default settings.
    #[must_use]
    pub fn new(source: ModelSource) -> Self {
        Self {
            source,
            name: String::new(),
            precision: Precision::Auto,
            kernel: None,
            threads: 0,
            query_prefix: None,
            passage_prefix: None,
        }
    }

    /// Parses `hash:DIM`. Returns `None` for any other model name.
    ///
    /// # Errors
    /// The dimension after `hash:` is invalid.
    pub fn hash_dimension(model: &str) -> Result<Option<usize>, LoadError> {
        let Some(dimension) = model.strip_prefix("hash:") else { return Ok(None) };
        match dimension.parse() {
            // Qdrant's own limit.
            Ok(dimension @ 1..=65_536) => Ok(Some(dimension)),
            _ => Err(LoadError::BadHash(model.to_owned())),
        }
    }
}

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// AVX-512, with the extensions for each precision that this CPU supports.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// ARM's NEON.
    Neon,
    /// The baseline of this architecture.
    Portable,
}

impl Kernel {
    /// Returns the kernels that this CPU supports, fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if crate::kernel::Avx512::detect().is_some() {
                kernels.push(Self::Avx512);
            }
            if crate::kernel::Avx2::detect().is_some() {
                kernels.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if crate::kernel::Neon::detect().is_some() {
            kernels.push(Self::Neon);
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// Whether models on this CPU compute in [`Precision::Int8`] when that is requested, instead of falling back.
    #[must_use]
    pub fn computes_int8() -> bool {
        match Self::available()[0] {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                crate::kernel::Avx512Bf16::detect().is_some() || crate::kernel::Avx512Vnni::detect().is_some()
            }
            Self::Portable => true,
            _ => false,
        }
    }
}
