//! One type for the three servers: kind, directories, launch and readiness check.

use std::path::PathBuf;

use super::{child::Launch, error::StackError, mongod::Mongod, qdrant::Qdrant, redis::Redis};
use crate::ServerKind;

/// A server to run.
#[derive(Debug, Clone)]
pub(super) enum Spec {
    Mongod(Mongod),
    Redis(Redis),
    Qdrant(Qdrant),
}

/// A server's ports: the main port, and Qdrant's gRPC port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) main: u16,
    pub(super) grpc: Option<u16>,
}

impl Ports {
    pub(super) fn each(self) -> impl Iterator<Item = u16> {
        std::iter::once(self.main).chain(self.grpc)
    }
}

impl From<Mongod> for Spec {
    fn from(spec: Mongod) -> Self {
        Self::Mongod(spec)
    }
}
impl From<Redis> for Spec {
    fn from(spec: Redis) -> Self {
        Self::Redis(spec)
    }
}
impl From<Qdrant> for Spec {
    fn from(spec: Qdrant) -> Self {
        Self::Qdrant(spec)
    }
}

impl Spec {
    pub(super) fn kind(&self) -> ServerKind {
        match self {
            Self::Mongod(_) => ServerKind::Mongod,
            Self::Redis(_) => ServerKind::Redis,
            Self::Qdrant(_) => ServerKind::Qdrant,
        }
    }

    pub(super) fn dir(&self) -> PathBuf {
        match self {
            Self::Mongod(spec) => spec.dir(),
            Self::Redis(spec) => spec.dir(),
            Self::Qdrant(spec) => spec.dir(),
        }
    }

    pub(super) fn log(&self) -> PathBuf {
        let (data, name) = match self {
            Self::Mongod(spec) => (&spec.data, "mongod.log"),
            Self::Redis(spec) => (&spec.data, "redis.log"),
            Self::Qdrant(spec) => (&spec.data, "qdrant.log"),
        };
        data.join("logs").join(name)
    }

    pub(super) fn supervise(&self) -> bool {
        match self {
            Self::Mongod(spec) => spec.supervise,
            Self::Redis(spec) => spec.supervise,
            Self::Qdrant(spec) => spec.supervise,
        }
    }

    /// Returns the configured ports; `0` is any.
    pub(super) fn requested_ports(&self) -> Ports {
        match self {
            Self::Mongod(spec) => Ports { main: spec.port, grpc: None },
            Self::Redis(spec) => Ports { main: spec.port, grpc: None },
            Self::Qdrant(spec) => Ports { main: spec.http_port, grpc: Some(spec.grpc_port) },
        }
    }

    /// Returns the URL for clients; for Qdrant that of the REST API.
    pub(super) fn url(&self, ports: Ports) -> String {
        match self {
            Self::Mongod(_) => Mongod::uri(ports.main),
            Self::Redis(_) => Redis::url(ports.main),
            Self::Qdrant(_) => Qdrant::url(ports.main),
        }
    }

    /// Returns the URL of Qdrant's gRPC API.
    pub(super) fn grpc_url(ports: Ports) -> Option<String> {
        ports.grpc.map(Qdrant::url)
    }

    pub(super) fn launch(&self, ports: Ports) -> Result<Launch, StackError> {
        match self {
            Self::Mongod(spec) => Ok(spec.launch(ports.main)),
            Self::Redis(spec) => Ok(spec.launch(ports.main)),
            Self::Qdrant(spec) => spec.launch(ports.main, ports.grpc.unwrap_or_default()),
        }
    }

    pub(super) async fn ready(&self, ports: Ports, pid: u32) -> Result<(), String> {
        match self {
            Self::Mongod(_) => Mongod::ready(ports.main, pid).await,
            Self::Redis(_) => Redis::ready(ports.main, pid).await,
            Self::Qdrant(_) => Qdrant::ready(ports.main, ports.grpc.unwrap_or_default()).await,
        }
    }
}
