//! The local stack: a real `mongod`, a real `redis-server` and Qdrant, as children of this process.
//!
//! Guarantees: all data is under one data directory, which only one stack uses at a time and which survives restarts; a
//! started stack has answered requests on every port; no server outlives this process.
//!
//! ```text
//! DATA/lock        held while a stack runs
//! DATA/mongodb     mongod       a replica set of one node, rs0
//! DATA/redis       redis-server append-only file
//! DATA/qdrant      Qdrant
//! DATA/logs/*.log  the servers' logs
//! ```
//!
//! Tests that need a single server start it with [`Mongod`], [`Redis`] or [`Qdrant`].

mod child;
mod error;
mod key;
mod local_qdrant;
mod lock;
mod log;
mod mongod;
mod port;
mod qdrant;
mod redis;
mod server;
mod spec;
mod start;

use std::path::PathBuf;

pub use child::{Child, Launch};
pub use error::StackError;
pub use key::ApiKey;
pub use local_qdrant::beside as local_qdrant_beside;
use lock::DataLock;
pub use mongod::Mongod;
pub use qdrant::{Qdrant, QdrantProgram};
pub use redis::{Fsync, Redis};
pub use server::Server;

use crate::{Report, ServerKind, provision::Provisioner};

/// Options of the stack.
#[derive(Debug, Clone)]
pub struct StackOptions {
    /// The data directory. Created when missing.
    pub data: PathBuf,
    /// `mongod`'s port on 127.0.0.1. As for the other ports, `0` picks a free one.
    pub mongodb_port: u16,
    /// Additional server parameters of `mongod`; see [`Mongod::parameters`].
    pub mongod_parameters: Vec<String>,
    /// `redis-server`'s port.
    pub redis_port: u16,
    /// Redis' fsync policy.
    pub redis_fsync: Fsync,
    /// Redis' memory limit, in bytes. `None`: unlimited.
    pub redis_maxmemory: Option<u64>,
    /// The port of Qdrant's REST API.
    pub qdrant_http_port: u16,
    /// The port of Qdrant's gRPC API.
    pub qdrant_grpc_port: u16,
    /// The API key that Qdrant requires. `None`: no authentication.
    pub qdrant_api_key: Option<ApiKey>,
    /// The source of Qdrant.
    pub qdrant: QdrantSource,
    /// Whether servers that exit unexpectedly are restarted.
    pub supervise: bool,
}

/// The source of the stack's Qdrant.
#[derive(Debug, Clone)]
pub enum QdrantSource {
    /// The local Qdrant beside this executable, else `qdrant` on PATH. In a source checkout without either, the former is built.
    Found,
    /// This program; PATH is ignored.
    Only(QdrantProgram),
    /// An external Qdrant: the stack starts none.
    Elsewhere,
}

impl StackOptions {
    /// Default ports, supervision, and the Qdrant that is found.
    #[must_use]
    pub fn new(data: impl Into<PathBuf>) -> Self {
        Self {
            data: data.into(),
            mongodb_port: 27017,
            mongod_parameters: Vec::new(),
            redis_port: 6379,
            redis_fsync: Fsync::default(),
            redis_maxmemory: None,
            qdrant_http_port: 6333,
            qdrant_grpc_port: 6334,
            qdrant_api_key: None,
            qdrant: QdrantSource::Found,
            supervise: true,
        }
    }

    /// Uses free ports, for several stacks on one machine.
    #[must_use]
    pub fn with_free_ports(mut self) -> Self {
        (self.mongodb_port, self.redis_port, self.qdrant_http_port, self.qdrant_grpc_port) = (0, 0, 0, 0);
        self
    }

    async fn check_ports(&self) -> Result<(), StackError> {
        let mut requested = vec![(ServerKind::Mongod, self.mongodb_port), (ServerKind::Redis, self.redis_port)];
        if !matches!(self.qdrant, QdrantSource::Elsewhere) {
            let ports = [self.qdrant_http_port, self.qdrant_grpc_port];
            requested.extend(ports.map(|port| (ServerKind::Qdrant, port)));
        }
        for (server, port) in requested {
            if port != 0 {
                port::expect_free(server, port).await?;
            }
        }
        Ok(())
    }
}

/// The running stack. Drop kills its servers at once; [`stop`](Self::stop) shuts them down in order.
#[derive(Debug)]
pub struct Stack {
    /// `mongod`.
    pub mongod: Server,
    /// `redis-server`.
    pub redis: Server,
    /// Qdrant, unless it is external.
    pub qdrant: Option<Server>,
    /// Released last: fields are dropped in order.
    _lock: DataLock,
}

impl Stack {
    /// Provisions missing parts, starts the servers in parallel, and waits until all of them are ready.
    ///
    /// # Errors
    /// When the directory is locked, a part cannot be provisioned, a port is in use or a server does not start. Servers
    /// that did start are stopped.
    pub async fn start(options: StackOptions, provisioner: &Provisioner, report: Report) -> Result<Self, StackError> {
        let lock = DataLock::take(&options.data)?;
        // Fails before a long download, not after it.
        options.check_ports().await?;
        let provided =
            async { tokio::try_join!(provisioner.mongod(), provisioner.redis_server()).map_err(StackError::from) };
        let ((mongod, redis), program) = tokio::try_join!(provided, options.qdrant.find(&report))?;
        let mongod = Mongod {
            port: options.mongodb_port,
            parameters: options.mongod_parameters,
            supervise: options.supervise,
            ..Mongod::new(mongod, &options.data)
        };
        let redis = Redis {
            port: options.redis_port,
            fsync: options.redis_fsync,
            maxmemory: options.redis_maxmemory,
            supervise: options.supervise,
            ..Redis::new(redis, &options.data)
        };
        let qdrant = program.map(|program| Qdrant {
            http_port: options.qdrant_http_port,
            grpc_port: options.qdrant_grpc_port,
            api_key: options.qdrant_api_key.clone(),
            supervise: options.supervise,
            ..Qdrant::new(program, &options.data)
        });
        let start_qdrant = async {
            match qdrant {
                Some(qdrant) => qdrant.start(report.clone()).await.map(Some),
                None => Ok(None),
            }
        };
        let (mongod, redis, qdrant) =
            tokio::try_join!(mongod.start(report.clone()), redis.start(report.clone()), start_qdrant)?;
        Ok(Self { mongod, redis, qdrant, _lock: lock })
    }

    /// Stops the servers in the order Qdrant, Redis, MongoDB.
    pub async fn stop(self) {
        if let Some(qdrant) = &self.qdrant {
            qdrant.stop().await;
        }
        self.redis.stop().await;
        self.mongod.stop().await;
    }

    /// Returns MongoDB's connection string.
    #[must_use]
    pub fn mongodb_uri(&self) -> String {
        self.mongod.url()
    }

    /// Returns Redis' URL.
    #[must_use]
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// Returns the URL of Qdrant's REST API, if the stack runs one.
    #[must_use]
    pub fn qdrant_http_url(&self) -> Option<String> {
        self.qdrant.as_ref().map(Server::url)
    }

    /// Returns the URL of Qdrant's gRPC API, if the stack runs one.
    #[must_use]
    pub fn qdrant_grpc_url(&self) -> Option<String> {
        self.qdrant.as_ref().and_then(Server::grpc_url)
    }
}

impl QdrantSource {
    async fn find(self, report: &Report) -> Result<Option<QdrantProgram>, StackError> {
        match self {
            Self::Found => local_qdrant::find(report).await.map(Some),
            Self::Only(program) => Ok(Some(program)),
            Self::Elsewhere => Ok(None),
        }
    }
}
