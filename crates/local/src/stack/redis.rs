//! `redis-server` with an append-only file and without eviction.

use std::{ffi::OsString, fmt, path::PathBuf};

use tokio::net::TcpStream;

use super::child::Launch;
use crate::provision::Program;

/// Redis' `appendfsync` policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// Once per second: a crash of the machine (not of Redis) can lose the last second.
    #[default]
    EverySecond,
    /// Before each reply: no acknowledged write is ever lost, at the cost of an fsync per write.
    Always,
}

impl fmt::Display for Fsync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EverySecond => "everysec",
            Self::Always => "always",
        })
    }
}

/// Options of `redis-server`. Data is in `redis` and the log in `logs` under the data directory.
#[derive(Debug, Clone)]
pub struct Redis {
    /// The executable.
    pub program: Program,
    /// The stack's data directory, the parent of Redis'.
    pub data: PathBuf,
    /// The port on 127.0.0.1; `0` picks a free one, which a restart keeps.
    pub port: u16,
    /// The fsync policy.
    pub fsync: Fsync,
    /// Memory limit, in bytes; writes beyond it are rejected, nothing is evicted. `None`: unlimited.
    pub maxmemory: Option<u64>,
    /// Whether it is restarted when it exits unexpectedly.
    pub supervise: bool,
}

impl Redis {
    /// Append-only persistence, a free port, no memory limit, no supervision.
    #[must_use]
    pub fn new(program: Program, data: impl Into<PathBuf>) -> Self {
        Self { program, data: data.into(), port: 0, fsync: Fsync::default(), maxmemory: None, supervise: false }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.data.join("redis")
    }

    pub(super) fn url(port: u16) -> String {
        format!("redis://127.0.0.1:{port}/")
    }

    pub(super) fn launch(&self, port: u16) -> Launch {
        let mut launch = Launch::of(&self.program, self.dir());
        let mut arg = |name: &str, value: OsString| launch.args.extend([name.into(), value]);
        arg("--port", port.to_string().into());
        arg("--bind", "127.0.0.1".into());
        arg("--dir", self.dir().into());
        arg("--daemonize", "no".into());
        arg("--appendonly", "yes".into());
        arg("--appendfsync", self.fsync.to_string().into());
        // The append-only file suffices; RDB snapshots would be redundant.
        arg("--save", "".into());
        arg("--maxmemory", self.maxmemory.unwrap_or(0).to_string().into());
        arg("--maxmemory-policy", "noeviction".into());
        launch
    }

    /// Makes one attempt: succeeds if process `pid` responds and has loaded its data.
    pub(super) async fn ready(port: u16, pid: u32) -> Result<(), String> {
        TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
        let text = |error: redis::RedisError| error.to_string();
        let client = redis::Client::open(Self::url(port)).map_err(text)?;
        let mut connection = client.get_multiplexed_async_connection().await.map_err(text)?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(text)?;
        if !info.lines().any(|line| line.trim() == format!("process_id:{pid}")) {
            return Err(format!("another redis-server answers on port {port}"));
        }
        // Redis replies to INFO while it is still loading data, but not to PING.
        redis::cmd("PING").query_async::<String>(&mut connection).await.map(drop).map_err(text)
    }
}
