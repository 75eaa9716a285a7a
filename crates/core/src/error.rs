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
    /// Who failed, for those who count.
    pub server: Server,
    /// In which way, for those who count.
    pub cause: Cause,
}

/// Who failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Server {
    /// MongoDB.
    MongoDb,
    /// Redis.
    Redis,
    /// Whoever makes the vectors.
    Embedder,
    /// Qdrant.
    Qdrant,
    /// None of them, or nobody says.
    #[default]
    Other,
}

impl Server {
    /// Its name in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::MongoDb => "mongodb",
            Self::Redis => "redis",
            Self::Embedder => "embedder",
            Self::Qdrant => "qdrant",
            Self::Other => "other",
        }
    }
}

/// In which way something failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cause {
    /// There was no connection, or it broke.
    Unreachable,
    /// There was no answer in time.
    Timeout,
    /// The other side is at a limit.
    Busy,
    /// The other side has no space left.
    Full,
    /// The other side does not take this input.
    Refused,
    /// The input exceeds a length limit of the other side: the same content in smaller parts is accepted.
    TooLong,
    /// The other side does not let us.
    Denied,
    /// A vector holds a number that is not finite.
    NotFinite,
    /// A vector is zero, which has no direction.
    Zero,
    /// Something else.
    #[default]
    Other,
}

impl Cause {
    /// Its name in labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Busy => "busy",
            Self::Full => "full",
            Self::Refused => "refused",
            Self::TooLong => "too_long",
            Self::Denied => "denied",
            Self::NotFinite => "not_finite",
            Self::Zero => "zero",
            Self::Other => "other",
        }
    }
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
        Self {
            class,
            message: message.into(),
            hint: None,
            retry_after: None,
            server: Server::Other,
            cause: Cause::Other,
        }
    }

    /// The same failure with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with who failed and in which way.
    #[must_use]
    pub fn because(mut self, server: Server, cause: Cause) -> Self {
        (self.server, self.cause) = (server, cause);
        self
    }

    /// The same failure with the wait that the other side asked for.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }
}

/// An error with everything that caused it, each cause once: of a failed connection the outermost message alone does not say why.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Option<Box<Layer>>);

    #[test]
    fn causes_are_told_in_order_and_none_twice() {
        let innermost = Layer("refused", None);
        let middle = Layer("connect error: refused", Some(Box::new(innermost)));
        assert_eq!(with_causes(&Layer("no answer", Some(Box::new(middle)))), "no answer: connect error: refused");
        assert_eq!(with_causes(&Layer("a", Some(Box::new(Layer("b", None))))), "a: b");
    }
}
