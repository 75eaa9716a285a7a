//! `mongod` as a replica set of one node, which change streams and transactions require.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use mongodb::{
    Client,
    bson::{Bson, Document, doc},
    error::ErrorKind,
    options::{ClientOptions, ServerAddress},
};
use tokio::net::TcpStream;

use super::child::Launch;
use crate::provision::Program;

const REPLICA_SET: &str = "rs0";

/// Timeout of one readiness attempt on a server that accepts connections.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// `replSetGetStatus` on a node without a replica set configuration.
const NOT_YET_INITIALIZED: i32 = 94;
/// `replSetGetStatus` on a node that is not in the stored configuration, because its port has changed.
const INVALID_REPLICA_SET_CONFIG: i32 = 93;

/// Options of `mongod`. Data is in `mongodb` and the log in `logs` under the data directory.
#[derive(Debug, Clone)]
pub struct Mongod {
    /// The executable.
    pub program: Program,
    /// The stack's data directory, the parent of MongoDB's.
    pub data: PathBuf,
    /// The port on 127.0.0.1; `0` picks a free one, which a restart keeps. The port of a data directory may change: the
    /// replica set is reconfigured.
    pub port: u16,
    /// Oplog size in MiB: bounds how far the change stream can fall behind. MongoDB's minimum is 990.
    pub oplog_mb: u32,
    /// WiredTiger's cache in GiB. MongoDB's default is half of the memory, too much for a developer's laptop.
    pub cache_gb: f32,
    /// Additional server parameters, `name=value`; `enableTestCommands=1` enables MongoDB's fail points in tests.
    pub parameters: Vec<String>,
    /// Whether it is restarted when it exits unexpectedly.
    pub supervise: bool,
}

impl Mongod {
    /// Small sizes, a free port, no supervision.
    #[must_use]
    pub fn new(program: Program, data: impl Into<PathBuf>) -> Self {
        Self {
            program,
            data: data.into(),
            port: 0,
            oplog_mb: 990,
            cache_gb: 0.25,
            parameters: Vec::new(),
            supervise: false,
        }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.data.join("mongodb")
    }

    pub(super) fn uri(port: u16) -> String {
        format!("mongodb://127.0.0.1:{port}/?replicaSet={REPLICA_SET}&directConnection=false")
    }

    pub(super) fn launch(&self, port: u16) -> Launch {
        let mut launch = Launch::of(&self.program, self.dir());
        let mut arg = |name: &str, value: OsString| launch.args.extend([name.into(), value]);
        arg("--dbpath", self.dir().into());
        arg("--port", port.to_string().into());
        arg("--bind_ip", "127.0.0.1".into());
        arg("--replSet", REPLICA_SET.into());
        arg("--oplogSize", self.oplog_mb.to_string().into());
        arg("--wiredTigerCacheSizeGB", self.cache_gb.to_string().into());
        // On shutdown a primary waits up to 15 s for a successor; there is none.
        arg("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100".into());
        // Diagnostics recorded once per second only serve MongoDB's support.
        arg("--setParameter", "diagnosticDataCollectionEnabled=false".into());
        for parameter in &self.parameters {
            arg("--setParameter", parameter.into());
        }
        launch.args.push("--nounixsocket".into());
        launch
    }

    /// Makes one attempt: configures the replica set if needed; succeeds if process `pid` is a writable primary.
    pub(super) async fn ready(port: u16, pid: u32) -> Result<(), String> {
        // Cheap, and fails at once while the server is not listening yet, unlike the driver, which retries.
        TcpStream::connect(("127.0.0.1", port)).await.map_err(|error| error.to_string())?;
        let options = ClientOptions::builder()
            .hosts(vec![ServerAddress::Tcp { host: "127.0.0.1".into(), port: Some(port) }])
            .direct_connection(true)
            .server_selection_timeout(ATTEMPT_TIMEOUT)
            .build();
        let client = Client::with_options(options).map_err(|error| error.to_string())?;
        let answer = tokio::time::timeout(ATTEMPT_TIMEOUT, lead(&client, port, pid)).await;
        client.shutdown().immediate(true).await;
        answer.unwrap_or_else(|_| Err("accepts connections, but does not respond".into()))
    }
}

async fn lead(client: &Client, port: u16, pid: u32) -> Result<(), String> {
    let admin = client.database("admin");
    let run = async |command: Document| admin.run_command(command).await;
    let text = |error: mongodb::error::Error| error.to_string();
    let status =
        run(doc! { "serverStatus": 1, "repl": 0, "metrics": 0, "wiredTiger": 0, "locks": 0 }).await.map_err(text)?;
    if number(&status, "pid") != Some(i64::from(pid)) {
        return Err(format!("another mongod answers on port {port}"));
    }
    let hello = run(doc! { "hello": 1 }).await.map_err(text)?;
    if hello.get_bool("isWritablePrimary").unwrap_or(false) {
        return Ok(());
    }
    let members = vec![doc! { "_id": 0, "host": format!("127.0.0.1:{port}") }];
    match run(doc! { "replSetGetStatus": 1 }).await.map_err(|error| (code(&error), error)) {
        Err((Some(NOT_YET_INITIALIZED), _)) => {
            // The same code is returned while a stored configuration is still being loaded, which takes long if another
            // process has the old port. That configuration takes effect automatically.
            let stored = client.database("local").collection::<Document>("system.replset");
            if stored.find_one(doc! {}).await.map_err(text)?.is_some() {
                return Err("still loading the replica set configuration".into());
            }
            let config = doc! { "_id": REPLICA_SET, "members": members };
            run(doc! { "replSetInitiate": config }).await.map_err(text)?;
        }
        Err((Some(INVALID_REPLICA_SET_CONFIG), _)) => {
            let stored = run(doc! { "replSetGetConfig": 1 }).await.map_err(text)?;
            let mut config = stored.get_document("config").map_err(|error| error.to_string())?.clone();
            let version = number(&config, "version").unwrap_or(1);
            config.insert("version", version + 1);
            config.insert("members", members);
            run(doc! { "replSetReconfig": config, "force": true }).await.map_err(text)?;
        }
        Err((_, error)) => return Err(text(error)),
        Ok(_) => {}
    }
    Err("not primary yet".into())
}

fn code(error: &mongodb::error::Error) -> Option<i32> {
    match error.kind.as_ref() {
        ErrorKind::Command(command) => Some(command.code),
        _ => None,
    }
}

/// Returns an integer, which MongoDB may send as any of its numeric types.
fn number(document: &Document, key: &str) -> Option<i64> {
    match document.get(key)? {
        Bson::Int32(value) => Some((*value).into()),
        Bson::Int64(value) => Some(*value),
        #[allow(clippy::cast_possible_truncation)]
        Bson::Double(value) => Some(*value as i64),
        _ => None,
    }
}
