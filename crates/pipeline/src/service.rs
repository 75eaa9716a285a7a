//! What all services have in common: how they end.

use tidewheel_core::error::PortError;

/// Why a service had to stop although nobody asked it to: a person has to change something first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{service}: {message}")]
pub struct ServiceError {
    /// The service.
    pub service: &'static str,
    /// What failed, on which object, caused by what.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl ServiceError {
    /// The end of `service` because of `error`.
    pub fn new(service: &'static str, error: PortError) -> Self {
        Self { service, message: error.message, hint: error.hint }
    }
}
