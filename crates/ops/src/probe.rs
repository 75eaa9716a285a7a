//! Results of probing a server.

use std::time::Duration;

use serde::{Serialize, Serializer};
use tidewheel_core::error::{PortError, no_answer_within};
use tidewheel_core::ports::PortResult;

/// What a server returned, or why it is unknown.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe<T> {
    /// The answer.
    Known(T),
    /// Why there is none.
    Unknown(String),
}

/// Waits for the answer of a server, at most this long.
///
/// # Errors
/// The error of the server, or a transient one if there is no answer in time.
pub async fn within<T>(timeout: Duration, answer: impl Future<Output = PortResult<T>>) -> PortResult<T> {
    let late = |_| Err(PortError::transient(no_answer_within(timeout)));
    tokio::time::timeout(timeout, answer).await.unwrap_or_else(late)
}

impl<T> Probe<T> {
    /// Waits for the answer of a server, at most this long.
    pub async fn within(timeout: Duration, answer: impl Future<Output = PortResult<T>>) -> Self {
        match within(timeout, answer).await {
            Ok(value) => Self::Known(value),
            Err(error) => Self::Unknown(error.message),
        }
    }

    /// The answer, if there is one.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Why there is no answer.
    pub fn error(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(error) => Some(error),
        }
    }

    /// Converts the value.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Probe<U> {
        match self {
            Self::Known(value) => Probe::Known(convert(value)),
            Self::Unknown(error) => Probe::Unknown(error),
        }
    }

    /// Borrows the value.
    pub fn as_ref(&self) -> Probe<&T> {
        match self {
            Self::Known(value) => Probe::Known(value),
            Self::Unknown(error) => Probe::Unknown(error.clone()),
        }
    }
}

impl<T: Serialize> Serialize for Probe<T> {
    /// As the value, or as `{"error": …}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Unknown<'a> {
            error: &'a str,
        }
        match self {
            Self::Known(value) => value.serialize(serializer),
            Self::Unknown(error) => Unknown { error }.serialize(serializer),
        }
    }
}
