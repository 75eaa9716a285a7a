//! Qdrant's API, gRPC and REST, served from Qdrant's own engine in this process (`qdrant-edge`). For development: users of a
//! real Qdrant never build this package.
//!
//! Serves collections, points, payload indexes, filters, aliases and searches, with Qdrant's requests, responses and
//! status codes, so that the local stack does not need a Qdrant server. Unsupported features (sparse and multi-vectors,
//! recommendations, groups, snapshots, clusters) are rejected with an error that names them. Parameters without a
//! meaning on one node, such as the number of replicas, are stored and reported: see `config`.
//!
//! # Durability
//!
//! When a write with `wait=true` is confirmed, it is applied, visible to every read, and in the synced operation
//! log. On start the log is replayed on top of the engine's last flush. Surviving a kill of the process at any moment
//! is guaranteed and tested. After a power loss the log is complete, but the engine's memory-mapped files depend on
//! what the kernel wrote back since the last flush.
//!
//! One thread per collection applies the writes in the order of arrival. It evaluates the condition of a write at that
//! point, so that no other write comes between check and write.
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
mod shared;
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
pub use auth::require_key;
use catalog::Catalog;

/// The title in `GET /` and the health check. Identifies this implementation.
const TITLE: &str = "qdrant - vector search engine (tidewheel local, Qdrant Edge 0.7.2)";

/// The version of Qdrant's API that this server implements. Clients warn when it differs from theirs by more than one
/// minor version.
const VERSION: &str = "1.19.0";

/// Maximum REST body, as in Qdrant.
const MAX_BODY: usize = 32 << 20;

/// Maximum gRPC message. Qdrant's default is 32 MiB; a stricter limit is not needed here.
const MAX_MESSAGE: usize = 64 << 20;

/// Interval of log and index maintenance; bounds the time until a write without `wait` is durable.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Data directory and listen addresses.
#[derive(Clone)]
pub struct QdrantOptions {
    /// Data directory; created if missing. Locked by one process at a time.
    pub data: PathBuf,
    /// Address of the REST API (Qdrant's default is port 6333).
    pub http: SocketAddr,
    /// Address of the gRPC API (Qdrant's default is port 6334).
    pub grpc: SocketAddr,
    /// API key that every request except health probes must carry, if set. Required beyond loopback.
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

/// Errors that prevent the server from starting or stop it.
#[derive(Debug, thiserror::Error)]
pub enum QdrantError {
    /// An address cannot be bound.
    #[error("failed to listen on {address} for Qdrant's API: {source}; free the port or set another one")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The I/O error.
        source: std::io::Error,
    },
    /// The data directory cannot be used.
    #[error("failed to serve Qdrant collections from {}: {reason}", data.display())]
    Data {
        /// The directory.
        data: PathBuf,
        /// Why it cannot be used.
        reason: String,
    },
    /// Other machines can reach an address, and the API key is missing or short.
    #[error(
        "{address} is reachable from other machines without an API key of at least {} characters; set \
         QDRANT__SERVICE__API_KEY to a long random string (openssl rand -hex 32), or listen on 127.0.0.1",
        tidewheel_serving::SHORTEST_TOKEN
    )]
    Key {
        /// The address.
        address: SocketAddr,
    },
    /// A listener failed while serving.
    #[error("Qdrant's API stopped: {0}")]
    Serve(String),
}

/// Listens on both addresses and serves until `shutdown`; then stops accepting requests, drains those in flight,
/// flushes and returns.
///
/// # Errors
///
/// When an address cannot be bound or is beyond loopback without a long API key, the data directory is locked by another process or unreadable, or a listener fails.
pub async fn serve(
    options: QdrantOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), QdrantError> {
    require_key(&[options.http, options.grpc], options.api_key.as_deref())?;
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

/// [`serve`] on bound listeners.
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
    let addresses: Vec<_> = [&http, &grpc].into_iter().filter_map(|listener| listener.local_addr().ok()).collect();
    require_key(&addresses, api_key.as_deref())?;
    let root = data.clone();
    let opened = tokio::task::spawn_blocking(move || Catalog::open(&root)).await;
    let catalog = match opened {
        Ok(Ok(catalog)) => Arc::new(catalog),
        Ok(Err(error)) => return Err(QdrantError::Data { data, reason: error.to_string() }),
        Err(panic) => return Err(QdrantError::Data { data, reason: format!("engine panicked: {panic}") }),
    };
    let (stop, stopped) = watch::channel(false);
    let until_stopped = move || {
        let mut stopped = stopped.clone();
        async move {
            // A closed channel also means shutdown.
            let _ = stopped.wait_for(|stop| *stop).await;
        }
    };
    let key = ApiKey::new(api_key);
    let mut rest = tokio::spawn(rest::serve(http, Arc::clone(&catalog), key.clone(), until_stopped()));
    let grpc_catalog = Arc::clone(&catalog);
    let grpc_stopped = until_stopped();
    let mut grpc = tokio::spawn(grpc::serve(grpc, grpc_catalog, key, grpc_stopped));
    let ticker = tokio::spawn(tick(Arc::clone(&catalog)));

    tokio::pin!(shutdown);
    let early = tokio::select! {
        () = &mut shutdown => None,
        ended = &mut rest => Some(format!("the REST listener ended: {ended:?}")),
        ended = &mut grpc => Some(format!("the gRPC listener ended: {ended:?}")),
    };
    stop.send_replace(true);
    // Idle client connections must not delay the shutdown.
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

/// How long shutdown waits for requests in flight.
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
