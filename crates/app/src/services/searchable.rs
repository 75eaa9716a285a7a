//! `GET /searchable?since=…&timeout=…`: the wait of `tidewheel wait` over HTTP.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tidewheel_ops::wait::Waiter;

use crate::exit::Failure;
use crate::settings::{Settings, parse_duration};
use crate::{compose, since};

/// Default timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum timeout of a request.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
struct Asked {
    since: Option<String>,
    timeout: Option<String>,
}

/// The route. 200: searchable; 504: timed out; 400: invalid parameter; 503: a server did not answer.
pub(crate) fn router(settings: &Settings) -> Result<Router, Failure> {
    let waiter = Arc::new(compose::waiter(settings)?);
    Ok(Router::new().route("/searchable", get(searchable)).with_state(waiter))
}

async fn searchable(State(waiter): State<Arc<Waiter>>, Query(asked): Query<Asked>) -> Response {
    let refused = |failure: &Failure, status| {
        (status, Json(json!({"error": failure.message, "hint": failure.hint}))).into_response()
    };
    let timeout = match asked.timeout.as_deref().map(|text| parse_duration(text).ok_or(text)) {
        None => TIMEOUT,
        Some(Ok(timeout)) => timeout.min(LONGEST),
        Some(Err(text)) => {
            let failure =
                Failure::new(format!("invalid timeout {text:?}")).with_hint("use a duration such as 500ms or 10s");
            return refused(&failure, StatusCode::BAD_REQUEST);
        }
    };
    let since = match since::parse(&asked.since.unwrap_or_default(), SystemTime::now()) {
        Ok(since) => since,
        Err(failure) => return refused(&failure, StatusCode::BAD_REQUEST),
    };
    match waiter.wait(since, timeout).await {
        Ok(waited) => {
            let status = if waited.searchable { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT };
            (status, Json(waited)).into_response()
        }
        Err(error) => refused(&error.into(), StatusCode::SERVICE_UNAVAILABLE),
    }
}
