//! The client of everything that answers `/v1/embeddings` in OpenAI's form.
//!
//! Vectors are passed on as they come: Qdrant normalises what goes into a cosine collection.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};
use tidewheel_core::embedded::Vectors;
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::ports::{Embedder, EmbedderInfo, PortResult, Purpose};
use tidewheel_core::secret::Secret;
use tidewheel_core::tokens::{Tokens, Words};
use tokio::sync::OnceCell;

use super::check;
use super::http::{self, garbled};
use super::limiter::Limiter;
use super::tidewheel::within;

/// Most bytes of text in one request. OpenAI takes 300,000 tokens at once, which is about a megabyte of English and half
/// of that in scripts where nearly every sign is a token.
const REQUEST_BYTES: usize = 512 << 10;

/// How to use the service.
#[derive(Clone, Debug)]
pub struct OpenAiOptions {
    /// Where it is: `https://api.openai.com/v1`, `http://127.0.0.1:11434`. Without a path, `/v1/embeddings` is meant;
    /// with one, `/embeddings` behind it, unless it is there already.
    pub url: String,
    /// Sent as a bearer token, if there is one.
    pub key: Option<Secret>,
    /// The model to ask for.
    pub model: String,
    /// Asks for vectors of this length, which some models offer. `None` leaves it to the model.
    pub dimensions: Option<usize>,
    /// Most tokens of a text. They are estimated here, as the vocabulary is not known, so leave a margin.
    pub max_tokens: usize,
    /// Most texts in one request: 2,048 for OpenAI, 32 for text-embeddings-inference unless it is told otherwise.
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
}

impl OpenAiOptions {
    /// A model of a service without limits and without a key.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            key: None,
            model: model.into(),
            dimensions: None,
            // OpenAI's models take 8,191. Shorter chunks are found better, and an estimate may be off by half.
            max_tokens: 2048,
            batch: 128,
            concurrency: 4,
            requests_per_minute: None,
            tokens_per_minute: None,
            query_prefix: String::new(),
            passage_prefix: String::new(),
            timeout: Duration::from_secs(60),
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct Reply {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: Option<usize>,
    /// Some servers write a number that is not finite as null.
    embedding: Vec<Option<f32>>,
}

/// Speaks to a service in OpenAI's form. Learns the dimension by embedding one word, once.
pub struct OpenAiClient {
    client: Client,
    url: Url,
    options: OpenAiOptions,
    limiter: Limiter,
    dimension: OnceCell<usize>,
}

impl OpenAiClient {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    /// The URL is none, or no model is named.
    pub fn new(options: OpenAiOptions) -> PortResult<Self> {
        if options.model.is_empty() {
            return Err(PortError::fatal("no model is named for the remote embedder").with_hint("set embedding.model"));
        }
        Ok(Self {
            client: http::client(options.timeout)?,
            url: endpoint(http::parse(&options.url)?),
            limiter: Limiter::new(options.requests_per_minute, options.tokens_per_minute),
            dimension: OnceCell::new(),
            options,
        })
    }

    async fn dimension(&self) -> PortResult<usize> {
        self.dimension.get_or_try_init(|| self.probe()).await.copied()
    }

    /// The dimension, learned from a text that every model can embed.
    async fn probe(&self) -> PortResult<usize> {
        let vectors = self.request(&["tidewheel".to_owned()], Purpose::Passage, 0).await.map_err(|error| {
            if error.class != ErrorClass::Poison {
                return error;
            }
            // Not the text is to blame but the settings. As poison it would send every document to the dead letters.
            PortError { class: ErrorClass::Fatal, ..error }.with_hint("check embedding.model and embedding.dimensions")
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
            if self.limiter.counts_tokens() { input.iter().map(|text| Words.spans(text).len()).sum() } else { 0 };
        self.limiter.admit(tokens).await;

        let body = Body { model: &self.options.model, input: &input, dimensions: self.options.dimensions };
        let mut request = self.client.post(self.url.clone()).json(&body);
        if let Some(key) = &self.options.key {
            request = request.bearer_auth(key.reveal());
        }
        let answer = http::send(request, &self.url).await?.good(&self.url)?;
        let reply: Reply =
            serde_json::from_slice(&answer.body).map_err(|cause| not_understood(&self.url, &answer.body, &cause))?;
        let vectors = in_order(reply.data, input.len()).map_err(|cause| garbled(&self.url, cause))?;
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
impl Embedder for OpenAiClient {
    async fn info(&self) -> PortResult<EmbedderInfo> {
        let dimension = self.dimension().await?;
        Ok(EmbedderInfo {
            model: self.options.model.clone(),
            // Such a service does not tell what else a vector depends on.
            revision: self.options.passage_prefix.clone(),
            dimension,
            max_tokens: self.options.max_tokens,
        })
    }

    async fn tokens(&self) -> PortResult<Arc<dyn Tokens>> {
        Ok(Arc::new(Words))
    }

    async fn embed(&self, texts: &[String], purpose: Purpose) -> PortResult<Vectors> {
        let dimension = self.dimension().await?;
        let mut first = 0;
        let mut requests = Vec::new();
        for list in within(texts, self.options.batch, REQUEST_BYTES) {
            requests.push(self.request(list, purpose, first));
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

/// Where to send requests to.
fn endpoint(mut url: Url) -> Url {
    let path = url.path().trim_end_matches('/');
    let path = match path {
        "" => "/v1/embeddings".to_owned(),
        path if path.ends_with("/embeddings") => path.to_owned(),
        path => format!("{path}/embeddings"),
    };
    url.set_path(&path);
    url
}

/// The vectors in the order of the texts. What was not a number becomes NaN, which the check finds.
fn in_order(items: Vec<Item>, count: usize) -> Result<Vec<Vec<f32>>, String> {
    if items.len() != count {
        return Err(format!("{} vectors came for {count} texts", items.len()));
    }
    let mut vectors: Vec<Option<Vec<f32>>> = vec![None; count];
    for (place, item) in items.into_iter().enumerate() {
        let index = item.index.unwrap_or(place);
        let slot = vectors.get_mut(index).filter(|slot| slot.is_none());
        let slot = slot.ok_or_else(|| format!("the index {index} does not fit a list of {count} texts"))?;
        *slot = Some(item.embedding.into_iter().map(|value| value.unwrap_or(f32::NAN)).collect());
    }
    vectors.into_iter().collect::<Option<_>>().ok_or_else(|| "an index is missing".to_owned())
}

/// Servers written in Python may answer with the literal NaN, which is no JSON: then a text is to blame, not the server.
fn not_understood(url: &Url, body: &[u8], cause: &serde_json::Error) -> PortError {
    let has = |word: &[u8]| body.windows(word.len()).any(|window| window == word);
    // What is too large for an f32 is not finite either.
    let too_large = cause.to_string().starts_with("number out of range");
    if has(b"\"embedding\"") && (has(b"NaN") || has(b"Infinity") || too_large) {
        return PortError::poison("the embedder's vector for one of the texts holds a number that is not finite");
    }
    garbled(url, cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_follows_from_what_people_write() {
        for (given, expected) in [
            ("https://api.openai.com", "https://api.openai.com/v1/embeddings"),
            ("https://api.openai.com/v1", "https://api.openai.com/v1/embeddings"),
            ("https://api.openai.com/v1/", "https://api.openai.com/v1/embeddings"),
            ("http://127.0.0.1:11434/v1/embeddings", "http://127.0.0.1:11434/v1/embeddings"),
            (
                "https://host/openai/deployments/x?api-version=1",
                "https://host/openai/deployments/x/embeddings?api-version=1",
            ),
        ] {
            assert_eq!(endpoint(http::parse(given).unwrap()).as_str(), expected, "{given}");
        }
    }

    #[test]
    fn vectors_are_put_in_order_by_their_index() {
        let item = |index, value| Item { index, embedding: vec![Some(value)] };
        let ordered = in_order(vec![item(Some(1), 1.0), item(Some(0), 0.0)], 2).unwrap();
        assert_eq!(ordered, [[0.0], [1.0]]);
        assert_eq!(in_order(vec![item(None, 0.0), item(None, 1.0)], 2).unwrap(), [[0.0], [1.0]]);
        assert!(in_order(vec![item(Some(0), 0.0), item(Some(0), 1.0)], 2).is_err());
        assert!(in_order(vec![item(Some(2), 0.0)], 1).is_err());
        assert!(in_order(vec![item(None, 0.0)], 2).is_err());
    }
}
