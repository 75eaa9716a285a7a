//! A deterministic model in memory: every text has its own vector.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::embedded::Vectors;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Embedder, EmbedderInfo, PortResult, Purpose};
use tidewheel_core::tokens::{Tokens, Words};

use super::faults::{Fault, Faults};
use super::process::Process;

/// An error in a successful response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distortion {
    /// One vector too few.
    Fewer,
    /// One vector too many.
    More,
    /// Vectors with one element more than the model's dimension.
    OtherDimension,
    /// One element is NaN.
    NotANumber,
    /// One element is infinite.
    Infinite,
    /// One vector is all zeros and has no direction.
    Zero,
}

impl Distortion {
    /// Every distortion.
    pub const ALL: [Self; 6] =
        [Self::Fewer, Self::More, Self::OtherDimension, Self::NotANumber, Self::Infinite, Self::Zero];
}

/// A deterministic embedder. Clones share their state.
#[derive(Clone)]
pub struct FakeEmbedder {
    model: String,
    dimension: usize,
    faults: Faults,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    failing: HashMap<String, PortError>,
    spoilt: HashMap<String, Distortion>,
    distortions: Vec<Distortion>,
    distorted: Option<Distortion>,
    batches: Vec<Vec<String>>,
}

impl FakeEmbedder {
    /// Maximum tokens of a text; chunking splits longer ones.
    pub const MAX_TOKENS: usize = 32;

    /// The revision of every model here.
    pub const REVISION: &str = "1";

    /// The model `fake:DIMENSION`, with vectors of this dimension, at least 1: those of [`vector_of`].
    pub fn new(dimension: usize) -> Self {
        Self {
            model: format!("fake:{}", dimension.max(1)),
            dimension: dimension.max(1),
            faults: Faults::default(),
            state: Arc::default(),
        }
    }

    /// Another model of this dimension, at least 1. Its vectors are those of [`FakeEmbedder::vector`].
    pub fn named(model: impl Into<String>, dimension: usize) -> Self {
        Self { model: model.into(), ..Self::new(dimension) }
    }

    /// The model's name.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The vector of a text. Two models have different vectors for it.
    pub fn vector(&self, text: &str) -> Vec<f32> {
        if self.model == format!("fake:{}", self.dimension) {
            return vector_of(text, self.dimension);
        }
        vector_of(&format!("{}\0{text}", self.model), self.dimension)
    }

    /// The same model, with the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { faults: self.faults.used_by(process), ..self.clone() }
    }

    /// The faults of its calls, named like the port's methods. See also [`busy`] and [`broken`].
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Makes batches with this text fail as poison.
    pub fn poison(&self, text: impl Into<String>) {
        let text = text.into();
        let error = PortError::poison(format!("injected: the text {text:?} cannot be embedded"));
        self.fail_for(text, error);
    }

    /// Makes batches with this text fail with this error.
    pub fn fail_for(&self, text: impl Into<String>, error: PortError) {
        self.state().failing.insert(text.into(), error);
    }

    /// Distorts responses to batches with this text: its own vector, or the number of vectors.
    pub fn spoil(&self, text: impl Into<String>, distortion: Distortion) {
        self.state().spoilt.insert(text.into(), distortion);
    }

    /// Ends the failures and distortions of texts, and the distortion of all responses.
    pub fn cure(&self) {
        let mut state = self.state();
        state.failing.clear();
        state.spoilt.clear();
        state.distorted = None;
    }

    /// Distorts the next response; several distortions hit one response each, in order.
    pub fn distort_once(&self, distortion: Distortion) {
        self.state().distortions.push(distortion);
    }

    /// Distorts every response.
    pub fn distort_always(&self, distortion: Distortion) {
        self.state().distorted = Some(distortion);
    }

    /// The received batches, in order, including those that failed as poison, without those refused by a fault.
    pub fn batches(&self) -> Vec<Vec<String>> {
        self.state().batches.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn answer(&self, texts: &[String]) -> PortResult<Vectors> {
        let mut state = self.state();
        state.batches.push(texts.to_vec());
        if let Some(error) = texts.iter().find_map(|text| state.failing.get(text)) {
            return Err(error.clone());
        }
        let mut values: Vec<f32> = texts.iter().flat_map(|text| self.vector(text)).collect();
        if let Some((place, distortion)) =
            texts.iter().enumerate().find_map(|(place, text)| Some((place, *state.spoilt.get(text)?)))
        {
            // A distortion of one vector applies to the first.
            values.rotate_left(place * self.dimension);
            let vectors = distorted(self.dimension, values, Some(distortion));
            let (dimension, mut values) = (vectors.dimension(), vectors.into_values());
            if dimension == self.dimension && values.len() == texts.len() * dimension {
                values.rotate_right(place * dimension);
            }
            return Ok(Vectors::new(dimension, values).expect("whole vectors"));
        }
        let once = (!state.distortions.is_empty()).then(|| state.distortions.remove(0));
        let distortion = once.or(state.distorted);
        Ok(distorted(self.dimension, values, distortion))
    }
}

#[async_trait]
impl Embedder for FakeEmbedder {
    async fn info(&self) -> PortResult<EmbedderInfo> {
        let dimension = self.dimension;
        let (model, revision) = (self.model.clone(), Self::REVISION.to_owned());
        let info = EmbedderInfo { model, revision, dimension, max_tokens: Self::MAX_TOKENS, load: None };
        self.faults.around("info", || Ok(info)).await
    }

    async fn tokens(&self) -> PortResult<Arc<dyn Tokens>> {
        self.faults.around("tokens", || Ok(Arc::new(Words) as Arc<dyn Tokens>)).await
    }

    async fn embed(&self, texts: &[String], _purpose: Purpose) -> PortResult<Vectors> {
        self.faults.around("embed", || self.answer(texts)).await
    }
}

/// The service is overloaded: HTTP 429 with `Retry-After`.
pub fn busy(retry_after: Duration) -> Fault {
    Fault::Refused(PortError::transient("injected: 429 Too Many Requests").with_retry_after(Some(retry_after)))
}

/// The service fails: HTTP 500.
pub fn broken() -> Fault {
    Fault::Refused(PortError::transient("injected: 500 Internal Server Error"))
}

/// The vector of a text: of length 1, in a direction that depends on every byte of the text.
pub fn vector_of(text: &str, dimension: usize) -> Vec<f32> {
    // FNV-1a, then xorshift64*: only spread matters.
    let mut state = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
        | 1;
    let mut next = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    let vector: Vec<f32> = (0..dimension).map(|_| next()).collect();
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm == 0.0 {
        return vec![1.0 / (dimension as f32).sqrt(); dimension];
    }
    vector.into_iter().map(|value| value / norm).collect()
}

fn distorted(dimension: usize, mut values: Vec<f32>, distortion: Option<Distortion>) -> Vectors {
    let mut found = dimension;
    match distortion {
        None => {}
        Some(Distortion::Fewer) => values.truncate(values.len().saturating_sub(dimension)),
        Some(Distortion::More) => values.extend_from_within(..dimension.min(values.len())),
        Some(Distortion::OtherDimension) => {
            found = dimension + 1;
            values.resize(values.len() / dimension * found, 0.5);
        }
        Some(Distortion::NotANumber) => values[0] = f32::NAN,
        Some(Distortion::Infinite) => values[0] = f32::INFINITY,
        Some(Distortion::Zero) => values[..dimension].fill(0.0),
    }
    Vectors::new(found, values).expect("whole vectors")
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;

    use super::*;

    #[tokio::test]
    async fn vectors_are_deterministic_and_normalised() {
        let embedder = FakeEmbedder::new(8);
        let texts = ["a".to_owned(), String::new(), "a".to_owned()];
        let vectors = embedder.embed(&texts, Purpose::Passage).await.unwrap();
        let vectors: Vec<_> = vectors.iter().collect();
        assert_eq!(vectors[0], vectors[2]);
        assert_ne!(vectors[0], vectors[1]);
        for vector in vectors {
            let norm: f32 = vector.iter().map(|value| value * value).sum();
            assert!((norm - 1.0).abs() < 1e-5);
        }
    }

    #[tokio::test]
    async fn hooks_inject_faults_and_distortions() {
        let embedder = FakeEmbedder::new(4);
        let texts = ["good".to_owned(), "bad".to_owned()];
        embedder.poison("bad");
        let embed = || embedder.embed(&texts, Purpose::Passage);
        assert_eq!(embed().await.unwrap_err().class, ErrorClass::Poison);
        embedder.cure();
        embedder.faults().once("embed", busy(Duration::from_secs(3)));
        assert_eq!(embed().await.unwrap_err().retry_after, Some(Duration::from_secs(3)));
        embedder.faults().once("embed", broken());
        assert_eq!(embed().await.unwrap_err().class, ErrorClass::Transient);
        for distortion in Distortion::ALL {
            embedder.distort_once(distortion);
            let vectors = embed().await.unwrap();
            let wrong = match distortion {
                Distortion::Fewer => vectors.len() == 1,
                Distortion::More => vectors.len() == 3,
                Distortion::OtherDimension => vectors.dimension() == 5,
                Distortion::NotANumber => vectors.values()[0].is_nan(),
                Distortion::Infinite => vectors.values()[0].is_infinite(),
                Distortion::Zero => vectors.values()[..4] == [0.0; 4],
            };
            assert!(wrong && vectors.len() + 1 >= texts.len(), "{distortion:?}");
        }
        assert_eq!(embed().await.unwrap().len(), 2);
    }
}
