//! The client of this program's own service.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tidewheel_core::embedded::Vectors;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Embedder, EmbedderInfo, PortResult, Purpose};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::Pem;
use tidewheel_core::tokens::{Tokens, Words};
use tokio::sync::OnceCell;

use super::http::{self, Answer, garbled, shown};
use super::{check, tokens::ModelTokens};
use crate::service::TRUNCATE;
use crate::service::vectors::{BINARY, X_COUNT, X_DIMENSION, X_MODEL, header_form};
use tidewheel_engine::{Measurement, Precision, describe};

/// How to reach the service.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Where it is: `http://127.0.0.1:8080`. One of its endpoints may follow, as people copy those.
    pub url: String,
    /// What it wants to be shown, if anything.
    pub token: Option<Secret>,
    /// How long one request may take, waiting in the service's queue included.
    pub timeout: Duration,
    /// A private CA, and a certificate to present.
    pub pem: Pem,
}

impl ClientOptions {
    /// A service at `url` without a token.
    pub fn new(url: impl Into<String>) -> Self {
        // The service's queue holds some fifteen seconds of work.
        Self { url: url.into(), token: None, timeout: Duration::from_secs(60), pem: Pem::default() }
    }
}

/// What the service says about itself, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
struct RemoteInfo {
    model: String,
    revision: String,
    precision: Precision,
    passage_prefix: String,
    dimension: usize,
    max_text_tokens: usize,
    limits: RemoteLimits,
    /// Older embedders do not say.
    #[serde(default)]
    kernel: String,
    #[serde(default)]
    measured: Vec<Measurement>,
    /// Embedders of earlier releases have none.
    #[serde(default)]
    features: Vec<String>,
}

impl RemoteInfo {
    /// Everything besides the name that a document's vector depends on. Rounding to f32 or bf16 is not a part of it, because
    /// embedders that share the work may have processors of different kinds; rounding to 8 bits is.
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
    /// A document is never cut: see [`api`](super::api).
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
}

/// Speaks to a [`crate::service`]. Asks for its description once, and fails as fatal if the model behind it is replaced
/// later: vectors of two models must not meet in one index.
pub struct TidewheelClient {
    client: Client,
    base: Url,
    token: Option<Secret>,
    info: OnceCell<RemoteInfo>,
    tokens: OnceCell<Arc<dyn Tokens>>,
}

impl TidewheelClient {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// The URL is none.
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
                "this is no embedder of tidewheel; if it is another one, set embedding.provider = \"openai\", \"tei\" or \"ollama\"",
            ),
            false => error,
        })?;
        let info: RemoteInfo = serde_json::from_slice(&answer.body).map_err(|cause| garbled(&url, cause))?;
        if info.dimension == 0 || info.limits.texts == 0 {
            return Err(garbled(&url, "a dimension or a limit is 0"));
        }
        Ok(info)
    }

    async fn fetch_tokens(&self) -> PortResult<Arc<dyn Tokens>> {
        let (request, url) = self.request(Method::GET, "/tokenizer");
        let answer = http::send(request, &url).await?;
        // A model without a vocabulary says so with 404.
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(Arc::new(Words));
        }
        let answer = answer.good(&url)?;
        // Parsing takes a tenth of a second and more; nothing else should stand still meanwhile.
        let tokens = tokio::task::spawn_blocking(move || ModelTokens::parse(&answer.body))
            .await
            .map_err(|cause| PortError::transient(format!("cannot read the embedder's tokenizer: {cause}")))??;
        Ok(Arc::new(tokens))
    }

    /// One request of a list that is within the limits. `first` is its place in the caller's list.
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
            .map_err(|cause| PortError::fatal(format!("cannot write the texts as JSON: {cause}")))?;
        let request = request.header(CONTENT_TYPE, "application/json").header(ACCEPT, BINARY).body(body);
        let answer = http::send(request, &url).await?.good(&url)?;
        let values = self.values(info, &answer, texts.len(), &url)?;
        check::usable(&values, info.dimension, first)?;
        Ok(values)
    }

    fn values(&self, info: &RemoteInfo, answer: &Answer, count: usize, url: &Url) -> PortResult<Vec<f32>> {
        let expected = header_form(&info.model, &info.revision);
        if let Some(model) = text(&answer.headers, &X_MODEL).filter(|model| *model != expected) {
            let message = format!("the embedder at {} now serves {model} in place of {expected}", shown(url));
            return Err(PortError::fatal(message).with_hint(
                "vectors of two models must not be mixed: give it the old model again, or index anew with the new one",
            ));
        }
        let number = |name| text(&answer.headers, name).and_then(|text| text.parse::<usize>().ok());
        let (Some(dimension), Some(found)) = (number(&X_DIMENSION), number(&X_COUNT)) else {
            return Err(garbled(url, "it is not in the binary form"));
        };
        if (found, dimension) != (count, info.dimension) {
            let expected = info.dimension;
            return Err(garbled(
                url,
                format!("{found} vectors of {dimension} numbers came for {count} texts and {expected} dimensions"),
            ));
        }
        if answer.body.len() != count * dimension * 4 {
            return Err(garbled(url, format!("{} bytes came for {count} vectors", answer.body.len())));
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
        // Escaping makes texts longer on their way; twice as long covers all but what is mostly control characters.
        for list in within(texts, info.limits.texts, info.limits.body_bytes / 2) {
            let part = self.encode(info, list, purpose, first).await?;
            first += list.len();
            if values.is_empty() {
                values = part;
            } else {
                values.extend_from_slice(&part);
            }
        }
        Vectors::new(info.dimension, values).ok_or_else(|| garbled(&self.base, "its vectors differ in length"))
    }
}

/// The service's address without an endpoint behind it.
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

/// Cuts a list into lists of at most `count` texts and `bytes` bytes; a text that is longer by itself is alone.
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
    fn a_copied_endpoint_is_as_good_as_the_base() {
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
        fn lists_keep_the_order_and_the_limits(
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
