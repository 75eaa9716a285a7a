//! Port errors and their classification, which decides retries, dead letters and exit codes.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The class of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Temporary: retry without limit, without counting it against the document.
    Transient,
    /// This input fails on every attempt; others in the batch may succeed.
    Poison,
    /// Needs an operator: stop the service and report the cause.
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

/// A failure of a server behind a port.
///
/// The message names the failed operation, its object and the cause; the hint names the fix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// Its class.
    pub class: ErrorClass,
    /// The failed operation, its object and the cause.
    pub message: String,
    /// The fix, if known.
    pub hint: Option<String>,
    /// The delay requested by the server (an HTTP `Retry-After`).
    pub retry_after: Option<Duration>,
    /// The server that failed, for metrics.
    pub server: Server,
    /// The cause, for metrics.
    pub cause: Cause,
    /// Number of failures with this input while the server worked for others, at least 1.
    pub attempts: u32,
    /// The error of the client library, whose text the message contains.
    #[source]
    pub source: Option<Source>,
}

/// The error of a client library below a [`PortError`]. Two are equal if their texts are.
#[derive(Clone)]
pub struct Source(Arc<dyn Error + Send + Sync>);

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Prints the text only: the fields of a client's error may hold an address with a password.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.to_string())
    }
}

impl Error for Source {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_string() == other.0.to_string()
    }
}

impl Eq for Source {}

/// The server that failed, as its adapter names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    name: &'static str,
    judges_documents: bool,
}

impl Server {
    /// The embedder, whose vectors the processor checks too.
    pub const EMBEDDER: Self = Self::named("embedder");

    /// An unknown server, or none.
    pub const OTHER: Self = Self::named("other");

    /// A server that looks into documents, so that any of its errors may be caused by one.
    pub const fn named(name: &'static str) -> Self {
        Self { name, judges_documents: true }
    }

    /// A server that stores documents unseen: none of them causes a fatal error.
    pub const fn opaque(name: &'static str) -> Self {
        Self { name, judges_documents: false }
    }

    /// Its name in labels.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// Whether a document can be the cause of a fatal error.
    pub fn judges_documents(self) -> bool {
        self.judges_documents
    }
}

/// The cause of a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The connection failed or broke.
    Unreachable,
    /// The request timed out.
    Timeout,
    /// The server is at a limit.
    Busy,
    /// The server has no space left.
    Full,
    /// The server rejects this input.
    Refused,
    /// The input exceeds a length limit of the server, which accepts the same content in smaller parts.
    TooLong,
    /// The server denies access.
    Denied,
    /// A vector holds a number that is not finite.
    NotFinite,
    /// A vector is zero, so it has no direction.
    Zero,
    /// A newer release has written the data.
    Newer,
    /// Any other cause.
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
            Self::Newer => "newer",
            Self::Other => "other",
        }
    }
}

impl PortError {
    /// A transient failure.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    /// A failure caused by this input.
    pub fn poison(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Poison, message)
    }

    /// A failure that needs an operator.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Fatal, message)
    }

    /// A failure of this class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            hint: None,
            retry_after: None,
            server: Server::OTHER,
            cause: Cause::Other,
            attempts: 1,
            source: None,
        }
    }

    /// The same failure with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with its server and cause.
    #[must_use]
    pub fn because(mut self, server: Server, cause: Cause) -> Self {
        (self.server, self.cause) = (server, cause);
        self
    }

    /// The same failure with the error of the client library. Must not print secrets.
    #[must_use]
    pub fn with_source(mut self, source: impl Error + Send + Sync + 'static) -> Self {
        self.source = Some(Source(Arc::new(source)));
        self
    }

    /// The same failure with the delay that the server requested.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }
}

/// The cause of a failure after this time without an answer.
pub fn no_answer_within(timeout: Duration) -> String {
    format!("no answer within {} s", timeout.as_secs_f64())
}

/// Formats an error with its chain of causes, each cause once: the outermost message of a failed connection omits the
/// reason.
pub fn with_causes(error: &dyn Error) -> String {
    and_causes(error.to_string(), error)
}

/// Appends the causes of an error to another text for it, each cause once.
pub fn and_causes(mut text: String, error: &dyn Error) -> String {
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
    fn causes_are_listed_in_order_without_duplicates() {
        let innermost = Layer("refused", None);
        let middle = Layer("connect error: refused", Some(Box::new(innermost)));
        assert_eq!(with_causes(&Layer("no answer", Some(Box::new(middle)))), "no answer: connect error: refused");
        let layers = Layer("a", Some(Box::new(Layer("b", None))));
        assert_eq!(with_causes(&layers), "a: b");
        assert_eq!(and_causes("no answer".to_owned(), &layers), "no answer: b");
    }

    #[test]
    fn port_error_keeps_the_chain_of_causes_and_prints_its_text_only() {
        let reset = Layer("connection reset", Some(Box::new(Layer("os error 104", None))));
        let error = PortError::transient("failed to read").with_source(reset);
        assert_eq!(with_causes(&error), "failed to read: connection reset: os error 104");
        assert!(format!("{error:?}").contains("source: Some(\"connection reset\")"), "{error:?}");
        assert_eq!(error, error.clone());
    }
}
