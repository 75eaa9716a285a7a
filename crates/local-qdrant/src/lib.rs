//! Qdrant's API, gRPC and REST, served from Qdrant's own engine in this process (`qdrant-edge`). For development: users of a
//! real Qdrant never build this package.
//!
//! The local stack has no Qdrant server to start, so it brings one: collections, points, payload indexes, filters,
//! aliases, searches, with Qdrant's requests, answers and status codes. What it does not have (sparse and
//! multi-vectors, quantization, recommendations, groups, snapshots, clusters) it refuses with a message that
//! names it.
//!
//! # What a confirmed write means
//!
//! A write with `wait=true` is applied, visible to every read, and on the disk when it is answered: the process may
//! be killed at any moment afterwards, and the machine may lose power, and the operation log has it. On start
//! the log is applied on top of what the engine had flushed. Killing the process is the contract and is tested;
//! for a loss of power the log itself is synced, but the engine's memory-mapped files are at the mercy of
//! what the kernel wrote back since the last flush.
//!
//! Writes are applied by one thread per collection, in the order in which they arrived. A condition of a write
//! is decided at that point, so nothing slips in between the check and the write.
//!
//! # Layout
//!
//! `DATA/collections/NAME/` per collection (see `collection`), `DATA/aliases.json`, `DATA/lock`.

mod auth;
mod catalog;
mod collection;
mod config;
mod error;
mod files;
mod grpc;
mod nesting;
mod oplog;
mod query;
mod record;
mod rest;
mod wal;
mod write;
mod writer;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;

use auth::ApiKey;
use catalog::Catalog;

/// What `GET /` and the health check say. Honest about what answers.
const TITLE: &str = "qdrant - vector search engine (tidewheel local, Qdrant Edge 0.7.2)";

/// The version of Qdrant's API that this server follows. Clients compare it with their own and warn when they are
/// more than one minor version apart.
const VERSION: &str = "1.19.0";

/// Largest REST body, as on a real Qdrant.
const MAX_BODY: usize = 32 << 20;

/// Largest gRPC message. A real Qdrant takes 32 MiB by default; there is no reason to be stricter here.
const MAX_MESSAGE: usize = 64 << 20;

/// How often collections look after their log and index, and the longest that a write without `wait` is not durable.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Where to keep the data and where to listen.
#[derive(Clone)]
pub struct QdrantOptions {
    /// Directory for everything; created if missing. One process at a time.
    pub data: PathBuf,
    /// Address of the REST API (Qdrant's default is port 6333).
    pub http: SocketAddr,
    /// Address of the gRPC API (Qdrant's default is port 6334).
    pub grpc: SocketAddr,
    /// When set, every request but the health probes has to carry it.
    pub api_key: Option<String>,
}

impl std::fmt::Debug for QdrantOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("QdrantOptions")
            .field("data", &self.data)
            .field("http", &self.http)
            .field("grpc", &self.grpc)
            .field("api_key", &self.api_key.as_ref().map(|_| "***"))
            .finish()
    }
}

/// Why the server could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum QdrantError {
    /// An address is taken or not ours.
    #[error("cannot listen on {address} for Qdrant's API: {source}; stop what uses it or choose another port")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot serve Qdrant collections from {}: {reason}", data.display())]
    Data {
        /// The directory.
        data: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A listener failed while serving.
    #[error("Qdrant's API stopped: {0}")]
    Serve(String),
}

/// Listens on both addresses and serves until `shutdown`; then takes nothing new, finishes what is in flight, flushes
/// and returns.
///
/// # Errors
///
/// An address that cannot be bound, a data directory that another process serves or that cannot be read, a listener
/// that failed.
pub async fn serve(
    options: QdrantOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), QdrantError> {
    let http = bind(options.http).await?;
    let grpc = bind(options.grpc).await?;
    serve_on(http, grpc, options.data, options.api_key, shutdown).await
}

/// Listens on an address.
///
/// # Errors
///
/// An address that cannot be bound.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, QdrantError> {
    TcpListener::bind(address).await.map_err(|source| QdrantError::Listen { address, source })
}

/// [`serve`] on listeners that are bound already.
///
/// # Errors
///
/// As [`serve`].
pub async fn serve_on(
    http: TcpListener,
    grpc: TcpListener,
    data: PathBuf,
    api_key: Option<String>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), QdrantError> {
    let root = data.clone();
    let opened = tokio::task::spawn_blocking(move || Catalog::open(&root)).await;
    let catalog = match opened {
        Ok(Ok(catalog)) => Arc::new(catalog),
        Ok(Err(error)) => return Err(QdrantError::Data { data, reason: error.to_string() }),
        Err(panic) => return Err(QdrantError::Data { data, reason: format!("the engine panicked: {panic}") }),
    };
    let (stop, stopped) = watch::channel(false);
    let until_stopped = move || {
        let mut stopped = stopped.clone();
        async move {
            // A closed channel means the same: this function is gone.
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let key = ApiKey::new(api_key);
    let mut rest = tokio::spawn(rest::serve(http, Arc::clone(&catalog), key.clone(), until_stopped()));
    let grpc_catalog = Arc::clone(&catalog);
    let grpc_stopped = until_stopped();
    let mut grpc = tokio::spawn(async move { grpc::serve(grpc, grpc_catalog, key, grpc_stopped).await });
    let ticker = tokio::spawn(tick(Arc::clone(&catalog)));

    tokio::pin!(shutdown);
    let early = tokio::select! {
        () = &mut shutdown => None,
        ended = &mut rest => Some(format!("the REST listener ended: {ended:?}")),
        ended = &mut grpc => Some(format!("the gRPC listener ended: {ended:?}")),
    };
    stop.send_replace(true);
    // Connections that clients keep open without using them must not hold the shutdown up.
    for task in [abort_handle(&rest), abort_handle(&grpc)] {
        let deadline = tokio::time::Instant::now() + DRAIN;
        while !task.is_finished() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        task.abort();
    }
    ticker.abort();
    catalog.stop().await;
    early.map_or(Ok(()), |reason| Err(QdrantError::Serve(reason)))
}

/// How long requests in flight may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(3);

fn abort_handle<T>(task: &tokio::task::JoinHandle<T>) -> tokio::task::AbortHandle {
    task.abort_handle()
}

async fn tick(catalog: Arc<Catalog>) {
    let mut interval = tokio::time::interval(FLUSH_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        catalog.tick();
    }
}
