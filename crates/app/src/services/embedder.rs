//! Builds the embedder from the settings.

mod follow;
mod wanted;

use std::sync::{Arc, OnceLock};

use tidewheel_core::health::Readiness;
use tidewheel_embed::service::{Models, Render, Service, ServiceOptions};
use tidewheel_engine::model::LoadError;
use tidewheel_engine::{self, Engine, ModelSource, ModelSpec, describe};
use tidewheel_local::Report;
use tidewheel_local::provision::Provisioner;
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::follow::Follower;
use self::wanted::{Wanted, elsewhere, wanted};
use super::Ready;
use super::stages::Task;
use crate::connect;
use crate::exit::Failure;
use crate::serving::{self, Need, Surface};
use crate::settings::{Embedder, Settings};

/// The embedder's server.
const SURFACE: Surface = Surface { name: "the embedder", table: "embedder", token: Need::Advised };

/// Receives progress while the model is downloaded.
pub(crate) type Fetch = Report;

/// A model to serve whose files are here.
struct Found {
    wanted: Wanted,
    source: ModelSource,
}

impl Found {
    /// Finds the files of a model, downloading them if missing.
    async fn of(wanted: Wanted, fetch: Fetch) -> Result<Self, Failure> {
        Ok(Self { source: find(&wanted.model, fetch).await?, wanted })
    }

    /// Loads the model. Takes seconds.
    fn load(self, threads: usize) -> Result<(Vec<String>, Arc<dyn Engine>), Failure> {
        let failed = |error: LoadError| Failure::new(format!("embedder: {error}")).with_hint(error.hint());
        let engine = tidewheel_engine::load(&self.wanted.spec(self.source, threads)).map_err(failed)?;
        Ok((self.wanted.names, engine))
    }
}

pub(super) fn embedder(
    settings: &Settings,
    metrics: Render,
    fetch: Fetch,
    shutdown: CancellationToken,
) -> Result<(Task, Ready), Failure> {
    let wanted = wanted(settings);
    // Validate before any download.
    wanted.iter().try_for_each(Wanted::validate)?;
    let store = Arc::new(connect::redis(settings)?);
    let elsewhere = elsewhere(settings);
    let settings = settings.embedder.clone();
    let running: Arc<OnceLock<Service>> = Arc::default();
    let current = running.clone();
    let task = async move {
        let found = tokio::select! {
            found = find_all(wanted, fetch.clone()) => found?,
            () = shutdown.cancelled() => return Ok(()),
        };
        let server = serving::bind(&SURFACE, &settings.listen, &settings.serving).await?;
        let service = start(&settings, found, metrics).await?;
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
                "serving a model by another name"
            );
        }
        // Set only here.
        let _ = running.set(service.clone());
        let follower = Follower { service: service.clone(), store, settings, elsewhere, fetch };
        tokio::select! {
            () = service.run(server, shutdown.cancelled_owned()) => {}
            () = follower.run() => {}
        }
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
async fn find_all(wanted: Vec<Wanted>, fetch: Fetch) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::with_capacity(wanted.len());
    for wanted in wanted {
        found.push(Found::of(wanted, fetch.clone()).await?);
    }
    Ok(found)
}

/// Finds the files of all models that the embedder of these settings serves, downloading them if missing.
pub(crate) async fn find_models(settings: &Settings, report: Report) -> Result<(), Failure> {
    find_all(wanted(settings), report).await.map(drop)
}

/// Finds the model's files, downloading them if missing.
async fn find(model: &str, report: Report) -> Result<ModelSource, Failure> {
    if let Some(dimension) = ModelSpec::hash_dimension(model).map_err(|error| Failure::new(error.to_string()))? {
        return Ok(ModelSource::Hash(dimension));
    }
    let failed = |error: tidewheel_local::provision::ProvisionError| {
        Failure::new(format!("embedder: {error}")).with_hint(error.hint())
    };
    let directory = Provisioner::new(report).map_err(failed)?.model(model).await.map_err(failed)?;
    Ok(ModelSource::Directory(directory))
}

/// Does a dry run of the embedder's start with this model, without downloading. Returns the vector dimension; `None` if the
/// model must be downloaded first.
pub(crate) async fn rehearse(settings: &Settings, model: &str) -> Result<Option<usize>, Failure> {
    let embedder = &settings.embedder;
    drop(serving::bind(&SURFACE, &embedder.listen, &embedder.serving).await?);
    let hash = ModelSpec::hash_dimension(model).map_err(|error| Failure::new(error.to_string()))?;
    let source = match hash {
        Some(dimension) => ModelSource::Hash(dimension),
        None => match Provisioner::new(tidewheel_local::silent()).and_then(|local| local.model_here(model)) {
            Ok(Some(directory)) => ModelSource::Directory(directory),
            Ok(None) => return Ok(None),
            Err(error) => return Err(Failure::new(format!("embedder: {error}")).with_hint(error.hint())),
        },
    };
    let Some(wanted) = wanted(settings).into_iter().find(|wanted| wanted.model == model) else { return Ok(None) };
    let spec = wanted.spec(source, embedder.threads);
    let loaded =
        tokio::task::spawn_blocking(move || tidewheel_engine::load(&spec).map(|engine| engine.info().dimension));
    match loaded.await {
        Ok(loaded) => loaded.map(Some).map_err(|error| Failure::new(format!("embedder: {error}"))),
        Err(panic) => Err(Failure::new(format!("failed to load {model}: {panic}"))),
    }
}

/// Loads the models on a blocking thread, because it is slow. The first one is that of requests that name none.
async fn start(settings: &Embedder, found: Vec<Found>, metrics: Render) -> Result<Service, Failure> {
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
        let mut models: Option<Models> = None;
        for found in found {
            let (names, engine) = found.load(threads)?;
            for name in names {
                models = Some(match models {
                    None => Models::new(name, Arc::clone(&engine)),
                    Some(models) => models.with(name, Arc::clone(&engine)),
                });
            }
        }
        let models = models.ok_or_else(|| Failure::new("embedder: no model to serve"))?;
        Service::with_models(models, options).map_err(|error| Failure::new(format!("embedder: {error}")))
    });
    started.await.unwrap_or_else(|panic| Err(Failure::new(format!("failed to load the model: {panic}"))))
}
