//! Classification of Qdrant errors for the pipeline.
//!
//! One pure function decides, so that the whole table is readable and testable in one place. Qdrant's gRPC codes alone
//! are not enough: a wrong dimension, a strict-mode limit and a malformed point share one code.

use std::time::Duration;

use tidewheel_core::error::{Cause, PortError, Server, and_causes};
use tonic::{Code, Status};

use super::redirect::REDIRECTS;

/// Qdrant in the labels of metrics.
pub(super) const SERVER: Server = Server::named("qdrant");

/// A call, for the error message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The action, such as "write 12 points".
    pub(super) what: &'a str,
    /// The collection; empty for a call about all of them.
    pub(super) collection: &'a str,
    /// The server's URL.
    pub(super) url: &'a str,
}

/// Whether the collection itself is missing.
///
/// A proxy or another service on the port returns `Unimplemented`, so `NotFound` comes from Qdrant.
pub(super) fn is_missing(status: &Status) -> bool {
    status.code() == Code::NotFound
}

/// Whether it was created concurrently. Older Qdrant versions return `InvalidArgument` for this.
pub(super) fn already_exists(status: &Status) -> bool {
    status.code() == Code::AlreadyExists
        || (status.code() == Code::InvalidArgument && status.message().contains("already exists"))
}

/// Classifies a call that failed in Qdrant or on the way to it.
pub(super) fn classify(call: Call<'_>, status: &Status) -> PortError {
    failure(call, status).because(SERVER, cause(status)).with_source(status.clone())
}

/// The cause label for metrics.
fn cause(status: &Status) -> Cause {
    let contains = |part: &str| status.message().contains(part);
    match status.code() {
        _ if is_full(status) => Cause::Full,
        Code::InvalidArgument if is_of_another_shape(status) => Cause::Other,
        Code::ResourceExhausted if contains("larger than") || contains("too large") => Cause::Refused,
        Code::DeadlineExceeded => Cause::Timeout,
        Code::Aborted if contains("WaitTimeout") => Cause::Timeout,
        // The client's own timeout.
        Code::Cancelled if status.message().contains("Timeout") => Cause::Timeout,
        Code::Unavailable | Code::Unknown | Code::Cancelled => Cause::Unreachable,
        Code::ResourceExhausted => Cause::Busy,
        Code::Unauthenticated | Code::PermissionDenied => Cause::Denied,
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::Unimplemented => Cause::Refused,
        _ => Cause::Other,
    }
}

/// Whether the server is out of disk or memory, which small writes may not hit.
fn is_full(status: &Status) -> bool {
    let contains = |part: &str| status.message().contains(part);
    matches!(status.code(), Code::Internal | Code::ResourceExhausted | Code::Unknown)
        && (contains("No space left")
            || contains("disk space")
            || contains("out of memory")
            || contains("Out of memory"))
}

/// Whether the collection was created for other vectors.
fn is_of_another_shape(status: &Status) -> bool {
    status.message().contains("dimension error") || status.message().contains("Not existing vector name")
}

fn failure(call: Call<'_>, status: &Status) -> PortError {
    let Call { what, collection, url } = call;
    let cause = if status.message().is_empty() { status.code().description() } else { status.message() };
    // The own message of a transport error is only "transport error".
    let cause = and_causes(cause.to_owned(), status);
    let object = if collection.is_empty() { "Qdrant".to_owned() } else { format!("Qdrant collection {collection:?}") };
    let message = format!("failed to {what} ({object} at {url}): {cause}");
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => rejected(message, status),
        Code::Unauthenticated | Code::PermissionDenied => PortError::fatal(message)
            .with_hint("set qdrant.api_key to a key with read and write access to this collection"),
        Code::Unimplemented => PortError::fatal(message)
            .with_hint("set qdrant.url to the gRPC address of a Qdrant server, 1.16 or newer (default port 6334)"),
        Code::NotFound => {
            PortError::transient(message).with_hint("the upserter creates the collection with its next write")
        }
        Code::ResourceExhausted => PortError::transient(message).with_retry_after(retry_after(status)),
        Code::FailedPrecondition if status.message().starts_with(REDIRECTS) => {
            PortError::transient(message).with_hint("set qdrant.url to the redirect target")
        }
        _ if port_of(url) == Some(6333) => PortError::transient(message)
            .with_hint("6333 is Qdrant's REST port; set qdrant.url to the gRPC port, usually 6334"),
        // Everything else can recover without intervention: the server is unreachable, starting, overloaded, out of
        // disk space or locked.
        _ => PortError::transient(message),
    }
}

/// Rejected input: poison, unless the message shows that every point would be rejected.
fn rejected(message: String, status: &Status) -> PortError {
    let contains = |part: &str| status.message().contains(part);
    if is_of_another_shape(status) {
        PortError::fatal(message).with_hint(
            "the collection was created for another model: set qdrant.collection to a new name, or delete the collection and replay",
        )
    } else if contains("Index required")
        || contains("Limit exceeded")
        || contains("limit of")
        || contains("strict mode")
    {
        PortError::fatal(message)
            .with_hint("the collection's strict mode rejects tidewheel's requests: relax its strict_mode_config")
    } else {
        PortError::poison(message)
    }
}

fn retry_after(status: &Status) -> Option<Duration> {
    let seconds = status.metadata().get("retry-after")?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

fn port_of(url: &str) -> Option<u16> {
    url.parse::<tonic::transport::Uri>().ok()?.port_u16()
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass::{self, Fatal, Poison, Transient};

    use super::*;

    const CALL: Call<'static> = Call { what: "write 3 points", collection: "documents", url: "http://127.0.0.1:6334" };

    #[test]
    fn status_codes_map_to_error_classes() {
        let table: [(Code, &str, ErrorClass); 22] = [
            (Code::Unavailable, "tcp connect error", Transient),
            (Code::DeadlineExceeded, "Timeout expired", Transient),
            (Code::Aborted, "", Transient),
            (Code::Cancelled, "Timeout expired", Transient),
            (Code::ResourceExhausted, "Rate limiting exceeded", Transient),
            (Code::Internal, "Service internal error: No space left on device", Transient),
            (Code::Unknown, "transport error", Transient),
            (Code::DataLoss, "", Transient),
            (Code::FailedPrecondition, "Locked", Transient),
            (Code::NotFound, "Not found: Collection `documents` doesn't exist!", Transient),
            (Code::InvalidArgument, "Wrong input: Vector dimension error: expected dim: 4, got 3", Fatal),
            (Code::InvalidArgument, "Wrong input: Not existing vector name error: ", Fatal),
            (Code::InvalidArgument, "Bad request: Index required but not found for \"a\"", Fatal),
            (Code::InvalidArgument, "Bad request: Limit exceeded 9 > 8 for \"filter_max_conditions\"", Fatal),
            (Code::InvalidArgument, "Bad request: Max vector storage size limit of 1 bytes reached!", Fatal),
            (Code::InvalidArgument, "Bad request: Format error in JSON body", Poison),
            (Code::InvalidArgument, "Wrong input: invalid payload", Poison),
            (Code::OutOfRange, "decoded message length too large", Poison),
            (Code::Unauthenticated, "Must provide an API key", Fatal),
            (Code::PermissionDenied, "Forbidden", Fatal),
            (Code::Unimplemented, "", Fatal),
            (Code::AlreadyExists, "", Transient),
        ];
        for (code, message, class) in table {
            let error = classify(CALL, &Status::new(code, message));
            assert_eq!(error.class, class, "{code:?} {message:?}");
            assert!(error.message.contains("write 3 points") && error.message.contains("\"documents\""));
            assert_eq!(error.hint.is_some(), class == Fatal || code == Code::NotFound, "{code:?} {message:?}");
        }
    }

    #[test]
    fn full_disk_wrong_dimension_and_large_message_have_distinct_causes() {
        for (code, message, expected) in [
            (Code::Internal, "Service internal error: No space left on device: WAL buffer size", Cause::Full),
            (Code::Internal, "Service internal error: not enough disk space", Cause::Full),
            (Code::ResourceExhausted, "Out of memory", Cause::Full),
            (Code::InvalidArgument, "Wrong input: Vector dimension error: expected dim: 4, got 3", Cause::Other),
            (Code::ResourceExhausted, "grpc: received message larger than max (7 vs. 4)", Cause::Refused),
            (Code::ResourceExhausted, "Rate limiting exceeded", Cause::Busy),
            (Code::Internal, "recursion limit reached", Cause::Other),
            (Code::Aborted, "the server returned WaitTimeout instead of Completed", Cause::Timeout),
        ] {
            assert_eq!(classify(CALL, &Status::new(code, message)).cause, expected, "{message}");
        }
    }

    #[test]
    fn retry_after_header_is_returned() {
        let mut status = Status::resource_exhausted("Rate limiting exceeded");
        status.metadata_mut().insert("retry-after", "7".parse().unwrap());
        assert_eq!(classify(CALL, &status).retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn rest_port_error_hints_at_grpc_port() {
        let call = Call { url: "http://qdrant:6333", ..CALL };
        let error = classify(call, &Status::unknown("h2 protocol error"));
        assert!(error.hint.is_some_and(|hint| hint.contains("6334")));
    }
}
