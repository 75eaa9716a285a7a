//! The embedders that the indexes of an installation use.
//!
//! Guarantees:
//! - equal specifications share one client, and with it its connections, its limits and what it knows of the server;
//! - what decides a vector comes from the specification, everything else from the local settings of the same name;
//! - a token or key is sent only to the server of those settings, never to another one that a specification names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tidewheel_core::catalog::EmbeddingSpec;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Embedder, Embedders, PortResult};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::Pem;

use crate::client::{Api, ClientOptions, RemoteClient, RemoteOptions, TidewheelClient};

/// The path of a specification's address whose own path may be a secret.
const REDACTED_PATH: &str = "/***";

/// How an embedding is reached: its local settings, which decide no vector.
#[derive(Clone, Debug)]
pub struct Transport {
    /// Address. That of a specification precedes it.
    pub url: String,
    /// Whether the settings state the address: the server may be that of another installation.
    pub is_foreign: bool,
    /// Bearer token or API key of the server at this address, if it requires one.
    pub key: Option<Secret>,
    /// Timeout of one request.
    pub timeout: Duration,
    /// Private CA and client certificate.
    pub pem: Pem,
    /// Maximum tokens of a text: see [`RemoteOptions::max_tokens`].
    pub max_tokens: usize,
    /// Maximum texts per request: see [`RemoteOptions::batch`].
    pub batch: usize,
    /// Concurrent requests for a list that needs several.
    pub concurrency: usize,
    /// Requests per minute that the account allows.
    pub requests_per_minute: Option<u32>,
    /// Tokens per minute that the account allows.
    pub tokens_per_minute: Option<u32>,
}

impl Transport {
    /// The defaults for a server at this address, without a key.
    pub fn new(url: impl Into<String>) -> Self {
        let defaults = RemoteOptions::new(Api::OpenAi, url, "");
        Self {
            url: defaults.url,
            is_foreign: false,
            key: defaults.key,
            timeout: defaults.timeout,
            pem: defaults.pem,
            max_tokens: defaults.max_tokens,
            batch: defaults.batch,
            concurrency: defaults.concurrency,
            requests_per_minute: defaults.requests_per_minute,
            tokens_per_minute: defaults.tokens_per_minute,
        }
    }
}

/// Clients of embedders by specification, created on first use.
pub struct EmbedderPool {
    transports: BTreeMap<String, Transport>,
    clients: Mutex<BTreeMap<EmbeddingSpec, Arc<dyn Embedder>>>,
}

impl EmbedderPool {
    /// Creates a pool with the local settings by name.
    pub fn new(transports: BTreeMap<String, Transport>) -> Self {
        Self { transports, clients: Mutex::default() }
    }

    fn create(&self, spec: &EmbeddingSpec) -> PortResult<Arc<dyn Embedder>> {
        let name = &spec.name;
        let transport = self.transports.get(name).ok_or_else(|| {
            PortError::fatal(format!("missing settings of embedding {name:?}"))
                .with_hint(format!("set the address and the key of this embedding in [embedding.{name}]"))
        })?;
        let (url, is_local) = address(spec, transport);
        let key = transport.key.clone().filter(|_| is_local);
        let (timeout, pem) = (transport.timeout, transport.pem.clone());
        if spec.provider.is_own() {
            // The embedder of another installation may be of an earlier release.
            let stated = transport.is_foreign.then(|| transport.url.clone());
            let spec = EmbeddingSpec { url: spec.url.clone().or(stated), ..spec.clone() };
            let options = ClientOptions { url, token: key, timeout, pem, spec: Some(spec) };
            return Ok(Arc::new(TidewheelClient::new(options)?));
        }
        let provider = spec.provider.as_str();
        let api = Api::named(provider).ok_or_else(|| {
            PortError::fatal(format!("unsupported provider {provider:?} of embedding {name:?}"))
                .with_hint("run a release that supports this provider")
        })?;
        Ok(Arc::new(RemoteClient::new(RemoteOptions {
            key,
            dimensions: spec.dimensions,
            max_tokens: transport.max_tokens,
            batch: transport.batch,
            concurrency: transport.concurrency,
            requests_per_minute: transport.requests_per_minute,
            tokens_per_minute: transport.tokens_per_minute,
            query_prefix: spec.query_prefix.clone().unwrap_or_default(),
            passage_prefix: spec.passage_prefix.clone().unwrap_or_default(),
            timeout,
            pem,
            ..RemoteOptions::new(api, url, spec.model.clone())
        })?))
    }
}

impl Embedders for EmbedderPool {
    fn of(&self, spec: &EmbeddingSpec) -> PortResult<Arc<dyn Embedder>> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(spec) {
            return Ok(Arc::clone(client));
        }
        let client = self.create(spec)?;
        clients.insert(spec.clone(), Arc::clone(&client));
        Ok(client)
    }
}

/// Returns the address of a specification's server, and whether it is the server of the local settings, whose credentials
/// it then gets.
fn address(spec: &EmbeddingSpec, local: &Transport) -> (String, bool) {
    let Some(declared) = &spec.url else { return (local.url.clone(), true) };
    // The client reports an invalid address.
    let (Ok(mut url), Ok(known)) = (Url::parse(declared), Url::parse(&local.url)) else {
        return (declared.clone(), declared == &local.url);
    };
    if url.origin() != known.origin() {
        return (declared.clone(), false);
    }
    // A specification has no secrets: what it leaves out comes from the settings.
    if url.path() == REDACTED_PATH {
        url.set_path(known.path());
    }
    if url.query().is_none() && url.path() == known.path() {
        url.set_query(known.query());
    }
    // A URL with a host, as those of one origin are, takes user name and password.
    let _ = url.set_username(known.username());
    let _ = url.set_password(known.password());
    (url.into(), true)
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn spec(name: &str, provider: &str) -> EmbeddingSpec {
        EmbeddingSpec::new(name, provider, "model")
    }

    fn pool() -> EmbedderPool {
        // A provider installed by another test works too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let local = |url: &str| Transport { key: Some(Secret::new("key")), ..Transport::new(url) };
        let settings = [("default", "http://127.0.0.1:1"), ("paid", "https://api.example.com/v1")];
        EmbedderPool::new(settings.map(|(name, url)| (name.to_owned(), local(url))).into())
    }

    #[test]
    fn equal_specifications_share_a_client() {
        let pool = pool();
        let first = pool.of(&spec("default", "tidewheel")).unwrap();
        assert!(Arc::ptr_eq(&first, &pool.of(&spec("default", "tidewheel")).unwrap()));
        let other = EmbeddingSpec { model: "other".to_owned(), ..spec("default", "tidewheel") };
        assert!(!Arc::ptr_eq(&first, &pool.of(&other).unwrap()));
        for provider in ["openai", "ollama", "tei"] {
            assert!(pool.of(&spec("paid", provider)).is_ok(), "{provider}");
        }
    }

    #[test]
    fn missing_settings_and_unknown_provider_are_fatal() {
        let error = |spec: EmbeddingSpec| match pool().of(&spec) {
            Ok(_) => panic!("expected an error for {spec:?}"),
            Err(error) => error,
        };
        let missing = error(spec("small", "tidewheel"));
        assert_eq!(
            (missing.class, missing.message.as_str()),
            (ErrorClass::Fatal, "missing settings of embedding \"small\"")
        );
        assert!(missing.hint.is_some_and(|hint| hint.contains("[embedding.small]")));
        let unknown = error(spec("paid", "newer"));
        assert_eq!(unknown.class, ErrorClass::Fatal);
        assert!(unknown.message.contains("unsupported provider \"newer\""), "{}", unknown.message);
    }

    #[test]
    fn credentials_stay_with_the_server_of_the_settings() {
        let local = Transport::new("https://user:s3cret@tei.example.com/a");
        let at = |url: Option<&str>| {
            address(&EmbeddingSpec { url: url.map(str::to_owned), ..spec("default", "tei") }, &local)
        };
        let shown = |url: &str, is_local: bool| (url.to_owned(), is_local);
        assert_eq!(at(None), shown("https://user:s3cret@tei.example.com/a", true));
        assert_eq!(at(Some("https://tei.example.com/b")), shown("https://user:s3cret@tei.example.com/b", true));
        assert_eq!(at(Some("https://tei.example.com:444/a")), shown("https://tei.example.com:444/a", false));
        assert_eq!(at(Some("http://tei.example.com/a")), shown("http://tei.example.com/a", false));
        assert_eq!(at(Some("no address")), shown("no address", false));
    }

    #[test]
    fn what_a_specification_leaves_out_comes_from_the_settings() {
        let of = |local: &str, declared: &str| {
            address(&EmbeddingSpec { url: Some(declared.to_owned()), ..spec("default", "tei") }, &Transport::new(local))
        };
        let with_key = "https://tei.example.com/a?api-version=1&key=s3cret";
        assert_eq!(of(with_key, "https://tei.example.com/a"), (with_key.to_owned(), true));
        let other = "https://tei.example.com/b";
        assert_eq!(of(with_key, other), (other.to_owned(), true), "a query belongs to its path");
        let with_path = "https://tei.example.com/s3cret:a/";
        assert_eq!(of(with_path, "https://tei.example.com/***"), (with_path.to_owned(), true));
        let elsewhere = "https://gpu.example.com/***";
        assert_eq!(of(with_path, elsewhere), (elsewhere.to_owned(), false));
    }
}
