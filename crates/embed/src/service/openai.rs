//! `POST /v1/embeddings` in OpenAI's format.
//!
//! Follows OpenAI's API reference ("Create embeddings") with one restriction: `model`, if given, must select a served
//! model, and `dimensions` must be its dimension, because a vector of a different model would be worse than an error.
//! Token ids are those of the model's tokenizer, without special tokens.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tidewheel_core::ports::Purpose;

use super::error::ApiError;
use super::models::Model;
use super::vectors;
use super::{Embedded, Service};
use tidewheel_engine::tokens::Encoding;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmbeddingsRequest {
    input: Input,
    model: Option<String>,
    dimensions: Option<usize>,
    #[serde(default)]
    encoding_format: Format,
    /// OpenAI's end-user identifier. Ignored.
    #[serde(rename = "user")]
    _user: Option<String>,
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "input must be a string, an array of strings, an array of token ids, or an array of such arrays"
)]
enum Input {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    TokenLists(Vec<Vec<u32>>),
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Float,
    Base64,
}

#[derive(Serialize)]
struct EmbeddingsAnswer<'a> {
    object: &'static str,
    data: Vec<Item<'a>>,
    model: &'a str,
    usage: Usage,
}

#[derive(Serialize)]
struct Item<'a> {
    object: &'static str,
    index: usize,
    embedding: Embedding<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Embedding<'a> {
    Float(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

/// `POST /v1/embeddings`.
pub(super) async fn embeddings(State(service): State<Service>, request: Request) -> Response {
    match answer(&service, request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_openai(),
    }
}

async fn answer(service: &Service, request: Request) -> Result<Response, ApiError> {
    let mut body = service.reader().json::<EmbeddingsRequest>(request).await?;
    let asked = &body.content;
    let model = service.model(asked.model.as_deref())?;
    let (id, dimension) = (&model.info.engine.model, model.dimension());
    if let Some(asked) = asked.dimensions.filter(|asked| *asked != dimension) {
        return Err(ApiError::bad_request(format!("model {id:?} has {dimension} dimensions, not {asked}")));
    }
    let format = asked.encoding_format;
    let Embedded { values, tokens } = match std::mem::replace(&mut body.content.input, Input::Texts(Vec::new())) {
        Input::Text(text) => service.embed(&model, vec![text], Purpose::Passage, true, body).await?,
        Input::Texts(texts) => {
            not_empty(&texts)?;
            service.embed(&model, texts, Purpose::Passage, true, body).await?
        }
        Input::Tokens(ids) => {
            drop(body);
            service.embed_tokens(&model, vec![with_specials(&model, ids)?]).await?
        }
        Input::TokenLists(lists) => {
            drop(body);
            not_empty(&lists)?;
            let lists: Result<_, _> = lists.into_iter().map(|ids| with_specials(&model, ids)).collect();
            service.embed_tokens(&model, lists?).await?
        }
    };
    let data = values.chunks_exact(dimension).enumerate().map(|(index, vector)| Item {
        object: "embedding",
        index,
        embedding: match format {
            Format::Float => Embedding::Float(vector),
            Format::Base64 => Embedding::Base64(STANDARD.encode(vectors::little_endian(vector))),
        },
    });
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    Ok(vectors::json(&EmbeddingsAnswer { object: "list", data: data.collect(), model: id, usage }, values.len()))
}

fn not_empty<T>(inputs: &[T]) -> Result<(), ApiError> {
    if inputs.is_empty() {
        return Err(ApiError::bad_request("input is an empty array: expected at least one text"));
    }
    Ok(())
}

/// Truncates ids to the model's maximum and adds its special tokens.
fn with_specials(model: &Model, mut ids: Vec<u32>) -> Result<Encoding, ApiError> {
    if ids.is_empty() {
        return Err(ApiError::bad_request("input contains an empty token array: expected at least one token"));
    }
    // The encoding of an empty text is only special tokens. Of an odd number, the larger half goes in front.
    let specials = model.engine.tokenize("").ids;
    let (before, after) = specials.split_at(specials.len().div_ceil(2));
    ids.truncate(model.info.engine.max_tokens.saturating_sub(specials.len()));
    Ok(Encoding::new([before, &ids, after].concat()))
}

/// Fallback for an unsupported method.
pub(super) async fn wrong_method() -> Response {
    let refusal = ApiError {
        status: StatusCode::METHOD_NOT_ALLOWED,
        ..ApiError::bad_request("/v1/embeddings supports only POST")
    };
    refusal.into_openai()
}
