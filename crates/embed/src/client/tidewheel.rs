//! The client of tidewheel's own embedder service.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tidewheel_core::embedded::{Vectors, check_vectors};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Embedder, EmbedderInfo, EmbedderLoad, PortResult, Purpose};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::Pem;
use tidewheel_core::tokens::{Tokens, Words};
use tokio::sync::OnceCell;

use super::http::{self, Answer, invalid_response, shown};
use super::tokens::ModelTokens;
use crate::service::TRUNCATE;
use crate::service::vectors::{BINARY, X_COUNT, X_DIMENSION, X_MODEL, header_form};
use tidewheel_engine::{Measurement, Precision, describe};

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
}

impl ClientOptions {
    /// Creates options for a service at `url` without a token.
    pub fn new(url: impl Into<String>) -> Self {
        // The service's queue holds about fifteen seconds of work.
        Self { url: url.into(), token: None, timeout: Duration::from_secs(60), pem: Pem::default() }
    }
}

/// The used part of the service's `/info`.
#[derive(Clone, Debug, Deserialize)]
struct RemoteInfo {
    model: String,
    revision: String,
    precision: Precision,
    passage_prefix: String,
    dimension: usize,
    max_text_tokens: usize,
    limits: RemoteLimits,
    /// Missing in older embedders.
    #[serde(default)]
    kernel: String,
    #[serde(default)]
    measured: Vec<Measurement>,
    /// Missing in older embedders.
    #[serde(default)]
    features: Vec<String>,
    /// Missing in older embedders.
    load: Option<EmbedderLoad>,
}

impl RemoteInfo {
    /// Returns everything besides the name that a document's vector depends on. Excludes f32 and bf16, because embedders
    /// that share the load may run on different CPUs; includes rounding to 8 bits.
    fn vector_revision(&self) -> String {
        let rounding = if self.precision == Precision::Int8 { "int8" } else { "" };
        [&self.revision, rounding, &self.passage_prefix].join("/")
    }
}

#[derive(Clone, Debug, Deserialize)]
struct RemoteLimits {
    body_bytes: usize,
    texts: usize,
}

#[derive(Serialize)]
struct EncodeBatch<'a> {
    texts: &'a [String],
    purpose: &'static str,
    /// A document is never truncated: see [`api`](super::api).
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
}

/// The client of a [`crate::service`]. Fetches `/info` once, and fails with a fatal error if the model is replaced later:
/// vectors of two models must not be mixed in one index.
pub struct TidewheelClient {
    client: Client,
    base: Url,
    token: Option<Secret>,
    info: OnceCell<RemoteInfo>,
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
            info: OnceCell::new(),
            tokens: OnceCell::new(),
        })
    }

    fn request(&self, method: Method, path: &str) -> (RequestBuilder, Url) {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        let mut request = self.client.request(method, url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        (request, url)
    }

    async fn remote(&self) -> PortResult<&RemoteInfo> {
        self.info.get_or_try_init(|| self.fetch_info()).await
    }

    async fn fetch_info(&self) -> PortResult<RemoteInfo> {
        let (request, url) = self.request(Method::GET, "/info");
        let answer = http::send(request, &url).await?;
        let missing = answer.status == StatusCode::NOT_FOUND;
        let answer = answer.good(&url).map_err(|error| match missing {
            true => error.with_hint(
                "not a tidewheel embedder; for another service, set embedding.provider to \"openai\", \"tei\" or \"ollama\"",
            ),
            false => error,
        })?;
        let info: RemoteInfo = serde_json::from_slice(&answer.body).map_err(|cause| invalid_response(&url, cause))?;
        if info.dimension == 0 || info.limits.texts == 0 {
            return Err(invalid_response(&url, "dimension or limit is 0"));
        }
        Ok(info)
    }

    async fn fetch_tokens(&self) -> PortResult<Arc<dyn Tokens>> {
        let (request, url) = self.request(Method::GET, "/tokenizer");
        let answer = http::send(request, &url).await?;
        // 404: the model has no vocabulary.
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Arc::new(Words));
        }
        let answer = answer.good(&url)?;
        // Parsing takes 100 ms and more and must not block the runtime.
        let tokens = tokio::task::spawn_blocking(move || ModelTokens::parse(&answer.body))
            .await
            .map_err(|cause| PortError::transient(format!("failed to parse the embedder's tokenizer: {cause}")))??;
        Ok(Arc::new(tokens))
    }

    /// Sends one request for a list within the limits. `first` is its offset in the caller's list.
    async fn encode(
        &self,
        info: &RemoteInfo,
        texts: &[String],
        purpose: Purpose,
        first: usize,
    ) -> PortResult<Vec<f32>> {
        let (request, url) = self.request(Method::POST, "/encode_batch");
        let name = match purpose {
            Purpose::Passage => "passage",
            Purpose::Query => "query",
        };
        let can_reject = info.features.iter().any(|feature| feature == TRUNCATE);
        let truncate = (can_reject && purpose == Purpose::Passage).then_some(false);
        let body = serde_json::to_vec(&EncodeBatch { texts, purpose: name, truncate })
            .map_err(|cause| PortError::fatal(format!("failed to serialize texts: {cause}")))?;
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, BINARY).body(body);
        let answer = http::send(request, &url).await?.good(&url)?;
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
        let info = self.remote().await?;
        Ok(EmbedderInfo {
            model: info.model.clone(),
            revision: info.vector_revision(),
            dimension: info.dimension,
            max_tokens: info.max_text_tokens,
            load: info.load,
        })
    }

    async fn details(&self) -> PortResult<Option<String>> {
        let info = self.remote().await?;
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
        let info = self.remote().await?;
        let mut values = Vec::with_capacity(texts.len() * info.dimension);
        let mut first = 0;
        // JSON escaping makes texts longer; a factor of two covers all but texts of mostly control characters.
        for list in within(texts, info.limits.texts, info.limits.body_bytes / 2) {
            let part = self.encode(info, list, purpose, first).await?;
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
