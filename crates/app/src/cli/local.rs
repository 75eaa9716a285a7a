//! Arguments of the local stack.

use clap::Args;

/// `up`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidewheel up --demo                 load sample documents and search them
  tidewheel up --demo --exit          stop after the search
  tidewheel up --data /srv/tidewheel --mongodb-port 27018

`up` uses mongod (6.0 or newer) and redis-server (7.0 or newer) from PATH, or downloads, verifies and caches them. \
Qdrant is the local Qdrant next to this executable, else qdrant on PATH. If qdrant.url is set, `up` uses that Qdrant \
and starts none.")]
pub(crate) struct UpArgs {
    /// Insert sample documents, wait until they are searchable, and search
    #[arg(long)]
    pub(crate) demo: bool,
    /// Stop everything after the search (with --demo)
    #[arg(long, requires = "demo")]
    pub(crate) exit: bool,
    /// Data directory of the servers (local.data) [default: ~/.local/share/tidewheel]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// MongoDB port (local.mongodb_port) [default: 27017]
    #[arg(long, value_name = "PORT")]
    pub(crate) mongodb_port: Option<u16>,
    /// Redis port (local.redis_port) [default: 6379]
    #[arg(long, value_name = "PORT")]
    pub(crate) redis_port: Option<u16>,
    /// Qdrant REST port (local.qdrant_http_port) [default: 6333]
    #[arg(long, value_name = "PORT")]
    pub(crate) qdrant_http_port: Option<u16>,
    /// Qdrant gRPC port (local.qdrant_grpc_port) [default: 6334]
    #[arg(long, value_name = "PORT")]
    pub(crate) qdrant_grpc_port: Option<u16>,
    /// Embedder port (embedder.listen) [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub(crate) embedder_port: Option<u16>,
    /// Operations server port (http.listen) [default: 9090]
    #[arg(long, value_name = "PORT")]
    pub(crate) http_port: Option<u16>,
    /// Web console port (console.listen) [default: 9091]
    #[arg(long, value_name = "PORT")]
    pub(crate) console_port: Option<u16>,
}

impl UpArgs {
    /// Flags of `up` that override settings: flag, key, value.
    pub(crate) fn settings(&self) -> Vec<(String, String, String)> {
        let port = |port: Option<u16>| port.map(|port| port.to_string());
        let loopback = |port: Option<u16>| port.map(|port| format!("127.0.0.1:{port}"));
        [
            ("--data", "local.data", self.data.clone()),
            ("--mongodb-port", "local.mongodb_port", port(self.mongodb_port)),
            ("--redis-port", "local.redis_port", port(self.redis_port)),
            ("--qdrant-http-port", "local.qdrant_http_port", port(self.qdrant_http_port)),
            ("--qdrant-grpc-port", "local.qdrant_grpc_port", port(self.qdrant_grpc_port)),
            ("--embedder-port", "embedder.listen", loopback(self.embedder_port)),
            ("--http-port", "http.listen", loopback(self.http_port)),
            ("--console-port", "console.listen", loopback(self.console_port)),
        ]
        .into_iter()
        .filter_map(|(flag, key, value)| Some((flag.to_owned(), key.to_owned(), value?)))
        .collect()
    }
}
