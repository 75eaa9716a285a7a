//! Converts the given values to typed settings.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use tidewheel_core::payload::RESERVED;
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tidewheel_core::trace::SamplingRatio;
use tidewheel_embed::client::Api;
use tidewheel_ops::overview::Thresholds;
use tidewheel_serving::{Network, TlsFiles};
use tidewheel_telemetry::logging::LogOptions;
use tidewheel_telemetry::traces::TracesOptions;

use super::error::Problem;
use super::keys;
use super::layers::Layers;
use super::origin::Origin;
use super::otel;
use super::resolved::{
    Console, Consumer, Documents, Embedder, Embedding, Listen, Local, MongoDb, Monitor, Producer, Provider, Qdrant,
    Redis, Serving, Settings, Streams, Webhook,
};
use super::units;
use super::value::{Value, quoted};

/// Resolves the layers. Problems are added to `problems`; if there are any, the returned settings must not be used.
pub(crate) fn resolve(layers: &Layers, problems: &mut Vec<Problem>) -> Settings {
    let mut reader = Reader { layers, problems };
    let listen = reader.text_or_empty("embedder.listen");
    Settings {
        mongodb: mongodb(&mut reader),
        redis: Redis {
            url: reader.address_or_file("redis.url", "redis.url_file"),
            tls: reader.client_tls(["redis.ca_file", "redis.cert_file", "redis.key_file"]),
        },
        embedding: embedding(&mut reader, &listen),
        embedder: Embedder {
            model: reader.text_or_empty("embedder.model"),
            listen,
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
        },
        documents: Documents {
            fields: reader.names("documents.fields"),
            template: reader.text("documents.template"),
            include: reader.names("documents.payload.include"),
            exclude: excluded(&mut reader),
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

/// Paths excluded from payloads.
fn excluded(reader: &mut Reader<'_>) -> Vec<String> {
    const EXCLUDE: &str = "documents.payload.exclude";
    let paths = reader.names(EXCLUDE);
    let always = |path: &String| ["_id", RESERVED].contains(&path.split('.').next().unwrap_or_default());
    if paths.iter().any(always) {
        reader.invalid(EXCLUDE, "fields other than _id and _tidewheel, which points always carry");
    }
    paths
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

/// OpenAI's base URL.
const OPENAI: &str = "https://api.openai.com/v1";

/// Ollama's default URL.
const OLLAMA: &str = "http://127.0.0.1:11434";

fn embedding(reader: &mut Reader<'_>, listen: &str) -> Embedding {
    let url = reader.address("embedding.url").map(|url| url.reveal().to_owned());
    let token = reader.secret("embedding.token", "embedding.token_file");
    let api_key = reader.secret("embedding.api_key", "embedding.api_key_file");
    let model = reader.text("embedding.model");
    // The API, the setting that requires URL and model, and the default URL.
    let remote = match reader.text_or_empty("embedding.provider").as_str() {
        "openai" => Some((Api::OpenAi, "embedding.provider = \"openai\"", Some(OPENAI))),
        "ollama" => Some((Api::Ollama, "embedding.provider = \"ollama\"", Some(OLLAMA))),
        "tei" => Some((Api::TextEmbeddingsInference, "embedding.provider = \"tei\"", None)),
        _ => None,
    };
    let elsewhere = remote.is_some() || url.is_some();
    let provider = if let Some((api, needed_by, default_url)) = remote {
        // text-embeddings-inference serves one model and reports its name.
        if model.is_none() && api != Api::TextEmbeddingsInference {
            reader.problems.push(Problem::Missing { key: "embedding.model", needed_by });
        }
        if url.is_none() && default_url.is_none() {
            reader.problems.push(Problem::Missing { key: "embedding.url", needed_by });
        }
        let url = url.unwrap_or_else(|| default_url.unwrap_or_default().to_owned());
        Provider::Remote {
            api,
            url,
            api_key,
            model: model.unwrap_or_default(),
            dimensions: reader.size("embedding.dimensions"),
            max_tokens: reader.size("embedding.max_tokens").unwrap_or_default(),
            batch: reader.size("embedding.batch").unwrap_or_default(),
            concurrency: reader.size("embedding.concurrency").unwrap_or_default(),
            requests_per_minute: reader.rate("embedding.requests_per_minute"),
            tokens_per_minute: reader.rate("embedding.tokens_per_minute"),
        }
    } else {
        // The tidewheel embedder with the default URL uses its own server token.
        let token = token.or_else(|| reader.secret("embedder.token", "embedder.token_file").filter(|_| url.is_none()));
        let scheme = if reader.text("embedder.cert_file").is_some() { "https" } else { "http" };
        Provider::Tidewheel { url: url.unwrap_or_else(|| format!("{scheme}://{}", reachable(listen))), token }
    };
    let tls = reader.client_tls(["embedding.ca_file", "embedding.cert_file", "embedding.key_file"]);
    Embedding { provider, tls, timeout: reader.duration("embedding.timeout"), elsewhere }
}

/// Returns the address for local clients: a wildcard address is replaced by loopback.
pub(crate) fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

struct Reader<'a> {
    layers: &'a Layers,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn value(&self, name: &str) -> Option<&Value> {
        debug_assert!(keys::find(name).is_some(), "{name} is not a key");
        self.layers.get(name).map(|sourced| &sourced.value)
    }

    fn is_set(&self, name: &str) -> bool {
        self.origin(name).is_some_and(|origin| *origin != Origin::Default)
    }

    fn origin(&self, name: &str) -> Option<&Origin> {
        self.layers.get(name).map(|sourced| &sourced.origin)
    }

    fn text(&self, name: &str) -> Option<String> {
        match self.value(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// For keys with a default.
    fn text_or_empty(&self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    fn listen(&self, name: &str) -> Listen {
        match self.text(name).as_deref() {
            None => Listen::Default,
            Some("off") => Listen::Off,
            Some(address) => Listen::At(address.to_owned()),
        }
    }

    fn names(&self, name: &str) -> Vec<String> {
        match self.value(name) {
            Some(Value::Names(names)) => names.clone(),
            _ => Vec::new(),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    fn client_tls(&self, [ca, cert, key]: [&str; 3]) -> ClientTls {
        ClientTls { ca_file: self.path(ca), cert_file: self.path(cert), key_file: self.path(key) }
    }

    fn serving(&mut self, [token, token_file, hosts]: [&'static str; 3], [cert, key, client_ca]: [&str; 3]) -> Serving {
        let tls =
            TlsFiles { cert_file: self.path(cert), key_file: self.path(key), client_ca_file: self.path(client_ca) };
        Serving { token: self.secret(token, token_file), hosts: self.names(hosts), tls }
    }

    /// Reads an HTTP header name.
    fn header(&mut self, name: &'static str) -> Option<String> {
        let text = self.text(name)?;
        if HeaderName::from_bytes(text.as_bytes()).is_err() {
            self.invalid_part(name, &text, "the name of an HTTP header such as \"X-Forwarded-User\"");
        }
        Some(text)
    }

    fn networks(&mut self, name: &'static str) -> Vec<Network> {
        let mut networks = Vec::new();
        for text in self.names(name) {
            match text.parse() {
                Ok(network) => networks.push(network),
                Err(()) => {
                    self.invalid_part(name, &text, "IP addresses and networks such as \"10.0.0.1\" or \"10.0.0.0/8\"");
                }
            }
        }
        networks
    }

    /// Reports an invalid part of a well-formed value.
    fn invalid_part(&mut self, key: &'static str, given: &str, expected: &str) {
        self.report_invalid(key, quoted(given), expected);
    }

    /// Reports a well-formed but invalid value.
    fn invalid(&mut self, key: &'static str, expected: &str) {
        let given = self.value(key).map(Value::shown).unwrap_or_default();
        self.report_invalid(key, given, expected);
    }

    fn report_invalid(&mut self, key: &'static str, given: String, expected: &str) {
        let origin = self.origin(key).cloned().unwrap_or(Origin::Default);
        self.problems.push(Problem::Invalid { key, given, origin, expected: expected.to_owned() });
    }

    fn number(&self, name: &str) -> Option<u64> {
        match self.value(name) {
            Some(Value::Count(number) | Value::Size(number)) => Some(*number),
            _ => None,
        }
    }

    fn size(&self, name: &str) -> Option<usize> {
        self.number(name).map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    }

    fn rate(&self, name: &str) -> Option<u32> {
        self.number(name).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Some(Value::Duration(duration)) => *duration,
            _ => Duration::ZERO,
        }
    }

    fn ratio(&self, name: &str) -> SamplingRatio {
        match self.value(name) {
            Some(Value::Share(millionths)) => SamplingRatio::new(units::share(*millionths)),
            _ => SamplingRatio::ALL,
        }
    }

    fn port(&mut self, name: &'static str) -> u16 {
        let number = self.number(name).unwrap_or_default();
        u16::try_from(number).unwrap_or_else(|_| {
            self.invalid(name, "a port from 0 to 65535");
            0
        })
    }

    fn address(&self, name: &str) -> Option<Secret> {
        match self.value(name) {
            Some(Value::Address(secret) | Value::Secret(secret)) => Some(secret.clone()),
            _ => None,
        }
    }

    fn address_or_file(&mut self, name: &'static str, file_name: &'static str) -> Secret {
        self.secret(name, file_name).unwrap_or_default()
    }

    /// Returns the value of a key, or the content of the file given by its file key.
    fn secret(&mut self, name: &'static str, file_name: &'static str) -> Option<Secret> {
        let Some(path) = self.path(file_name) else { return self.address(name) };
        let origin = self.origin(file_name).cloned().unwrap_or(Origin::Default);
        if self.is_set(name) {
            let first = self.origin(name).cloned().unwrap_or(Origin::Default);
            self.problems.push(Problem::Both { key: name, first, file_key: file_name, second: origin });
            return None;
        }
        let cause = match std::fs::read_to_string(&path) {
            // The file's content is parsed like the key's value.
            Ok(text) => match keys::find(name).and_then(|key| key.kind.read_text(&text)) {
                Some(Value::Address(secret) | Value::Secret(secret)) if !secret.reveal().is_empty() => {
                    return Some(secret);
                }
                _ => {
                    let expected = keys::find(name).map(|key| key.kind.expected()).unwrap_or_default();
                    std::io::Error::other(format!("the file does not contain {expected}"))
                }
            },
            Err(cause) => cause,
        };
        self.problems.push(Problem::SecretFile { key: file_name, path, origin, cause });
        None
    }
}
