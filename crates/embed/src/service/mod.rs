//! The embedder as an HTTP service.
//!
//! Guarantees:
//! - a response has one vector per text, in order, all finite, and of the model that the request selects; otherwise it is
//!   an error with a message;
//! - all models of a process share the compute threads, the queue and its limits: a second model adds no thread to them;
//! - memory is bounded: bodies, texts, queued tokens and queued requests have limits, beyond which the response is 413,
//!   or 429 with `Retry-After`; an accepted request is never dropped;
//! - a single text does not wait behind a backfill (see the queue's order), and a disconnected client costs nothing;
//! - ready means that requests are accepted and queued work makes progress;
//! - on shutdown new requests are rejected, queued work is finished within [`ServiceOptions::drain`], and the rest is
//!   answered with 503.
//!
//! ```text
//!  body ──limits──▶ texts ──tokenizer──▶ queue ──tiles──▶ one thread per core ──▶ vectors ──▶ JSON or binary
//! ```

mod body;
mod error;
mod handlers;
mod info;
pub mod metric;
mod models;
mod openai;
mod options;
mod queue;
mod routes;
mod scheduler;
mod tokenize;
pub(crate) mod vectors;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tidewheel_core::ports::{EmbedderLoad, Purpose};
use tidewheel_serving::{Gate, Guard, Server};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use body::Reader;
use error::ApiError;
use metric::ServiceMetrics;
use models::{Model, Served};
use scheduler::{QueueLimits, Scheduler};
use tidewheel_engine::Engine;
use tidewheel_engine::tokens::Encoding;
use tokenize::Splitter;

pub use error::ServiceError;
pub(crate) use info::{INT8, MODELS, TRUNCATE};
pub use info::{Info, Limits, ServedModel};
pub(crate) use models::same_model;
pub use models::{DEFAULT, Models};
pub use options::{Render, ServiceOptions};

/// Time to send the remaining responses after the drain.
const FLUSH: Duration = Duration::from_secs(1);

/// The vectors of one request.
struct Embedded {
    /// The vectors, concatenated.
    values: Vec<f32>,
    /// Number of tokens computed.
    tokens: usize,
}

/// The running service without its socket. Clones share it; the compute threads end with the last clone.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    models: Served,
    options: ServiceOptions,
    reader: Reader,
    splitter: Splitter,
    scheduler: Scheduler,
    metrics: Arc<ServiceMetrics>,
    gate: Gate,
    closing: AtomicBool,
    closed: Notify,
}

impl Service {
    /// Starts the service of one model, named [`DEFAULT`]: see [`Service::with_models`].
    ///
    /// # Errors
    /// The self-test fails, or a thread cannot be started.
    pub fn start(engine: Arc<dyn Engine>, options: ServiceOptions) -> Result<Self, ServiceError> {
        Self::with_models(Models::new(DEFAULT, engine), options)
    }

    /// Runs each engine's self-test, which also warms it up, and starts the compute threads.
    ///
    /// # Errors
    /// A self-test fails, or a thread cannot be started.
    pub fn with_models(models: Models, options: ServiceOptions) -> Result<Self, ServiceError> {
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        };
        let models = Served::start(models, workers, Limits::new(&options))?;
        let metrics = Arc::new(ServiceMetrics::new());
        let limits = QueueLimits { tokens: options.queue_tokens, requests: options.queue_requests };
        let inner = Inner {
            models,
            reader: Reader::new(&options),
            splitter: Splitter::new(workers),
            scheduler: Scheduler::start(Arc::clone(&metrics), workers, limits)?,
            metrics,
            gate: Gate::new("embedder", options.token.clone()),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            options,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Adds a model while the service runs. Blocks during the engine's self-test; requests are answered meanwhile.
    ///
    /// # Errors
    /// The self-test fails, or another model has this name.
    pub fn add(&self, name: impl Into<String>, engine: Arc<dyn Engine>) -> Result<(), ServiceError> {
        self.inner.models.add(name.into(), engine)
    }

    /// Returns what does not change about the default model while the service runs.
    pub fn info(&self) -> &Info {
        &self.inner.models.default_model().info
    }

    /// Lists the served models, the default one first.
    pub fn models(&self) -> Vec<ServedModel> {
        self.inner.models.list()
    }

    /// Returns the model that a request selects.
    fn model(&self, asked: Option<&str>) -> Result<Arc<Model>, ApiError> {
        self.inner.models.select(asked)
    }

    fn load(&self) -> EmbedderLoad {
        self.inner.metrics.load()
    }

    /// Stops accepting requests: new ones are answered with 503, queued ones are still computed.
    pub fn close(&self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.closed.notify_waiters();
    }

    /// Answers all queued requests with 503.
    pub fn abort(&self) {
        self.close();
        self.inner.scheduler.abort();
    }

    /// Checks that requests are accepted and queued work makes progress.
    ///
    /// # Errors
    /// The state: `closing` or `stalled`.
    pub fn readiness(&self) -> Result<(), &'static str> {
        if self.is_closing() {
            return Err("closing");
        }
        if self.inner.scheduler.moves() { Ok(()) } else { Err("stalled") }
    }

    fn is_closing(&self) -> bool {
        self.inner.closing.load(Ordering::Acquire)
    }

    fn options(&self) -> &ServiceOptions {
        &self.inner.options
    }

    fn reader(&self) -> &Reader {
        &self.inner.reader
    }

    /// Embeds texts. `held` is dropped after tokenization: from then on the queue bounds memory by tokens.
    async fn embed<T>(
        &self,
        model: &Arc<Model>,
        texts: Vec<String>,
        purpose: Purpose,
        truncate: bool,
        held: T,
    ) -> Result<Embedded, ApiError> {
        self.admit(texts.len())?;
        let (prefix, unpooled) = model.prefix(purpose);
        let started = Instant::now();
        let encodings = self.inner.splitter.split(&model.engine, texts, prefix, unpooled, truncate).await?;
        self.inner.metrics.tokenized(started.elapsed());
        drop(held);
        self.compute(model, encodings).await
    }

    /// Embeds tokenized texts.
    async fn embed_tokens(&self, model: &Arc<Model>, encodings: Vec<Encoding>) -> Result<Embedded, ApiError> {
        self.admit(encodings.len())?;
        self.compute(model, encodings).await
    }

    fn admit(&self, texts: usize) -> Result<(), ApiError> {
        if self.is_closing() {
            return Err(ApiError::closing());
        }
        let limit = self.options().max_texts;
        if texts > limit {
            return Err(ApiError::too_large(format!("{texts} texts in one request, limit {limit}; split the list")));
        }
        self.inner.scheduler.admits()
    }

    async fn compute(&self, model: &Arc<Model>, encodings: Vec<Encoding>) -> Result<Embedded, ApiError> {
        if encodings.is_empty() {
            return Ok(Embedded { values: Vec::new(), tokens: 0 });
        }
        let tokens = encodings.iter().map(|encoding| encoding.ids.len()).sum();
        let answer = self.inner.scheduler.submit(Arc::clone(model), encodings)?;
        let values =
            answer.await.map_err(|_| ApiError::internal("compute thread exited before completing the request"))??;
        Ok(Embedded { values, tokens })
    }
}

/// Runs the service of one model on a socket until `shutdown` is ready, then drains it.
///
/// # Errors
/// The engine fails its self-test, or a thread cannot be started.
pub async fn serve(
    listener: TcpListener,
    engine: Arc<dyn Engine>,
    options: ServiceOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServiceError> {
    Service::start(engine, options)?.run(Server::new(listener), shutdown).await;
    Ok(())
}

impl Service {
    /// Serves until `shutdown` is ready, then drains.
    pub async fn run(self, server: Server, shutdown: impl Future<Output = ()> + Send + 'static) {
        let closer = self.clone();
        let closing = async move {
            shutdown.await;
            closer.close();
        };
        let guard = Guard::new("embedder.hosts", &self.options().hosts).with_network_names(!server.is_loopback());
        let serving = server.serve(guard.protect(self.router()), closing);
        let give_up = async {
            self.closed().await;
            tokio::time::sleep(self.options().drain).await;
            self.abort();
            tokio::time::sleep(FLUSH).await;
        };
        tokio::select! {
            () = serving => {}
            () = give_up => {}
        }
    }

    async fn closed(&self) {
        let notified = self.inner.closed.notified();
        if !self.is_closing() {
            notified.await;
        }
    }
}
