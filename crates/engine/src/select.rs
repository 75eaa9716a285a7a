//! Which kernel computes: decided once, when a model is loaded, by what the processor says it can do, and by measuring
//! where it can do more than one thing.

use std::marker::PhantomData;
use std::sync::Arc;

use super::bert::{Bert, TILE_TOKENS};
#[cfg(target_arch = "x86_64")]
use super::bert::{Candidate, fastest};
use super::kernel::{self, AttentionElement, Element, Isa};
use super::{Engine, EngineInfo, Measurement, ModelSpec, Precision, threads_or_all};
use crate::model::{Description, LoadError, Weights};

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
    // The sizes in the description are checked against the tensors here, before anything is computed from them.
    let weights = Weights::open(model)?;
    let loader = Loader { spec, model, weights, measured: Vec::new() };
    match kernel.unwrap_or_else(|| Kernel::available()[0]) {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 => {
            let plain = kernel::Avx512::detect().ok_or(LoadError::NoKernel("avx512"))?;
            match (spec.precision, kernel::Avx512Bf16::detect(), kernel::Avx512Vnni::detect()) {
                (Precision::Auto, Some(isa), _) => {
                    let f32 = Way::<_, kernel::F32, kernel::F32>::new(plain, Precision::F32, "avx512");
                    loader.faster(f32, Way::<_, kernel::Bf16, kernel::Bf16>::new(isa, Precision::Bf16, "avx512-bf16"))
                }
                (Precision::Bf16, Some(isa), _) => {
                    loader.load(Way::<_, kernel::Bf16, kernel::Bf16>::new(isa, Precision::Bf16, "avx512-bf16"))
                }
                // The products are the same, attention may be either.
                (Precision::Int8, Some(isa), _) => {
                    let f32 = Way::<_, kernel::Int8, kernel::F32>::new(isa, Precision::Int8, "avx512-vnni");
                    let bf16 = Way::<_, kernel::Int8, kernel::Bf16>::new(isa, Precision::Int8, "avx512-vnni-bf16");
                    loader.faster(f32, bf16)
                }
                (Precision::Int8, None, Some(isa)) => {
                    loader.load(Way::<_, kernel::Int8, kernel::F32>::new(isa, Precision::Int8, "avx512-vnni"))
                }
                _ => loader.load(Way::<_, kernel::F32, kernel::F32>::new(plain, Precision::F32, "avx512")),
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => {
            let isa = kernel::Avx2::detect().ok_or(LoadError::NoKernel("avx2"))?;
            loader.load(Way::<_, kernel::F32, kernel::F32>::new(isa, Precision::F32, "avx2-fma"))
        }
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon => {
            let isa = kernel::Neon::detect().ok_or(LoadError::NoKernel("neon"))?;
            loader.load(Way::<_, kernel::F32, kernel::F32>::new(isa, Precision::F32, "neon"))
        }
        Kernel::Portable => match spec.precision {
            Precision::Auto | Precision::F32 => {
                loader.load(Way::<_, kernel::F32, kernel::F32>::new(kernel::Portable, Precision::F32, "portable"))
            }
            Precision::Bf16 => {
                loader.load(Way::<_, kernel::Bf16, kernel::Bf16>::new(kernel::Portable, Precision::Bf16, "portable"))
            }
            Precision::Int8 => {
                loader.load(Way::<_, kernel::Int8, kernel::F32>::new(kernel::Portable, Precision::Int8, "portable"))
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

/// One way to compute: instructions, form of the products' operands, and of attention's.
#[derive(Clone, Copy)]
struct Way<V, E, A> {
    isa: V,
    precision: Precision,
    kernel: &'static str,
    forms: PhantomData<(E, A)>,
}

impl<V, E, A> Way<V, E, A> {
    fn new(isa: V, precision: Precision, kernel: &'static str) -> Self {
        Self { isa, precision, kernel, forms: PhantomData }
    }
}

struct Loader<'a> {
    spec: &'a ModelSpec,
    model: &'a Description,
    weights: Weights,
    measured: Vec<Measurement>,
}

impl Loader<'_> {
    /// Loads for the faster of two ways, of which the first is the more exact.
    #[cfg(target_arch = "x86_64")]
    fn faster<V, E, A, W, F, B>(
        mut self,
        exact: Way<V, E, A>,
        other: Way<W, F, B>,
    ) -> Result<Arc<dyn Engine>, LoadError>
    where
        V: Isa,
        E: Element<V>,
        A: AttentionElement<V>,
        W: Isa,
        F: Element<W>,
        B: AttentionElement<W>,
    {
        let first = Candidate::new::<V, E, A>(exact.isa, self.model, exact.precision, exact.kernel);
        let second = Candidate::new::<W, F, B>(other.isa, self.model, other.precision, other.kernel);
        let (Some(first), Some(second)) = (first, second) else { return self.load(exact) };
        let (chosen, measured) = fastest(vec![first, second], self.model.layers);
        self.measured = measured;
        if chosen == 0 { self.load(exact) } else { self.load(other) }
    }

    fn load<V: Isa, E: Element<V>, A: AttentionElement<V>>(
        self,
        way: Way<V, E, A>,
    ) -> Result<Arc<dyn Engine>, LoadError> {
        let Self { spec, model, weights, measured } = self;
        let directory = || model.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let info = EngineInfo {
            model: if spec.name.is_empty() { directory() } else { spec.name.clone() },
            revision: String::new(),
            dimension: model.hidden,
            max_tokens: model.max_tokens,
            tile_tokens: TILE_TOKENS.max(model.max_tokens),
            pooling: model.pooling.name(),
            normalized: model.normalize,
            precision: way.precision,
            kernel: way.kernel,
            query_prefix: spec.query_prefix.clone().unwrap_or_else(|| model.prompts.query.clone()),
            passage_prefix: spec.passage_prefix.clone().unwrap_or_else(|| model.prompts.document.clone()),
            include_prompt: model.include_prompt,
            measured,
        };
        let threads = threads_or_all(spec.threads);
        Ok(Arc::new(Bert::<V, E, A>::load(way.isa, model, weights, info, threads)?))
    }
}
