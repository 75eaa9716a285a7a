//! What a failure of Redis means: the one place where it is decided whether to wait or to stop.

use redis::{ErrorKind, RedisError, ServerErrorKind};
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server};

/// Class of a failure and what a person can do about it, from the client's kind of error and the server's error code.
///
/// Whatever is not known to need a person is transient: an operator repairs Redis more often than tidewheel's settings.
pub(super) fn classify(kind: ErrorKind, code: Option<&str>) -> (ErrorClass, Option<&'static str>) {
    use ErrorClass::{Fatal, Transient};
    match (kind, code) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("NOAUTH" | "WRONGPASS")) => {
            (Fatal, Some("check user name and password in redis.url"))
        }
        (ErrorKind::Server(ServerErrorKind::NoPerm), _) => {
            (Fatal, Some("give the user of redis.url access to tidewheel's keys: see ACL SETUSER"))
        }
        (_, Some("WRONGTYPE")) => (
            Fatal,
            Some(
                "a key of tidewheel holds something else: rename that key, or give tidewheel its own database in redis.url",
            ),
        ),
        (ErrorKind::Server(ServerErrorKind::CrossSlot | ServerErrorKind::Moved | ServerErrorKind::Ask), _) => {
            (Fatal, Some("Redis Cluster is not supported: use a single Redis server with replicas"))
        }
        (ErrorKind::InvalidClientConfig, _) => {
            (Fatal, Some("redis.url looks like redis://user:password@host:6379/0, or rediss:// for TLS"))
        }
        (_, Some("OOM")) => (
            Transient,
            Some("Redis is at maxmemory: it drains as the later stages work; raise maxmemory if this lasts"),
        ),
        (ErrorKind::Server(ServerErrorKind::ReadOnly), _) => {
            (Transient, Some("this Redis is a replica: redis.url must lead to the primary"))
        }
        (_, Some("MISCONF")) => (Transient, Some("Redis cannot write to its disk: see its log")),
        _ => (Transient, None),
    }
}

/// The failure of `doing`, for the stages.
pub(super) fn port_error(doing: impl std::fmt::Display, address: &str, error: &RedisError) -> PortError {
    // Within a script Redis has no code of its own for a missing right.
    let forbidden = error.detail().is_some_and(|detail| detail.contains("executing the script can't run this command"));
    let kind = if forbidden { ErrorKind::Server(ServerErrorKind::NoPerm) } else { error.kind() };
    let (class, hint) = classify(kind, error.code());
    let of = cause_of(error);
    let cause = match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    };
    // The client has no kind of its own for this, only the text of the TLS library.
    let untrusted = cause.starts_with("invalid peer certificate");
    let hint =
        hint.or(untrusted.then_some("if Redis has a certificate of your own authority, name that in redis.ca_file"));
    let message = message(doing, address, cause);
    let error = match class {
        ErrorClass::Transient => PortError::transient(message),
        ErrorClass::Poison => PortError::poison(message),
        ErrorClass::Fatal => PortError::fatal(message),
    };
    let error = error.because(Server::Redis, of);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// In which way it failed, for those who count.
fn cause_of(error: &RedisError) -> Cause {
    match error.code() {
        Some("OOM" | "BUSY" | "LOADING") => Cause::Busy,
        Some("NOAUTH" | "WRONGPASS" | "NOPERM") => Cause::Denied,
        Some(_) => Cause::Refused,
        None if error.is_timeout() => Cause::Timeout,
        None => Cause::Unreachable,
    }
}

/// What failed, where, caused by what.
pub(super) fn message(doing: impl std::fmt::Display, address: &str, cause: impl std::fmt::Display) -> String {
    format!("could not {doing} (Redis at {address}): {cause}")
}

/// Whether the connection must not be used again. A time-out counts: an answer may still be on its way, or nothing
/// will ever come. So does a primary that became a replica: its name may lead to the new primary now.
pub(super) fn spoils_connection(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Whether the command may have been carried out although it failed.
pub(super) fn is_ambiguous(error: &RedisError) -> bool {
    error.is_io_error() || error.kind() == ErrorKind::Parse
}

/// Whether the group or its stream is gone: before the command, or under a read that was waiting.
pub(super) fn is_no_group(error: &RedisError) -> bool {
    matches!(error.code(), Some("NOGROUP" | "UNBLOCKED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the client makes of this answer of the server.
    fn answer(line: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            redis::Value::ServerError(error) => error.into(),
            other => panic!("{other:?} is not an error"),
        }
    }

    #[test]
    fn every_answer_has_its_class() {
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
            assert_eq!(error.message, format!("could not append (Redis at 127.0.0.1:6379): {line}"));
            assert!(error.hint.unwrap_or_default().contains(hint), "{line}");
        }
    }

    #[test]
    fn a_broken_connection_is_transient_ambiguous_and_not_used_again() {
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
    fn a_missing_group_is_recognised_also_from_a_script() {
        assert!(is_no_group(&answer("NOGROUP No such key 'raw' or consumer group 'g'")));
        assert!(is_no_group(&answer(
            "NOGROUP No such key 'raw' or consumer group 'g' script: 8e3, on @user_script:9."
        )));
        assert!(is_no_group(&answer("UNBLOCKED the stream key no longer exists")));
        assert!(!is_no_group(&answer("ERR no such key")));
    }
}
