//! `redis-server`, set up so that it never forgets what it confirmed and never evicts.

use std::{ffi::OsString, fmt, path::PathBuf};

use tokio::net::TcpStream;

use super::{StackError, child::Launch, program_launch, server::Server};
use crate::{Report, provision::Program};

/// When Redis forces its append-only file to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fsync {
    /// Once per second: a crash of the machine (not of Redis) can cost the last second.
    #[default]
    EverySecond,
    /// Before each answer: nothing confirmed is ever lost, at a price per write.
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

/// How to run `redis-server`. Data lies in `redis` and the log in `logs` under the data directory.
#[derive(Debug, Clone)]
pub struct Redis {
    /// The executable.
    pub program: Program,
    /// The data directory of the stack, not Redis' own below it.
    pub data: PathBuf,
    /// The port on 127.0.0.1; `0` picks a free one, which a restart keeps.
    pub port: u16,
    /// When writes are forced to disk.
    pub fsync: Fsync,
    /// The most memory for data, in bytes; writes beyond it are refused, nothing is evicted. `None` is no limit.
    pub maxmemory: Option<u64>,
    /// Start it again when it dies without having been asked to.
    pub supervise: bool,
}

impl Redis {
    /// Append-only persistence, a free port, no memory limit, no supervision.
    #[must_use]
    pub fn new(program: Program, data: impl Into<PathBuf>) -> Self {
        Self { program, data: data.into(), port: 0, fsync: Fsync::default(), maxmemory: None, supervise: false }
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When the port is taken, or it does not start or does not answer.
    pub async fn start(self, report: Report) -> Result<Server, StackError> {
        Server::start_new(self.into(), report).await
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.data.join("redis")
    }

    pub(super) fn url(port: u16) -> String {
        format!("redis://127.0.0.1:{port}/")
    }

    pub(super) fn launch(&self, port: u16) -> Launch {
        let mut launch = program_launch(&self.program, self.dir());
        let mut arg = |name: &str, value: OsString| launch.args.extend([name.into(), value]);
        arg("--port", port.to_string().into());
        arg("--bind", "127.0.0.1".into());
        arg("--dir", self.dir().into());
        arg("--daemonize", "no".into());
        arg("--appendonly", "yes".into());
        arg("--appendfsync", self.fsync.to_string().into());
        // The append-only file is the only persistence; snapshots beside it would be work for nothing.
        arg("--save", "".into());
        arg("--maxmemory", self.maxmemory.unwrap_or(0).to_string().into());
        arg("--maxmemory-policy", "noeviction".into());
        launch
    }

    /// One attempt: fine when this very process answers and has loaded its data.
    pub(super) async fn ready(port: u16, pid: u32) -> Result<(), String> {
        TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
        let say = |error: redis::RedisError| error.to_string();
        let client = redis::Client::open(Self::url(port)).map_err(say)?;
        let mut connection = client.get_multiplexed_async_connection().await.map_err(say)?;
        let info: String = redis::cmd("INFO").arg("server").query_async(&mut connection).await.map_err(say)?;
        if !info.lines().any(|line| line.trim() == format!("process_id:{pid}")) {
            return Err(format!("another redis-server answers on port {port}"));
        }
        // INFO is answered while data is still being loaded, PING is not.
        redis::cmd("PING").query_async::<String>(&mut connection).await.map(drop).map_err(say)
    }
}
