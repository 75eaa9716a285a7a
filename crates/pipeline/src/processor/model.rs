//! The models that compute vectors. Each is asked once for what it is; a target whose collection has another dimension
//! waits until its model is served again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidewheel_core::catalog::{EmbedderIdentity, EmbeddingSpec};
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::ports::{Embedder, EmbedderInfo};
use tidewheel_core::tokens::Tokens;
use tracing::warn;

use super::NAME;
use crate::breaker::{Breaker, Ended};
use crate::isolate::Successes;
use crate::retry::{RetryError, RetryPolicy};
use crate::targets::{Applied, Target};

/// The operation that asks a model what it is: completes "failed to …".
const ASK: &str = "reach the embedder";

/// The pause before entries are left to another process.
const LEAVE_AFTER: Duration = Duration::from_secs(10);

/// A model that has answered.
pub(super) struct Model {
    pub(super) embedder: Arc<dyn Embedder>,
    pub(super) info: EmbedderInfo,
    /// What its vectors depend on: models of one identity compute the same.
    pub(super) identity: EmbedderIdentity,
    pub(super) fingerprints: Fingerprints,
    pub(super) tokens: Arc<dyn Tokens>,
    /// Successful requests.
    pub(super) successes: Successes,
}

impl Model {
    pub(super) fn new(embedder: Arc<dyn Embedder>, info: EmbedderInfo, tokens: Arc<dyn Tokens>) -> Self {
        let identity = EmbedderIdentity::from(&info);
        let fingerprints = identity.fingerprints();
        Self { embedder, info, identity, fingerprints, tokens, successes: Successes::default() }
    }

    /// Dimension of its vectors.
    pub(super) fn dimension(&self) -> usize {
        self.info.dimension
    }
}

/// All models of this process that have answered, and what skips those that do not.
#[derive(Default)]
pub(super) struct Models {
    answered: Mutex<HashMap<EmbeddingSpec, Arc<Model>>>,
    breakers: Mutex<HashMap<EmbeddingSpec, Arc<Breaker>>>,
}

impl Models {
    /// The model of a target, if it has answered and its vectors fit the collection.
    pub(super) fn known(&self, target: &Target) -> Option<Arc<Model>> {
        let model = self.answered().get(&target.declaration().embedding).cloned()?;
        target.fits(&model.info).is_ok().then_some(model)
    }

    /// Asks the embedder of a target until its vectors fit the collection. If the settings here do not reach the embedder,
    /// and it `leaves`, it ends as in a shutdown: the entries stay pending, and are claimed by a process that may reach it.
    ///
    /// # Errors
    /// Fatal if the settings here do not reach the embedder, unless it leaves.
    pub(super) async fn ask(
        &self,
        target: &Target,
        retry: &RetryPolicy,
        leaves: bool,
    ) -> Result<Arc<Model>, RetryError> {
        let embedder = match &target.ports.embedder {
            Ok(embedder) => embedder.clone(),
            Err(error) if leaves => {
                retry.fails(ASK, error);
                retry.pause(LEAVE_AFTER).await?;
                return Err(RetryError::Shutdown);
            }
            Err(error) => return Err(retry.stopped(ASK, error.clone())),
        };
        let info = || async {
            let info = embedder.info().await?;
            target.fits(&info).map(|()| info)
        };
        let info = retry.call(ASK, info).await?;
        let tokens = retry.call("get the model's tokeniser", || embedder.tokens()).await?;
        let model = Arc::new(Model::new(embedder, info, tokens));
        self.answered().insert(target.declaration().embedding.clone(), model.clone());
        Ok(model)
    }

    /// What skips a target that must not delay the others while its embedder is unavailable. Targets of one embedder share
    /// it; the log names the first of them.
    pub(super) fn breaker(&self, target: &Target) -> Arc<Breaker> {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Breaker::new(NAME, target.id.to_string()));
        breakers.entry(target.declaration().embedding.clone()).or_insert_with(new).clone()
    }

    /// Forgets the models that no target of this catalog names.
    pub(super) fn retain(&self, applied: &Applied) {
        let is_named = |spec: &EmbeddingSpec| applied.every().any(|target| target.declaration().embedding == *spec);
        self.answered().retain(|spec, _| is_named(spec));
        self.breakers.lock().unwrap_or_else(PoisonError::into_inner).retain(|spec, _| is_named(spec));
    }

    fn answered(&self) -> MutexGuard<'_, HashMap<EmbeddingSpec, Arc<Model>>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works under a breaker, if there is one.
pub(super) async fn guarded<T, F>(
    breaker: Option<&Breaker>,
    retry: &RetryPolicy,
    work: impl FnOnce(RetryPolicy) -> F,
) -> Result<Ended<T>, RetryError>
where
    F: Future<Output = Result<T, RetryError>>,
{
    match breaker {
        Some(breaker) => breaker.run(retry, work).await,
        None => work(retry.clone()).await.map(Ended::Done),
    }
}

/// Warns if the vectors of a target are computed by another model than that of its first ones.
pub(super) fn remark(target: &Target, identity: &EmbedderIdentity) {
    if let Some(first) = target.generation.embedder.as_ref().filter(|first| *first != identity) {
        warn!(
            index = %target.id,
            model = identity.model,
            revision = identity.revision,
            "the embedder serves another model than {} (revision {:?}), with which the generation was created",
            first.model,
            first.revision
        );
    }
}
