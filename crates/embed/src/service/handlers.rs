//! Handlers of the native API and of the operational endpoints.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tidewheel_core::ports::{EmbedderLoad, Purpose};

use super::error::ApiError;
use super::vectors::{self, Rows};
use super::{Info, ServedModel, Service};

/// The purpose of a text, as written in a request.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Aim {
    #[default]
    Passage,
    Query,
}

impl From<Aim> for Purpose {
    fn from(aim: Aim) -> Self {
        match aim {
            Aim::Passage => Self::Passage,
            Aim::Query => Self::Query,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodeRequest {
    text: String,
    /// Selects a model; the default one if absent.
    model: Option<String>,
    #[serde(default)]
    purpose: Aim,
    /// Whether a text beyond the model's context length is truncated; otherwise the request is rejected.
    #[serde(default = "yes")]
    truncate: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EncodeBatchRequest {
    texts: Vec<String>,
    /// Selects a model; the default one if absent.
    model: Option<String>,
    #[serde(default)]
    purpose: Aim,
    /// Whether a text beyond the model's context length is truncated; otherwise the request is rejected.
    #[serde(default = "yes")]
    truncate: bool,
}

fn yes() -> bool {
    true
}

#[derive(Serialize)]
struct EncodeAnswer<'a> {
    embedding: &'a [f32],
}

#[derive(Serialize)]
struct EncodeBatchAnswer<'a> {
    embeddings: Rows<'a>,
}

/// `POST /encode`.
pub(super) async fn encode(State(service): State<Service>, request: Request) -> Result<Response, ApiError> {
    let binary = vectors::wants_binary(request.headers());
    let mut body = service.reader().json::<EncodeRequest>(request).await?;
    let model = service.model(body.content.model.as_deref())?;
    let (purpose, truncate) = (body.content.purpose.into(), body.content.truncate);
    let text = std::mem::take(&mut body.content.text);
    let values = service.embed(&model, vec![text], purpose, truncate, body).await?.values;
    if binary {
        return Ok(vectors::binary(&values, model.dimension(), &model.header));
    }
    Ok(vectors::json(&EncodeAnswer { embedding: &values }, values.len()))
}

/// `POST /encode_batch`.
pub(super) async fn encode_batch(State(service): State<Service>, request: Request) -> Result<Response, ApiError> {
    let binary = vectors::wants_binary(request.headers());
    let mut body = service.reader().json::<EncodeBatchRequest>(request).await?;
    let model = service.model(body.content.model.as_deref())?;
    let (purpose, truncate) = (body.content.purpose.into(), body.content.truncate);
    let texts = std::mem::take(&mut body.content.texts);
    let values = service.embed(&model, texts, purpose, truncate, body).await?.values;
    let dimension = model.dimension();
    if binary {
        return Ok(vectors::binary(&values, dimension, &model.header));
    }
    let embeddings = Rows { values: &values, dimension };
    Ok(vectors::json(&EncodeBatchAnswer { embeddings }, values.len()))
}

/// `GET /health`: liveness.
pub(super) async fn health() -> Response {
    axum::Json(json!({"status": "ok"})).into_response()
}

/// `GET /ready`: readiness. Requests are accepted, and queued work makes progress.
pub(super) async fn ready(State(service): State<Service>) -> Response {
    let (status, text) = match service.readiness() {
        Ok(()) => (StatusCode::OK, "ready"),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, why),
    };
    (status, axum::Json(json!({"status": text}))).into_response()
}

/// The query of a request without a body.
#[derive(Deserialize)]
pub(super) struct Asked {
    /// Selects a model; the default one if absent.
    model: Option<String>,
}

/// A parsed query, or the reason why it is invalid.
type AskedQuery = Result<Query<Asked>, QueryRejection>;

fn asked(query: AskedQuery) -> Result<Option<String>, ApiError> {
    let Query(Asked { model }) = query.map_err(|cause| ApiError::bad_request(cause.body_text()))?;
    Ok(model)
}

/// The response of `GET /info`.
#[derive(Serialize)]
struct InfoAnswer<'a> {
    /// The selected model.
    #[serde(flatten)]
    info: &'a Info,
    /// All models, the default one first.
    models: Vec<ServedModel>,
    load: EmbedderLoad,
}

/// `GET /info`.
pub(super) async fn info(State(service): State<Service>, query: AskedQuery) -> Result<Response, ApiError> {
    let model = service.model(asked(query)?.as_deref())?;
    let answer = InfoAnswer { info: &model.info, models: service.models(), load: service.load() };
    Ok(axum::Json(answer).into_response())
}

/// `GET /metrics`.
pub(super) async fn metrics(State(service): State<Service>) -> Result<Response, ApiError> {
    let render = service
        .options()
        .metrics
        .as_ref()
        .ok_or_else(|| ApiError::not_found("no_metrics", "metrics are disabled in this process"))?;
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], render()).into_response())
}

/// `GET /tokenizer`: the model's `tokenizer.json` with the settings of the neighbouring files applied.
pub(super) async fn tokenizer(State(service): State<Service>, query: AskedQuery) -> Result<Response, ApiError> {
    let model = service.model(asked(query)?.as_deref())?;
    let written = tokio::task::spawn_blocking(move || model.engine.tokenizer_json()).await;
    let written = written.map_err(|cause| ApiError::internal(format!("failed to serialize tokenizer: {cause}")))?;
    let Some(json) = written else {
        let message = "model has no tokenizer.json; tokens are runs of up to six letters and single symbols";
        let body = axum::Json(json!({"error": message, "tokenizer": "words"}));
        return Ok((StatusCode::NOT_FOUND, body).into_response());
    };
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response())
}

/// Fallback for unknown paths.
pub(super) async fn unknown(request: Request) -> ApiError {
    ApiError::not_found(
        "unknown_path",
        format!(
            "unknown path {}; available: POST /encode, /encode_batch, /v1/embeddings and GET /health, /ready, /info, /metrics, /tokenizer",
            request.uri().path()
        ),
    )
}

/// Fallback for a known path with an unsupported method.
pub(super) async fn wrong_method(request: Request) -> Response {
    let message = format!("{} does not support {}", request.uri().path(), request.method());
    (StatusCode::METHOD_NOT_ALLOWED, axum::Json(json!({"error": message}))).into_response()
}
