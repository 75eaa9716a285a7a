//! Builds the embedder from the settings.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use tidewheel_core::health::Readiness;
use tidewheel_embed::service::{DEFAULT, Models, Render, Service, ServiceOptions};
use tidewheel_engine::model::LoadError;
use tidewheel_engine::{self, Engine, ModelSource, ModelSpec, Precision, describe};
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

/// A model to serve.
struct Wanted {
    /// Its name in requests.
    name: String,
    /// Id, `hash:DIM` or directory.
    model: String,
    precision: Precision,
    query_prefix: Option<String>,
    passage_prefix: Option<String>,
}

impl Wanted {
    /// The model of requests that name none.
    fn default_of(settings: &Embedder) -> Self {
        Self {
            name: DEFAULT.to_owned(),
            model: settings.model.clone(),
            precision: precision(&settings.precision),
            query_prefix: settings.query_prefix.clone(),
            passage_prefix: settings.passage_prefix.clone(),
        }
    }

    /// Checks the name of the model without looking for its files.
    fn validate(&self) -> Result<(), Failure> {
        ModelSpec::hash_dimension(&self.model).map(drop).map_err(|error| Failure::new(error.to_string()))
    }

    /// Finds its files, downloading them if missing.
    async fn found(self, fetch: Fetch) -> Result<Found, Failure> {
        Ok(Found { source: find(&self.model, fetch).await?, wanted: self })
    }
}

/// A model to serve whose files are here.
struct Found {
    wanted: Wanted,
    source: ModelSource,
}

impl Found {
    /// Loads the model. Takes seconds.
    fn load(self, threads: usize) -> Result<(String, Arc<dyn Engine>), Failure> {
        let failed = |error: LoadError| Failure::new(format!("embedder: {error}")).with_hint(error.hint());
        let engine = tidewheel_engine::load(&spec(&self.wanted, self.source, threads)).map_err(failed)?;
        Ok((self.wanted.name, engine))
    }
}

/// Returns the models to serve: the default one, and others.
fn wanted(settings: &Embedder) -> (Wanted, Vec<Wanted>) {
    (Wanted::default_of(settings), Vec::new())
}

pub(super) fn embedder(
    settings: &Settings,
    metrics: Render,
    fetch: Fetch,
    shutdown: CancellationToken,
) -> Result<(Task, Ready), Failure> {
    let settings = settings.embedder.clone();
    let (default, others) = wanted(&settings);
    // Validate before any download.
    std::iter::once(&default).chain(&others).try_for_each(Wanted::validate)?;
    let running: Arc<OnceLock<Service>> = Arc::default();
    let current = running.clone();
    let task = async move {
        let (default, others) = tokio::select! {
            found = find_all(default, others, fetch) => found?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let server = serving::bind(&SURFACE, &settings.listen, &settings.serving).await?;
        let service = start(&settings, default, others, metrics).await?;
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
        for other in service.models().into_iter().skip(1) {
            let precision = other.precision.name();
            info!(
                name = other.name,
                model = other.model,
                dimension = other.dimension,
                precision,
                "serving another model"
            );
        }
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

/// Finds the files of all models, one model after another.
async fn find_all(default: Wanted, others: Vec<Wanted>, fetch: Fetch) -> Result<(Found, Vec<Found>), Failure> {
    let default = default.found(fetch.clone()).await?;
    let mut found = Vec::with_capacity(others.len());
    for other in others {
        found.push(other.found(fetch.clone()).await?);
    }
    Ok((default, found))
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
    let spec = spec(&Wanted::default_of(settings), source, settings.threads);
    let loaded =
        tokio::task::spawn_blocking(move || tidewheel_engine::load(&spec).map(|engine| engine.info().dimension));
    match loaded.await {
        Ok(loaded) => loaded.map(Some).map_err(|error| Failure::new(format!("embedder: {error}"))),
        Err(panic) => Err(Failure::new(format!("failed to load {}: {panic}", settings.model))),
    }
}

/// Loads the models on a blocking thread, because it is slow.
async fn start(settings: &Embedder, default: Found, others: Vec<Found>, metrics: Render) -> Result<Service, Failure> {
    let threads = settings.threads;
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
        let (name, engine) = default.load(threads)?;
        let mut models = Models::new(name, engine);
        for other in others {
            let (name, engine) = other.load(threads)?;
            models = models.with(name, engine);
        }
        Service::with_models(models, options).map_err(|error| Failure::new(format!("embedder: {error}")))
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

fn spec(wanted: &Wanted, source: ModelSource, threads: usize) -> ModelSpec {
    ModelSpec {
        name: name(&wanted.model),
        precision: wanted.precision,
        threads,
        query_prefix: wanted.query_prefix.clone(),
        passage_prefix: wanted.passage_prefix.clone(),
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
