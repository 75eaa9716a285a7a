//! A server of Qdrant's API: a real `qdrant`, or a command that serves the same API.

use std::{ffi::OsString, path::PathBuf};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{child::Launch, error::StackError, key::ApiKey};

/// Longest response to `/readyz` that is read; only the status line matters.
const ANSWER_BYTES: u64 = 1024;

/// The environment variable of Qdrant's API key.
const API_KEY: &str = "QDRANT__SERVICE__API_KEY";

/// The program to run as Qdrant.
#[derive(Debug, Clone)]
pub enum QdrantProgram {
    /// A Qdrant server, configured through the environment.
    Binary(PathBuf),
    /// A program with its first arguments, followed by `--data DIR --http 127.0.0.1:PORT --grpc 127.0.0.1:PORT`. It
    /// reads an API key from the environment, as Qdrant does (`QDRANT__SERVICE__API_KEY`), and serves Qdrant's API
    /// until SIGTERM.
    Command(Vec<OsString>),
}

/// Options of Qdrant. Data is in `qdrant` and the log in `logs` under the data directory.
#[derive(Debug, Clone)]
pub struct Qdrant {
    /// The program.
    pub program: QdrantProgram,
    /// The stack's data directory, the parent of Qdrant's.
    pub data: PathBuf,
    /// The port of the REST API on 127.0.0.1; `0` picks a free one, which a restart keeps.
    pub http_port: u16,
    /// The port of the gRPC API on 127.0.0.1; `0` picks a free one, which a restart keeps.
    pub grpc_port: u16,
    /// The API key that it requires. `None`: no authentication.
    pub api_key: Option<ApiKey>,
    /// Whether it is restarted when it exits unexpectedly.
    pub supervise: bool,
}

impl Qdrant {
    /// Free ports, no supervision.
    #[must_use]
    pub fn new(program: QdrantProgram, data: impl Into<PathBuf>) -> Self {
        Self { program, data: data.into(), http_port: 0, grpc_port: 0, api_key: None, supervise: false }
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.data.join("qdrant")
    }

    pub(super) fn url(port: u16) -> String {
        format!("http://127.0.0.1:{port}")
    }

    pub(super) fn launch(&self, http: u16, grpc: u16) -> Result<Launch, StackError> {
        let dir = self.dir();
        // Passed in the environment: every user of the machine can read the command line.
        let key = self.api_key.iter().map(|key| (API_KEY.into(), key.reveal().into()));
        match &self.program {
            QdrantProgram::Binary(program) => {
                let envs = [
                    ("QDRANT__STORAGE__STORAGE_PATH", dir.join("storage").into_os_string()),
                    ("QDRANT__STORAGE__SNAPSHOTS_PATH", dir.join("snapshots").into_os_string()),
                    ("QDRANT__SERVICE__HOST", "127.0.0.1".into()),
                    ("QDRANT__SERVICE__HTTP_PORT", http.to_string().into()),
                    ("QDRANT__SERVICE__GRPC_PORT", grpc.to_string().into()),
                    ("QDRANT__TELEMETRY_DISABLED", "true".into()),
                ];
                let envs = envs.into_iter().map(|(name, value)| (name.into(), value)).chain(key).collect();
                Ok(Launch { program: program.clone(), args: Vec::new(), envs, dir })
            }
            QdrantProgram::Command(line) => {
                let (program, first) = line.split_first().ok_or(StackError::NoQdrant)?;
                let mut args = first.to_vec();
                args.extend(["--data".into(), dir.clone().into_os_string()]);
                args.extend(["--http".into(), format!("127.0.0.1:{http}").into()]);
                args.extend(["--grpc".into(), format!("127.0.0.1:{grpc}").into()]);
                Ok(Launch { program: program.into(), args, envs: key.collect(), dir })
            }
        }
    }

    /// Makes one attempt: succeeds if `GET /readyz` returns 200 and the gRPC port accepts connections.
    ///
    /// Plain HTTP over a socket, to avoid a full HTTP client for one request.
    pub(super) async fn ready(http: u16, grpc: u16) -> Result<(), String> {
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", http)).await?;
            stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await?;
            let mut answer = Vec::new();
            stream.take(ANSWER_BYTES).read_to_end(&mut answer).await?;
            TcpStream::connect(("127.0.0.1", grpc)).await?;
            std::io::Result::Ok(answer)
        };
        let answer = exchange.await.map_err(|error| error.to_string())?;
        let line = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
        if line.split_whitespace().nth(1) == Some("200") {
            Ok(())
        } else {
            Err(format!("GET /readyz returned `{line}`"))
        }
    }
}
