//! Serves the models of the applied catalog: a kept generation needs the model by which it was made, also if the settings
//! declare another one.
//!
//! Without Redis, the models of the settings are served. A model that was added is served until the process ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, EmbeddingSpec, State};
use tidewheel_core::ports::{CatalogStore, PortResult};
use tidewheel_embed::client::serves;
use tidewheel_embed::service::Service;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::wanted::Wanted;
use super::{Fetch, Found};
use crate::exit::Failure;
use crate::settings::Embedder;

/// Polling interval of the revision: the next generation waits for its model.
const EVERY: Duration = Duration::from_secs(2);

/// Delay before a model that failed to load is tried again.
const AGAIN: Duration = Duration::from_secs(60);

/// Follows the catalog and adds models to the service.
pub(super) struct Follower {
    pub(super) service: Service,
    pub(super) store: Arc<dyn CatalogStore>,
    pub(super) settings: Embedder,
    /// The embeddings that the settings assign to an embedder with an address of its own.
    pub(super) elsewhere: BTreeSet<String>,
    pub(super) fetch: Fetch,
}

impl Follower {
    /// Runs until it is dropped.
    pub(super) async fn run(self) {
        let mut known = 0;
        // When a model may be tried again; `None` once it is served.
        let mut tried: BTreeMap<EmbeddingSpec, Option<Instant>> = BTreeMap::new();
        let mut missing = Vec::new();
        loop {
            match self.look(known).await {
                Ok(Some(catalog)) => {
                    known = catalog.revision;
                    missing = needed(&catalog, &self.elsewhere);
                }
                Ok(None) => {}
                Err(error) => debug!("failed to follow the catalog: {error}"),
            }
            for spec in &missing {
                let is_due = tried.get(spec).is_none_or(|again| again.is_some_and(|again| again <= Instant::now()));
                if !is_due || serves(&self.service.models(), spec) {
                    continue;
                }
                let again = match self.add(spec).await {
                    Ok(()) => None,
                    Err(failure) => {
                        let (model, hint) = (&spec.model, failure.hint.as_deref());
                        warn!(model, hint, "failed to serve the model of an applied index: {failure}");
                        Some(Instant::now() + AGAIN)
                    }
                };
                tried.insert(spec.clone(), again);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// The catalog, if its revision is another one.
    async fn look(&self, known: u64) -> PortResult<Option<Catalog>> {
        if self.store.revision().await? == known {
            return Ok(None);
        }
        let (catalog, _) = self.store.load().await?;
        Ok(Some(catalog))
    }

    async fn add(&self, spec: &EmbeddingSpec) -> Result<(), Failure> {
        let served = self.service.models();
        let is_taken = |name: &str| served.iter().any(|model| model.name == name);
        let wanted = Wanted::of_spec(spec, &self.settings, is_taken);
        wanted.validate()?;
        let found = Found::of(wanted, self.fetch.clone()).await?;
        let (service, threads) = (self.service.clone(), self.settings.threads);
        let loaded = tokio::task::spawn_blocking(move || {
            let (names, engine) = found.load(threads)?;
            for name in names {
                let added = service.add(name, Arc::clone(&engine));
                added.map_err(|error| Failure::new(format!("embedder: {error}")))?;
            }
            Ok(())
        });
        loaded.await.unwrap_or_else(|panic| Err(Failure::new(format!("failed to load the model: {panic}"))))?;
        info!(model = spec.model, "serving the model of an applied index");
        Ok(())
    }
}

/// The models that generations need and an embedder of this installation serves.
fn needed(catalog: &Catalog, elsewhere: &BTreeSet<String>) -> Vec<EmbeddingSpec> {
    let live = catalog.targets().filter(|(_, generation)| generation.state != State::Retiring);
    let mut specs: Vec<EmbeddingSpec> = live
        .map(|(_, generation)| generation.declaration.embedding.clone())
        .filter(|spec| spec.provider.is_own() && spec.url.is_none() && !spec.model.is_empty())
        .filter(|spec| !elsewhere.contains(&spec.name))
        .collect();
    specs.sort_unstable();
    specs.dedup();
    specs
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::{Declaration, Generation, Index, IndexName, Selector};

    use super::*;

    #[test]
    fn models_of_live_generations_are_needed_once() {
        let name = IndexName::new("tickets").unwrap();
        let own = |model: &str| EmbeddingSpec::new("default", "tidewheel", model);
        let recorded = EmbeddingSpec { url: Some("http://gpu:8080".to_owned()), ..own("d") };
        let elsewhere = EmbeddingSpec { name: "gpu".to_owned(), ..own("e") };
        let generations = [
            (own("a"), State::Kept),
            (own("b"), State::Serving),
            (own("b"), State::Creating),
            (own("c"), State::Retiring),
            (recorded, State::Filling),
            (elsewhere, State::Filling),
            (EmbeddingSpec::new("paid", "openai", "e"), State::Filling),
        ];
        let generations = (1..).zip(generations).map(|(number, (embedding, state))| {
            let source = Selector::of_database::<&str>("shop", &[]);
            let declaration = Arc::new(Declaration::new(name.clone(), source, embedding));
            (number, Generation { state, ..Generation::new(&name.target(number), declaration, 7) })
        });
        let index = Index { generations: generations.collect(), ..Index::default() };
        let catalog = Catalog { revision: 7, indexes: [(name.clone(), index)].into(), ..Catalog::default() };
        assert_eq!(needed(&catalog, &["gpu".to_owned()].into()), [own("a"), own("b")]);
    }
}
