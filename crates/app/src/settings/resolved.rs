//! The settings as the services take them: typed, with secrets read from their files.

use std::time::Duration;

use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tidewheel_core::trace::Share;
use tidewheel_embed::client::Api;
use tidewheel_serving::{Network, TlsFiles};

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
    /// Unset: nothing is traced.
    pub(crate) traces: Option<Traces>,
    pub(crate) log: Log,
    pub(crate) local: Local,
}

/// `mongodb`: the source.
#[derive(Clone, Debug)]
pub(crate) struct MongoDb {
    pub(crate) uri: Secret,
    /// Only the producer needs it.
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

/// `embedding`: where vectors come from.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    pub(crate) provider: Provider,
    pub(crate) tls: ClientTls,
    pub(crate) timeout: Duration,
    /// Whether `embedding.url` points to something that this process does not run itself.
    pub(crate) elsewhere: bool,
}

/// Who makes the vectors.
#[derive(Clone, Debug)]
pub(crate) enum Provider {
    /// Our own embedder.
    Tidewheel { url: String, token: Option<Secret> },
    /// An embedder that is not ours.
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

/// `embedder`: our own embedding service.
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

/// `documents`: what of a document is embedded and what is kept.
#[derive(Clone, Debug)]
pub(crate) struct Documents {
    pub(crate) fields: Vec<String>,
    pub(crate) template: Option<String>,
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    /// Unset: as many as the model takes.
    pub(crate) chunk_tokens: Option<usize>,
    pub(crate) chunk_overlap: usize,
    /// `blank = "skip"`: a document without text is not in the index.
    pub(crate) skips_blank: bool,
    /// `on_dead_letter = "remove"`: a parked change removes the older version from the index.
    pub(crate) removes_parked: bool,
    pub(crate) max_chunks: usize,
}

/// `qdrant`: the index.
#[derive(Clone, Debug)]
pub(crate) struct Qdrant {
    pub(crate) url: Secret,
    /// Whether anybody set the address.
    pub(crate) url_is_set: bool,
    pub(crate) collection: String,
    pub(crate) api_key: Option<Secret>,
    pub(crate) tls: ClientTls,
    pub(crate) timeout: Duration,
}

/// `producer`.
#[derive(Clone, Debug)]
pub(crate) struct Producer {
    /// Whether what is already there is read at the first start.
    pub(crate) snapshot: bool,
    /// Unconfirmed entries of stage 1 at which the producer waits.
    pub(crate) high_water: u64,
}

/// `processor` and `upserter`.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    pub(crate) batch: usize,
    pub(crate) concurrency: usize,
    pub(crate) claim_after: Duration,
}

/// `streams`: what stays in them for a replay.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    pub(crate) retention_age: Duration,
    pub(crate) retention_entries: u64,
    pub(crate) retention_memory: Option<u64>,
    pub(crate) tombstone_grace: Duration,
}

/// `http.listen`, `console.listen`: whether that server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Listen {
    /// Under `run` and `up` only, at the usual address.
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
    /// Without a token nothing can be changed.
    pub(crate) serving: Serving,
    /// Where a proxy writes the name of the user whom it has authenticated.
    pub(crate) user_header: Option<String>,
    /// The proxies from which that header counts.
    pub(crate) trusted_proxies: Vec<Network>,
}

/// What `embedder`, `http` and `console` have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct Serving {
    pub(crate) token: Option<Secret>,
    /// Names under which browsers reach it, beside `localhost` and addresses.
    pub(crate) hosts: Vec<String>,
    pub(crate) tls: TlsFiles,
}

/// `monitor`: from which numbers on somebody is told, and who.
#[derive(Clone, Debug)]
pub(crate) struct Monitor {
    /// How often it looks.
    pub(crate) interval: Duration,
    pub(crate) thresholds: Thresholds,
    pub(crate) webhook: Option<Webhook>,
}

/// From which numbers on something is a problem.
#[derive(Clone, Debug)]
pub(crate) struct Thresholds {
    /// Most unconfirmed entries of stage 1.
    pub(crate) stage_1: u64,
    /// Most unconfirmed entries of stage 2.
    pub(crate) stage_2: u64,
    /// How long work may wait without any being confirmed.
    pub(crate) no_progress: Duration,
    /// From the commit to being searchable, for 95 of 100 changes.
    pub(crate) latency: Duration,
    /// How long the oplog has to reach beyond what the producer has saved.
    pub(crate) oplog_time_left: Duration,
    /// Most percent of Redis' memory limit.
    pub(crate) redis_memory_percent: u64,
    /// Most dead letters.
    pub(crate) dead_letters: u64,
}

/// Who is told over HTTP. The address is a secret: with some services whoever knows it may post.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub(crate) url: Secret,
    /// Shown as `Authorization: Bearer …`.
    pub(crate) token: Option<Secret>,
    pub(crate) tls: ClientTls,
    /// For one attempt.
    pub(crate) timeout: Duration,
}

/// `traces`: who is told of each change, over OTLP/HTTP.
#[derive(Clone, Debug)]
pub(crate) struct Traces {
    /// The collector's base address.
    pub(crate) endpoint: Secret,
    /// Which share of all changes.
    pub(crate) share: Share,
    /// Headers that the collector wants to see, as `name=value`, separated by commas.
    pub(crate) headers: Option<Secret>,
    pub(crate) tls: ClientTls,
}

/// `log`.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    /// Unset: text on a terminal, JSON otherwise.
    pub(crate) json: Option<bool>,
    /// A level, or directives as in `RUST_LOG`.
    pub(crate) level: String,
    /// Whether anybody set the level.
    pub(crate) level_is_set: bool,
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
