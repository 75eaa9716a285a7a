//! The client of third-party embedding services: see [`Api`].
//!
//! Vectors are passed on unchanged: Qdrant normalises vectors of cosine collections.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, RequestBuilder, Url};
use tidewheel_core::embedded::{Vectors, check_vectors};
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server};
use tidewheel_core::ports::{Embedder, EmbedderInfo, PortResult, Purpose};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::Pem;
use tidewheel_core::tokens::{Estimate, Tokens};
use tokio::sync::OnceCell;
use tracing::info;

use super::api::{Api, ServerInfo, Unreadable};
use super::batch::{BatchLimit, named_in};
use super::http::{self, invalid_response, shown};
use super::length;
use super::limiter::Limiter;
use super::tidewheel::within;

/// Maximum bytes of text per request. OpenAI accepts 300,000 tokens, about a megabyte of English and half of that in
/// scripts where nearly every character is a token.
const REQUEST_BYTES: usize = 512 << 10;

/// Options of [`RemoteClient`].
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// The API of the service.
    pub api: Api,
    /// Address: `https://api.openai.com/v1`, `http://127.0.0.1:11434`. May include an endpoint path.
    pub url: String,
    /// Bearer token, if required.
    pub key: Option<Secret>,
    /// The model to request. Servers of a single model, such as text-embeddings-inference, report it; for them it may be
    /// empty, and otherwise it must match.
    pub model: String,
    /// Requests vectors of this dimension, where the model supports it. `None` uses the model's default.
    pub dimensions: Option<usize>,
    /// Maximum tokens of a text, including the prefix; a lower limit reported by the server takes precedence. Tokens are
    /// estimated, because the vocabulary is unknown.
    pub max_tokens: usize,
    /// Maximum texts per request; a lower limit reported by the server or learned from rejections takes precedence. OpenAI
    /// accepts 2,048.
    pub batch: usize,
    /// Concurrent requests for a list that needs several.
    pub concurrency: usize,
    /// Requests per minute that the account allows.
    pub requests_per_minute: Option<u32>,
    /// Tokens per minute that the account allows.
    pub tokens_per_minute: Option<u32>,
    /// Prepended to search queries, for models that need it.
    pub query_prefix: String,
    /// Prepended to document texts, for models that need it.
    pub passage_prefix: String,
    /// Timeout of one request.
    pub timeout: Duration,
    /// Private CA and client certificate.
    pub pem: Pem,
}

impl RemoteOptions {
    /// Creates options without rate limits and without a key.
    pub fn new(api: Api, url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            api,
            url: url.into(),
            key: None,
            model: model.into(),
            dimensions: None,
            // OpenAI's models accept 8,191. Shorter chunks retrieve better.
            max_tokens: 2048,
            batch: 128,
            concurrency: 4,
            requests_per_minute: None,
            tokens_per_minute: None,
            query_prefix: String::new(),
            passage_prefix: String::new(),
            timeout: Duration::from_secs(60),
            pem: Pem::default(),
        }
    }
}

/// Properties of the service, known after its first response.
#[derive(Clone, Debug)]
struct Known {
    reported: ServerInfo,
    dimension: usize,
}

/// The client of a third-party embedding service. Fetches its self-description once, where available, and determines the
/// dimension by embedding one word.
pub struct RemoteClient {
    client: Client,
    url: Url,
    options: RemoteOptions,
    limiter: Limiter,
    limit: BatchLimit,
    known: OnceCell<Known>,
}

impl RemoteClient {
    /// Creates the client without sending a request.
    ///
    /// # Errors
    /// The URL is invalid, or the model is missing.
    pub fn new(options: RemoteOptions) -> PortResult<Self> {
        if options.model.is_empty() && options.api != Api::TextEmbeddingsInference {
            return Err(PortError::fatal("missing model for the remote embedder").with_hint("set embedding.model"));
        }
        Ok(Self {
            client: http::client(&options.url, options.timeout, &options.pem)?,
            url: options.api.endpoint(http::parse(&options.url)?),
            limiter: Limiter::new(options.requests_per_minute, options.tokens_per_minute),
            limit: BatchLimit::default(),
            known: OnceCell::new(),
            options,
        })
    }

    async fn known(&self) -> PortResult<&Known> {
        self.known
            .get_or_try_init(|| async {
                let reported = self.describe().await?;
                Ok(Known { reported, dimension: self.probe().await? })
            })
            .await
    }

    /// Fetches the service's self-description.
    async fn describe(&self) -> PortResult<ServerInfo> {
        let (api, asked) = (self.options.api, &self.options.model);
        let Some((url, body)) = api.description(&self.url, asked) else { return Ok(ServerInfo::default()) };
        let request = match body {
            Some(body) => self.client.post(url.clone()).json(&body),
            None => self.client.get(url.clone()),
        };
        let answer = http::send(self.authorized(request), &url).await?;
        let redirected = answer.status.is_redirection();
        let answer = answer.good(&url).map_err(|error| match api {
            // Redirect errors have their own hint.
            _ if redirected => error,
            Api::Ollama if error.class == ErrorClass::Fatal => {
                error.with_hint(format!("run 'ollama pull {asked}', or check embedding.model and embedding.url"))
            }
            _ if error.class == ErrorClass::Fatal => error.with_hint("check embedding.provider and embedding.url"),
            _ => error,
        })?;
        let reported = api.read_description(&answer.body, &url)?;
        match &reported.model {
            Some(found) if !asked.is_empty() && found != asked => {
                Err(PortError::fatal(format!("the embedder at {} serves model {found}, not {asked}", shown(&url)))
                    .with_hint("remove embedding.model, or start the server with that model"))
            }
            _ => Ok(reported),
        }
    }

    /// Returns the maximum tokens of a document's text, excluding the prefix.
    fn room(&self, reported: Option<usize>) -> usize {
        let most = reported.map_or(self.options.max_tokens, |most| most.min(self.options.max_tokens));
        most.saturating_sub(Estimate::count(&self.options.passage_prefix)).max(1)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.options.key {
            Some(key) => request.bearer_auth(key.reveal()),
            None => request,
        }
    }

    /// Determines the dimension by embedding a text that every model accepts.
    async fn probe(&self) -> PortResult<usize> {
        let vectors = self.send(&["tidewheel".to_owned()], Purpose::Passage).await;
        let checked = vectors.and_then(|vectors| {
            let vector = vectors.into_iter().next().unwrap_or_default();
            check_vectors(&vector, vector.len(), 0).map(|()| vector.len())
        });
        let found = checked.map_err(|error| {
            if error.class != ErrorClass::Poison {
                return error;
            }
            // The settings are at fault, not the text. As poison, the error would dead-letter every document.
            PortError { class: ErrorClass::Fatal, ..error }
                .with_hint("check embedding.api_key, embedding.model and embedding.dimensions")
        })?;
        match self.options.dimensions {
            _ if found == 0 => Err(invalid_response(&self.url, "empty vector")),
            Some(asked) if asked != found => Err(PortError::fatal(format!(
                "model {} returned vectors of dimension {found}, not {asked}",
                self.options.model
            ))
            .with_hint("remove embedding.dimensions, or set it to the model's dimension")),
            _ => Ok(found),
        }
    }

    /// Embeds a list within the known limits. If it is rejected but its parts are accepted, the batch limit is lowered.
    async fn list(
        &self,
        texts: &[String],
        purpose: Purpose,
        first: usize,
        dimension: usize,
    ) -> PortResult<Vec<Vec<f32>>> {
        let rejected = match self.request(texts, purpose, first, dimension).await {
            Ok(vectors) => {
                self.limit.record_accepted(texts.len());
                return Ok(vectors);
            }
            // The rejection of an overlong text reveals nothing about the batch limit.
            Err(error)
                if error.class == ErrorClass::Poison
                    && !length::is_explicit(&error.message)
                    && self.limit.may_be_exceeded_by(texts.len()) =>
            {
                error
            }
            Err(error) => return Err(error),
        };
        let explanation = rejected.message.split_once(" returned ").map_or("", |(_, explanation)| explanation);
        let explanation = explanation.split_once(": ").map_or("", |(_, explanation)| explanation);
        let named = named_in(explanation, texts.len());
        let part = named.unwrap_or(texts.len().div_ceil(2));
        let mut vectors = Vec::with_capacity(texts.len());
        for (place, part) in (first..).step_by(part).zip(texts.chunks(part)) {
            vectors.extend(self.request(part, purpose, place, dimension).await?);
        }
        match named {
            Some(limit) => self.limit.set(limit),
            None => self.limit.record_rejected(texts.len(), part),
        }
        info!(limit = self.limit.size(texts.len()), rejected = texts.len(), "reducing texts per embedding request");
        Ok(vectors)
    }

    /// Sends one request for a list within the limits, and checks its vectors. `first` is its offset in the caller's list.
    async fn request(
        &self,
        texts: &[String],
        purpose: Purpose,
        first: usize,
        dimension: usize,
    ) -> PortResult<Vec<Vec<f32>>> {
        let vectors = self.send(texts, purpose).await?;
        for (place, vector) in (first..).zip(&vectors) {
            if vector.len() != dimension {
                return Err(self.misfit(vector.len(), dimension, place).await);
            }
            check_vectors(vector, dimension, place)?;
        }
        Ok(vectors)
    }

    /// The error for a vector of another dimension. Caused by its text, unless the probe has another dimension too.
    async fn misfit(&self, found: usize, dimension: usize, place: usize) -> PortError {
        match self.probe().await {
            Ok(now) if now != dimension => {
                PortError::fatal(format!("vector dimension changed from {dimension} to {now}"))
                    .with_hint("reindex: the remote model was replaced")
            }
            // Not the dimension of the settings.
            Err(error) if error.class == ErrorClass::Fatal && error.cause == Cause::Other => error,
            // Without a vector the cause is unknown; a later attempt finds out.
            _ => {
                let what = match found {
                    0 => "an empty vector".to_owned(),
                    _ => format!("a vector of dimension {found} instead of {dimension}"),
                };
                let url = shown(&self.url);
                PortError::poison(format!("the embedder at {url} returned {what} for the text at index {place}"))
                    .because(Server::EMBEDDER, Cause::Refused)
            }
        }
    }

    /// Sends one request; returns a vector of any length for each text.
    async fn send(&self, texts: &[String], purpose: Purpose) -> PortResult<Vec<Vec<f32>>> {
        let prefix = match purpose {
            Purpose::Passage => &self.options.passage_prefix,
            Purpose::Query => &self.options.query_prefix,
        };
        let prefixed: Vec<String> =
            if prefix.is_empty() { Vec::new() } else { texts.iter().map(|text| format!("{prefix}{text}")).collect() };
        let texts = if prefix.is_empty() { texts } else { &prefixed };
        // OpenAI rejects empty text; a space is equivalent.
        let input: Vec<&str> = texts.iter().map(|text| if text.is_empty() { " " } else { text }).collect();
        let tokens =
            if self.limiter.counts_tokens() { input.iter().map(|text| Estimate::count(text)).sum() } else { 0 };
        self.limiter.admit(tokens).await;

        let body = self.options.api.body(&self.options.model, &input, purpose, self.options.dimensions);
        let request = self.authorized(self.client.post(self.url.clone()).json(&body));
        let answer = http::send(request, &self.url).await?.good(&self.url)?;
        self.options.api.vectors(&answer.body, input.len()).map_err(|unreadable| match unreadable {
            Unreadable::NotFinite => PortError::poison("the embedder's vector for one of the texts is not finite")
                .because(Server::EMBEDDER, Cause::NotFinite),
            // Caused by one text or by their number; retrying with fewer texts tells which.
            Unreadable::Count(found) => {
                let (count, url) = (input.len(), shown(&self.url));
                PortError::poison(format!("the embedder at {url} returned {found} vectors for {count} texts"))
                    .because(Server::EMBEDDER, Cause::Refused)
            }
            Unreadable::Answer(cause) => invalid_response(&self.url, cause),
        })
    }
}

#[async_trait]
impl Embedder for RemoteClient {
    async fn info(&self) -> PortResult<EmbedderInfo> {
        let Known { reported, dimension } = self.known().await?;
        Ok(EmbedderInfo {
            model: reported.model.clone().unwrap_or_else(|| self.options.model.clone()),
            // Many services report no revision.
            revision: format!("{}{}", reported.revision.as_deref().unwrap_or_default(), self.options.passage_prefix),
            dimension: *dimension,
            max_tokens: self.room(reported.max_tokens),
            load: None,
        })
    }

    async fn tokens(&self) -> PortResult<Arc<dyn Tokens>> {
        Ok(Arc::new(Estimate))
    }

    async fn embed(&self, texts: &[String], purpose: Purpose) -> PortResult<Vectors> {
        let Known { reported, dimension } = self.known().await?;
        let dimension = *dimension;
        let most = reported.batch.map_or(self.options.batch, |most| most.min(self.options.batch));
        let batch = self.limit.size(most);
        let mut first = 0;
        let mut requests = Vec::new();
        for list in within(texts, batch, REQUEST_BYTES) {
            requests.push(self.list(list, purpose, first, dimension));
            first += list.len();
        }
        let parts: Vec<Vec<Vec<f32>>> =
            stream::iter(requests).buffered(self.options.concurrency.max(1)).try_collect().await?;
        let mut values = Vec::with_capacity(texts.len() * dimension);
        for vector in parts.iter().flatten() {
            values.extend_from_slice(vector);
        }
        Vectors::new(dimension, values).ok_or_else(|| invalid_response(&self.url, "vectors differ in length"))
    }
}
