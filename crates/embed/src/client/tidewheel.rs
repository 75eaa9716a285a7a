//! The client of tidewheel's own embedder service.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::Serialize;
use tidewheel_core::catalog::{EmbeddingSpec, Rounding};
use tidewheel_core::embedded::{Vectors, check_vectors};
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server};
use tidewheel_core::ports::{Embedder, EmbedderInfo, PortResult, Purpose};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::Pem;
use tidewheel_core::tokens::{Tokens, Words};
use tokio::sync::OnceCell;

use super::choice::choose;
use super::http::{self, Answer, invalid_response, shown};
use super::info::RemoteInfo;
use super::tokens::ModelTokens;
use crate::service::vectors::{BINARY, X_COUNT, X_DIMENSION, X_MODEL, header_form};
use crate::service::{INT8, MODELS, ServedModel, TRUNCATE};
use tidewheel_engine::{ModelSpec, describe};

/// Options of [`TidewheelClient`].
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Address: `http://127.0.0.1:8080`. May include an endpoint path.
    pub url: String,
    /// Bearer token, if required.
    pub token: Option<Secret>,
    /// Timeout of one request, including its time in the service's queue.
    pub timeout: Duration,
    /// Private CA and client certificate.
    pub pem: Pem,
    /// The model to use; `None` for the server's default model, whichever that is.
    pub spec: Option<EmbeddingSpec>,
}

impl ClientOptions {
    /// Creates options for a service at `url` without a token.
    pub fn new(url: impl Into<String>) -> Self {
        // The service's queue holds about fifteen seconds of work.
        Self { url: url.into(), token: None, timeout: Duration::from_secs(60), pem: Pem::default(), spec: None }
    }
}

/// The model that the client uses.
struct Remote {
    info: RemoteInfo,
    /// Its name in requests; `None` for the server's default model.
    name: Option<String>,
}

#[derive(Serialize)]
struct EncodeBatch<'a> {
    texts: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    purpose: &'static str,
    /// A document is never truncated: see [`api`](super::api).
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
}

/// The client of a [`crate::service`]. Fetches `/info` once, and fails with a fatal error if the model is replaced later:
/// vectors of two models must not be mixed in one index. While the service does not serve the specified model, which it may
/// still be loading, requests fail with a transient error.
pub struct TidewheelClient {
    client: Client,
    base: Url,
    token: Option<Secret>,
    spec: Option<EmbeddingSpec>,
    remote: OnceCell<Remote>,
    tokens: OnceCell<Arc<dyn Tokens>>,
}

impl TidewheelClient {
    /// Creates the client without sending a request.
    ///
    /// # Errors
    /// The URL is invalid.
    pub fn new(options: ClientOptions) -> PortResult<Self> {
        Ok(Self {
            client: http::client(&options.url, options.timeout, &options.pem)?,
            base: base(http::parse(&options.url)?),
            token: options.token,
            spec: options.spec,
            remote: OnceCell::new(),
            tokens: OnceCell::new(),
        })
    }

    /// Returns a request about a model, and the URL for messages.
    fn request(&self, method: Method, path: &str, model: Option<&str>) -> (RequestBuilder, Url) {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        let mut asked = url.clone();
        if let Some(model) = model {
            asked.query_pairs_mut().append_pair("model", model);
        }
        let mut request = self.client.request(method, asked);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        (request, url)
    }

    async fn remote(&self) -> PortResult<&Remote> {
        self.remote.get_or_try_init(|| self.find()).await
    }

    /// Finds the specified model.
    async fn find(&self) -> PortResult<Remote> {
        let info = self.fetch_info(None).await?;
        let Some(spec) = &self.spec else { return Ok(Remote { info, name: None }) };
        let mut served = info.served();
        match choose(spec, &served) {
            Some(0) => Ok(Remote { info, name: None }),
            Some(place) => {
                let name = served.swap_remove(place).name;
                Ok(Remote { info: self.fetch_info(Some(&name)).await?, name: Some(name) })
            }
            None if never_rounds(spec, &info) => Err(self.not_rounded(spec)),
            None => Err(self.not_served(spec, &served)),
        }
    }

    /// The error of an embedder that rounds the specified model otherwise, however long one waits. Transient: another CPU
    /// may compute it, and other indexes do not need it.
    fn not_rounded(&self, spec: &EmbeddingSpec) -> PortError {
        let (url, model, name) = (shown(&self.base), &spec.model, &spec.name);
        let fix = format!("set the precision of embedding {name:?} to \"auto\" and apply that");
        PortError::transient(format!("the embedder at {url} computes {model} in f32, not in int8"))
            .with_hint(format!("{fix}, or run the embedder on a CPU with AVX-512 VNNI"))
            .because(Server::EMBEDDER, Cause::Refused)
    }

    /// The error while the service does not serve the specified model. Transient: the service may still be loading it.
    fn not_served(&self, spec: &EmbeddingSpec, served: &[ServedModel]) -> PortError {
        let list: Vec<_> = served.iter().map(|model| format!("{} ({})", model.model, model.precision.name())).collect();
        let rounding = if spec.rounding == Rounding::Int8 { " (int8)" } else { "" };
        let (url, model, list) = (shown(&self.base), &spec.model, list.join(", "));
        PortError::transient(format!("the embedder at {url} serves {list}, not {model}{rounding}"))
            .with_hint("check the model, its precision and its prefixes in the settings of the embedder")
            .because(Server::EMBEDDER, Cause::Other)
    }

    async fn fetch_info(&self, model: Option<&str>) -> PortResult<RemoteInfo> {
        let (request, url) = self.request(Method::GET, "/info", model);
        let answer = http::send(request, &url).await?;
        let missing = answer.status == StatusCode::NOT_FOUND;
        let answer = answer.good(&url).map_err(|error| match (missing, model) {
            (true, None) => error.with_hint(
                "not a tidewheel embedder; for another service, set embedding.provider to \"openai\", \"tei\" or \"ollama\"",
            ),
            (true, Some(_)) => withdrawn(error),
            (false, _) => error,
        })?;
        let info: RemoteInfo = serde_json::from_slice(&answer.body).map_err(|cause| invalid_response(&url, cause))?;
        if info.dimension == 0 || info.limits.texts == 0 {
            return Err(invalid_response(&url, "dimension or limit is 0"));
        }
        Ok(info)
    }

    async fn fetch_tokens(&self) -> PortResult<Arc<dyn Tokens>> {
        let name = match self.spec {
            Some(_) => self.remote().await?.name.as_deref(),
            None => None,
        };
        let (request, url) = self.request(Method::GET, "/tokenizer", name);
        let answer = http::send(request, &url).await?;
        // 404: the model has no vocabulary, or the service does not serve it.
        let missing = answer.status == StatusCode::NOT_FOUND;
        if missing && (name.is_none() || splits_words(&answer.body)) {
            return Ok(Arc::new(Words));
        }
        let answer = answer.good(&url).map_err(|error| if missing { withdrawn(error) } else { error })?;
        // Parsing takes 100 ms and more and must not block the runtime.
        let tokens = tokio::task::spawn_blocking(move || ModelTokens::parse(&answer.body))
            .await
            .map_err(|cause| PortError::transient(format!("failed to parse the embedder's tokenizer: {cause}")))??;
        Ok(Arc::new(tokens))
    }

    /// Sends one request for a list within the limits. `first` is its offset in the caller's list.
    async fn encode(&self, remote: &Remote, texts: &[String], purpose: Purpose, first: usize) -> PortResult<Vec<f32>> {
        let Remote { info, name } = remote;
        let (request, url) = self.request(Method::POST, "/encode_batch", None);
        let aim = match purpose {
            Purpose::Passage => "passage",
            Purpose::Query => "query",
        };
        let truncate = (info.has(TRUNCATE) && purpose == Purpose::Passage).then_some(false);
        let body = serde_json::to_vec(&EncodeBatch { texts, model: name.as_deref(), purpose: aim, truncate })
            .map_err(|cause| PortError::fatal(format!("failed to serialize texts: {cause}")))?;
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, BINARY).body(body);
        let answer = http::send(request, &url).await?;
        let gone = answer.status == StatusCode::NOT_FOUND && name.is_some();
        let answer = answer.good(&url).map_err(|error| if gone { withdrawn(error) } else { error })?;
        let values = self.values(info, &answer, texts.len(), &url)?;
        check_vectors(&values, info.dimension, first)?;
        Ok(values)
    }

    fn values(&self, info: &RemoteInfo, answer: &Answer, count: usize, url: &Url) -> PortResult<Vec<f32>> {
        let expected = header_form(&info.model, &info.revision);
        if let Some(model) = text(&answer.headers, &X_MODEL).filter(|model| *model != expected) {
            let message = format!("the embedder at {} now serves {model} instead of {expected}", shown(url));
            return Err(PortError::fatal(message).with_hint(
                "restore the previous model, or reindex with the new one: vectors of two models must not be mixed",
            ));
        }
        let number = |name| text(&answer.headers, name).and_then(|text| text.parse::<usize>().ok());
        let (Some(dimension), Some(found)) = (number(&X_DIMENSION), number(&X_COUNT)) else {
            return Err(invalid_response(url, "not in the binary format"));
        };
        if (found, dimension) != (count, info.dimension) {
            let expected = info.dimension;
            return Err(invalid_response(
                url,
                format!("{found} vectors of dimension {dimension} for {count} texts and dimension {expected}"),
            ));
        }
        if answer.body.len() != count * dimension * 4 {
            return Err(invalid_response(url, format!("{} bytes for {count} vectors", answer.body.len())));
        }
        let (numbers, _) = answer.body.as_chunks();
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

#[async_trait]
impl Embedder for TidewheelClient {
    async fn info(&self) -> PortResult<EmbedderInfo> {
        let Remote { info, .. } = self.remote().await?;
        Ok(EmbedderInfo {
            model: info.model.clone(),
            revision: info.vector_revision(),
            dimension: info.dimension,
            max_tokens: info.max_text_tokens,
            load: info.load,
        })
    }

    async fn details(&self) -> PortResult<Option<String>> {
        let Remote { info, .. } = self.remote().await?;
        let details = || {
            let measured = describe(&info.measured);
            format!("{} ({}), measured on one core: {measured}", info.precision.name(), info.kernel)
        };
        Ok((!info.measured.is_empty()).then(details))
    }

    async fn tokens(&self) -> PortResult<Arc<dyn Tokens>> {
        self.tokens.get_or_try_init(|| self.fetch_tokens()).await.cloned()
    }

    async fn embed(&self, texts: &[String], purpose: Purpose) -> PortResult<Vectors> {
        let remote = self.remote().await?;
        let info = &remote.info;
        let mut values = Vec::with_capacity(texts.len() * info.dimension);
        let mut first = 0;
        // JSON escaping makes texts longer; a factor of two covers all but texts of mostly control characters.
        for list in within(texts, info.limits.texts, info.limits.body_bytes / 2) {
            let part = self.encode(remote, list, purpose, first).await?;
            first += list.len();
            if values.is_empty() {
                values = part;
            } else {
                values.extend_from_slice(&part);
            }
        }
        Vectors::new(info.dimension, values).ok_or_else(|| invalid_response(&self.base, "vectors differ in length"))
    }
}

/// Whether a server will never serve a specification because of its rounding. An earlier release does not state it.
fn never_rounds(spec: &EmbeddingSpec, info: &RemoteInfo) -> bool {
    // Vectors of a hash are computed in f32 on every CPU.
    let is_hash = matches!(ModelSpec::hash_dimension(&spec.model), Ok(Some(_)));
    spec.rounding == Rounding::Int8 && info.has(MODELS) && (is_hash || !info.has(INT8))
}

/// The error of a model that the service listed and does not serve any more. Transient: after a restart it may still be
/// loading the model.
fn withdrawn(error: PortError) -> PortError {
    PortError { class: ErrorClass::Transient, ..error }
}

/// Whether a response states that the model has no vocabulary.
fn splits_words(body: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|body| body["tokenizer"] == "words")
}

/// Strips a known endpoint from the service's address.
fn base(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/');
    let base = ["/encode_batch", "/encode", "/v1/embeddings", "/info"]
        .into_iter()
        .find_map(|endpoint| path.strip_suffix(endpoint))
        .unwrap_or(path)
        .to_owned();
    url.set_path(&base);
    url.set_query(None);
    url.set_fragment(None);
    url
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// Splits a list into lists of at most `count` texts and `bytes` bytes; a longer text gets its own list.
pub(super) fn within(texts: &[String], count: usize, bytes: usize) -> Vec<&[String]> {
    let mut lists = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, text) in texts.iter().enumerate() {
        if index > start && (index - start >= count.max(1) || size + text.len() > bytes) {
            lists.push(&texts[start..index]);
            (start, size) = (index, 0);
        }
        size += text.len();
    }
    if start < texts.len() {
        lists.push(&texts[start..]);
    }
    lists
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn url_with_endpoint_is_reduced_to_base() {
        for (given, expected) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080/"),
            ("http://127.0.0.1:8080/encode", "http://127.0.0.1:8080/"),
            ("http://127.0.0.1:8080/encode_batch/", "http://127.0.0.1:8080/"),
            ("https://host/embedder/encode?x=1", "https://host/embedder"),
        ] {
            assert_eq!(base(http::parse(given).unwrap()).as_str(), expected, "{given}");
        }
    }

    proptest! {
        #[test]
        fn lists_keep_order_and_limits(
            lengths in prop::collection::vec(0usize..50, 0..40),
            count in 1usize..10,
            bytes in 1usize..100,
        ) {
            let texts: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
            let lists = within(&texts, count, bytes);
            for list in &lists {
                let size: usize = list.iter().map(String::len).sum();
                prop_assert!(!list.is_empty() && list.len() <= count && (size <= bytes || list.len() == 1));
            }
            prop_assert_eq!(lists.concat(), texts);
        }
    }
}
