//! Both streams and their helper keys in Redis 7.0 or newer.
//!
//! Guarantees:
//! - Every step with more than one write is one script, so Redis applies all of it or nothing, and a disk or replica
//!   that loses data loses the end of a consistent history. Each script writes entries first and their confirmation
//!   (the checkpoint, the acknowledgement) last. That matters where Redis 7.0 keeps only the beginning of a script:
//!   when a crash truncates its append-only file inside one and another restart follows. Such entries are delivered
//!   twice.
//! - A call whose reply was lost may be retried: it finds its work done, or repeats it where that is harmless.
//!   Duplicates downstream are fenced by their version.
//! - Entries that a group has not read or not acknowledged are never removed.
//! - Commands that drain the pipeline work while Redis is at its memory limit; only appends by the producer and by
//!   replays are rejected.
//!
//! [`keys`] has the names of all keys, [`wire`] the format of entries. Redis Cluster is not supported: the step from stage 1 to stage 2
//! touches both streams.

mod audit_log;
mod catalog;
mod checkpoint;
mod dead_letters;
mod entries;
mod error;
mod handover;
mod inspect;
mod journal;
pub mod keys;
pub mod layout;
mod link;
mod ownership;
mod queue;
mod reply;
mod script;
mod services;
mod sizes;
mod status;
mod stream_log;
mod target;
mod url;
pub mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use redis::{
    Client, ClientTlsConfig, Cmd, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, RedisError, TlsCertificates,
    Value,
};
use tidewheel_core::address;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{EntryId, PortResult, READ_BYTES};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;

pub use audit_log::{Action, Recorded};
pub use inspect::RedisFacts;
pub use queue::RedisQueue;
pub use services::Published;
pub use stream_log::RedisStreamLog;
pub use url::ADDRESSES;

use error::{message, port_error};
use link::Link;
use reply::Unexpected;
use sizes::Sizes;

/// Connection options for Redis.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// `redis://[user][:password]@host[:port][/database]`, or `rediss://` for TLS.
    pub url: Secret,
    /// A private CA and a client certificate. Only with `rediss://`.
    pub tls: ClientTls,
}

impl RedisOptions {
    /// Options for a server at this URL; TLS uses the public CAs.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: Secret::new(url), tls: ClientTls::default() }
    }
}

/// A Redis server. Cheap to clone: clones share a connection for commands. Every blocking read has its own.
///
/// Implements [`Journal`](tidewheel_core::ports::Journal), [`Handover`](tidewheel_core::ports::Handover),
/// [`DeadLetters`](tidewheel_core::ports::DeadLetters), [`CatalogStore`](tidewheel_core::ports::CatalogStore),
/// [`StageInspector`](tidewheel_core::ports::StageInspector), [`EntryFinder`](tidewheel_core::ports::EntryFinder),
/// [`TargetStates`](tidewheel_core::ports::TargetStates) and, as the state of the plain target,
/// [`Tombstones`](tidewheel_core::ports::Tombstones) and
/// [`CollectionRegistry`](tidewheel_core::ports::CollectionRegistry);
/// [`RedisStore::queue`] returns the [`Queue`](tidewheel_core::ports::Queue) of a stage.
#[derive(Clone)]
pub struct RedisStore {
    inner: Arc<Inner>,
}

struct Inner {
    link: Link,
    address: String,
    sizes: Sizes,
    /// Per group: its last delivered id and the first unread id after it.
    unread: Mutex<HashMap<&'static str, (String, String)>>,
}

impl std::fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisStore").field("address", &self.inner.address).finish()
    }
}

impl RedisStore {
    /// Prepares a client without connecting. Fails as fatal if the options are invalid.
    pub fn open(options: &RedisOptions) -> PortResult<Self> {
        let url = options.url.reveal();
        if address::is_ambiguous(url, crate::ADDRESSES) {
            let shown = address::shown(url, crate::ADDRESSES);
            return Err(PortError::fatal(format!("invalid redis.url {shown:?}: ambiguous"))
                .with_hint("percent-encode the user and password: %3F for ?, %23 for #, %2F for / and %40 for @"));
        }
        let info = url.into_connection_info().map_err(|error| {
            let mut error = port_error("read redis.url", &address::shown(url, crate::ADDRESSES), &error);
            error.message = address::scrubbed(&error.message, url, crate::ADDRESSES);
            // Its text may quote a part of the password.
            error.source = None;
            error
        })?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
        // Small commands must not wait for the reply to the previous one.
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        let address = info.addr().to_string();
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        if tls {
            // Another part of the process may have installed a provider already; either is fine.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let failed = |error: RedisError| port_error("prepare a connection", &address, &error);
        if options.tls.is_set() && !tls {
            return Err(PortError::fatal(format!(
                "redis.ca_file or redis.cert_file is set, but the connection to Redis at {address} does not use TLS"
            ))
            .with_hint("use rediss:// in redis.url, or remove redis.ca_file and redis.cert_file"));
        }
        let pem = options.tls.read("redis.")?;
        let client = if options.tls.is_set() {
            let client_tls = pem.identity.map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
            Client::build_with_tls(info, TlsCertificates { client_tls, root_cert: pem.ca }).map_err(failed)?
        } else {
            Client::open(info).map_err(failed)?
        };
        let inner = Inner { link: Link::new(client), address, sizes: Sizes::default(), unread: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Like [`RedisStore::open`], and pings the server.
    pub async fn connect(options: &RedisOptions) -> PortResult<Self> {
        let store = Self::open(options)?;
        store.ping().await?;
        Ok(store)
    }

    /// Pings the server.
    pub async fn ping(&self) -> PortResult<()> {
        self.send("connect", &redis::cmd("PING")).await.map(|_| ())
    }

    /// Host and port, without credentials.
    pub fn address(&self) -> &str {
        &self.inner.address
    }

    fn link(&self) -> &Link {
        &self.inner.link
    }

    fn sizes(&self) -> &Sizes {
        &self.inner.sizes
    }

    /// Sends a command; `doing` completes "failed to …".
    async fn send(&self, doing: &str, command: &Cmd) -> PortResult<Value> {
        self.link().send(command).await.map_err(|error| self.failed(doing, &error))
    }

    /// Runs a script; `doing` completes "failed to …".
    async fn run(&self, doing: &str, script: &script::Script, command: &Cmd) -> PortResult<Value> {
        self.link().run(script, command).await.map_err(|error| self.failed(doing, &error))
    }

    /// Reads entries of a stream after `after`, oldest first: up to `max`, about [`READ_BYTES`] in total.
    async fn range(&self, doing: &str, stream: &str, after: &EntryId, max: usize) -> PortResult<Value> {
        let mut command = script::RANGE.command(&[stream], 3, 64);
        command.arg(&after.0).arg(max.max(1)).arg(READ_BYTES);
        let answer = self.link().run_apart(&script::RANGE, &command).await;
        answer.map_err(|error| self.failed(doing, &error))
    }

    fn failed(&self, doing: &str, error: &RedisError) -> PortError {
        port_error(doing, &self.inner.address, error)
    }

    fn garbled(&self, doing: &str) -> impl FnOnce(Unexpected) -> PortError + use<'_> {
        let doing = doing.to_owned();
        move |Unexpected(what)| {
            PortError::fatal(message(doing, &self.inner.address, format_args!("unexpected reply: expected {what}")))
                .with_hint("use Redis 7.0 or newer at redis.url, without a proxy that rewrites commands")
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;

    use super::*;

    #[test]
    fn errors_and_debug_output_redact_credentials() {
        for url in [
            "redis://app:hunter2@localhost:6379/x",
            "redis://app:hunter2@localhost:hunter2",
            "redis://hunter2?x:password@localhost",
            "redis://:hunter2#x@localhost",
            "redis+unix:///run/redis.sock?pass=hunter2&db=hunter2",
            "http://app:hunter2@localhost",
            "redis://app:hunter2@",
            "hunter2",
        ] {
            let error = RedisStore::open(&RedisOptions::new(url)).unwrap_err();
            assert_eq!(error.class, ErrorClass::Fatal, "{url}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
            assert!(error.hint.is_some(), "{error:?}");
        }
        let options = RedisOptions::new("redis://app:hunter2@localhost:6379/2");
        let store = RedisStore::open(&options).unwrap();
        assert_eq!(store.address(), "localhost:6379");
        assert!(!format!("{options:?} {store:?}").contains("hunter2"));
    }

    #[test]
    fn certificate_files_require_tls_and_must_exist() {
        let tls = ClientTls { ca_file: Some("/does/not/exist.pem".into()), ..ClientTls::default() };
        let with_file = |url| RedisOptions { tls: tls.clone(), ..RedisOptions::new(url) };
        let error = RedisStore::open(&with_file("redis://localhost")).unwrap_err();
        assert!(error.hint.unwrap().contains("rediss://"));
        let error = RedisStore::open(&with_file("rediss://localhost")).unwrap_err();
        assert!(error.message.contains("/does/not/exist.pem"), "{error}");
        assert!(RedisStore::open(&RedisOptions::new("rediss://localhost")).is_ok());
    }
}
