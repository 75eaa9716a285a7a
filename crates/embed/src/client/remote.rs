//! The client of embedders that are not ours: see [`Api`].
//!
//! Vectors are passed on as they come: Qdrant normalises what goes into a cosine collection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, RequestBuilder, Url};
use tidewheel_core::embedded::Vectors;
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server};
use tidewheel_core::ports::{Embedder, EmbedderInfo, PortResult, Purpose};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::Pem;
use tidewheel_core::tokens::{Estimate, Tokens};
use tokio::sync::OnceCell;
use tracing::info;

use super::api::{Api, Said, Unreadable};
use super::batch::{BatchLimit, named_in};
use super::check;
use super::http::{self, garbled, shown};
use super::length;
use super::limiter::Limiter;
use super::tidewheel::within;

/// Most bytes of text in one request. OpenAI takes 300,000 tokens at once, which is about a megabyte of English and half
/// of that in scripts where nearly every sign is a token.
const REQUEST_BYTES: usize = 512 << 10;

/// How to use the service.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// In which form it is asked.
    pub api: Api,
    /// Where it is: `https://api.openai.com/v1`, `http://127.0.0.1:11434`. One of its endpoints may follow.
    pub url: String,
    /// Sent as a bearer token, if there is one.
    pub key: Option<Secret>,
    /// The model to ask for. A server of one model, as text-embeddings-inference is, says which it is; then it may be
    /// empty, and if it is not, it has to be that one.
    pub model: String,
    /// Asks for vectors of this length, which some models offer. `None` leaves it to the model.
    pub dimensions: Option<usize>,
    /// Most tokens of a text, the prefix included; fewer if the server says that it takes fewer. They are estimated, because the
    /// vocabulary is unknown.
    pub max_tokens: usize,
    /// Most texts in one request; fewer if the server says that it takes fewer, or rejects more. OpenAI takes 2,048.
    pub batch: usize,
    /// Requests at the same time, for a list that needs several.
    pub concurrency: usize,
    /// Requests a minute that the account allows.
    pub requests_per_minute: Option<u32>,
    /// Tokens a minute that the account allows.
    pub tokens_per_minute: Option<u32>,
    /// Put in front of a search's text, for models that want it.
    pub query_prefix: String,
    /// Put in front of a document's text, for models that want it.
    pub passage_prefix: String,
    /// How long one request may take.
    pub timeout: Duration,
    /// A private CA, and a certificate to present.
    pub pem: Pem,
}

impl RemoteOptions {
    /// A model of a service without limits and without a key.
    pub fn new(api: Api, url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            api,
            url: url.into(),
            key: None,
            model: model.into(),
            dimensions: None,
            // OpenAI's models take 8,191. Shorter chunks are found better.
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

/// What is known of the service once it has answered.
#[derive(Clone, Debug)]
struct Known {
    said: Said,
    dimension: usize,
}

/// Speaks to a service that is not ours. Asks it once what it is, as far as it tells, and learns the dimension by embedding
/// one word.
pub struct RemoteClient {
    client: Client,
    url: Url,
    options: RemoteOptions,
    limiter: Limiter,
    limit: BatchLimit,
    known: OnceCell<Known>,
}

impl RemoteClient {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// The URL is none, or no model is named.
    pub fn new(options: RemoteOptions) -> PortResult<Self> {
        if options.model.is_empty() && options.api != Api::TextEmbeddingsInference {
            return Err(PortError::fatal("no model is named for the remote embedder").with_hint("set embedding.model"));
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
                let said = self.describe().await?;
                Ok(Known { said, dimension: self.probe().await? })
            })
            .await
    }

    /// What the service says about itself.
    async fn describe(&self) -> PortResult<Said> {
        let (api, asked) = (self.options.api, &self.options.model);
        let Some((url, body)) = api.description(&self.url, asked) else { return Ok(Said::default()) };
        let request = match body {
            Some(body) => self.client.post(url.clone()).json(&body),
            None => self.client.get(url.clone()),
        };
        let answer = http::send(self.authorized(request), &url).await?;
        let redirected = answer.status.is_redirection();
        let answer = answer.good(&url).map_err(|error| match api {
            // It has a hint of its own.
            _ if redirected => error,
            Api::Ollama if error.class == ErrorClass::Fatal => error
                .with_hint(format!("fetch it with 'ollama pull {asked}', or check embedding.model and embedding.url")),
            _ if error.class == ErrorClass::Fatal => error.with_hint("check embedding.provider and embedding.url"),
            _ => error,
        })?;
        let said = api.read_description(&answer.body, &url)?;
        match &said.model {
            Some(found) if !asked.is_empty() && found != asked => {
                Err(PortError::fatal(format!("the embedder at {} serves the model {found}, not {asked}", shown(&url)))
                    .with_hint("remove embedding.model, or start the server with that model"))
            }
            _ => Ok(said),
        }
    }

    /// Tokens that a document's text may have beside the prefix.
    fn room(&self, said: Option<usize>) -> usize {
        let most = said.map_or(self.options.max_tokens, |most| most.min(self.options.max_tokens));
        most.saturating_sub(Estimate::count(&self.options.passage_prefix)).max(1)
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.options.key {
            Some(key) => request.bearer_auth(key.reveal()),
            None => request,
        }
    }

    /// The dimension, learned from a text that every model can embed.
    async fn probe(&self) -> PortResult<usize> {
        let vectors = self.request(&["tidewheel".to_owned()], Purpose::Passage, 0).await.map_err(|error| {
            if error.class != ErrorClass::Poison {
                return error;
            }
            // Not the text is to blame but the settings. As poison it would send every document to the dead letters.
            PortError { class: ErrorClass::Fatal, ..error }
                .with_hint("check embedding.api_key, embedding.model and embedding.dimensions")
        })?;
        let found = vectors.first().map_or(0, Vec::len);
        match self.options.dimensions {
            _ if found == 0 => Err(garbled(&self.url, "its vector has no numbers")),
            Some(asked) if asked != found => Err(PortError::fatal(format!(
                "the model {} gives vectors of {found} numbers, not {asked}",
                self.options.model
            ))
            .with_hint("remove embedding.dimensions, or set it to what the model gives")),
            _ => Ok(found),
        }
    }

    /// The vectors of a list that is within the limits as far as they are known. If it is rejected and its parts are not, it was
    /// too long: that is remembered.
    async fn list(&self, texts: &[String], purpose: Purpose, first: usize) -> PortResult<Vec<Vec<f32>>> {
        let rejected = match self.request(texts, purpose, first).await {
            Ok(vectors) => {
                self.limit.takes(texts.len());
                return Ok(vectors);
            }
            // A text that is too long says nothing of how many are taken.
            Err(error)
                if error.class == ErrorClass::Poison
                    && !length::is_explicit(&error.message)
                    && self.limit.may_be_exceeded_by(texts.len()) =>
            {
                error
            }
            Err(error) => return Err(error),
        };
        let explanation = rejected.message.split_once(" answered ").map_or("", |(_, explanation)| explanation);
        let explanation = explanation.split_once(": ").map_or("", |(_, explanation)| explanation);
        let named = named_in(explanation, texts.len());
        let part = named.unwrap_or(texts.len().div_ceil(2));
        let mut vectors = Vec::with_capacity(texts.len());
        for (place, part) in (first..).step_by(part).zip(texts.chunks(part)) {
            vectors.extend(self.request(part, purpose, place).await?);
        }
        match named {
            Some(limit) => self.limit.is(limit),
            None => self.limit.rejects(texts.len(), part),
        }
        info!(limit = self.limit.size(texts.len()), rejected = texts.len(), "sending the embedder fewer texts at once");
        Ok(vectors)
    }

    /// One request of a list that is within the limits. `first` is its place in the caller's list.
    async fn request(&self, texts: &[String], purpose: Purpose, first: usize) -> PortResult<Vec<Vec<f32>>> {
        let prefix = match purpose {
            Purpose::Passage => &self.options.passage_prefix,
            Purpose::Query => &self.options.query_prefix,
        };
        let prefixed: Vec<String> =
            if prefix.is_empty() { Vec::new() } else { texts.iter().map(|text| format!("{prefix}{text}")).collect() };
        let texts = if prefix.is_empty() { texts } else { &prefixed };
        // OpenAI refuses the empty text; a blank has the same meaning.
        let input: Vec<&str> = texts.iter().map(|text| if text.is_empty() { " " } else { text }).collect();
        let tokens =
            if self.limiter.counts_tokens() { input.iter().map(|text| Estimate::count(text)).sum() } else { 0 };
        self.limiter.admit(tokens).await;

        let body = self.options.api.body(&self.options.model, &input, purpose, self.options.dimensions);
        let request = self.authorized(self.client.post(self.url.clone()).json(&body));
        let answer = http::send(request, &self.url).await?.good(&self.url)?;
        let vectors = self.options.api.vectors(&answer.body, input.len()).map_err(|unreadable| match unreadable {
            Unreadable::NotFinite => {
                PortError::poison("the embedder's vector for one of the texts holds a number that is not finite")
                    .because(Server::Embedder, Cause::NotFinite)
            }
            // One text is to blame, or their number: which, fewer texts tell.
            Unreadable::Count(found) => {
                let (count, url) = (input.len(), shown(&self.url));
                PortError::poison(format!("the embedder at {url} answered {count} texts with {found} vectors"))
                    .because(Server::Embedder, Cause::Refused)
            }
            Unreadable::Answer(cause) => garbled(&self.url, cause),
        })?;
        let dimension = vectors.first().map_or(0, Vec::len);
        for (place, vector) in vectors.iter().enumerate() {
            if vector.len() != dimension {
                return Err(garbled(&self.url, "its vectors differ in length"));
            }
            check::usable(vector, dimension, first + place)?;
        }
        Ok(vectors)
    }
}

#[async_trait]
impl Embedder for RemoteClient {
    async fn info(&self) -> PortResult<EmbedderInfo> {
        let Known { said, dimension } = self.known().await?;
        Ok(EmbedderInfo {
            model: said.model.clone().unwrap_or_else(|| self.options.model.clone()),
            // Many tell nothing of their model's version.
            revision: format!("{}{}", said.revision.as_deref().unwrap_or_default(), self.options.passage_prefix),
            dimension: *dimension,
            max_tokens: self.room(said.max_tokens),
        })
    }

    async fn tokens(&self) -> PortResult<Arc<dyn Tokens>> {
        Ok(Arc::new(Estimate))
    }

    async fn embed(&self, texts: &[String], purpose: Purpose) -> PortResult<Vectors> {
        let Known { said, dimension } = self.known().await?;
        let dimension = *dimension;
        let most = said.batch.map_or(self.options.batch, |most| most.min(self.options.batch));
        let batch = self.limit.size(most);
        let mut first = 0;
        let mut requests = Vec::new();
        for list in within(texts, batch, REQUEST_BYTES) {
            requests.push(self.list(list, purpose, first));
            first += list.len();
        }
        let parts: Vec<Vec<Vec<f32>>> =
            stream::iter(requests).buffered(self.options.concurrency.max(1)).try_collect().await?;
        let mut values = Vec::with_capacity(texts.len() * dimension);
        for vector in parts.iter().flatten() {
            if vector.len() != dimension {
                let message = format!("a vector of {} numbers came, those before had {dimension}", vector.len());
                return Err(
                    PortError::fatal(message).with_hint("the remote model was replaced: index anew with the new one")
                );
            }
            values.extend_from_slice(vector);
        }
        Vectors::new(dimension, values).ok_or_else(|| garbled(&self.url, "its vectors differ in length"))
    }
}
