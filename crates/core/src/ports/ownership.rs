//! Ownership of the queues and of a collection.

use async_trait::async_trait;

use super::PortResult;
use crate::installation::{CollectionMark, Installation};

/// The installation that the queues belong to.
#[async_trait]
pub trait Registry: Send + Sync {
    /// The registered installation, if any.
    async fn installation(&self) -> PortResult<Option<Installation>>;

    /// Registers the installation unless one is registered, atomically. Returns the registered one.
    async fn register(&self, installation: &Installation) -> PortResult<Installation>;

    /// Registers the installation, replacing any other.
    async fn replace(&self, installation: &Installation) -> PortResult<()>;
}

/// The owner recorded on a collection.
#[async_trait]
pub trait Ownable: Send + Sync {
    /// The collection's name, or its alias.
    fn collection(&self) -> &str;

    /// The owner.
    async fn mark(&self) -> PortResult<CollectionMark>;

    /// Records this installation as the owner; a no-op without a collection. A collection that cannot be marked (an
    /// older server, an API key without permission) stays unmarked.
    async fn set_mark(&self, installation: &Installation) -> PortResult<()>;
}
