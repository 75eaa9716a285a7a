//! Classification of MongoDB errors, for the whole adapter.

use mongodb::error::{Error, ErrorKind};
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server};
use tidewheel_core::ports::FeedError;

/// MongoDB in the labels of metrics.
const SERVER: Server = Server::named("mongodb");

/// An error, without the driver's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure<'a> {
    /// The server returned this error code.
    Command(i32, &'a str),
    /// The server rejected the credentials.
    Authentication,
    /// The driver rejected the settings.
    Settings,
    /// The server is too old or of the wrong kind.
    Incompatible,
    /// Server selection timed out; holds the error of each server.
    NoServer(&'a str),
    /// Everything else: the network, an election, a truncated reply.
    Other,
}

/// The classification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    HistoryLost,
    Class(ErrorClass, Option<&'static str>),
}

const REPLICA_SET: &str =
    "change streams need a replica set: start mongod with --replSet rs0 and run rs.initiate() once";
const CREDENTIALS: &str = "check the user, the password and authSource in mongodb.uri";
const PERMISSION: &str = "grant the user the role `read` on the database, or a role with the actions find and changeStream on all of it: \
                          { resource: { db: \"…\", collection: \"\" }, actions: [\"find\", \"changeStream\"] }";
const PERMISSION_ANYWHERE: &str = "the indexes cover several databases: grant the user the role `readAnyDatabase`, or a role with the actions find and \
                                   changeStream on all databases: { resource: { db: \"\", collection: \"\" }, actions: [\"find\", \"changeStream\"] }";
const TOO_LARGE: &str = "upgrade to MongoDB 6.0.9 or newer, which splits such events, or exclude the collection";
const NO_SERVER: &str =
    "check that mongodb.uri points to a running server and that its replica set has a primary (rs.status())";

const UNRESOLVED: &str = "a replica set member's host name does not resolve here: make the names in rs.conf() \
                          resolvable, or add directConnection=true to mongodb.uri to use only the server in it";

/// Whether a server's host name failed to resolve.
fn is_unresolved(servers: &str) -> bool {
    ["failed to lookup address", "Name or service not known", "nodename nor servname", "name resolution"]
        .iter()
        .any(|text| servers.contains(text))
}

/// Server error codes are those of MongoDB's `error_codes.yml`.
fn classify(failure: Failure<'_>) -> Verdict {
    use ErrorClass::{Fatal, Transient};
    use Verdict::{Class, HistoryLost};
    match failure {
        // ChangeStreamHistoryLost, ChangeStreamFatalError (the token's event is no longer in the stream),
        // InvalidResumeToken, and their two predecessors before 4.4.
        Failure::Command(286 | 280 | 260 | 40_576 | 40_585, _) => HistoryLost,
        // Overflow, two unnamed codes, and FailedToParse: a truncated or invalid token.
        Failure::Command(15 | 40_647 | 40_649, _) => HistoryLost,
        Failure::Command(9, message) if message.contains("resume token") => HistoryLost,
        // "The $changeStream stage is only supported on replica sets".
        Failure::Command(40_573, _) => Class(Fatal, Some(REPLICA_SET)),
        // NotYetInitialized: an operator or a startup script is about to initialize it.
        Failure::Command(94, _) => Class(Transient, Some(REPLICA_SET)),
        // NotAReplicaSet and NoReplicationEnabled.
        Failure::Command(123 | 76, _) => Class(Fatal, Some(REPLICA_SET)),
        // An afterClusterTime or a majority read concern on a standalone server.
        Failure::Command(20, message) if message.contains("replica set") => Class(Fatal, Some(REPLICA_SET)),
        // AuthenticationFailed, and Atlas' own code.
        Failure::Command(18 | 8_000, _) | Failure::Authentication => Class(Fatal, Some(CREDENTIALS)),
        // Unauthorized.
        Failure::Command(13, _) => Class(Fatal, Some(PERMISSION)),
        // BSONObjectTooLarge.
        Failure::Command(10_334, _) => Class(Fatal, Some(TOO_LARGE)),
        // BadValue, FailedToParse, TypeMismatch, CommandNotFound, InvalidNamespace, Location40415 (unknown field),
        // Location40324 (unknown stage): our command can never work here.
        Failure::Command(2 | 9 | 14 | 59 | 73 | 40_415 | 40_324, _) => Class(Fatal, None),
        Failure::Settings => Class(Fatal, Some("fix mongodb.uri")),
        Failure::Incompatible => Class(Fatal, Some("use MongoDB 4.4 or newer")),
        // The first failure is an Authentication error; afterwards the driver treats the server as unknown.
        Failure::NoServer(servers) if servers.contains("Authentication failed") => Class(Fatal, Some(CREDENTIALS)),
        Failure::NoServer(servers) if is_unresolved(servers) => Class(Transient, Some(UNRESOLVED)),
        Failure::NoServer(_) => Class(Transient, Some(NO_SERVER)),
        // Unknown errors are transient: waiting too long is visible, stopping on a transient fault is an outage.
        Failure::Command(..) | Failure::Other => Class(Transient, None),
    }
}

fn failure(error: &Error) -> Failure<'_> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Failure::Command(command.code, &command.message),
        ErrorKind::Authentication { .. } => Failure::Authentication,
        ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => Failure::Settings,
        ErrorKind::IncompatibleServer { .. } | ErrorKind::SessionsNotSupported => Failure::Incompatible,
        ErrorKind::ServerSelection { message, .. } => Failure::NoServer(message),
        _ => Failure::Other,
    }
}

/// Converts a driver error to a port error; `doing` completes "failed to …".
pub(super) fn port_error(doing: &str, error: &Error) -> PortError {
    let (class, hint) = match classify(failure(error)) {
        Verdict::Class(class, hint) => (class, hint),
        // Outside a feed no history can be lost: the server is in an odd state.
        Verdict::HistoryLost => (ErrorClass::Transient, None),
    };
    let message = match failure(error) {
        Failure::NoServer(servers) => format!("failed to {doing}: {}", no_server(servers)),
        _ => format!("failed to {doing}: {}", error.kind),
    };
    let failure = PortError::new(class, message).because(SERVER, cause(error)).with_source(error.clone());
    PortError { hint: hint.map(str::to_owned), ..failure }
}

/// Hints at the permission for a change stream of the whole deployment, if a permission is missing.
pub(super) fn on_deployment(mut error: PortError) -> PortError {
    if error.hint.as_deref() == Some(PERMISSION) {
        error.hint = Some(PERMISSION_ANYWHERE.to_owned());
    }
    error
}

/// Whether the user lacks a permission.
pub(super) fn is_unauthorized(error: &Error) -> bool {
    matches!(failure(error), Failure::Command(13, _))
}

/// The error of each server, without the driver's topology description, which is ten times as long.
fn no_server(servers: &str) -> String {
    let said = servers.split("{ Address: ").skip(1).map(|server| {
        let (address, rest) = server.split_once(", ").unwrap_or((server, ""));
        let said = match rest.split_once("Error: ") {
            Some((_, error)) => error.trim_start_matches("Kind: ").split(", labels: ").next().unwrap_or(error),
            // It responds, but is not a primary.
            None => rest.split([',', '}']).next().unwrap_or(rest).trim(),
        };
        format!("{address} ({said})")
    });
    let said = said.collect::<Vec<_>>().join(", ");
    if said.is_empty() { servers.to_owned() } else { format!("no suitable server: {said}") }
}

/// The cause label for metrics.
fn cause(error: &Error) -> Cause {
    match failure(error) {
        Failure::Authentication | Failure::Command(13 | 18 | 8_000, _) => Cause::Denied,
        // MaxTimeMSExpired, and the exceeded time limits of the network and of a cursor.
        Failure::Command(50 | 89 | 262, _) => Cause::Timeout,
        Failure::Command(..) | Failure::Settings | Failure::Incompatible => Cause::Refused,
        Failure::NoServer(_) | Failure::Other => Cause::Unreachable,
    }
}

/// Converts a driver error to a feed error.
pub(super) fn feed_error(doing: &str, error: &Error) -> FeedError {
    match classify(failure(error)) {
        Verdict::HistoryLost => FeedError::HistoryLost(error.kind.to_string()),
        Verdict::Class(..) => FeedError::Port(port_error(doing, error)),
    }
}

/// Whether the server has dropped the cursor (CursorNotFound, CursorKilled): it was idle for too long, or the server
/// restarted.
pub(super) fn cursor_is_gone(error: &Error) -> bool {
    matches!(failure(error), Failure::Command(43 | 237, _))
}

/// Whether a reply exceeded 16 MB (BSONObjectTooLarge).
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(failure(error), Failure::Command(10_334, _))
}

/// The error for a server outside a replica set.
pub(super) fn not_a_replica_set(doing: &str) -> PortError {
    PortError::fatal(format!("failed to {doing}: the server is not a member of a replica set")).with_hint(REPLICA_SET)
}

#[cfg(test)]
mod tests {
    use ErrorClass::{Fatal, Transient};

    use super::*;

    #[test]
    fn failures_map_to_error_classes() {
        let class = |failure| match classify(failure) {
            Verdict::HistoryLost => None,
            Verdict::Class(class, hint) => Some((class, hint.is_some())),
        };
        let table = [
            (Failure::Command(286, "ChangeStreamHistoryLost"), None),
            (Failure::Command(280, "ChangeStreamFatalError"), None),
            (Failure::Command(260, "InvalidResumeToken"), None),
            (Failure::Command(40_585, "resume token was not found"), None),
            (Failure::Command(40_573, "only supported on replica sets"), Some((Fatal, true))),
            (Failure::Command(94, "NotYetInitialized"), Some((Transient, true))),
            (Failure::Command(20, "requires a replica set"), Some((Fatal, true))),
            (Failure::Command(20, "Illegal operation"), Some((Transient, false))),
            (Failure::Command(18, "AuthenticationFailed"), Some((Fatal, true))),
            (Failure::Command(13, "Unauthorized"), Some((Fatal, true))),
            (Failure::Command(10_334, "BSONObjectTooLarge"), Some((Fatal, true))),
            (Failure::Command(9, "FailedToParse"), Some((Fatal, false))),
            (Failure::Command(189, "PrimarySteppedDown"), Some((Transient, false))),
            (Failure::Command(10_107, "NotWritablePrimary"), Some((Transient, false))),
            (Failure::Command(11_600, "InterruptedAtShutdown"), Some((Transient, false))),
            (Failure::Command(91, "ShutdownInProgress"), Some((Transient, false))),
            (Failure::Command(43, "CursorNotFound"), Some((Transient, false))),
            (Failure::Command(136, "CappedPositionLost"), Some((Transient, false))),
            (Failure::Command(999_999, "something new"), Some((Transient, false))),
            (Failure::Authentication, Some((Fatal, true))),
            (Failure::Settings, Some((Fatal, true))),
            (Failure::Incompatible, Some((Fatal, true))),
            (Failure::Command(15, "Invalid advance (8) past end of buffer"), None),
            (Failure::Command(9, "resume token string was not a valid hex string"), None),
            (Failure::NoServer("connection refused"), Some((Transient, true))),
            (Failure::NoServer("SCRAM failure: Authentication failed."), Some((Fatal, true))),
            (Failure::Other, Some((Transient, false))),
        ];
        for (failure, wanted) in table {
            assert_eq!(class(failure), wanted, "{failure:?}");
        }
    }

    #[test]
    fn missing_permission_on_deployment_names_a_role_for_all_databases() {
        let error = PortError::fatal("failed to open a change stream").with_hint(PERMISSION);
        assert!(on_deployment(error).hint.is_some_and(|hint| hint.contains("readAnyDatabase")));
        let other = PortError::fatal("failed to open a change stream").with_hint(CREDENTIALS);
        assert_eq!(on_deployment(other).hint.as_deref(), Some(CREDENTIALS));
    }

    #[test]
    fn server_selection_error_is_shortened() {
        let refused = "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ { Address: \
                       db:27017, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: \
                       {\"RetryableError\"}, source: None, server response: None } ] }";
        let short = "no suitable server: db:27017 (I/O error: Connection refused (os error 111))";
        assert_eq!(no_server(refused), short);
        let secondary = "Servers: [ { Address: db:27017, Type: RsSecondary, Average RTT: 1ms } ]";
        assert!(no_server(secondary).ends_with("db:27017 (Type: RsSecondary)"), "{}", no_server(secondary));
        assert_eq!(no_server("something else"), "something else");
    }

    #[test]
    fn io_error_is_transient_and_names_operation() {
        let io = Error::from(std::io::Error::other("connection reset"));
        assert_eq!(failure(&io), Failure::Other);
        let error = port_error("read shop.tickets", &io);
        assert_eq!(error.class, Transient);
        assert!(error.message.starts_with("failed to read shop.tickets: "), "{}", error.message);
    }
}
