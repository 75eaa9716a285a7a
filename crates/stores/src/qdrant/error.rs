//! What a failed call to Qdrant means for the pipeline.
//!
//! One pure function decides, so that the whole table can be read and tested in one place. Qdrant's gRPC codes alone
//! are not enough: it answers a wrong dimension, a limit of strict mode and a malformed point with the same code.

use std::time::Duration;

use tidewheel_core::error::{Cause, PortError, Server};
use tonic::{Code, Status};

use super::redirect::REDIRECTS;

/// What was asked of which collection, for the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The call in words: "write 12 points".
    pub(super) what: &'a str,
    /// The collection.
    pub(super) collection: &'a str,
    /// The server's URL.
    pub(super) url: &'a str,
}

/// Whether the collection itself is not there.
///
/// A proxy or another service on the port answers `Unimplemented`, so `NotFound` is Qdrant's own word.
pub(super) fn is_missing(status: &Status) -> bool {
    status.code() == Code::NotFound
}

/// Whether somebody else created it in the meantime. Qdrant used `InvalidArgument` for this before it had a code of its own.
pub(super) fn already_exists(status: &Status) -> bool {
    status.code() == Code::AlreadyExists
        || (status.code() == Code::InvalidArgument && status.message().contains("already exists"))
}

/// What to do about a call that Qdrant, or the way to it, refused.
pub(super) fn classify(call: Call<'_>, status: &Status) -> PortError {
    failure(call, status).because(Server::Qdrant, cause(status))
}

/// In which way it failed, for those who count.
fn cause(status: &Status) -> Cause {
    let says = |part: &str| status.message().contains(part);
    match status.code() {
        _ if is_full(status) => Cause::Full,
        Code::InvalidArgument if is_of_another_shape(status) => Cause::Other,
        Code::ResourceExhausted if says("larger than") || says("too large") => Cause::Refused,
        Code::DeadlineExceeded => Cause::Timeout,
        Code::Aborted if says("WaitTimeout") => Cause::Timeout,
        // The client's own time limit.
        Code::Cancelled if status.message().contains("Timeout") => Cause::Timeout,
        Code::Unavailable | Code::Unknown | Code::Cancelled => Cause::Unreachable,
        Code::ResourceExhausted => Cause::Busy,
        Code::Unauthenticated | Code::PermissionDenied => Cause::Denied,
        Code::InvalidArgument | Code::OutOfRange | Code::NotFound | Code::Unimplemented => Cause::Refused,
        _ => Cause::Other,
    }
}

/// Whether the server has no room left, which small writes may not notice.
fn is_full(status: &Status) -> bool {
    let says = |part: &str| status.message().contains(part);
    matches!(status.code(), Code::Internal | Code::ResourceExhausted | Code::Unknown)
        && (says("No space left") || says("disk space") || says("out of memory") || says("Out of memory"))
}

/// Whether the collection was made for other vectors than these.
fn is_of_another_shape(status: &Status) -> bool {
    status.message().contains("dimension error") || status.message().contains("Not existing vector name")
}

fn failure(call: Call<'_>, status: &Status) -> PortError {
    let Call { what, collection, url } = call;
    let cause = if status.message().is_empty() { status.code().description() } else { status.message() };
    let message = format!("could not {what} (Qdrant collection {collection:?} at {url}): {cause}{}", causes(status));
    match status.code() {
        Code::InvalidArgument | Code::OutOfRange => refused(message, status),
        Code::Unauthenticated | Code::PermissionDenied => {
            PortError::fatal(message).with_hint("set qdrant.api_key to a key that may read and write this collection")
        }
        Code::Unimplemented => PortError::fatal(message).with_hint(
            "qdrant.url must be the gRPC address of a Qdrant server, 1.16 or newer (port 6334 unless configured otherwise)",
        ),
        Code::NotFound => PortError::transient(message)
            .with_hint("the upserter creates the collection with the next document that it writes"),
        Code::ResourceExhausted => PortError::transient(message).with_retry_after(retry_after(status)),
        Code::FailedPrecondition if status.message().starts_with(REDIRECTS) => {
            PortError::transient(message).with_hint("set qdrant.url to the address to which it redirects")
        }
        _ if port_of(url) == Some(6333) => PortError::transient(message)
            .with_hint("6333 is Qdrant's REST port; qdrant.url wants the gRPC port, usually 6334"),
        // Everything else can pass by itself: the server is away, starting, overloaded, out of disk space or locked.
        _ => PortError::transient(message),
    }
}

/// Input that the server will not take: this point's fault, unless the message says that every point would be refused.
fn refused(message: String, status: &Status) -> PortError {
    let says = |part: &str| status.message().contains(part);
    if is_of_another_shape(status) {
        PortError::fatal(message).with_hint(
            "the collection was made for another model: set qdrant.collection to a new name, or delete the collection and replay",
        )
    } else if says("Index required") || says("Limit exceeded") || says("limit of") || says("strict mode") {
        PortError::fatal(message)
            .with_hint("the collection's strict mode forbids what tidewheel does: relax its strict_mode_config")
    } else {
        PortError::poison(message)
    }
}

/// What is behind a transport error, whose own message says only "transport error".
fn causes(status: &Status) -> String {
    let mut text = String::new();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let part = error.to_string();
        if !status.message().contains(&part) && !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
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
    fn every_code_has_its_class() {
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
    fn full_disk_wrong_shape_and_too_large_message_have_causes_of_their_own() {
        for (code, message, expected) in [
            (Code::Internal, "Service internal error: No space left on device: WAL buffer size", Cause::Full),
            (Code::Internal, "Service internal error: not enough disk space", Cause::Full),
            (Code::ResourceExhausted, "Out of memory", Cause::Full),
            (Code::InvalidArgument, "Wrong input: Vector dimension error: expected dim: 4, got 3", Cause::Other),
            (Code::ResourceExhausted, "grpc: received message larger than max (7 vs. 4)", Cause::Refused),
            (Code::ResourceExhausted, "Rate limiting exceeded", Cause::Busy),
            (Code::Internal, "recursion limit reached", Cause::Other),
            (Code::Aborted, "the server answered WaitTimeout instead of Completed", Cause::Timeout),
        ] {
            assert_eq!(classify(CALL, &Status::new(code, message)).cause, expected, "{message}");
        }
    }

    #[test]
    fn the_wait_that_the_server_asks_for_is_passed_on() {
        let mut status = Status::resource_exhausted("Rate limiting exceeded");
        status.metadata_mut().insert("retry-after", "7".parse().unwrap());
        assert_eq!(classify(CALL, &status).retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn the_rest_port_is_recognised() {
        let call = Call { url: "http://qdrant:6333", ..CALL };
        let error = classify(call, &Status::unknown("h2 protocol error"));
        assert!(error.hint.is_some_and(|hint| hint.contains("6334")));
    }
}
