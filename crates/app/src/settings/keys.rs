//! All settings keys with their kinds and defaults; the only place that defines them.
//!
//! Their meanings are documented in `tidewheel.example.toml`; a test keeps both consistent. [`names`](super::names) addresses them.

use super::collection::{HNSW, OPTIMIZERS, PAYLOAD_INDEXES, QUANTIZATION, RENAME, STRICT_MODE, VECTORS};
use super::value::Kind;

/// A settings key.
#[derive(Debug)]
pub(crate) struct Key {
    /// `table.key`; in `[[index]]`, relative to it.
    pub(crate) name: &'static str,
    /// The kind of its value.
    pub(crate) kind: Kind,
    /// The default as plain text; `None` if unset by default.
    pub(crate) default: Option<&'static str>,
}

const fn key(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default: Some(default) }
}

const fn unset(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, default: None }
}

const PRECISIONS: &[&str] = &["auto", "f32", "bf16", "int8"];

/// Every key outside of `[[index]]`, in the order of the example file. Those of `embedding` are also the keys of each
/// `[embedding.NAME]`.
pub(crate) const KEYS: &[Key] = &[
    key("mongodb.uri", Kind::Address, "mongodb://127.0.0.1:27017"),
    unset("mongodb.uri_file", Kind::Line),
    unset("mongodb.database", Kind::Database),
    key("mongodb.collection", Kind::Names, "*"),
    key("redis.url", Kind::Address, "redis://127.0.0.1:6379"),
    unset("redis.url_file", Kind::Line),
    unset("redis.ca_file", Kind::Line),
    unset("redis.cert_file", Kind::Line),
    unset("redis.key_file", Kind::Line),
    key("embedding.provider", Kind::Choice(&["tidewheel", "openai", "tei", "ollama"]), "tidewheel"),
    unset("embedding.url", Kind::Address),
    unset("embedding.token", Kind::Secret),
    unset("embedding.token_file", Kind::Line),
    unset("embedding.api_key", Kind::Secret),
    unset("embedding.api_key_file", Kind::Line),
    unset("embedding.model", Kind::Line),
    unset("embedding.dimensions", Kind::Count(1)),
    unset("embedding.precision", Kind::Choice(PRECISIONS)),
    unset("embedding.query_prefix", Kind::Text),
    unset("embedding.passage_prefix", Kind::Text),
    key("embedding.max_tokens", Kind::Count(1), "2048"),
    key("embedding.batch", Kind::Count(1), "128"),
    key("embedding.concurrency", Kind::Count(1), "4"),
    unset("embedding.requests_per_minute", Kind::Count(1)),
    unset("embedding.tokens_per_minute", Kind::Count(1)),
    unset("embedding.ca_file", Kind::Line),
    unset("embedding.cert_file", Kind::Line),
    unset("embedding.key_file", Kind::Line),
    key("embedding.timeout", Kind::Period, "60s"),
    key("embedder.model", Kind::Line, "sentence-transformers/all-MiniLM-L6-v2"),
    key("embedder.listen", Kind::Listen, "127.0.0.1:8080"),
    key("embedder.precision", Kind::Choice(PRECISIONS), "auto"),
    key("embedder.threads", Kind::Count(0), "0"),
    unset("embedder.token", Kind::Secret),
    unset("embedder.token_file", Kind::Line),
    key("embedder.hosts", Kind::Hosts, ""),
    unset("embedder.cert_file", Kind::Line),
    unset("embedder.key_file", Kind::Line),
    unset("embedder.client_ca_file", Kind::Line),
    unset("embedder.query_prefix", Kind::Text),
    unset("embedder.passage_prefix", Kind::Text),
    key("embedder.max_body", Kind::Size, "8MiB"),
    key("embedder.max_texts", Kind::Count(1), "1024"),
    key("embedder.max_queued_tokens", Kind::Count(1), "262144"),
    key("documents.fields", Kind::Paths, "subject,content"),
    unset("documents.template", Kind::Text),
    unset("documents.chunk_tokens", Kind::Count(1)),
    key("documents.chunk_overlap", Kind::Count(0), "32"),
    key("documents.max_chunks", Kind::Count(1), "10000"),
    key("documents.blank", Kind::Choice(&["index", "skip"]), "index"),
    key("documents.on_dead_letter", Kind::Choice(&["keep", "remove"]), "keep"),
    key("documents.payload.include", Kind::Paths, ""),
    key("documents.payload.exclude", Kind::Paths, ""),
    key("qdrant.url", Kind::Address, "http://127.0.0.1:6334"),
    key("qdrant.collection", Kind::Line, "documents"),
    unset("qdrant.api_key", Kind::Secret),
    unset("qdrant.api_key_file", Kind::Line),
    unset("qdrant.ca_file", Kind::Line),
    unset("qdrant.cert_file", Kind::Line),
    unset("qdrant.key_file", Kind::Line),
    key("qdrant.timeout", Kind::Period, "60s"),
    key("producer.snapshot", Kind::Choice(&["initial", "never"]), "initial"),
    key("producer.high_water", Kind::Count(1), "100000"),
    key("processor.batch", Kind::Count(1), "128"),
    key("processor.concurrency", Kind::Count(1), "4"),
    key("processor.claim_after", Kind::Period, "15s"),
    key("processor.high_water", Kind::Count(1), "20000"),
    key("processor.known_vectors", Kind::Choice(&["reuse", "ignore"]), "reuse"),
    key("upserter.batch", Kind::Count(1), "256"),
    key("upserter.concurrency", Kind::Count(1), "4"),
    key("upserter.claim_after", Kind::Period, "15s"),
    key("streams.retention_age", Kind::Duration, "1h"),
    key("streams.retention_entries", Kind::Count(0), "10000"),
    unset("streams.retention_memory", Kind::Size),
    key("streams.tombstone_grace", Kind::Duration, "24h"),
    key("audit.interval", Kind::Duration, "24h"),
    unset("http.listen", Kind::ListenOrOff),
    unset("http.token", Kind::Secret),
    unset("http.token_file", Kind::Line),
    key("http.hosts", Kind::Hosts, ""),
    unset("http.cert_file", Kind::Line),
    unset("http.key_file", Kind::Line),
    unset("http.client_ca_file", Kind::Line),
    unset("console.listen", Kind::ListenOrOff),
    unset("console.token", Kind::Secret),
    unset("console.token_file", Kind::Line),
    key("console.hosts", Kind::Hosts, ""),
    unset("console.cert_file", Kind::Line),
    unset("console.key_file", Kind::Line),
    unset("console.client_ca_file", Kind::Line),
    unset("console.user_header", Kind::Line),
    key("console.trusted_proxies", Kind::Names, ""),
    key("monitor.interval", Kind::Period, "30s"),
    key("monitor.stage_1_entries", Kind::Count(0), "1000"),
    key("monitor.stage_2_entries", Kind::Count(0), "500"),
    key("monitor.no_progress", Kind::Duration, "1m"),
    key("monitor.latency", Kind::Duration, "30s"),
    key("monitor.oplog_time_left", Kind::Duration, "2h"),
    key("monitor.redis_memory_percent", Kind::Percent, "80"),
    key("monitor.dead_letters", Kind::Count(0), "0"),
    unset("monitor.webhook", Kind::Secret),
    unset("monitor.webhook_file", Kind::Line),
    unset("monitor.webhook_token", Kind::Secret),
    unset("monitor.webhook_token_file", Kind::Line),
    unset("monitor.webhook_ca_file", Kind::Line),
    unset("monitor.webhook_cert_file", Kind::Line),
    unset("monitor.webhook_key_file", Kind::Line),
    key("monitor.webhook_timeout", Kind::Period, "10s"),
    unset("traces.endpoint", Kind::Address),
    key("traces.share", Kind::Share, "1"),
    unset("traces.headers", Kind::Secret),
    unset("traces.headers_file", Kind::Line),
    unset("traces.ca_file", Kind::Line),
    unset("traces.cert_file", Kind::Line),
    unset("traces.key_file", Kind::Line),
    key("traces.timeout", Kind::Period, "5s"),
    unset("traces.service_name", Kind::Line),
    unset("traces.resource_attributes", Kind::Line),
    key("traces.queue", Kind::Count(1), "20000"),
    key("traces.batch", Kind::Count(1), "1000"),
    key("traces.interval", Kind::Period, "1s"),
    key("traces.export_timeout", Kind::Period, "30s"),
    unset("log.format", Kind::Choice(&["text", "json"])),
    key("log.level", Kind::LogLevel, "info"),
    unset("local.data", Kind::Line),
    key("local.mongodb_port", Kind::Count(0), "27017"),
    key("local.redis_port", Kind::Count(0), "6379"),
    key("local.qdrant_http_port", Kind::Count(0), "6333"),
    key("local.qdrant_grpc_port", Kind::Count(0), "6334"),
];

/// Every key of `[[index]]`, in the order of the example file.
pub(crate) const INDEX_KEYS: &[Key] = &[
    unset("name", Kind::Name),
    unset("source", Kind::Names),
    unset("filter", Kind::Query),
    unset("text.template", Kind::Text),
    key("text.fields", Kind::Paths, "subject,content"),
    unset("text.exclude", Kind::Paths),
    key("text.blank", Kind::Choice(&["index", "skip"]), "index"),
    unset("chunk.tokens", Kind::Count(1)),
    key("chunk.overlap", Kind::Count(0), "32"),
    key("chunk.max", Kind::Count(1), "10000"),
    unset("chunk.prefix", Kind::Text),
    key("payload.include", Kind::Paths, ""),
    key("payload.exclude", Kind::Paths, ""),
    unset("payload.rename", Kind::Structured(RENAME)),
    key("payload.full", Kind::Flag, "false"),
    unset("payload.indexes", Kind::Structured(PAYLOAD_INDEXES)),
    key("embedding", Kind::Name, "default"),
    key("on_dead_letter", Kind::Choice(&["keep", "remove"]), "keep"),
    key("keep", Kind::Duration, "24h"),
    unset("qdrant.shard_number", Kind::Count(1)),
    unset("qdrant.replication_factor", Kind::Count(1)),
    unset("qdrant.write_consistency_factor", Kind::Count(1)),
    unset("qdrant.on_disk_payload", Kind::Flag),
    unset("qdrant.vectors", Kind::Structured(VECTORS)),
    unset("qdrant.hnsw", Kind::Structured(HNSW)),
    unset("qdrant.quantization", Kind::Structured(QUANTIZATION)),
    unset("qdrant.optimizers", Kind::Structured(OPTIMIZERS)),
    unset("qdrant.strict_mode", Kind::Structured(STRICT_MODE)),
];

/// Keys that only the short form has, and those of `[[index]]` in their place.
pub(crate) const SHORT_FORM: &[(&str, &str)] = &[
    ("mongodb.collection", "source"),
    ("documents.fields", "text.fields"),
    ("documents.template", "text.template"),
    ("documents.chunk_tokens", "chunk.tokens"),
    ("documents.chunk_overlap", "chunk.overlap"),
    ("documents.max_chunks", "chunk.max"),
    ("documents.blank", "text.blank"),
    ("documents.on_dead_letter", "on_dead_letter"),
    ("documents.payload.include", "payload.include"),
    ("documents.payload.exclude", "payload.exclude"),
    ("qdrant.collection", "name"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_match_their_kinds() {
        for key in KEYS.iter().chain(INDEX_KEYS) {
            if let Some(default) = key.default {
                assert!(key.kind.read_text(default).is_some(), "{} has the default {default:?}", key.name);
            }
        }
    }

    #[test]
    fn every_key_of_the_short_form_has_one_in_its_place() {
        for (short, declared) in SHORT_FORM {
            assert!(KEYS.iter().any(|key| key.name == *short), "{short}");
            assert!(INDEX_KEYS.iter().any(|key| key.name == *declared), "{declared}");
        }
        for key in KEYS.iter().filter(|key| key.name.starts_with("documents.")) {
            assert!(SHORT_FORM.iter().any(|(short, _)| *short == key.name), "{}", key.name);
        }
    }
}
