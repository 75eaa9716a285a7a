//! Which kernel computes: decided once, when a model is loaded, by what the processor says it can do.

use std::sync::Arc;

use super::bert::{Bert, TILE_TOKENS};
use super::kernel::{self, AttentionElement, Element, Isa};
use super::{Engine, EngineInfo, ModelSpec, Precision, threads_or_all};
use crate::model::{Description, LoadError};
use crate::tokens::Tokenizer;

/// A set of instructions to compute with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// AVX-512 with the instructions of each precision that this processor has.
    Avx512,
    /// AVX2 and FMA.
    Avx2,
    /// ARM's NEON.
    Neon,
    /// What the compiler may assume of every processor of this architecture.
    Portable,
}

impl Kernel {
    /// The kernels that this processor can run, the fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if kernel::Avx512::detect().is_some() {
                kernels.push(Self::Avx512);
            }
            if kernel::Avx2::detect().is_some() {
                kernels.push(Self::Avx2);
            }
        }
        #[cfg(target_arch = "aarch64")]
        if kernel::Neon::detect().is_some() {
            kernels.push(Self::Neon);
        }
        kernels.push(Self::Portable);
        kernels
    }
}

/// Loads a model of the BERT family for the best kernel, or the one that was asked for.
pub(super) fn load(
    spec: &ModelSpec,
    model: &Description,
    kernel: Option<Kernel>,
) -> Result<Arc<dyn Engine>, LoadError> {
    let loader = Loader { spec, model };
    match kernel.unwrap_or_else(|| Kernel::available()[0]) {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 => {
            let plain = kernel::Avx512::detect().ok_or(LoadError::NoKernel("avx512"))?;
            match (spec.precision, kernel::Avx512Bf16::detect(), kernel::Avx512Vnni::detect()) {
                (Precision::Auto | Precision::Bf16, Some(isa), _) => {
                    loader.load::<_, kernel::Bf16, kernel::Bf16>(isa, Precision::Bf16, "avx512-bf16")
                }
                (Precision::Int8, Some(isa), _) => {
                    loader.load::<_, kernel::Int8, kernel::Bf16>(isa, Precision::Int8, "avx512-vnni-bf16")
                }
                (Precision::Int8, None, Some(isa)) => {
                    loader.load::<_, kernel::Int8, kernel::F32>(isa, Precision::Int8, "avx512-vnni")
                }
                _ => loader.load::<_, kernel::F32, kernel::F32>(plain, Precision::F32, "avx512"),
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => {
            let isa = kernel::Avx2::detect().ok_or(LoadError::NoKernel("avx2"))?;
            loader.load::<_, kernel::F32, kernel::F32>(isa, Precision::F32, "avx2-fma")
        }
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon => {
            let isa = kernel::Neon::detect().ok_or(LoadError::NoKernel("neon"))?;
            loader.load::<_, kernel::F32, kernel::F32>(isa, Precision::F32, "neon")
        }
        Kernel::Portable => match spec.precision {
            Precision::Auto | Precision::F32 => {
                loader.load::<_, kernel::F32, kernel::F32>(kernel::Portable, Precision::F32, "portable")
            }
            Precision::Bf16 => {
                loader.load::<_, kernel::Bf16, kernel::Bf16>(kernel::Portable, Precision::Bf16, "portable")
            }
            Precision::Int8 => {
                loader.load::<_, kernel::Int8, kernel::F32>(kernel::Portable, Precision::Int8, "portable")
            }
        },
        #[cfg(target_arch = "x86_64")]
        Kernel::Neon => Err(LoadError::NoKernel("neon")),
        #[cfg(not(target_arch = "x86_64"))]
        Kernel::Avx512 | Kernel::Avx2 => Err(LoadError::NoKernel("avx")),
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        Kernel::Neon => Err(LoadError::NoKernel("neon")),
    }
}

struct Loader<'a> {
    spec: &'a ModelSpec,
    model: &'a Description,
}

impl Loader<'_> {
    fn load<V: Isa, E: Element<V>, A: AttentionElement<V>>(
        &self,
        isa: V,
        precision: Precision,
        kernel: &'static str,
    ) -> Result<Arc<dyn Engine>, LoadError> {
        let Self { spec, model } = self;
        let prompt = |chosen: &Option<String>, names: &[&str]| {
            let default = || names.iter().find_map(|name| model.prompts.get(*name)).cloned();
            chosen.clone().or_else(default).unwrap_or_default()
        };
        let directory = || model.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let info = EngineInfo {
            model: if spec.name.is_empty() { directory() } else { spec.name.clone() },
            revision: String::new(),
            dimension: model.hidden,
            max_tokens: model.max_tokens,
            tile_tokens: TILE_TOKENS.max(model.max_tokens),
            pooling: model.pooling.name(),
            normalized: model.normalize,
            precision,
            kernel,
            query_prefix: prompt(&spec.query_prefix, &["query"]),
            passage_prefix: prompt(&spec.passage_prefix, &["passage", "document"]),
        };
        let tokenizer = Tokenizer::load(model)?;
        Ok(Arc::new(Bert::<V, E, A>::load(isa, model, tokenizer, info, threads_or_all(spec.threads))?))
    }
}
