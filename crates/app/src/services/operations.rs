//! The operations server: `/health`, `/ready`, `/metrics`, `/searchable`.
//!
//! `/health` is the liveness probe: it answers while the process runs. `/ready` reports whether every service here is ready,
//! and otherwise the reasons.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::{Map, Value, json};
use tidewheel_ops::overview::Looker;
use tidewheel_ops::wait::Waiter;
use tidewheel_serving::{Access, Gate, Guard, Routes, Server};
use tidewheel_telemetry::recorder::Metrics;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{Ready, searchable};
use crate::exit::Failure;
use crate::overview::gauges::Gauges;
use crate::serving::{self, Need, Surface};
use crate::settings::Serving;

/// Timeout of a scrape for each server; numbers of unreachable servers are omitted or NaN.
pub(super) const SCRAPE: Duration = Duration::from_secs(2);

/// What the requests need.
pub(super) struct Operations {
    pub(super) services: Vec<(&'static str, Ready)>,
    pub(super) looker: Looker,
    pub(super) metrics: Metrics,
    pub(super) gauges: Gauges,
    pub(super) waiter: Waiter,
    /// URL of the console, if this process serves it.
    pub(super) console: Option<String>,
}

/// State shared by all requests.
pub(super) type Shared = State<Arc<Operations>>;

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
    operations: Operations,
    shutdown: CancellationToken,
) -> Result<(), Failure> {
    if let Ok(address) = server.local_addr() {
        info!(%address, "operations: /health, /ready, /metrics, /searchable");
    }
    let guard = Guard::new("http.hosts", &settings.hosts).with_network_names(!server.is_loopback());
    let router = routes(Gate::new("operations", settings.token)).into_router().with_state(Arc::new(operations));
    // Open connections must not block the shutdown.
    tokio::select! {
        () = server.serve(guard.protect(router), std::future::pending()) => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

fn routes(gate: Gate) -> Routes<Arc<Operations>> {
    let guarded = Routes::default()
        .get("/", console)
        .get("/metrics", scrape)
        .get("/searchable", searchable::searchable)
        .map(|router| router.route_layer(from_fn_with_state(Arc::new(gate), with_token)));
    // Liveness and readiness probes need no token.
    Routes::default().get("/health", health).get("/ready", ready).merge(guarded)
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

/// Redirects browsers to the console.
async fn console(State(operations): Shared) -> Response {
    match &operations.console {
        Some(url) => Redirect::temporary(url).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

async fn ready(State(operations): Shared) -> Response {
    let mut all = true;
    let mut services = Map::new();
    for (name, readiness) in &operations.services {
        let readiness = readiness();
        all &= readiness.ready;
        let detail = json!({"ready": readiness.ready, "reasons": readiness.reasons});
        services.insert((*name).to_owned(), detail);
    }
    let status = if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": all, "services": Value::Object(services)}))).into_response()
}

async fn scrape(State(operations): Shared) -> Response {
    for (name, readiness) in &operations.services {
        Metrics::ready(name, readiness().ready);
    }
    operations.gauges.record(&operations.looker.look().await);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], operations.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use tidewheel_testkit::openapi;

    use super::*;

    #[test]
    fn openapi_document_lists_exactly_the_served_routes() {
        let routes = routes(Gate::new("operations", None));
        assert_eq!(*routes.names(), openapi::operations("operations.yaml"));
    }
}
