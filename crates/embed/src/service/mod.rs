//! The embedder as an HTTP service.
//!
//! Guarantees:
//! - a response has one vector per text, in order, all finite; otherwise it is an error with a message;
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
pub mod metric;
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

use axum::http::HeaderValue;
use serde::Serialize;
use tidewheel_core::ports::{EmbedderLoad, Purpose};
use tidewheel_serving::{Gate, Guard, Server};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use body::Reader;
use error::ApiError;
use metric::ServiceMetrics;
use scheduler::{QueueLimits, Scheduler};
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, EngineInfo};
use tokenize::Splitter;

pub use error::ServiceError;
pub use options::{Render, ServiceOptions};

/// Time to send the remaining responses after the drain.
const FLUSH: Duration = Duration::from_secs(1);

/// What does not change while the service runs.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The engine.
    #[serde(flatten)]
    pub engine: EngineInfo,
    /// Maximum tokens of a document's text, excluding special tokens and prefix.
    pub max_text_tokens: usize,
    /// Number of compute threads.
    pub workers: usize,
    /// Limits of requests and of the queue.
    pub limits: Limits,
    /// Request features added since the first release.
    pub features: &'static [&'static str],
    /// The tidewheel version.
    pub version: &'static str,
}

/// Feature: requests may set `"truncate": false`.
pub(crate) const TRUNCATE: &str = "truncate";

/// The limits in [`Info`].
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// Maximum body size in bytes.
    pub body_bytes: usize,
    /// Maximum texts per request.
    pub texts: usize,
    /// Maximum queued tokens.
    pub queue_tokens: usize,
    /// Maximum queued requests.
    pub queue_requests: usize,
}

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
    engine: Arc<dyn Engine>,
    options: ServiceOptions,
    info: Info,
    model_header: HeaderValue,
    reader: Reader,
    splitter: Splitter,
    /// Tokens of the passage and query prefixes that are not pooled.
    unpooled: [usize; 2],
    scheduler: Scheduler,
    metrics: Arc<ServiceMetrics>,
    gate: Gate,
    closing: AtomicBool,
    closed: Notify,
}

impl Service {
    /// Runs the engine's self-test, which also warms it up, and starts the compute threads.
    ///
    /// # Errors
    /// The self-test fails, or a thread cannot be started.
    pub fn start(engine: Arc<dyn Engine>, options: ServiceOptions) -> Result<Self, ServiceError> {
        let workers = match options.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            some => some,
        };
        probe(&*engine)?;
        let tokens = |text: &str| engine.tokenize(text).ids.len();
        let passage = tokens(&engine.info().passage_prefix);
        let info = Info {
            engine: engine.info().clone(),
            max_text_tokens: engine.info().max_tokens.saturating_sub(passage).max(1),
            workers,
            limits: Limits {
                body_bytes: options.max_body_bytes,
                texts: options.max_texts,
                queue_tokens: options.queue_tokens,
                queue_requests: options.queue_requests,
            },
            features: &[TRUNCATE],
            version: env!("CARGO_PKG_VERSION"),
        };
        let metrics = Arc::new(ServiceMetrics::new());
        let limits = QueueLimits { tokens: options.queue_tokens, requests: options.queue_requests };
        let scheduler = Scheduler::start(Arc::clone(&engine), Arc::clone(&metrics), workers, limits)?;
        let inner = Inner {
            model_header: HeaderValue::from_str(&vectors::header_form(&info.engine.model, &info.engine.revision))
                .unwrap_or_else(|_| HeaderValue::from_static("?")),
            reader: Reader::new(&options),
            unpooled: [&info.engine.passage_prefix, &info.engine.query_prefix].map(|prefix| engine.unpooled(prefix)),
            splitter: Splitter::new(Arc::clone(&engine), workers),
            scheduler,
            metrics,
            gate: Gate::new("embedder", options.token.clone()),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            engine,
            options,
            info,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns what does not change while the service runs.
    pub fn info(&self) -> &Info {
        &self.inner.info
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

    fn engine(&self) -> &dyn Engine {
        &*self.inner.engine
    }

    fn dimension(&self) -> usize {
        self.engine().info().dimension
    }

    fn options(&self) -> &ServiceOptions {
        &self.inner.options
    }

    fn reader(&self) -> &Reader {
        &self.inner.reader
    }

    fn model_header(&self) -> &HeaderValue {
        &self.inner.model_header
    }

    /// Embeds texts. `held` is dropped after tokenization: from then on the queue bounds memory by tokens.
    async fn embed<T>(
        &self,
        texts: Vec<String>,
        purpose: Purpose,
        truncate: bool,
        held: T,
    ) -> Result<Embedded, ApiError> {
        self.admit(texts.len())?;
        let info = self.engine().info();
        let (prefix, unpooled) = match purpose {
            Purpose::Passage => (&info.passage_prefix, self.inner.unpooled[0]),
            Purpose::Query => (&info.query_prefix, self.inner.unpooled[1]),
        };
        let started = Instant::now();
        let encodings = self.inner.splitter.split(texts, prefix, unpooled, truncate).await?;
        self.inner.metrics.tokenized(started.elapsed());
        drop(held);
        self.compute(encodings).await
    }

    /// Embeds tokenized texts.
    async fn embed_tokens(&self, encodings: Vec<Encoding>) -> Result<Embedded, ApiError> {
        self.admit(encodings.len())?;
        self.compute(encodings).await
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

    async fn compute(&self, encodings: Vec<Encoding>) -> Result<Embedded, ApiError> {
        if encodings.is_empty() {
            return Ok(Embedded { values: Vec::new(), tokens: 0 });
        }
        let tokens = encodings.iter().map(|encoding| encoding.ids.len()).sum();
        let answer = self.inner.scheduler.submit(encodings)?;
        let values =
            answer.await.map_err(|_| ApiError::internal("compute thread exited before completing the request"))??;
        Ok(Embedded { values, tokens })
    }
}

/// Runs the service on a socket until `shutdown` is ready, then drains it.
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

/// Runs one text through the engine.
fn probe(engine: &dyn Engine) -> Result<(), ServiceError> {
    let info = engine.info();
    let broken = |cause: &str| ServiceError::Engine { model: info.model.clone(), cause: cause.to_owned() };
    if info.dimension == 0 {
        return Err(broken("vectors have dimension 0"));
    }
    let mut vector = vec![0.0; info.dimension];
    engine.embed_one(engine.tokenize("tidewheel").text(), &mut vector);
    if vector.iter().any(|value| !value.is_finite()) || vector.iter().all(|value| *value == 0.0) {
        return Err(broken("vector of the text \"tidewheel\" is zero or not finite"));
    }
    Ok(())
}
