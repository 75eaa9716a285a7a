//! The embedder as an HTTP service.
//!
//! Guarantees:
//! - an answer has one vector for each text, in order, all finite; or it is an error with a message;
//! - memory is bounded: bodies, texts, waiting tokens and waiting requests have limits, and beyond them the answer is
//!   413, or 429 with `Retry-After`; nothing that was taken is dropped;
//! - a single text does not wait behind a backfill (see the queue's order), and a caller that hung up costs nothing;
//! - ready means that requests are taken and work gets done;
//! - on shutdown nothing new is taken, what waits is finished within [`ServiceOptions::drain`], and the rest is
//!   answered with 503.
//!
//! ```text
//!  body ──limits──▶ texts ──tokeniser──▶ queue ──tiles──▶ one thread a core ──▶ vectors ──▶ JSON or binary
//! ```

mod body;
mod error;
mod handlers;
pub mod meters;
mod openai;
mod options;
mod queue;
mod scheduler;
mod tokenize;
pub(crate) mod vectors;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Serialize;
use tidewheel_core::ports::Purpose;
use tidewheel_serving::{Access, Gate, Guard, Server};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use body::Reader;
use error::Refusal;
use meters::Meters;
use scheduler::{QueueLimits, Scheduler};
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, EngineInfo};
use tokenize::Splitter;

pub use error::ServiceError;
pub use options::{Render, ServiceOptions};

/// How long answers that were already decided may take to be sent once the drain is over.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What `GET /info` answers with.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The engine.
    #[serde(flatten)]
    pub engine: EngineInfo,
    /// Tokens of a document's text that count: without the special tokens and the prefix.
    pub max_text_tokens: usize,
    /// Threads that compute.
    pub workers: usize,
    /// Limits of requests and of the queue.
    pub limits: Limits,
    /// What requests may ask for beyond the first release.
    pub features: &'static [&'static str],
    /// This program's version.
    pub version: &'static str,
}

/// A request may say `"truncate": false`.
pub(crate) const TRUNCATE: &str = "truncate";

/// The limits in [`Info`].
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// Longest body in bytes.
    pub body_bytes: usize,
    /// Most texts in a request.
    pub texts: usize,
    /// Tokens that may wait.
    pub queue_tokens: usize,
    /// Requests that may wait.
    pub queue_requests: usize,
}

/// Vectors of one request.
struct Embedded {
    /// One vector after another.
    values: Vec<f32>,
    /// Tokens computed for them.
    tokens: usize,
}

/// The running service without its socket. Clones are handles to the same one; its threads end with the last.
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
    /// Tokens of a document's and a search's prefix that are not pooled.
    unpooled: [usize; 2],
    scheduler: Scheduler,
    meters: Arc<Meters>,
    gate: Gate,
    closing: AtomicBool,
    closed: Notify,
}

impl Service {
    /// Checks the engine with a text, which also warms it up, and starts the threads.
    ///
    /// # Errors
    /// The engine's answer is not a vector, or a thread cannot be started.
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
        let meters = Arc::new(Meters::new());
        let limits = QueueLimits { tokens: options.queue_tokens, requests: options.queue_requests };
        let scheduler = Scheduler::start(Arc::clone(&engine), Arc::clone(&meters), workers, limits)?;
        let inner = Inner {
            model_header: HeaderValue::from_str(&vectors::header_form(&info.engine.model, &info.engine.revision))
                .unwrap_or_else(|_| HeaderValue::from_static("?")),
            reader: Reader::new(&options),
            unpooled: [&info.engine.passage_prefix, &info.engine.query_prefix].map(|prefix| engine.unpooled(prefix)),
            splitter: Splitter::new(Arc::clone(&engine), workers),
            scheduler,
            meters,
            gate: Gate::new("embedder", options.token.clone()),
            closing: AtomicBool::new(false),
            closed: Notify::new(),
            engine,
            options,
            info,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The endpoints.
    pub fn router(&self) -> Router {
        let guarded = Router::new()
            .route("/encode", post(handlers::encode))
            .route("/encode_batch", post(handlers::encode_batch))
            .route("/info", get(handlers::info))
            .route("/metrics", get(handlers::metrics))
            .route("/tokenizer", get(handlers::tokenizer))
            .method_not_allowed_fallback(handlers::wrong_method)
            .route_layer(from_fn_with_state(self.clone(), guard));
        let openai = Router::new()
            .route("/v1/embeddings", post(openai::embeddings))
            .method_not_allowed_fallback(openai::wrong_method)
            .route_layer(from_fn_with_state(self.clone(), guard_openai));
        Router::new()
            .route("/health", get(handlers::health))
            .route("/ready", get(handlers::ready))
            .method_not_allowed_fallback(handlers::wrong_method)
            .merge(guarded)
            .merge(openai)
            .fallback(handlers::unknown)
            .layer(from_fn_with_state(self.clone(), count))
            .with_state(self.clone())
    }

    /// What `GET /info` answers with.
    pub fn info(&self) -> &Info {
        &self.inner.info
    }

    /// Takes no more requests: new ones are answered with 503, what waits is still computed.
    pub fn close(&self) {
        self.inner.closing.store(true, Ordering::Release);
        self.inner.closed.notify_waiters();
    }

    /// Answers everything that still waits with 503.
    pub fn abort(&self) {
        self.close();
        self.inner.scheduler.abort();
    }

    /// Whether requests are taken and work gets done; if not, why.
    ///
    /// # Errors
    /// A word for people: `closing` or `stalled`.
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

    /// Embeds texts. `held` is dropped as soon as the texts have become tokens, whose number the queue bounds.
    async fn embed<T>(
        &self,
        texts: Vec<String>,
        purpose: Purpose,
        truncate: bool,
        held: T,
    ) -> Result<Embedded, Refusal> {
        self.admit(texts.len())?;
        let info = self.engine().info();
        let (prefix, unpooled) = match purpose {
            Purpose::Passage => (&info.passage_prefix, self.inner.unpooled[0]),
            Purpose::Query => (&info.query_prefix, self.inner.unpooled[1]),
        };
        let started = Instant::now();
        let encodings = self.inner.splitter.split(texts, prefix, unpooled, truncate).await?;
        self.inner.meters.tokenized(started.elapsed());
        drop(held);
        self.compute(encodings).await
    }

    /// Embeds texts that are tokens already.
    async fn embed_tokens(&self, encodings: Vec<Encoding>) -> Result<Embedded, Refusal> {
        self.admit(encodings.len())?;
        self.compute(encodings).await
    }

    /// Why the token of a request does not do.
    fn denied(&self, request: &Request) -> Option<Refusal> {
        match self.inner.gate.check(request) {
            Access::Granted => None,
            Access::Missing | Access::Wrong => Some(Refusal::unauthorized()),
            Access::TooMany(wait) => Some(Refusal::busy("too many wrong tokens from this address", wait.as_secs() + 1)),
        }
    }

    fn admit(&self, texts: usize) -> Result<(), Refusal> {
        if self.is_closing() {
            return Err(Refusal::closing());
        }
        let limit = self.options().max_texts;
        if texts > limit {
            return Err(Refusal::too_large(format!(
                "{texts} texts in one request, which is more than {limit}; split the list"
            )));
        }
        self.inner.scheduler.admits()
    }

    async fn compute(&self, encodings: Vec<Encoding>) -> Result<Embedded, Refusal> {
        if encodings.is_empty() {
            return Ok(Embedded { values: Vec::new(), tokens: 0 });
        }
        let tokens = encodings.iter().map(|encoding| encoding.ids.len()).sum();
        let answer = self.inner.scheduler.submit(encodings)?;
        let values = answer.await.map_err(|_| Refusal::internal("the thread that computed this request is gone"))??;
        Ok(Embedded { values, tokens })
    }
}

/// Runs the service on a socket until `shutdown` is ready, then drains it.
///
/// # Errors
/// The engine does not work, or a thread cannot be started.
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
            tokio::time::sleep(LAST_WORDS).await;
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

/// One text through the whole engine.
fn probe(engine: &dyn Engine) -> Result<(), ServiceError> {
    let info = engine.info();
    let broken = |cause: &str| ServiceError::Engine { model: info.model.clone(), cause: cause.to_owned() };
    if info.dimension == 0 {
        return Err(broken("its vectors have no dimensions"));
    }
    let mut vector = vec![0.0; info.dimension];
    engine.embed_one(engine.tokenize("tidewheel").text(), &mut vector);
    if vector.iter().any(|value| !value.is_finite()) || vector.iter().all(|value| *value == 0.0) {
        return Err(broken("its vector of the text \"tidewheel\" is not a finite vector other than zero"));
    }
    Ok(())
}

/// Lets only callers with the token through, if there is one.
async fn guard(State(service): State<Service>, request: Request, next: Next) -> Response {
    match service.denied(&request) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    }
}

/// The same with OpenAI's form of an error.
async fn guard_openai(State(service): State<Service>, request: Request, next: Next) -> Response {
    match service.denied(&request) {
        Some(refusal) => refusal.into_openai(),
        None => next.run(request).await,
    }
}

/// Counts answers by their status.
async fn count(State(service): State<Service>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status().as_u16();
    service.inner.meters.answered(status);
    if status == 429 {
        service.inner.meters.refused();
    }
    response
}
