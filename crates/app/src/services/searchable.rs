//! `GET /searchable?since=…&timeout=…&index=…`: the wait of `tidewheel wait` over HTTP.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tidewheel_core::catalog::IndexName;
use tidewheel_core::error::{Cause, ErrorClass};

use super::operations::Shared;
use crate::exit::Failure;
use crate::settings::parse_duration;
use crate::since;

/// Default timeout.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum timeout of a request.
const LONGEST: Duration = Duration::from_secs(300);

#[derive(Deserialize)]
pub(super) struct Asked {
    since: Option<String>,
    timeout: Option<String>,
    index: Option<String>,
}

/// 200: searchable; 504: timed out; 400: invalid parameter; 503: a server did not answer.
pub(super) async fn searchable(State(operations): Shared, Query(asked): Query<Asked>) -> Response {
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
    let index = asked.index.as_deref().map(IndexName::of_collection);
    match operations.waiter.wait(since, timeout, index.as_ref()).await {
        Ok(waited) => {
            let status = if waited.searchable { StatusCode::OK } else { StatusCode::GATEWAY_TIMEOUT };
            (status, Json(waited)).into_response()
        }
        Err(error) => {
            // An unknown index, unless this release cannot use the keys.
            let is_invalid = index.is_some() && error.class == ErrorClass::Fatal && error.cause != Cause::Newer;
            let status = if is_invalid { StatusCode::BAD_REQUEST } else { StatusCode::SERVICE_UNAVAILABLE };
            refused(&error.into(), status)
        }
    }
}
