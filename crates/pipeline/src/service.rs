//! The error type of all services.

use tidewheel_core::error::PortError;

/// The reason why a service stopped without a shutdown request: an operator has to fix the cause first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{service}: {message}")]
pub struct ServiceError {
    /// The service.
    pub service: &'static str,
    /// The failed operation, its object and the cause.
    pub message: String,
    /// How to fix it.
    pub hint: Option<String>,
}

impl ServiceError {
    /// The failure of `service` with `error`.
    pub fn new(service: &'static str, error: PortError) -> Self {
        Self { service, message: error.message, hint: error.hint }
    }
}
