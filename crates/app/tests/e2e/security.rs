//! Attacks on the servers of the real binary: held connections, cross-site requests, guessed tokens.

mod attacks;
mod audit_log;
mod tls;
mod tokens;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewheel_local::stack::local_qdrant_beside;

use super::world::{BINARY, free_port};

/// Timeout on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Settings tables of the three servers.
const TABLES: [&str; 3] = ["embedder", "http", "console"];

/// Embedder, operations port and console in separate processes, without the other servers.
struct Servers {
    dir: TempDir,
    settings: String,
    /// In the order of [`TABLES`].
    ports: [u16; 3],
    processes: Vec<Child>,
}

impl Servers {
    /// Prepares them with additional settings.
    fn prepare(more: &str) -> Self {
        let (dir, ports, closed) = (tempfile::tempdir().unwrap(), [free_port(), free_port(), free_port()], free_port());
        let listen = |number: usize| format!("{}.listen = \"127.0.0.1:{}\"\n", TABLES[number], ports[number]);
        let settings = format!(
            "{}{}{}embedder.model = \"hash:8\"\nmongodb.uri = \"mongodb://127.0.0.1:{closed}/?serverSelectionTimeoutMS=500\"\n\
             mongodb.database = \"shop\"\nredis.url = \"redis://127.0.0.1:{closed}\"\nqdrant.url = \"http://127.0.0.1:{closed}\"\n{more}",
            listen(0),
            listen(1),
            listen(2),
        );
        Self { dir, settings, ports, processes: Vec::new() }
    }

    /// Starts both processes with the default limit of open files, and waits until all three servers listen.
    async fn start(more: &str) -> Self {
        let mut servers = Self::prepare(more);
        for service in ["embedder", "console"] {
            let log = File::create(servers.log_file(service)).unwrap();
            let child = servers.command(service).stderr(log).spawn().unwrap();
            servers.processes.push(child);
        }
        let begun = Instant::now();
        for port in servers.ports {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                assert!(begun.elapsed() < TIMEOUT, "{}{}", servers.log("embedder"), servers.log("console"));
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        servers
    }

    /// Starts the local Qdrant; returns its URL.
    async fn local_qdrant(&mut self) -> String {
        let (http, grpc) = (free_port(), free_port());
        let program =
            std::env::current_exe().ok().and_then(|this| local_qdrant_beside(&this)).expect("the local Qdrant");
        let mut command = Command::new("sh");
        command
            .args(["-c", "ulimit -n 1024; exec \"$0\" \"$@\""])
            .arg(program)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.arg("--data").arg(self.dir.path().join("qdrant"));
        command.args(["--http", &format!("127.0.0.1:{http}"), "--grpc", &format!("127.0.0.1:{grpc}")]);
        self.processes.push(command.stderr(Stdio::null()).spawn().unwrap());
        let begun = Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", http)).await.is_err() {
            assert!(begun.elapsed() < TIMEOUT, "the local Qdrant does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        format!("http://127.0.0.1:{http}")
    }

    fn command(&self, service: &str) -> Command {
        let file = self.dir.path().join("tidewheel.toml");
        std::fs::write(&file, &self.settings).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 1024; exec \"$0\" \"$@\"", BINARY, "--log-format", "text", "--config"]);
        command.arg(file).arg(service).env_remove("RUST_LOG").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn log_file(&self, service: &str) -> PathBuf {
        self.dir.path().join(format!("{service}.log"))
    }

    fn log(&self, service: &str) -> String {
        std::fs::read_to_string(self.log_file(service)).unwrap_or_default()
    }

    /// Returns the URL of one of the servers.
    fn url(&self, table: &str) -> String {
        let number = TABLES.iter().position(|known| *known == table).unwrap();
        format!("http://127.0.0.1:{}", self.ports[number])
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
