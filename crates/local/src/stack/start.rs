//! Starts a single server from its options.

use super::{error::StackError, mongod::Mongod, qdrant::Qdrant, redis::Redis, server::Server};
use crate::Report;

impl Mongod {
    /// Starts it and waits until it is primary.
    ///
    /// # Errors
    /// When the port is in use, or it does not start or does not become primary.
    pub async fn start(self, report: Report) -> Result<Server, StackError> {
        Server::start_new(self.into(), report).await
    }
}

impl Redis {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When the port is in use, or it does not start or does not become ready.
    pub async fn start(self, report: Report) -> Result<Server, StackError> {
        Server::start_new(self.into(), report).await
    }
}

impl Qdrant {
    /// Starts it and waits until it is ready on both ports.
    ///
    /// # Errors
    /// When a port is in use, or it does not start or does not become ready.
    pub async fn start(self, report: Report) -> Result<Server, StackError> {
        Server::start_new(self.into(), report).await
    }
}
