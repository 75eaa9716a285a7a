//! Classification of Redis errors: the only place that decides between retrying and stopping.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server};

/// Redis in the labels of metrics.
const SERVER: Server = Server::opaque("redis");

/// Returns the class of an error and a hint for the operator, from the client's error kind and the server's error code.
///
/// Errors not known to need intervention are transient: operators repair Redis more often than tidewheel's settings.
pub(super) fn classify(kind: ErrorKind, code: Option<&str>) -> (ErrorClass, Option<&'static str>) {
    use ErrorClass::{Fatal, Transient};
    match (kind, code) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            (Fatal, Some("check the user name and password in redis.url"))
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            (Fatal, Some("grant the user in redis.url access to tidewheel's keys with ACL SETUSER"))
        }
        (_, Some("WRONGTYPE")) => (
            Fatal,
            Some("a tidewheel key has an unexpected type: rename that key, or set a separate database in redis.url"),
        ),
        (ErrorKind::Server(ServerErrorKind::CrossSlot | ServerErrorKind::Moved | ServerErrorKind::Ask), _) => {
            (Fatal, Some("Redis Cluster is not supported: use a single Redis server with replicas"))
        }
        (ErrorKind::InvalidClientConfig, _) => {
            (Fatal, Some("set redis.url to redis://user:password@host:6379/0, or rediss:// for TLS"))
        }
        (_, Some("OOM")) => (
            Transient,
            Some("Redis is at maxmemory and drains as later stages progress; raise maxmemory if this persists"),
        ),
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            (Transient, Some("this Redis is a replica: point redis.url at the primary"))
        }
        (_, Some("MISCONF")) => (Transient, Some("Redis cannot write to its disk: check its log")),
        _ => (Transient, None),
    }
}

/// The port error for a failed `doing`.
pub(super) fn port_error(doing: impl std::fmt::Display, address: &str, error: &RedisError) -> PortError {
    // Inside a script Redis has no error code for a missing permission.
    let forbidden = error.detail().is_some_and(|detail| detail.contains("executing the script can't run this command"));
    let kind = if forbidden { ErrorKind::Server(ServerErrorKind::NoPerm) } else { error.kind() };
    let (class, hint) = classify(kind, error.code());
    let of = cause_of(error);
    let cause = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    };
    // The client has no error kind for this, only the TLS library's text.
    let untrusted = cause.starts_with("invalid peer certificate");
    let hint = hint.or(untrusted.then_some("if Redis uses a private CA, set redis.ca_file to its certificate"));
    let message = message(doing, address, cause);
    let error = PortError::new(class, message).because(SERVER, of).with_source(error.clone());
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The cause. [`Cause::Busy`] and [`Cause::Full`] mean that Redis cannot write anything now, whatever the input.
fn cause_of(error: &RedisError) -> Cause {
    match error.code() {
        Some("OOM" | "BUSY" | "LOADING" | "READONLY" | "MASTERDOWN" | "NOREPLICAS" | "TRYAGAIN" | "CLUSTERDOWN") => {
            Cause::Busy
        }
        Some("MISCONF") => Cause::Full,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Cause::Denied,
        Some(_) => Cause::Refused,
        None if error.is_timeout() => Cause::Timeout,
        None => Cause::Unreachable,
    }
}

/// The error message: operation, server, cause.
pub(super) fn message(doing: impl std::fmt::Display, address: &str, cause: impl std::fmt::Display) -> String {
    format!("failed to {doing} (Redis at {address}): {cause}")
}

/// Whether the connection must not be used again. True for timeouts: a reply may still arrive, or never. True for a
/// primary that became a replica: its name may now resolve to the new primary.
pub(super) fn spoils_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Whether the command may have been executed despite the error.
pub(super) fn is_ambiguous(error: &RedisError) -> bool {
    error.is_io_error() || error.kind() == ErrorKind::Parse
}

/// Whether the group or its stream is missing: before the command, or during a blocking read.
pub(super) fn is_no_group(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOGROUP" | "UNBLOCKED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a server reply as the client does.
    fn answer(line: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            redis::Value::ServerError(error) => error.into(),
            other => panic!("{other:?} is not an error"),
        }
    }

    #[test]
    fn server_errors_map_to_class_and_hint() {
        use ErrorClass::{Fatal, Transient};
        for (line, class, hint) in [
            ("LOADING Redis is loading the dataset in memory", Transient, ""),
            ("BUSY Redis is busy running a script", Transient, ""),
            ("READONLY You can't write against a read only replica.", Transient, "primary"),
            ("MASTERDOWN Link with MASTER is down", Transient, ""),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Transient, ""),
            ("CLUSTERDOWN The cluster is down", Transient, ""),
            ("OOM command not allowed when used memory > 'maxmemory'.", Transient, "maxmemory"),
            ("MISCONF Redis is configured to save RDB snapshots", Transient, "disk"),
            ("NOREPLICAS Not enough good replicas to write.", Transient, ""),
            ("ERR something unheard of", Transient, ""),
            ("NOAUTH Authentication required.", Fatal, "password"),
            ("WRONGPASS invalid username-password pair or user is disabled.", Fatal, "password"),
            ("NOPERM this user has no permissions to run the 'xadd' command", Fatal, "ACL"),
            ("ERR The user executing the script can't run this command or subcommand script: x", Fatal, "ACL"),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Fatal, "key"),
            ("CROSSSLOT Keys in request don't hash to the same slot", Fatal, "Cluster"),
            ("MOVED 3999 127.0.0.1:6381", Fatal, "Cluster"),
        ] {
            let error = port_error("append", "127.0.0.1:6379", &answer(line));
            assert_eq!(error.class, class, "{line}");
            assert_eq!(error.message, format!("failed to append (Redis at 127.0.0.1:6379): {line}"));
            assert!(error.hint.unwrap_or_default().contains(hint), "{line}");
        }
    }

    #[test]
    fn connection_error_is_transient_ambiguous_and_drops_connection() {
        for kind in [
            std::io::ErrorKind::ConnectionRefused,
            std::io::ErrorKind::ConnectionReset,
            std::io::ErrorKind::BrokenPipe,
            std::io::ErrorKind::TimedOut,
            std::io::ErrorKind::UnexpectedEof,
        ] {
            let error = RedisError::from(std::io::Error::from(kind));
            assert_eq!(port_error("read", "redis:6379", &error).class, ErrorClass::Transient);
            assert!(spoils_connection(&error) && is_ambiguous(&error), "{kind:?}");
        }
        for line in ["OOM command not allowed", "LOADING", "NOGROUP No such key"] {
            assert!(!spoils_connection(&answer(line)) && !is_ambiguous(&answer(line)), "{line}");
        }
        assert!(spoils_connection(&answer("READONLY You can't write against a read only replica.")));
    }

    #[test]
    fn missing_group_is_recognised_from_commands_and_scripts() {
        assert!(is_no_group(&answer("NOGROUP No such key 'raw' or consumer group 'g'")));
        assert!(is_no_group(&answer(
            "NOGROUP No such key 'raw' or consumer group 'g' script: 8e3, on @user_script:9."
        )));
        assert!(is_no_group(&answer("UNBLOCKED the stream key no longer exists")));
        assert!(!is_no_group(&answer("ERR no such key")));
    }
}
