//! A separate pipeline per test: servers on free ports, data in a temporary directory.

use std::collections::HashMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::{Document, doc};
use mongodb::{Client, Collection, Database};
use tempfile::TempDir;
use tidewheel_local::provision::Provisioner;
use tidewheel_local::silent;
use tidewheel_local::stack::{Stack, StackOptions};
use tidewheel_stores::redis::keys::RAW;
use tidewheel_testkit::oracle::{Oracle, OracleOptions, Report, text_of};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tidewheel");

/// Timeout on a machine that runs other tests in parallel; a story that hangs fails with its logs.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Every service that a pipeline needs.
pub const SERVICES: [&str; 4] = ["embedder", "producer", "processor", "upserter"];

/// Dimension of the model-free vectors.
const DIMENSION: usize = 64;

/// Servers, settings and services of one test.
pub struct World {
    pub stack: Stack,
    pub database: Database,
    /// URLs of proxies and fakes that replace real servers.
    pub detours: Detours,
    pub embedder: String,
    services: Vec<Service>,
    dir: TempDir,
}

/// URLs that replace those of the real servers in the settings.
#[derive(Default)]
pub struct Detours {
    pub mongodb_uri: Option<String>,
    pub redis_url: Option<String>,
    pub qdrant_url: Option<String>,
    pub embedding_url: Option<String>,
}

struct Service {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl World {
    /// Starts the servers without services.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Starts the servers with other options, without services.
    pub async fn with(configure: impl FnOnce(&mut StackOptions)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut options = StackOptions::new(dir.path().join("data")).with_free_ports();
        options.supervise = false;
        configure(&mut options);
        let provisioner = Provisioner::new(silent()).expect("a cache directory");
        let mut attempts = 0;
        let stack = loop {
            match Stack::start(options.clone(), &provisioner, silent()).await {
                Ok(stack) => break stack,
                // Another test has taken a free port in the meantime.
                Err(error) if attempts < 3 && error.to_string().contains("in use") => attempts += 1,
                Err(error) => panic!("failed to start the servers: {error}"),
            }
        };
        let client = Client::with_uri_str(stack.mongodb_uri()).await.expect("a valid URI");
        let embedder = format!("127.0.0.1:{}", free_port());
        let (database, detours) = (client.database("shop"), Detours::default());
        let world = Self { database, detours, embedder, services: Vec::new(), stack, dir };
        world.write_settings("");
        world
    }

    /// Starts the servers and one of each service.
    pub async fn running() -> Self {
        let mut world = Self::new().await;
        for service in SERVICES {
            world.start(service);
        }
        world
    }

    /// Writes the settings file with additional lines.
    pub fn write_settings(&self, more: &str) {
        let (stack, embedder, detours) = (&self.stack, &self.embedder, &self.detours);
        let or = |detour: &Option<String>, usual: String| detour.clone().unwrap_or(usual);
        let settings = format!(
            r#"
            mongodb.uri = "{}"
            mongodb.database = "shop"
            redis.url = "{}"
            qdrant.url = "{}"
            embedding.url = "{}"
            embedder.listen = "{embedder}"
            embedder.model = "hash:{DIMENSION}"
            processor.claim_after = "2s"
            upserter.claim_after = "2s"
            {more}
            "#,
            or(&detours.mongodb_uri, stack.mongodb_uri()),
            or(&detours.redis_url, stack.redis_url()),
            or(&detours.qdrant_url, stack.qdrant_grpc_url().expect("the stack has a Qdrant")),
            or(&detours.embedding_url, format!("http://{embedder}")),
        );
        std::fs::write(self.settings(), settings).expect("a writable settings file");
    }

    /// Returns the path of the settings file.
    pub fn settings(&self) -> PathBuf {
        self.dir.path().join("tidewheel.toml")
    }

    /// Returns a command of the binary with this test's settings.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(self.settings()).args(arguments).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env("NO_COLOR", "1");
        command
    }

    /// Starts an instance of a service; returns its number.
    pub fn start(&mut self, name: &'static str) -> usize {
        let number = self.services.len();
        let log = self.dir.path().join(format!("{name}-{number}.log"));
        let output = File::create(&log).expect("a log file");
        let child = self
            .command(&["--log-format", "text", "--log-level", "debug", name])
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .expect("the binary starts");
        self.services.push(Service { name, log, child });
        number
    }

    /// Kills the newest instance of a service as a crash would (SIGKILL).
    pub fn kill(&mut self, name: &str) {
        Self::crash(self.newest(name));
        self.remove_exited();
    }

    /// Kills the oldest instance of a service as a crash would.
    pub fn kill_oldest(&mut self, name: &str) {
        let service = self.services.iter_mut().find(|service| service.name == name);
        Self::crash(service.expect("the service runs"));
        self.remove_exited();
    }

    fn crash(service: &mut Service) {
        service.child.kill().expect("the process is killed");
        service.child.wait().expect("the process is gone");
    }

    fn remove_exited(&mut self) {
        self.services.retain_mut(|service| matches!(service.child.try_wait(), Ok(None)));
    }

    /// Sends SIGTERM to the newest instance of a service and waits; returns exit status and duration.
    pub fn terminate(&mut self, name: &str) -> (ExitStatus, Duration) {
        let begun = Instant::now();
        let service = self.newest(name);
        let pid = service.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs").success());
        let status = service.child.wait().expect("the process ends");
        self.remove_exited();
        (status, begun.elapsed())
    }

    /// Returns the logs of all instances of a service, including exited ones.
    pub fn log(&self, name: &str) -> String {
        let files = std::fs::read_dir(self.dir.path()).expect("the directory is there").flatten();
        let prefix = format!("{name}-");
        let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with(&prefix));
        logs.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default()).collect()
    }

    /// Returns the peak resident memory of the newest instance of a service.
    pub fn peak_megabytes(&mut self, name: &str) -> u64 {
        let status = format!("/proc/{}/status", self.newest(name).child.id());
        let status = std::fs::read_to_string(status).expect("the process runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM on Linux");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1_024
    }

    fn newest(&mut self, name: &str) -> &mut Service {
        self.services.iter_mut().rev().find(|service| service.name == name).expect("the service runs")
    }

    /// Returns a collection of the indexed database.
    pub fn collection(&self, name: &str) -> Collection<Document> {
        self.database.collection(name)
    }

    /// Waits until the index equals the source, in all collections that these tests write to.
    pub async fn equal(&mut self) -> Report {
        self.equal_in(&["tickets", "notes", "things", "texts"]).await
    }

    /// Waits until the index equals these collections.
    pub async fn equal_in(&mut self, collections: &[&str]) -> Report {
        self.equal_at("documents", collections).await
    }

    /// Waits until this Qdrant collection or alias equals these collections.
    pub async fn equal_at(&mut self, index: &str, collections: &[&str]) -> Report {
        let options = OracleOptions {
            mongodb_uri: self.stack.mongodb_uri(),
            database: "shop".into(),
            collections: collections.iter().copied().map(str::to_owned).collect(),
            qdrant_url: self.stack.qdrant_grpc_url().expect("the stack has a Qdrant"),
            qdrant_api_key: None,
            collection: index.to_owned(),
        };
        let oracle = Oracle::connect(options).await.expect("valid URLs").with_text(text_of);
        match oracle.wait_until_equal(TIMEOUT).await {
            Ok(report) if report.is_equal() => report,
            Ok(report) => self.fail(&format!("the index differs from the source: {report}")),
            Err(error) => self.fail(&format!("failed to compare the index with the source: {error}")),
        }
    }

    /// Waits until `condition` holds.
    pub async fn until<F: Future<Output = bool>>(&mut self, name: &str, condition: impl FnMut() -> F) {
        self.until_within(TIMEOUT, name, condition).await;
    }

    /// Waits for more work than other stories have.
    pub async fn until_within<F: Future<Output = bool>>(
        &mut self,
        timeout: Duration,
        name: &str,
        mut condition: impl FnMut() -> F,
    ) {
        let begun = Instant::now();
        while !condition().await {
            if begun.elapsed() > timeout {
                self.fail(&format!("timed out waiting for: {name}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until `condition` holds of this world.
    pub async fn wait(&mut self, condition: impl Fn(&Self) -> bool, name: &str) {
        let begun = Instant::now();
        while !condition(self) {
            if begun.elapsed() > TIMEOUT {
                self.fail(&format!("timed out waiting for: {name}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs one Redis command.
    pub async fn redis<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        redis_command(&self.stack.redis_url(), command).await
    }

    /// Returns the entries of stage 1: document or collection, version, and operation.
    pub async fn appended(&self) -> Vec<(String, String, String)> {
        let entries: Vec<(String, HashMap<String, Vec<u8>>)> = self.redis(&["XRANGE", RAW, "-", "+"]).await;
        let text = |fields: &HashMap<String, Vec<u8>>, name: &str| {
            String::from_utf8_lossy(fields.get(name).map_or(&[][..], Vec::as_slice)).into_owned()
        };
        let name = |fields| text(fields, "namespace") + " " + &text(fields, "key");
        entries.iter().map(|(_, fields)| (name(fields), text(fields, "version"), text(fields, "operation"))).collect()
    }

    /// Asserts that no change was appended to stage 1 twice.
    pub async fn each_change_once(&self) {
        let mut seen = std::collections::HashSet::new();
        for change in self.appended().await {
            assert!(seen.insert(change.clone()), "{change:?} was appended twice");
        }
    }

    /// Fails the test with the last lines of every service's log.
    pub fn fail(&self, message: &str) -> ! {
        use std::fmt::Write;

        let mut story = String::new();
        // Includes services that have exited, perhaps unexpectedly.
        let files = std::fs::read_dir(self.dir.path()).expect("the directory is there").flatten();
        let mut logs: Vec<PathBuf> = files.map(|file| file.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for path in logs {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(15)..].join("\n");
            let runs = self.services.iter().any(|service| service.log == path);
            let _ = writeln!(story, "--- {} ({})\n{tail}", path.display(), if runs { "running" } else { "exited" });
        }
        panic!("{message}\n{story}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for service in &mut self.services {
            let _ = service.child.kill();
            let _ = service.child.wait();
        }
    }
}

/// Runs one Redis command on a new connection.
pub async fn redis_command<T: redis::FromRedisValue>(url: &str, command: &[&str]) -> T {
    let client = redis::Client::open(url).expect("a valid URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("a connection to Redis");
    let (name, arguments) = command.split_first().expect("a command");
    redis::cmd(name).arg(arguments).query_async(&mut connection).await.expect("a successful command")
}

/// Returns the group's unacknowledged entries: undelivered or pending.
pub async fn backlog(url: &str, stream: &str, group: &str) -> u64 {
    let groups: Vec<HashMap<String, redis::Value>> = redis_command(url, &["XINFO", "GROUPS", stream]).await;
    let number = |value: &redis::Value| redis::from_redis_value::<Option<u64>>(value.clone()).ok().flatten();
    groups
        .iter()
        .find(|entry| {
            entry
                .get("name")
                .is_some_and(|name| redis::from_redis_value::<String>(name.clone()).is_ok_and(|name| name == group))
        })
        .map_or(0, |entry| ["lag", "pending"].iter().filter_map(|field| entry.get(*field)).filter_map(number).sum())
}

/// Arguments of the command that prints the audit log.
pub const AUDIT_LOG: [&str; 3] = ["audit-log", "--output", "json"];

/// Returns the audit log that a command with [`AUDIT_LOG`] prints, oldest entry first.
pub fn audit_log(mut command: Command) -> Vec<serde_json::Value> {
    let output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("a list")
}

/// Asserts that the newest entry is this action of this user at the command line of this machine.
pub fn recorded(log: &[serde_json::Value], action: &str, detail: &str) {
    use std::os::unix::fs::MetadataExt as _;

    let entry = log.last().unwrap_or_else(|| panic!("{action} is not recorded"));
    let field = |name: &str| entry[name].as_str().unwrap_or_else(|| panic!("{entry}"));
    assert_eq!(field("action"), action, "{entry}");
    assert!(field("detail").contains(detail), "{entry}");
    let uid = std::fs::metadata("/proc/self").expect("Linux").uid();
    assert!(field("user").contains(&format!("uid {uid}")), "{entry}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux");
    assert_eq!(field("origin"), format!("cli {}", host.trim()), "{entry}");
}

/// Sends a signal to a process: "STOP", "CONT".
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().expect("kill runs");
    assert!(status.success(), "failed to send SIG{name} to process {pid}");
}

/// Returns a free port.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port()
}

/// Returns a support ticket.
pub fn ticket(number: i32) -> Document {
    let product = ["Atlas", "Borealis", "Cirrus"][number as usize % 3];
    doc! {
        "_id": number,
        "product": product,
        "customer": { "name": format!("Customer {number}"), "tier": number % 4 },
        "owner": "ada@example.com",
        "date": mongodb::bson::DateTime::from_millis(1_700_000_000_000 + i64::from(number)),
        "subject": format!("Ticket {number}"),
        "content": format!("The parcel number {number} has not arrived, and nobody answers the telephone."),
    }
}

/// Returns the path of a file in this repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}
