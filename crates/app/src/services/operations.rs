//! The operations server: `/health`, `/ready`, `/metrics`, `/searchable`.
//!
//! `/health` is the liveness probe: it answers while the process runs. `/ready` reports whether every service here is ready,
//! and otherwise the reasons.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tidewheel_serving::{Access, Gate, Guard, Server};
use tidewheel_telemetry::recorder::Metrics;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::Ready;
use crate::exit::Failure;
use crate::overview::{Looker, gauges};
use crate::serving::{self, Need, Surface};
use crate::settings::Serving;

/// Timeout of a scrape for each server; numbers of unreachable servers are omitted or NaN.
pub(super) const SCRAPE: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    services: Vec<(&'static str, Ready)>,
    looker: Looker,
    metrics: Metrics,
}

/// The operations server.
const SURFACE: Surface = Surface { name: "the operations server", table: "http", token: Need::Advised };

/// Binds the address.
pub(super) async fn bind(address: &str, serving: &Serving) -> Result<Server, Failure> {
    serving::bind(&SURFACE, address, serving).await
}

/// Serves until `shutdown`.
pub(super) async fn serve(
    server: Server,
    settings: Serving,
    services: Vec<(&'static str, Ready)>,
    looker: Looker,
    metrics: Metrics,
    more: Router,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    if let Ok(address) = server.local_addr() {
        info!(%address, "operations: /health, /ready, /metrics, /searchable");
    }
    let gate = Arc::new(Gate::new("operations", settings.token));
    let guarded = Router::new().route("/metrics", get(scrape));
    let guard = Guard::new("http.hosts", &settings.hosts).with_network_names(!server.is_loopback());
    // Liveness and readiness probes need no token.
    let router =
        Router::new().route("/health", get(|| async { Json(json!({"status": "ok"})) })).route("/ready", get(ready));
    let shared = Shared(Arc::new(Inner { services, looker, metrics }));
    let router = guarded
        .with_state(shared.clone())
        .merge(more)
        .route_layer(from_fn_with_state(gate, with_token))
        .merge(router.with_state(shared));
    // Open connections must not block the shutdown.
    tokio::select! {
        () = server.serve(guard.protect(router), std::future::pending()) => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

async fn with_token(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let (status, message) = match gate.check(&request) {
        Access::Granted => return next.run(request).await,
        Access::Missing | Access::Wrong => (StatusCode::UNAUTHORIZED, "missing or wrong token"),
        Access::TooMany(_) => (StatusCode::TOO_MANY_REQUESTS, "too many wrong tokens from this address"),
    };
    let body = Json(json!({"error": message, "hint": "send http.token as Authorization: Bearer"}));
    (status, [(header::WWW_AUTHENTICATE, "Bearer")], body).into_response()
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
    gauges::record(&shared.looker.look().await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], shared.metrics.render()).into_response()
}
