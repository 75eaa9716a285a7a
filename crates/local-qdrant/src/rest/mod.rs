//! Qdrant's REST API.

mod body;
mod collections;
mod points;
mod reply;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::Uri;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use serde_json::json;
use tidewheel_serving::{Guard, Server};
use tokio::net::TcpListener;

use super::auth::ApiKey;
use super::catalog::Catalog;
use super::error::ApiError;
use super::{MAX_BODY, TITLE, VERSION};

type Shared = State<Arc<Catalog>>;
type Answer = Result<Response, ApiError>;

/// Serves until `shutdown`, then drains the requests in flight.
pub(super) async fn serve(
    listener: TcpListener,
    catalog: Arc<Catalog>,
    api_key: ApiKey,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let server = Server::new(listener);
    // Off loopback the host names of this machine are unknown, and the API key protects the server.
    let guard = Guard::for_development(server.is_loopback());
    server.serve(router(catalog, api_key, guard), shutdown).await;
}

fn router(catalog: Arc<Catalog>, api_key: ApiKey, guard: Guard) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/healthz", get(|| async { "healthz check passed" }))
        .route("/livez", get(|| async { "healthz check passed" }))
        .route("/readyz", get(|| async { "all shards are ready" }))
        .route("/collections", get(collections::list))
        .route("/collections/aliases", post(collections::change_aliases))
        .route("/aliases", get(collections::aliases))
        .route(
            "/collections/{name}",
            get(collections::info).put(collections::create).patch(collections::update).delete(collections::delete),
        )
        .route("/collections/{name}/exists", get(collections::exists))
        .route("/collections/{name}/aliases", get(collections::collection_aliases))
        .route("/collections/{name}/index", put(points::create_index))
        .route("/collections/{name}/index/{field}", delete(points::delete_index))
        .route("/collections/{name}/facet", post(points::facet))
        .route("/collections/{name}/points", put(points::upsert).post(points::retrieve))
        .route("/collections/{name}/points/{id}", get(points::get))
        .route("/collections/{name}/points/delete", post(points::delete))
        .route("/collections/{name}/points/scroll", post(points::scroll))
        .route("/collections/{name}/points/count", post(points::count))
        .route("/collections/{name}/points/search", post(points::search))
        .route("/collections/{name}/points/search/batch", post(points::search_batch))
        .route("/collections/{name}/points/query", post(points::query))
        .route("/collections/{name}/points/query/batch", post(points::query_batch))
        .route("/collections/{name}/points/batch", post(points::batch))
        .route("/collections/{name}/points/vectors", put(points::update_vectors))
        .route("/collections/{name}/points/payload", post(points::set_payload).put(points::overwrite_payload))
        .route("/collections/{name}/points/payload/delete", post(points::delete_payload))
        .route("/collections/{name}/points/payload/clear", post(points::clear_payload))
        .fallback(unknown)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(api_key, authorize))
        .layer(middleware::from_fn_with_state(Arc::new(guard), reject_web_pages))
        .with_state(catalog)
}

/// Rejects requests from web pages, in the form of Qdrant's errors. Every page in the user's browser can send requests to
/// loopback.
async fn reject_web_pages(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.judge(&request) {
        Ok(()) => next.run(request).await,
        Err(rejection) => {
            (rejection.status, Json(json!({"status": {"error": rejection.message}, "time": 0.0}))).into_response()
        }
    }
}

async fn root() -> Response {
    Json(json!({"title": TITLE, "version": VERSION})).into_response()
}

async fn unknown(uri: Uri) -> ApiError {
    ApiError::NotFound(format!("{} is unknown to tidewheel's local Qdrant", uri.path()))
}

/// Paths that require no key, as in Qdrant.
const OPEN_PATHS: &[&str] = &["/", "/healthz", "/livez", "/readyz"];

async fn authorize(State(key): State<ApiKey>, request: Request, next: Next) -> Response {
    if !OPEN_PATHS.contains(&request.uri().path())
        && let Err(denied) = key.check(&request)
    {
        return denied.into_rest();
    }
    next.run(request).await
}
