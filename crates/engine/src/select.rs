//! Kernel selection: once per model load, by CPU feature detection, and by measurement if several kernels are candidates.

use std::marker::PhantomData;
use std::sync::Arc;

use super::bert::{Bert, TILE_TOKENS};
#[cfg(target_arch = "x86_64")]
use super::bert::{Candidate, fastest};
use super::kernel::{self, AttentionElement, Element, Isa};
use super::{Engine, EngineInfo, Measurement, Precision, threads_or_all};
use crate::model::{Description, LoadError, Weights};
use crate::spec::{Kernel, ModelSpec};

/// Loads a model of the BERT family for the best kernel, or for the requested one.
pub(super) fn load(
    spec: &ModelSpec,
    model: &Description,
    kernel: Option<Kernel>,
) -> Result<Arc<dyn Engine>, LoadError> {
    // Validates the description's sizes against the tensors before they are used.
    let weights = Weights::open(model)?;
    let loader = Loader { spec, model, weights, measured: Vec::new() };
    match kernel.unwrap_or_else(|| Kernel::available()[0]) {
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx512 => {
            let plain = kernel::Avx512::detect().ok_or(LoadError::NoKernel("avx512"))?;
            match (spec.precision, kernel::Avx512Bf16::detect(), kernel::Avx512Vnni::detect()) {
                (Precision::Auto, Some(isa), _) => {
                    let f32 = Variant::<_, kernel::F32, kernel::F32>::new(plain, Precision::F32, "avx512");
                    loader
                        .faster(f32, Variant::<_, kernel::Bf16, kernel::Bf16>::new(isa, Precision::Bf16, "avx512-bf16"))
                }
                (Precision::Bf16, Some(isa), _) => {
                    loader.load(Variant::<_, kernel::Bf16, kernel::Bf16>::new(isa, Precision::Bf16, "avx512-bf16"))
                }
                // Both use the same products; only attention differs.
                (Precision::Int8, Some(isa), _) => {
                    let f32 = Variant::<_, kernel::Int8, kernel::F32>::new(isa, Precision::Int8, "avx512-vnni");
                    let bf16 = Variant::<_, kernel::Int8, kernel::Bf16>::new(isa, Precision::Int8, "avx512-vnni-bf16");
                    loader.faster(f32, bf16)
                }
                (Precision::Int8, None, Some(isa)) => {
                    loader.load(Variant::<_, kernel::Int8, kernel::F32>::new(isa, Precision::Int8, "avx512-vnni"))
                }
                _ => loader.load(Variant::<_, kernel::F32, kernel::F32>::new(plain, Precision::F32, "avx512")),
            }
        }
        #[cfg(target_arch = "x86_64")]
        Kernel::Avx2 => {
            let isa = kernel::Avx2::detect().ok_or(LoadError::NoKernel("avx2"))?;
            loader.load(Variant::<_, kernel::F32, kernel::F32>::new(isa, Precision::F32, "avx2-fma"))
        }
        #[cfg(target_arch = "aarch64")]
        Kernel::Neon => {
            let isa = kernel::Neon::detect().ok_or(LoadError::NoKernel("neon"))?;
            loader.load(Variant::<_, kernel::F32, kernel::F32>::new(isa, Precision::F32, "neon"))
        }
        Kernel::Portable => match spec.precision {
            Precision::Auto | Precision::F32 => {
                loader.load(Variant::<_, kernel::F32, kernel::F32>::new(kernel::Portable, Precision::F32, "portable"))
            }
            Precision::Bf16 => loader.load(Variant::<_, kernel::Bf16, kernel::Bf16>::new(
                kernel::Portable,
                Precision::Bf16,
                "portable",
            )),
            Precision::Int8 => {
                loader.load(Variant::<_, kernel::Int8, kernel::F32>::new(kernel::Portable, Precision::Int8, "portable"))
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

/// A candidate: instruction set, operand form of the products, and operand form of attention.
#[derive(Clone, Copy)]
struct Variant<V, E, A> {
    isa: V,
    precision: Precision,
    kernel: &'static str,
    forms: PhantomData<(E, A)>,
}

impl<V, E, A> Variant<V, E, A> {
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
    /// Loads for the faster of two candidates, of which the first is more exact.
    #[cfg(target_arch = "x86_64")]
    fn faster<V, E, A, W, F, B>(
        mut self,
        exact: Variant<V, E, A>,
        other: Variant<W, F, B>,
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
        variant: Variant<V, E, A>,
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
            precision: variant.precision,
            kernel: variant.kernel,
            query_prefix: spec.query_prefix.clone().unwrap_or_else(|| model.prompts.query.clone()),
            passage_prefix: spec.passage_prefix.clone().unwrap_or_else(|| model.prompts.document.clone()),
            include_prompt: model.include_prompt,
            measured,
        };
        let threads = threads_or_all(spec.threads);
        Ok(Arc::new(Bert::<V, E, A>::load(variant.isa, model, weights, info, threads)?))
    }
}
