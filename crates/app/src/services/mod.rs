//! The services of this process: construction, lifecycle and monitoring endpoints.
//!
//! Each service is a task that waits for its servers on its own. A permanent failure of one stops all; so do SIGTERM and Ctrl-C,
//! with [`GRACE`] to finish. A second signal ends the process immediately.

mod declared;
mod embedder;
mod operations;
mod ownership;
mod publisher;
mod searchable;
mod stages;

use std::net::SocketAddr;
use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidewheel_core::health::Readiness;
use tidewheel_telemetry::recorder::{InstallError, Metrics};
use tidewheel_telemetry::traces;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span, info, info_span, warn};

use self::operations::Operations;
use crate::Measurements;
use crate::exit::Failure;
use crate::overview::gauges::Gauges;
use crate::settings::{Listen, Settings};
use crate::{compose, connect, console, signals};

pub(crate) use embedder::{Fetch, find_models, rehearse as rehearse_embedder};
pub(crate) use ownership::{guard, while_owned};
use stages::process_name;
pub(crate) use stages::{known_vectors, own_name, processor_options, upserter_options};

/// Shutdown timeout.
const GRACE: Duration = Duration::from_secs(10);

/// Default address of the operations server under `run` and `up`.
const DEFAULT_OPERATIONS_ADDRESS: &str = "127.0.0.1:9090";

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// MongoDB → stage 1.
    Producer,
    /// The model.
    Embedder,
    /// Stage 1 → stage 2.
    Processor,
    /// Stage 2 → Qdrant.
    Upserter,
}

impl Kind {
    /// Its name: subcommand, span, label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Embedder => "embedder",
            Self::Processor => "processor",
            Self::Upserter => "upserter",
        }
    }

    /// Its span, named after the service.
    fn span(self) -> Span {
        match self {
            Self::Producer => info_span!("producer"),
            Self::Embedder => info_span!("embedder"),
            Self::Processor => info_span!("processor"),
            Self::Upserter => info_span!("upserter"),
        }
    }

    /// Services of `run` with these settings: without the embedder if an external one is configured.
    pub(crate) fn of_run(settings: &Settings) -> Vec<Self> {
        let all = [Self::Embedder, Self::Producer, Self::Processor, Self::Upserter];
        all.into_iter().filter(|kind| *kind != Self::Embedder || settings.embeds_here()).collect()
    }
}

/// Returns a service's readiness.
pub(crate) type Ready = Arc<dyn Fn() -> Readiness + Send + Sync>;

/// Started services.
pub(crate) struct Services {
    tasks: JoinSet<Result<(), Failure>>,
    traces: Option<traces::Exporter>,
    shutdown: CancellationToken,
    /// Addresses on which this process listens.
    pub(crate) bound: Bound,
}

/// Bound addresses; `None` for a server that is not running.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bound {
    pub(crate) operations: Option<SocketAddr>,
    pub(crate) console: Option<SocketAddr>,
}

impl Services {
    /// Starts the services, and the operations server if enabled.
    pub(crate) async fn start(
        kinds: &[Kind],
        settings: &Settings,
        fetch: Fetch,
        measurements: Measurements,
    ) -> Result<Self, Failure> {
        let shutdown = CancellationToken::new();
        let metrics = Metrics::install(measurements == Measurements::On)?;
        let process = process_name();
        // The embedder processes texts, not changes, and emits no spans.
        let traced = settings.traces.as_ref().filter(|_| kinds.iter().any(|kind| *kind != Kind::Embedder));
        let traces = match traced.map(|options| (options, traces::Exporter::start(options, &process))) {
            None => None,
            Some((_, Ok(exporter))) => Some(exporter),
            Some((options, Err(error))) if options.is_ambient => {
                warn!("no traces, because of a variable OTEL_*: {error}");
                None
            }
            Some((_, Err(error))) => return Err(error.into()),
        };
        let mut services = Self { tasks: JoinSet::new(), traces, shutdown: shutdown.clone(), bound: Bound::default() };
        let mut ready: Vec<(&'static str, Ready)> = Vec::new();
        let operations = match operations_address(settings, kinds) {
            Some(address) => Some(operations::bind(&address, &settings.http).await?),
            None => None,
        };
        for kind in kinds {
            // Entered, so that logs during construction belong to the service.
            let (task, readiness) = kind.span().in_scope(|| services.build(*kind, settings, &metrics, &fetch))?;
            services.tasks.spawn(task.instrument(kind.span()));
            ready.push((kind.name(), readiness));
        }
        let address = operations.as_ref().and_then(|listener| listener.local_addr().ok());
        services.bound.operations = address;
        let publisher = publisher::Publisher {
            process,
            operations: address.map(|address| address.to_string()),
            services: ready.clone(),
            redis: connect::redis(settings)?,
            reporter: metrics.reporter().declaring(publisher::declared(settings)),
        };
        if measurements == Measurements::On {
            services.tasks.spawn(publisher.run(shutdown.clone()));
        }
        // Parts of the short form may be in the settings of other services.
        let declares = settings.is_declared() || settings.mongodb.database.is_some();
        if declares && kinds.iter().any(|kind| *kind != Kind::Embedder) {
            let redis = connect::redis(settings)?;
            services.tasks.spawn(declared::watch(settings.clone(), redis, shutdown.clone()));
        }
        // Single services leave the console to `tidewheel console`, since many may run with the same settings.
        let console = if kinds.len() > 1 { console::bind(&settings.console).await? } else { None };
        services.bound.console = console.as_ref().and_then(|listener| listener.local_addr().ok());
        if let Some(listener) = operations {
            let operations = Operations {
                services: ready,
                looker: compose::looker(settings).within(operations::SCRAPE),
                metrics: metrics.clone(),
                gauges: Gauges::default(),
                waiter: compose::waiter(settings)?,
                console: console.as_ref().and_then(console::url),
            };
            services.tasks.spawn(operations::serve(listener, settings.http.clone(), operations, shutdown.clone()));
        }
        if let Some(listener) = console {
            services.tasks.spawn(console::serve(listener, settings.clone(), shutdown.clone()));
        }
        services.tasks.spawn(async move {
            metrics.keep(shutdown).await;
            Ok(())
        });
        Ok(services)
    }

    fn build(
        &self,
        kind: Kind,
        settings: &Settings,
        metrics: &Metrics,
        fetch: &Fetch,
    ) -> Result<(stages::Task, Ready), Failure> {
        let shutdown = self.shutdown.clone();
        let tracer = self.traces.as_ref().map(|traces| traces.tracer(kind.name()));
        match kind {
            Kind::Producer => stages::producer(settings, tracer, shutdown),
            Kind::Processor => stages::processor(settings, tracer, shutdown),
            Kind::Upserter => stages::upserter(settings, tracer, shutdown),
            Kind::Embedder => {
                let metrics = metrics.clone();
                embedder::embedder(settings, Arc::new(move || metrics.render()), fetch.clone(), shutdown)
            }
        }
    }

    /// Runs until a signal arrives or a service fails, then stops all.
    pub(crate) async fn until_stopped(mut self) -> Result<(), Failure> {
        let ended = tokio::select! {
            () = signals::received() => {
                info!("stopping");
                Ok(())
            }
            failure = self.a_failure() => Err(failure),
        };
        ended.and(self.stop().await)
    }

    /// Waits until a service fails; forever, if none does.
    pub(crate) async fn a_failure(&mut self) -> Failure {
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(failure) = flatten(ended) {
                return failure;
            }
        }
        std::future::pending().await
    }

    /// Stops all services gracefully, within [`GRACE`].
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        self.shutdown.cancel();
        let again = signals::received_again();
        tokio::spawn(async {
            again.await;
            warn!("received a second signal, exiting immediately");
            process::exit(2);
        });
        let all = async {
            let mut worst = Ok(());
            while let Some(ended) = self.tasks.join_next().await {
                worst = worst.and(flatten(ended));
            }
            worst
        };
        let begun = Instant::now();
        let ended = tokio::time::timeout(GRACE, all).await.unwrap_or_else(|_| {
            warn!("some services did not stop within {} s; their in-flight entries will be claimed", GRACE.as_secs());
            Ok(())
        });
        if let Some(traces) = self.traces {
            traces.finish(traces::FLUSH.min(GRACE.saturating_sub(begun.elapsed()))).await;
        }
        ended
    }
}

fn flatten(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Result<(), Failure> {
    ended.unwrap_or_else(|panic| Err(Failure::new(format!("a service failed: {panic}"))))
}

/// Returns the operations server's address; `None` if disabled.
pub(crate) fn operations_address(settings: &Settings, kinds: &[Kind]) -> Option<String> {
    match &settings.http_listen {
        Listen::Off => None,
        Listen::At(address) => Some(address.clone()),
        Listen::Default => (kinds.len() > 1).then(|| DEFAULT_OPERATIONS_ADDRESS.to_owned()),
    }
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        Self::new(error.to_string())
    }
}
