//! The embedders of several models, as the settings of an installation reach them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tidewheel_core::catalog::EmbeddingSpec;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Embedder, Embedders, PortResult};

use super::embedder::FakeEmbedder;
use super::process::Process;

/// Embedders by model. Clones share them.
#[derive(Clone, Default)]
pub struct FakeEmbedders {
    by_model: Arc<Mutex<BTreeMap<String, FakeEmbedder>>>,
    process: Option<Process>,
}

impl FakeEmbedders {
    /// Embedders of these models.
    pub fn new(embedders: impl IntoIterator<Item = FakeEmbedder>) -> Self {
        let all = Self::default();
        embedders.into_iter().for_each(|embedder| all.serve(embedder));
        all
    }

    /// Adds a model. It replaces an earlier one of the same name.
    pub fn serve(&self, embedder: FakeEmbedder) {
        self.by_model().insert(embedder.model().to_owned(), embedder);
    }

    /// The same embedders, with the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { process: Some(process.clone()), ..self.clone() }
    }

    fn by_model(&self) -> MutexGuard<'_, BTreeMap<String, FakeEmbedder>> {
        self.by_model.lock().expect("no holder panics")
    }
}

impl Embedders for FakeEmbedders {
    fn of(&self, spec: &EmbeddingSpec) -> PortResult<Arc<dyn Embedder>> {
        let found = self.by_model().get(&spec.model).cloned();
        let embedder = found.ok_or_else(|| {
            PortError::fatal(format!("missing settings of embedding {:?}", spec.name))
                .with_hint(format!("serve the model {:?}", spec.model))
        })?;
        let embedder = match &self.process {
            Some(process) => embedder.used_by(process),
            None => embedder,
        };
        Ok(Arc::new(embedder))
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;
    use tidewheel_core::ports::Purpose;

    use super::super::embedder::vector_of;
    use super::*;

    #[tokio::test]
    async fn specification_selects_the_model() {
        let embedders = FakeEmbedders::new([FakeEmbedder::new(4), FakeEmbedder::new(8)]);
        embedders.serve(FakeEmbedder::named("other", 4));
        let texts = ["tide".to_owned()];
        let mut vectors = Vec::new();
        for (model, dimension) in [("fake:4", 4), ("fake:8", 8), ("other", 4)] {
            let embedder = embedders.of(&EmbeddingSpec::new("default", "tidewheel", model)).unwrap();
            let info = embedder.info().await.unwrap();
            assert_eq!((info.model.as_str(), info.dimension), (model, dimension));
            vectors.push(embedder.embed(&texts, Purpose::Passage).await.unwrap().into_values());
        }
        assert_eq!(vectors[0], vector_of("tide", 4));
        assert_ne!(vectors[0], vectors[2], "models of one dimension have different vectors");
        let missing = embedders.of(&EmbeddingSpec::new("small", "tidewheel", "missing")).err();
        assert_eq!(missing.map(|error| error.class), Some(ErrorClass::Fatal));
    }
}
