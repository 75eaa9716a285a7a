//! Converts the given values to typed settings.

use tidewheel_core::payload::RESERVED;
use tidewheel_ops::overview::Thresholds;
use tidewheel_telemetry::logging::LogOptions;
use tidewheel_telemetry::traces::TracesOptions;

use super::error::Problem;
use super::layers::Layers;
use super::origin::Origin;
use super::reader::Reader;
use super::resolved::{
    Console, Consumer, Documents, Embedder, Local, MongoDb, Monitor, Producer, Qdrant, Redis, Settings, Streams,
    Webhook,
};
use super::{declarations, embeddings, otel};

/// Resolves the layers. Problems are added to `problems`; if there are any, the returned settings must not be used.
pub(crate) fn resolve(layers: &Layers, problems: &mut Vec<Problem>) -> Settings {
    let mut reader = Reader { layers, problems };
    let mongodb = mongodb(&mut reader);
    let redis = Redis {
        url: reader.address_or_file("redis.url", "redis.url_file"),
        tls: reader.client_tls(["redis.ca_file", "redis.cert_file", "redis.key_file"]),
    };
    let (embedding, embeddings) = embeddings::resolve(&mut reader);
    let mut settings = Settings {
        mongodb,
        redis,
        embedding,
        embeddings,
        embedder: embedder(&mut reader),
        documents: Documents {
            fields: reader.names("documents.fields"),
            template: reader.text("documents.template"),
            include: reader.names("documents.payload.include"),
            exclude: excluded(&mut reader, "documents.payload.exclude"),
            chunk_tokens: reader.size("documents.chunk_tokens"),
            chunk_overlap: reader.size("documents.chunk_overlap").unwrap_or_default(),
            skips_blank: reader.text_or_empty("documents.blank") == "skip",
            removes_parked: reader.text_or_empty("documents.on_dead_letter") == "remove",
            max_chunks: reader.size("documents.max_chunks").unwrap_or_default(),
        },
        qdrant: Qdrant {
            url: reader.address("qdrant.url").unwrap_or_default(),
            url_is_set: reader.is_set("qdrant.url"),
            collection: reader.text_or_empty("qdrant.collection"),
            api_key: reader.secret("qdrant.api_key", "qdrant.api_key_file"),
            tls: reader.client_tls(["qdrant.ca_file", "qdrant.cert_file", "qdrant.key_file"]),
            timeout: reader.duration("qdrant.timeout"),
        },
        producer: Producer {
            snapshot: reader.text_or_empty("producer.snapshot") == "initial",
            high_water: reader.number("producer.high_water").unwrap_or_default(),
        },
        processor: Consumer {
            batch: reader.size("processor.batch").unwrap_or_default(),
            concurrency: reader.size("processor.concurrency").unwrap_or_default(),
            claim_after: reader.duration("processor.claim_after"),
        },
        processor_high_water: reader.number("processor.high_water").unwrap_or_default(),
        reuse_vectors: reader.text_or_empty("processor.known_vectors") == "reuse",
        upserter: Consumer {
            batch: reader.size("upserter.batch").unwrap_or_default(),
            concurrency: reader.size("upserter.concurrency").unwrap_or_default(),
            claim_after: reader.duration("upserter.claim_after"),
        },
        streams: Streams {
            retention_age: reader.duration("streams.retention_age"),
            retention_entries: reader.number("streams.retention_entries").unwrap_or_default(),
            retention_memory: reader.number("streams.retention_memory"),
            tombstone_grace: reader.duration("streams.tombstone_grace"),
        },
        audit_interval: reader.duration("audit.interval"),
        http_listen: reader.listen("http.listen"),
        http: reader.serving(
            ["http.token", "http.token_file", "http.hosts"],
            ["http.cert_file", "http.key_file", "http.client_ca_file"],
        ),
        console: Console {
            listen: reader.listen("console.listen"),
            serving: reader.serving(
                ["console.token", "console.token_file", "console.hosts"],
                ["console.cert_file", "console.key_file", "console.client_ca_file"],
            ),
            user_header: reader.header("console.user_header"),
            trusted_proxies: reader.networks("console.trusted_proxies"),
        },
        monitor: monitor(&mut reader),
        traces: traces(&mut reader),
        log: LogOptions {
            json: reader.text("log.format").map(|format| format == "json"),
            level: reader.text_or_empty("log.level"),
            level_is_set: reader.is_set("log.level"),
        },
        local: Local {
            data: reader.text("local.data"),
            mongodb_port: reader.port("local.mongodb_port"),
            redis_port: reader.port("local.redis_port"),
            qdrant_http_port: reader.port("local.qdrant_http_port"),
            qdrant_grpc_port: reader.port("local.qdrant_grpc_port"),
        },
        indexes: Vec::new(),
    };
    settings.indexes = declarations::declared(&mut reader, &settings);
    settings
}

fn embedder(reader: &mut Reader<'_>) -> Embedder {
    Embedder {
        model: reader.text_or_empty("embedder.model"),
        listen: reader.text_or_empty("embedder.listen"),
        precision: reader.text_or_empty("embedder.precision"),
        threads: reader.size("embedder.threads").unwrap_or_default(),
        serving: reader.serving(
            ["embedder.token", "embedder.token_file", "embedder.hosts"],
            ["embedder.cert_file", "embedder.key_file", "embedder.client_ca_file"],
        ),
        query_prefix: reader.text("embedder.query_prefix"),
        passage_prefix: reader.text("embedder.passage_prefix"),
        max_body: reader.number("embedder.max_body").unwrap_or_default(),
        max_texts: reader.size("embedder.max_texts").unwrap_or_default(),
        max_queued_tokens: reader.size("embedder.max_queued_tokens").unwrap_or_default(),
    }
}

fn mongodb(reader: &mut Reader<'_>) -> MongoDb {
    const COLLECTION: &str = "mongodb.collection";
    let (database, collection) = (reader.text("mongodb.database"), reader.names(COLLECTION));
    if collection.is_empty() {
        reader.invalid(COLLECTION, "at least one name, or unset for all collections");
    }
    // A collection name may contain a dot, but the database as its prefix is a mistake.
    let beginning = database.as_ref().map(|database| format!("{database}."));
    if let Some(name) = collection.iter().find_map(|name| name.strip_prefix(beginning.as_deref()?)) {
        reader.invalid(COLLECTION, &format!("names without the database: \"{name}\""));
    }
    MongoDb { uri: reader.address_or_file("mongodb.uri", "mongodb.uri_file"), database, collection }
}

/// Paths excluded from payloads, by the key of this name.
pub(super) fn excluded(reader: &mut Reader<'_>, name: &str) -> Vec<String> {
    let paths = reader.names(name);
    if paths.iter().any(|path| is_kept(path)) {
        reader.invalid(name, "fields other than _id and _tidewheel, which points always carry");
    }
    paths
}

/// Whether points carry the field of this path whatever the settings.
pub(super) fn is_kept(path: &str) -> bool {
    ["_id", RESERVED].contains(&path.split('.').next().unwrap_or_default())
}

fn monitor(reader: &mut Reader<'_>) -> Monitor {
    let thresholds = Thresholds {
        stage_1: reader.number("monitor.stage_1_entries").unwrap_or_default(),
        stage_2: reader.number("monitor.stage_2_entries").unwrap_or_default(),
        no_progress: reader.duration("monitor.no_progress"),
        latency: reader.duration("monitor.latency"),
        oplog_time_left: reader.duration("monitor.oplog_time_left"),
        redis_memory_percent: reader.number("monitor.redis_memory_percent").unwrap_or_default(),
        dead_letters: reader.number("monitor.dead_letters").unwrap_or_default(),
    };
    let token = reader.secret("monitor.webhook_token", "monitor.webhook_token_file");
    let timeout = reader.duration("monitor.webhook_timeout");
    let webhook = reader.secret("monitor.webhook", "monitor.webhook_file");
    let tls = reader.client_tls(["monitor.webhook_ca_file", "monitor.webhook_cert_file", "monitor.webhook_key_file"]);
    Monitor {
        interval: reader.duration("monitor.interval"),
        thresholds,
        webhook: webhook.map(|url| Webhook { url, token, tls, timeout }),
    }
}

fn traces(reader: &mut Reader<'_>) -> Option<TracesOptions> {
    let whole = Origin::Environment(otel::WHOLE_ENDPOINT.into());
    let headers = reader.secret("traces.headers", "traces.headers_file");
    let ambient = ["traces.endpoint", "traces.headers", "traces.ca_file", "traces.cert_file", "traces.key_file"];
    let is_ambient = ambient.into_iter().any(|key| reader.origin(key).is_some_and(Origin::is_otel));
    Some(TracesOptions {
        is_ambient,
        endpoint: reader.address("traces.endpoint")?,
        endpoint_is_whole: reader.origin("traces.endpoint") == Some(&whole),
        ratio: reader.ratio("traces.share"),
        headers,
        headers_are_encoded: reader.origin("traces.headers").is_some_and(Origin::is_otel),
        tls: reader.client_tls(["traces.ca_file", "traces.cert_file", "traces.key_file"]),
        timeout: reader.duration("traces.timeout"),
        service_name: reader.text("traces.service_name"),
        resource_attributes: reader.text("traces.resource_attributes"),
        queue: reader.size("traces.queue").unwrap_or_default(),
        batch: reader.size("traces.batch").unwrap_or_default(),
        interval: reader.duration("traces.interval"),
        export_timeout: reader.duration("traces.export_timeout"),
    })
}
