//! Typed settings for the services, with secrets read from their files.

use std::time::Duration;

use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tidewheel_embed::client::Api;
use tidewheel_ops::overview::Thresholds;
use tidewheel_serving::{Network, TlsFiles};
use tidewheel_telemetry::logging::LogOptions;
use tidewheel_telemetry::traces::TracesOptions;

/// All settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mongodb: MongoDb,
    pub(crate) redis: Redis,
    pub(crate) embedding: Embedding,
    pub(crate) embedder: Embedder,
    pub(crate) documents: Documents,
    pub(crate) qdrant: Qdrant,
    pub(crate) producer: Producer,
    pub(crate) processor: Consumer,
    /// `processor.high_water`
    pub(crate) processor_high_water: u64,
    pub(crate) reuse_vectors: bool,
    pub(crate) upserter: Consumer,
    pub(crate) streams: Streams,
    /// `audit.interval`; zero for never.
    pub(crate) audit_interval: Duration,
    pub(crate) http_listen: Listen,
    /// `http`: the operations server.
    pub(crate) http: Serving,
    pub(crate) console: Console,
    pub(crate) monitor: Monitor,
    /// Unset: tracing is disabled.
    pub(crate) traces: Option<TracesOptions>,
    pub(crate) log: LogOptions,
    pub(crate) local: Local,
}

/// `mongodb`: the source.
#[derive(Clone, Debug)]
pub(crate) struct MongoDb {
    pub(crate) uri: Secret,
    /// Required by the producer only.
    pub(crate) database: Option<String>,
    /// Names or globs.
    pub(crate) collection: Vec<String>,
}

/// `redis`: both streams.
#[derive(Clone, Debug)]
pub(crate) struct Redis {
    pub(crate) url: Secret,
    pub(crate) tls: ClientTls,
}

/// `embedding`: the source of vectors.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    pub(crate) provider: Provider,
    pub(crate) tls: ClientTls,
    pub(crate) timeout: Duration,
    /// Whether the embedder is external to this process.
    pub(crate) elsewhere: bool,
}

/// The embedding provider.
#[derive(Clone, Debug)]
pub(crate) enum Provider {
    /// A tidewheel embedder.
    Tidewheel { url: String, token: Option<Secret> },
    /// A third-party embedder.
    Remote {
        api: Api,
        url: String,
        api_key: Option<Secret>,
        model: String,
        dimensions: Option<usize>,
        max_tokens: usize,
        batch: usize,
        concurrency: usize,
        requests_per_minute: Option<u32>,
        tokens_per_minute: Option<u32>,
    },
}

/// `embedder`: the tidewheel embedder.
#[derive(Clone, Debug)]
pub(crate) struct Embedder {
    pub(crate) model: String,
    pub(crate) listen: String,
    pub(crate) precision: String,
    /// 0: all cores.
    pub(crate) threads: usize,
    pub(crate) serving: Serving,
    pub(crate) query_prefix: Option<String>,
    pub(crate) passage_prefix: Option<String>,
    /// Bytes.
    pub(crate) max_body: u64,
    pub(crate) max_texts: usize,
    pub(crate) max_queued_tokens: usize,
}

/// `documents`: embedded text and payload.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    pub(crate) fields: Vec<String>,
    pub(crate) template: Option<String>,
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    /// Unset: the model's maximum.
    pub(crate) chunk_tokens: Option<usize>,
    pub(crate) chunk_overlap: usize,
    /// `blank = "skip"`: documents without text are not indexed.
    pub(crate) skips_blank: bool,
    /// `on_dead_letter = "remove"`: a parked change removes the older version from the index.
    pub(crate) removes_parked: bool,
    pub(crate) max_chunks: usize,
}

/// `qdrant`: the index.
#[derive(Clone, Debug)]
pub(crate) struct Qdrant {
    pub(crate) url: Secret,
    /// Whether the URL is set explicitly.
    pub(crate) url_is_set: bool,
    pub(crate) collection: String,
    pub(crate) api_key: Option<Secret>,
    pub(crate) tls: ClientTls,
    pub(crate) timeout: Duration,
}

/// `producer`.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    /// Whether the first start takes an initial snapshot.
    pub(crate) snapshot: bool,
    /// Unacknowledged entries of stage 1 at which the producer pauses.
    pub(crate) high_water: u64,
}

/// `processor` and `upserter`.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) batch: usize,
    pub(crate) concurrency: usize,
    pub(crate) claim_after: Duration,
}

/// `streams`: retention for replays.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) retention_age: Duration,
    pub(crate) retention_entries: u64,
    pub(crate) retention_memory: Option<u64>,
    pub(crate) tombstone_grace: Duration,
}

/// `http.listen`, `console.listen`: whether and where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// At the default address, under `run` and `up` only.
    Default,
    /// Never.
    Off,
    /// At this address.
    At(String),
}

/// `console`: the web console.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    pub(crate) listen: Listen,
    /// Without a token the console is read-only.
    pub(crate) serving: Serving,
    /// Header in which a proxy passes the authenticated user.
    pub(crate) user_header: Option<String>,
    /// Proxies from which that header is trusted.
    pub(crate) trusted_proxies: Vec<Network>,
}

/// Server settings shared by `embedder`, `http` and `console`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    pub(crate) token: Option<Secret>,
    /// Allowed host names, besides `localhost` and IP addresses.
    pub(crate) hosts: Vec<String>,
    pub(crate) tls: TlsFiles,
}

/// `monitor`: thresholds and webhook.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    /// Interval between checks.
    pub(crate) interval: Duration,
    pub(crate) thresholds: Thresholds,
    pub(crate) webhook: Option<Webhook>,
}

/// The webhook. Its URL is a secret: with some services the URL alone authorizes posting.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) url: Secret,
    /// Sent as `Authorization: Bearer …`.
    pub(crate) token: Option<Secret>,
    pub(crate) tls: ClientTls,
    /// Per attempt.
    pub(crate) timeout: Duration,
}

/// `local`: the local stack.
#[derive(Clone, Debug)]
pub(crate) struct Local {
    pub(crate) data: Option<String>,
    pub(crate) mongodb_port: u16,
    pub(crate) redis_port: u16,
    pub(crate) qdrant_http_port: u16,
    pub(crate) qdrant_grpc_port: u16,
}
