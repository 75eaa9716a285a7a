//! Typed settings for the services, with secrets read from their files.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewheel_core::catalog::{Declaration, EmbeddingSpec, Rounding};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tidewheel_embed::client::Api;
use tidewheel_ops::overview::Thresholds;
use tidewheel_serving::{Network, TlsFiles};
use tidewheel_telemetry::logging::LogOptions;
use tidewheel_telemetry::traces::TracesOptions;

use super::address;
use super::declarations;
use super::names::DEFAULT_EMBEDDING;

/// All settings.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) mongodb: MongoDb,
    pub(crate) redis: Redis,
    /// `[embedding]`
    pub(crate) embedding: Embedding,
    /// Each `[embedding.NAME]`, by name.
    pub(crate) embeddings: BTreeMap<String, Embedding>,
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
    /// Each `[[index]]`; none in the short form.
    pub(crate) indexes: Vec<Declaration>,
}

impl Settings {
    /// Whether there is an `[[index]]`.
    pub(crate) fn is_declared(&self) -> bool {
        !self.indexes.is_empty()
    }

    /// The declared indexes; without `[[index]]`, that of the short form.
    pub(crate) fn declarations(&self) -> Vec<Declaration> {
        if self.is_declared() { self.indexes.clone() } else { vec![declarations::short_form(self)] }
    }

    /// Returns the embedding of this name.
    pub(crate) fn embedding_of(&self, name: &str) -> Option<&Embedding> {
        if name == DEFAULT_EMBEDDING { Some(&self.embedding) } else { self.embeddings.get(name) }
    }

    /// The names of all embeddings.
    pub(crate) fn embedding_names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(DEFAULT_EMBEDDING).chain(self.embeddings.keys().map(String::as_str))
    }

    /// Whether a declared index, or that of the short form, needs an embedder of this process.
    pub(crate) fn embeds_here(&self) -> bool {
        let is_here = |name: &str| self.embedding_of(name).is_some_and(|embedding| !embedding.elsewhere);
        if !self.is_declared() {
            return is_here(DEFAULT_EMBEDDING);
        }
        self.indexes.iter().any(|index| is_here(&index.embedding.name))
    }
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

/// `embedding`, `embedding.NAME`: a source of vectors.
#[derive(Clone, Debug)]
pub(crate) struct Embedding {
    /// Its name in `[[index]]`.
    pub(crate) name: String,
    /// Empty for the only or the default model of its server.
    pub(crate) model: String,
    /// Of a model that a tidewheel embedder serves.
    pub(crate) precision: String,
    pub(crate) query_prefix: Option<String>,
    pub(crate) passage_prefix: Option<String>,
    pub(crate) provider: Provider,
    pub(crate) tls: ClientTls,
    pub(crate) timeout: Duration,
    /// Whether the embedder is external to this process.
    pub(crate) elsewhere: bool,
    /// Whether this table itself has a URL.
    pub(crate) url_is_set: bool,
}

impl Embedding {
    /// Whether the provider is a tidewheel embedder.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self.provider, Provider::Tidewheel { .. })
    }

    /// What decides a vector. Its URL has no user name and no password.
    pub(crate) fn spec(&self) -> EmbeddingSpec {
        // A server that cannot be asked for a model decides which one embeds. The address of any other differs between
        // processes: a service name, a forwarded port.
        let (provider, dimensions, decisive) = match &self.provider {
            Provider::Tidewheel { .. } => ("tidewheel", None, None),
            Provider::Remote { api: Api::OpenAi, dimensions, .. } => ("openai", *dimensions, None),
            Provider::Remote { api: Api::Ollama, dimensions, .. } => ("ollama", *dimensions, None),
            Provider::Remote { api: Api::TextEmbeddingsInference, dimensions, url, .. } => {
                ("tei", *dimensions, Some(url))
            }
        };
        let is_int8 = self.is_own() && self.precision == "int8";
        EmbeddingSpec {
            url: decisive.map(|url| public(url)),
            dimensions,
            rounding: if is_int8 { Rounding::Int8 } else { Rounding::Exact },
            passage_prefix: self.passage_prefix.clone(),
            query_prefix: self.query_prefix.clone(),
            ..EmbeddingSpec::new(&self.name, provider, &self.model)
        }
    }
}

/// The address without user name, password and options.
fn public(url: &str) -> String {
    if !address::holds_secret(url) {
        return url.to_owned();
    }
    let shown = address::shown(url).replace("***@", "");
    shown.split('?').next().unwrap_or_default().to_owned()
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
