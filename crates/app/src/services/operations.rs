//! The operations server: `/health`, `/ready`, `/metrics`, `/searchable`.
//!
//! Health says that the process answers; a supervisor restarts what does not. Readiness says that every service here can
//! do its work, and if not, why.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Ready;
use super::scrape::Metrics;
use crate::exit::Failure;
use crate::overview::Looker;

/// How long a scrape waits for each server. Without an answer the other numbers are shown alone.
pub(super) const SCRAPE: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    services: Vec<(&'static str, Ready)>,
    looker: Looker,
    metrics: Metrics,
}

/// Takes the address.
pub(super) async fn bind(address: &str) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::new(format!("the operations server cannot listen on {address}: {error}"))
            .with_hint("stop what listens there, or choose another address with http.listen (\"off\" for none)")
    })
}

/// Serves until `shutdown`.
pub(super) async fn serve(
    listener: TcpListener,
    services: Vec<(&'static str, Ready)>,
    looker: Looker,
    metrics: Metrics,
    more: Router,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    if let Ok(address) = listener.local_addr() {
        info!(%address, "operations: /health, /ready, /metrics, /searchable");
    }
    let router = Router::new()
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/ready", get(ready))
        .route("/metrics", get(scrape))
        .with_state(Shared(Arc::new(Inner { services, looker, metrics })))
        .merge(more);
    // A client that keeps its connection open must not hold up the shutdown.
    tokio::select! {
        served = axum::serve(listener, router) => {
            served.map_err(|error| Failure::new(format!("the operations server failed: {error}")))
        }
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn ready(State(Shared(shared)): State<Shared>) -> Response {
    let mut all = true;
    let mut services = Map::new();
    for (name, readiness) in &shared.services {
        let readiness = readiness();
        all &= readiness.ready;
        let detail = json!({"ready": readiness.ready, "reasons": readiness.reasons});
        services.insert((*name).to_owned(), detail);
    }
    let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": all, "services": Value::Object(services)}))).into_response()
}

async fn scrape(State(Shared(shared)): State<Shared>) -> Response {
    for (name, readiness) in &shared.services {
        Metrics::ready(name, readiness().ready);
    }
    Metrics::overview(&shared.looker.look().await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render()()).into_response()
}
