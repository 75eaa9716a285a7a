//! Attacks on the servers of the real binary: held connections, cross-site requests, guessed tokens.

mod attacks;
mod audit_log;
mod local_qdrant;
mod secrets;
mod tls;
mod tokens;

use std::fs::File;
use std::path::{Path, PathBuf};
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

/// URLs of the local Qdrant.
struct LocalQdrant {
    rest: String,
    grpc: String,
}

/// A command of the local Qdrant with the default limits of open files and file modes.
fn local_qdrant(data: &Path, http: &str, grpc: &str) -> Command {
    let program = std::env::current_exe().ok().and_then(|this| local_qdrant_beside(&this)).expect("the local Qdrant");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 1024; umask 022; exec \"$0\" \"$@\""]).arg(program);
    command.arg("--data").arg(data).args(["--http", http, "--grpc", grpc]);
    command.env_remove("RUST_LOG").env_remove("QDRANT__SERVICE__API_KEY");
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Calls a gRPC method without arguments; returns the status code and the response.
async fn grpc(client: &reqwest::Client, url: &str, key: Option<&str>) -> reqwest::Result<(u16, String)> {
    let mut request = client.post(format!("{url}/qdrant.Qdrant/HealthCheck")).version(reqwest::Version::HTTP_2);
    if let Some(key) = key {
        request = request.header("api-key", key);
    }
    let request = request.header("content-type", "application/grpc").header("te", "trailers");
    let response = request.body(vec![0; 5]).send().await?;
    // An error has no body, and its code in the headers.
    let code = response.headers().get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok()).unwrap_or(0);
    Ok((code, String::from_utf8_lossy(&response.bytes().await?).into_owned()))
}

/// A client for [`grpc`], from this address.
fn grpc_client(address: [u8; 4]) -> reqwest::Client {
    // Fails after the first call.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().http2_prior_knowledge();
    builder.local_address(std::net::IpAddr::from(address)).build().unwrap()
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

    /// Starts the local Qdrant with this API key, and waits until it responds.
    async fn local_qdrant(&mut self, key: &str) -> LocalQdrant {
        let (http, grpc) = (format!("127.0.0.1:{}", free_port()), format!("127.0.0.1:{}", free_port()));
        let mut command = local_qdrant(&self.dir.path().join("qdrant"), &http, &grpc);
        let log = File::create(self.log_file("local Qdrant")).unwrap();
        self.processes.push(command.env("QDRANT__SERVICE__API_KEY", key).stderr(log).spawn().unwrap());
        let (begun, urls) =
            (Instant::now(), LocalQdrant { rest: format!("http://{http}"), grpc: format!("http://{grpc}") });
        let ready = || super::clients::http().get(format!("{}/readyz", urls.rest)).send();
        while ready().await.is_err() {
            assert!(begun.elapsed() < TIMEOUT, "the local Qdrant does not respond: {}", self.log("local Qdrant"));
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        urls
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
