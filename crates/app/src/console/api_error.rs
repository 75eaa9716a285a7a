//! Request errors as JSON: `{"error": …, "hint": …}`.

use axum::Json;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tidewheel_core::error::{ErrorClass, PortError};

use crate::exit::Failure;

/// A request error.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
    hint: Option<String>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), hint: None }
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(json!({"error": self.message, "hint": self.hint}))).into_response()
    }
}

impl From<PortError> for ApiError {
    /// A transient error of a server is a bad gateway; any other is an unprocessable request.
    fn from(error: PortError) -> Self {
        let status = match error.class {
            ErrorClass::Transient => StatusCode::BAD_GATEWAY,
            _ => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self { status, message: error.message, hint: error.hint }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, message: failure.message, hint: failure.hint }
    }
}

/// Rejects an unsupported method on an existing path.
pub(super) async fn wrong_method(request: Request) -> ApiError {
    let message = format!("{} does not support {}", request.uri().path(), request.method());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
