//! Builds the embedder from the settings.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tidewheel_core::health::Readiness;
use tidewheel_embed::service::{Render, Service, ServiceOptions};
use tidewheel_engine::model::LoadError;
use tidewheel_engine::{self, ModelSource, ModelSpec, Precision, describe};
use tidewheel_local::Report;
use tidewheel_local::provision::Provisioner;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Ready;
use super::stages::Task;
use crate::exit::Failure;
use crate::serving::{self, Need, Surface};
use crate::settings::{Embedder, Settings};

/// The embedder's server.
const SURFACE: Surface = Surface { name: "the embedder", table: "embedder", token: Need::Advised };

/// Receives progress while the model is downloaded.
pub(crate) type Fetch = Report;

pub(super) fn embedder(
    settings: &Settings,
    metrics: Render,
    fetch: Fetch,
    shutdown: CancellationToken,
) -> Result<(Task, Ready), Failure> {
    let settings = settings.embedder.clone();
    // Validate before any download.
    ModelSpec::hash_dimension(&settings.model).map_err(|error| Failure::new(error.to_string()))?;
    let running: Arc<OnceLock<Service>> = Arc::default();
    let current = running.clone();
    let task = async move {
        let source = tokio::select! {
            source = find(&settings.model, fetch) => source?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let server = serving::bind(&SURFACE, &settings.listen, &settings.serving).await?;
        let service = start(&settings, source, metrics).await?;
        let info = service.info();
        info!(
            model = info.engine.model,
            dimension = info.engine.dimension,
            precision = info.engine.precision.name(),
            kernel = info.engine.kernel,
            measured = describe(&info.engine.measured),
            listen = settings.listen,
            "ready"
        );
        // Set only here.
        let _ = running.set(service.clone());
        service.run(server, shutdown.cancelled_owned()).await;
        Ok(())
    };
    let ready = move || match current.get().map(Service::readiness) {
        Some(Ok(())) => Readiness { ready: true, reasons: Vec::new() },
        Some(Err(reason)) => Readiness { ready: false, reasons: vec![reason.to_owned()] },
        None => Readiness { ready: false, reasons: vec!["loading the model".to_owned()] },
    };
    Ok((Box::pin(task), Arc::new(ready)))
}

/// Finds the model's files, downloading them if missing.
pub(crate) async fn find(model: &str, report: Report) -> Result<ModelSource, Failure> {
    if let Some(dimension) = ModelSpec::hash_dimension(model).map_err(|error| Failure::new(error.to_string()))? {
        return Ok(ModelSource::Hash(dimension));
    }
    let failed = |error: tidewheel_local::provision::ProvisionError| {
        Failure::new(format!("embedder: {error}")).with_hint(error.hint())
    };
    let directory = Provisioner::new(report).map_err(failed)?.model(model).await.map_err(failed)?;
    Ok(ModelSource::Directory(directory))
}

/// Does a dry run of the embedder's start without downloading. Returns the vector dimension; `None` if the model must be
/// downloaded first.
pub(crate) async fn rehearse(settings: &Embedder) -> Result<Option<usize>, Failure> {
    drop(serving::bind(&SURFACE, &settings.listen, &settings.serving).await?);
    let hash = ModelSpec::hash_dimension(&settings.model).map_err(|error| Failure::new(error.to_string()))?;
    let source = match hash {
        Some(dimension) => ModelSource::Hash(dimension),
        None => match Provisioner::new(tidewheel_local::silent()).and_then(|local| local.model_here(&settings.model)) {
            Ok(Some(directory)) => ModelSource::Directory(directory),
            Ok(None) => return Ok(None),
            Err(error) => return Err(Failure::new(format!("embedder: {error}")).with_hint(error.hint())),
        },
    };
    let spec = spec(settings, source);
    let loaded =
        tokio::task::spawn_blocking(move || tidewheel_engine::load(&spec).map(|engine| engine.info().dimension));
    match loaded.await {
        Ok(loaded) => loaded.map(Some).map_err(|error| Failure::new(format!("embedder: {error}"))),
        Err(panic) => Err(Failure::new(format!("failed to load {}: {panic}", settings.model))),
    }
}

/// Loads the model on a blocking thread, because it is slow.
async fn start(settings: &Embedder, source: ModelSource, metrics: Render) -> Result<Service, Failure> {
    let spec = spec(settings, source.clone());
    let options = ServiceOptions {
        workers: settings.threads,
        token: settings.serving.token.clone(),
        hosts: settings.serving.hosts.clone(),
        max_body_bytes: usize::try_from(settings.max_body).unwrap_or(usize::MAX),
        max_texts: settings.max_texts,
        queue_tokens: settings.max_queued_tokens,
        metrics: Some(metrics),
        ..ServiceOptions::default()
    };
    let started = tokio::task::spawn_blocking(move || {
        let failed = |error: LoadError| Failure::new(format!("embedder: {error}")).with_hint(error.hint());
        let engine = tidewheel_engine::load(&spec).map_err(failed)?;
        Service::start(engine, options).map_err(|error| Failure::new(format!("embedder: {error}")))
    });
    started.await.unwrap_or_else(|panic| Err(Failure::new(format!("failed to load the model: {panic}"))))
}

/// Returns the model's name: empty for a directory, otherwise its id without the revision, so that pinning a revision alone does
/// not change fingerprints; different weights do.
fn name(model: &str) -> String {
    if PathBuf::from(model).is_dir() {
        return String::new();
    }
    model.split_once('@').map_or(model, |(id, _)| id).to_owned()
}

fn spec(settings: &Embedder, source: ModelSource) -> ModelSpec {
    ModelSpec {
        name: name(&settings.model),
        precision: precision(&settings.precision),
        threads: settings.threads,
        query_prefix: settings.query_prefix.clone(),
        passage_prefix: settings.passage_prefix.clone(),
        ..ModelSpec::new(source)
    }
}

/// Maps the validated setting to a precision.
fn precision(word: &str) -> Precision {
    [Precision::F32, Precision::Bf16, Precision::Int8]
        .into_iter()
        .find(|precision| precision.name() == word)
        .unwrap_or(Precision::Auto)
}
