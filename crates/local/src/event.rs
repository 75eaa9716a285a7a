//! What the crate tells its caller while it works.
//!
//! Events carry facts, not sentences: the application decides how to show them.

use std::{fmt, sync::Arc, time::Duration};

/// Receives every [`Event`]. Called from several threads, so it must be quick and must not block.
pub type Report = Arc<dyn Fn(Event) + Send + Sync>;

/// A [`Report`] that drops every event.
#[must_use]
pub fn silent() -> Report {
    Arc::new(|_| {})
}

/// A thing that can be provisioned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// MongoDB's server.
    Mongod,
    /// Redis' server.
    RedisServer,
    /// Prometheus' checker of rules; only tests need it.
    Promtool,
    /// Prometheus' server; only tests need it.
    Prometheus,
    /// A sentence-transformers model.
    Model,
    /// A browser, for tests.
    Chromium,
    /// Terminals within a terminal, for tests.
    Tmux,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mongod => "mongod",
            Self::RedisServer => "redis-server",
            Self::Promtool => "promtool",
            Self::Prometheus => "prometheus",
            Self::Model => "model",
            Self::Chromium => "chromium",
            Self::Tmux => "tmux",
        })
    }
}

/// One of the servers of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerKind {
    /// `mongod`, a replica set of one node.
    Mongod,
    /// `redis-server`.
    Redis,
    /// A Qdrant server, or our own that speaks its API.
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
        /// What is waited for.
        part: Part,
    },
    /// A download begins. The user is told what it is before any of it is used.
    Fetching {
        /// What is fetched.
        part: Part,
        /// Its name and version, as the user would say it: `mongod 6.0.5`.
        what: String,
        /// The registry it comes from, in words.
        from: &'static str,
        /// Size of the download in bytes, where it is known beforehand.
        bytes: Option<u64>,
        /// SPDX identifier of the licence.
        licence: &'static str,
    },
    /// How far a download is. Sent a few times per second, never after its `Fetched`.
    Progress {
        /// What is fetched.
        part: Part,
        /// Bytes on disk so far.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// A download is complete, checked and in the cache.
    Fetched {
        /// What was fetched.
        part: Part,
        /// How long it took, from `Fetching` on.
        took: Duration,
    },
    /// A source was tried and gave nothing; the next one is tried.
    Skipped {
        /// What was looked for.
        part: Part,
        /// Why this source was no use, as a sentence.
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
    /// A server process was started and does not answer yet.
    Starting {
        /// Which server.
        server: ServerKind,
        /// The port that it will listen on.
        port: u16,
    },
    /// A server answers real requests.
    Ready {
        /// Which server.
        server: ServerKind,
        /// The port that it listens on.
        port: u16,
        /// From the start of its process to the first answer.
        took: Duration,
    },
    /// A server ended that nobody had asked to end.
    Died {
        /// Which server.
        server: ServerKind,
        /// How it ended, as the system says it: `signal: 9 (SIGKILL)`.
        status: String,
    },
    /// A dead server will be started again.
    Restarting {
        /// Which server.
        server: ServerKind,
        /// The pause before the attempt; it grows while attempts fail.
        after: Duration,
    },
    /// An attempt to start a dead server again failed; another follows.
    RestartFailed {
        /// Which server.
        server: ServerKind,
        /// What went wrong, as a sentence.
        reason: String,
    },
    /// A server was stopped because we were asked to.
    Stopped {
        /// Which server.
        server: ServerKind,
    },
}
