//! The embedders of `[embedding]` and of each `[embedding.NAME]`.

use std::collections::BTreeMap;

use tidewheel_core::secret::Secret;
use tidewheel_embed::client::Api;

use super::error::Problem;
use super::names::{DEFAULT_EMBEDDING, Family};
use super::reader::Reader;
use super::resolved::{Embedding, Provider};

/// OpenAI's base URL.
const OPENAI: &str = "https://api.openai.com/v1";

/// Ollama's default URL.
const OLLAMA: &str = "http://127.0.0.1:11434";

/// Resolves `[embedding]`, and each `[embedding.NAME]` by its name.
pub(super) fn resolve(reader: &mut Reader<'_>) -> (Embedding, BTreeMap<String, Embedding>) {
    let default = embedding(reader, DEFAULT_EMBEDDING, None);
    let layers = reader.layers;
    let named = layers.declared(Family::Embedding).iter();
    let named = named.map(|table| (table.name.clone(), embedding(reader, &table.name, Some(&default)))).collect();
    (default, named)
}

/// Resolves one table; `default` is `[embedding]`, unless the table is that itself.
fn embedding(reader: &mut Reader<'_>, name: &str, default: Option<&Embedding>) -> Embedding {
    let table = if default.is_some() { format!("embedding.{name}") } else { "embedding".to_owned() };
    let key = |key: &str| format!("{table}.{key}");
    let url = reader.address(&key("url")).map(|url| url.reveal().to_owned());
    let token = reader.secret(&key("token"), &key("token_file"));
    let api_key = reader.secret(&key("api_key"), &key("api_key_file"));
    let model = reader.text(&key("model"));
    let word = reader.text_or_empty(&key("provider"));
    // The API, and the default URL.
    let remote = match word.as_str() {
        "openai" => Some((Api::OpenAi, Some(OPENAI))),
        "ollama" => Some((Api::Ollama, Some(OLLAMA))),
        "tei" => Some((Api::TextEmbeddingsInference, None)),
        _ => None,
    };
    let url_is_set = url.is_some();
    // The embedder of this installation serves the models of several tables.
    let shared = default.filter(|default| remote.is_none() && !url_is_set && default.is_own());
    let own_tls = reader.client_tls([&key("ca_file"), &key("cert_file"), &key("key_file")]);
    let tls_is_set = [&own_tls.ca_file, &own_tls.cert_file, &own_tls.key_file].into_iter().any(Option::is_some);
    let mut embedding = Embedding {
        name: name.to_owned(),
        model: String::new(),
        precision: reader.text(&key("precision")).unwrap_or_else(|| reader.text_or_empty("embedder.precision")),
        query_prefix: reader.text(&key("query_prefix")).or_else(|| reader.text("embedder.query_prefix")),
        passage_prefix: reader.text(&key("passage_prefix")).or_else(|| reader.text("embedder.passage_prefix")),
        provider: Provider::Tidewheel { url: String::new(), token: None },
        tls: shared.filter(|_| !tls_is_set).map_or(own_tls, |shared| shared.tls.clone()),
        timeout: reader.duration(&key("timeout")),
        elsewhere: remote.is_some() || url_is_set || shared.is_some_and(|shared| shared.elsewhere),
        url_is_set,
    };
    if let Some((api, default_url)) = remote {
        let needed_by = format!("{table}.provider = \"{word}\"");
        // text-embeddings-inference serves one model and reports its name.
        if model.is_none() && api != Api::TextEmbeddingsInference {
            reader.problems.push(Problem::Missing { key: key("model"), needed_by: needed_by.clone() });
        }
        if url.is_none() && default_url.is_none() {
            reader.problems.push(Problem::Missing { key: key("url"), needed_by });
        }
        embedding.model = model.unwrap_or_default();
        embedding.provider = Provider::Remote {
            api,
            url: url.unwrap_or_else(|| default_url.unwrap_or_default().to_owned()),
            api_key,
            model: embedding.model.clone(),
            dimensions: reader.size(&key("dimensions")),
            max_tokens: reader.size(&key("max_tokens")).unwrap_or_default(),
            batch: reader.size(&key("batch")).unwrap_or_default(),
            concurrency: reader.size(&key("concurrency")).unwrap_or_default(),
            requests_per_minute: reader.rate(&key("requests_per_minute")),
            tokens_per_minute: reader.rate(&key("tokens_per_minute")),
        };
    } else {
        embedding.model = model.unwrap_or_else(|| match shared {
            Some(shared) => shared.model.clone(),
            // Another installation's embedder has a default of its own.
            None if url_is_set => String::new(),
            None => reader.text_or_empty("embedder.model"),
        });
        embedding.provider = own(reader, url, token, shared.map(|shared| &shared.provider));
    }
    embedding
}

/// A tidewheel embedder.
fn own(reader: &mut Reader<'_>, url: Option<String>, token: Option<Secret>, shared: Option<&Provider>) -> Provider {
    if let Some(Provider::Tidewheel { url, token: shared }) = shared {
        return Provider::Tidewheel { url: url.clone(), token: token.or_else(|| shared.clone()) };
    }
    // The tidewheel embedder with the default URL uses its own server token.
    let token = token.or_else(|| reader.secret("embedder.token", "embedder.token_file").filter(|_| url.is_none()));
    let scheme = if reader.text("embedder.cert_file").is_some() { "https" } else { "http" };
    let listen = reader.text_or_empty("embedder.listen");
    Provider::Tidewheel { url: url.unwrap_or_else(|| format!("{scheme}://{}", reachable(&listen))), token }
}

/// Returns the address for local clients: a wildcard address is replaced by loopback.
pub(crate) fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}
