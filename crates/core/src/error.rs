//! Errors of the ports, and the one classification that retry, dead letters and exit codes rest on.

use std::fmt;
use std::time::Duration;

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// It will pass: wait and try again, for ever, without holding it against the document.
    Transient,
    /// This input will never work, however often it is tried; its neighbours may.
    Poison,
    /// Nothing will work until a person changes something: stop the service and say so.
    Fatal,
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Poison => "poison",
            Self::Fatal => "fatal",
        })
    }
}

/// A failure of something behind a port.
///
/// The message says what failed, on which object, caused by what; the hint says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// What to do about it.
    pub class: ErrorClass,
    /// What failed, on which object, caused by what.
    pub message: String,
    /// What a person can do, where that is known.
    pub hint: Option<String>,
    /// How long the other side asked us to wait (an HTTP `Retry-After`).
    pub retry_after: Option<Duration>,
}

impl PortError {
    /// A failure that will pass.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::of(ErrorClass::Transient, message)
    }

    /// A failure of this one input.
    pub fn poison(message: impl Into<String>) -> Self {
        Self::of(ErrorClass::Poison, message)
    }

    /// A failure that needs a person.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::of(ErrorClass::Fatal, message)
    }

    fn of(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), hint: None, retry_after: None }
    }

    /// The same failure with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with the wait that the other side asked for.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }
}
