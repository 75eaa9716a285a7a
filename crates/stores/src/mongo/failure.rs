//! What a failure of MongoDB means: one classification for everything that this adapter does.

use mongodb::error::{Error, ErrorKind};
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server};
use tidewheel_core::ports::FeedError;

/// What is known of a failure, without the driver's types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure<'a> {
    /// The server answered with this error code.
    Command(i32, &'a str),
    /// The server refused the credentials.
    Authentication,
    /// The settings make no sense to the driver.
    Settings,
    /// The server is too old or of the wrong kind.
    Incompatible,
    /// No server that could answer was found in time; the text says what each of them said.
    NoServer(&'a str),
    /// Everything else: the network, an election, an answer that was cut off.
    Passing,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    HistoryLost,
    Class(ErrorClass, Option<&'static str>),
}

const REPLICA_SET: &str =
    "change streams need a replica set: start mongod with --replSet rs0 and run rs.initiate() once";
const CREDENTIALS: &str = "check the user, the password and authSource in mongodb.uri";
const PERMISSION: &str = "give the user the role `read` on the database, or a role with the actions find and changeStream on all of it: \
                          { resource: { db: \"…\", collection: \"\" }, actions: [\"find\", \"changeStream\"] }";
const TOO_LARGE: &str = "MongoDB 6.0.9 and newer split such an event: upgrade the server, or leave the collection out";
const NO_SERVER: &str =
    "check that mongodb.uri names a running server and that its replica set has a primary (rs.status())";

const UNRESOLVED: &str = "a name of a member of the replica set cannot be looked up from here: make the names that rs.conf() shows \
                          resolvable, or add directConnection=true to mongodb.uri to use only the server that it names";

/// Whether the name of a server could not be looked up.
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
        // ChangeStreamHistoryLost, ChangeStreamFatalError (the token's event is not in the stream any more),
        // InvalidResumeToken, and their two forerunners in releases before 4.4.
        Failure::Command(286 | 280 | 260 | 40_576 | 40_585, _) => HistoryLost,
        // Overflow, two codes without a name, and FailedToParse: of a token that is cut off or was never one.
        Failure::Command(15 | 40_647 | 40_649, _) => HistoryLost,
        Failure::Command(9, message) if message.contains("resume token") => HistoryLost,
        // "The $changeStream stage is only supported on replica sets".
        Failure::Command(40_573, _) => Class(Fatal, Some(REPLICA_SET)),
        // NotYetInitialized: a person, or the script that starts the servers, is about to.
        Failure::Command(94, _) => Class(Transient, Some(REPLICA_SET)),
        // NotAReplicaSet and NoReplicationEnabled.
        Failure::Command(123 | 76, _) => Class(Fatal, Some(REPLICA_SET)),
        // An afterClusterTime or a majority read concern on a standalone server.
        Failure::Command(20, message) if message.contains("replica set") => Class(Fatal, Some(REPLICA_SET)),
        // AuthenticationFailed, and Atlas' own.
        Failure::Command(18 | 8_000, _) | Failure::Authentication => Class(Fatal, Some(CREDENTIALS)),
        // Unauthorized.
        Failure::Command(13, _) => Class(Fatal, Some(PERMISSION)),
        // BSONObjectTooLarge.
        Failure::Command(10_334, _) => Class(Fatal, Some(TOO_LARGE)),
        // BadValue, FailedToParse, TypeMismatch, CommandNotFound, InvalidNamespace, Location40415 (unknown field),
        // Location40324 (unknown stage): what we send can never work here.
        Failure::Command(2 | 9 | 14 | 59 | 73 | 40_415 | 40_324, _) => Class(Fatal, None),
        Failure::Settings => Class(Fatal, Some("correct mongodb.uri")),
        Failure::Incompatible => Class(Fatal, Some("tidewheel needs MongoDB 4.4 or newer")),
        // The first refusal is an error of its own; after it the driver counts the server as unknown.
        Failure::NoServer(servers) if servers.contains("Authentication failed") => Class(Fatal, Some(CREDENTIALS)),
        Failure::NoServer(servers) if is_unresolved(servers) => Class(Transient, Some(UNRESOLVED)),
        Failure::NoServer(_) => Class(Transient, Some(NO_SERVER)),
        // What is not known passes: waiting too long is visible, stopping for a passing fault is an outage.
        Failure::Command(..) | Failure::Passing => Class(Transient, None),
    }
}

fn failure(error: &Error) -> Failure<'_> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Failure::Command(command.code, &command.message),
        ErrorKind::Authentication { .. } => Failure::Authentication,
        ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => Failure::Settings,
        ErrorKind::IncompatibleServer { .. } | ErrorKind::SessionsNotSupported => Failure::Incompatible,
        ErrorKind::ServerSelection { message, .. } => Failure::NoServer(message),
        _ => Failure::Passing,
    }
}

/// The error of a port that this failure is; `doing` says what failed, on which object.
pub(super) fn port_error(doing: &str, error: &Error) -> PortError {
    let (class, hint) = match classify(failure(error)) {
        Verdict::Class(class, hint) => (class, hint),
        // Outside a feed there is no history to lose: it is a server in an odd state.
        Verdict::HistoryLost => (ErrorClass::Transient, None),
    };
    let message = match failure(error) {
        Failure::NoServer(servers) => format!("{doing}: {}", no_server(servers)),
        _ => format!("{doing}: {}", error.kind),
    };
    let failure = match class {
        ErrorClass::Transient => PortError::transient(message),
        ErrorClass::Poison => PortError::poison(message),
        ErrorClass::Fatal => PortError::fatal(message),
    };
    PortError { hint: hint.map(str::to_owned), ..failure }.because(Server::MongoDb, cause(error))
}

/// What each server said, without the driver's view of the topology, which is ten times as long.
fn no_server(servers: &str) -> String {
    let said = servers.split("{ Address: ").skip(1).map(|server| {
        let (address, rest) = server.split_once(", ").unwrap_or((server, ""));
        let said = match rest.split_once("Error: ") {
            Some((_, error)) => error.trim_start_matches("Kind: ").split(", labels: ").next().unwrap_or(error),
            // It answers, but is no primary.
            None => rest.split([',', '}']).next().unwrap_or(rest).trim(),
        };
        format!("{address} ({said})")
    });
    let said = said.collect::<Vec<_>>().join(", ");
    if said.is_empty() { servers.to_owned() } else { format!("no server that could answer was found: {said}") }
}

/// In which way it failed, for those who count.
fn cause(error: &Error) -> Cause {
    match failure(error) {
        Failure::Authentication | Failure::Command(13 | 18 | 8_000, _) => Cause::Denied,
        // MaxTimeMSExpired, and the exceeded time limits of the network and of a cursor.
        Failure::Command(50 | 89 | 262, _) => Cause::Timeout,
        Failure::Command(..) | Failure::Settings | Failure::Incompatible => Cause::Refused,
        Failure::NoServer(_) | Failure::Passing => Cause::Unreachable,
    }
}

/// The same for a feed.
pub(super) fn feed_error(doing: &str, error: &Error) -> FeedError {
    match classify(failure(error)) {
        Verdict::HistoryLost => FeedError::HistoryLost(error.kind.to_string()),
        Verdict::Class(..) => FeedError::Port(port_error(doing, error)),
    }
}

/// Whether the server has forgotten the cursor (CursorNotFound, CursorKilled): it was idle for too long, or the server
/// was restarted.
pub(super) fn cursor_is_gone(error: &Error) -> bool {
    matches!(failure(error), Failure::Command(43 | 237, _))
}

/// Whether an answer did not fit into 16 MB (BSONObjectTooLarge).
pub(super) fn is_too_large(error: &Error) -> bool {
    matches!(failure(error), Failure::Command(10_334, _))
}

/// The error of a server that is no member of a replica set.
pub(super) fn not_a_replica_set(doing: &str) -> PortError {
    PortError::fatal(format!("{doing}: the server is not a member of a replica set")).with_hint(REPLICA_SET)
}

#[cfg(test)]
mod tests {
    use ErrorClass::{Fatal, Transient};

    use super::*;

    #[test]
    fn every_failure_has_its_class() {
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
            (Failure::Passing, Some((Transient, false))),
        ];
        for (failure, wanted) in table {
            assert_eq!(class(failure), wanted, "{failure:?}");
        }
    }

    #[test]
    fn a_server_that_is_not_found_is_told_in_a_few_words() {
        let refused = "Server selection timeout: No available servers. Topology: { Type: Unknown, Servers: [ { Address: \
                       db:27017, Type: Unknown, Error: Kind: I/O error: Connection refused (os error 111), labels: \
                       {\"RetryableError\"}, source: None, server response: None } ] }";
        let short = "no server that could answer was found: db:27017 (I/O error: Connection refused (os error 111))";
        assert_eq!(no_server(refused), short);
        let secondary = "Servers: [ { Address: db:27017, Type: RsSecondary, Average RTT: 1ms } ]";
        assert!(no_server(secondary).ends_with("db:27017 (Type: RsSecondary)"), "{}", no_server(secondary));
        assert_eq!(no_server("something else"), "something else");
    }

    #[test]
    fn a_driver_error_keeps_its_kind() {
        let io = Error::from(std::io::Error::other("connection reset"));
        assert_eq!(failure(&io), Failure::Passing);
        let error = port_error("reading shop.tickets", &io);
        assert_eq!(error.class, Transient);
        assert!(error.message.starts_with("reading shop.tickets: "), "{}", error.message);
    }
}
