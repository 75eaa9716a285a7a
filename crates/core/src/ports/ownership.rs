//! Who owns a Redis and a collection.

use async_trait::async_trait;

use super::PortResult;
use crate::installation::{CollectionMark, Installation};

/// The installation that a Redis belongs to.
#[async_trait]
pub trait Registry: Send + Sync {
    /// The installation; `None` if none is registered.
    async fn installation(&self) -> PortResult<Option<Installation>>;

    /// Registers the installation unless one is registered, in one step. Returns the one that is registered now.
    async fn register(&self, installation: &Installation) -> PortResult<Installation>;

    /// Registers the installation in place of any other.
    async fn replace(&self, installation: &Installation) -> PortResult<()>;
}

/// The owner that a collection names.
#[async_trait]
pub trait Ownable: Send + Sync {
    /// The collection's name, or its alias.
    fn collection(&self) -> &str;

    /// The owner.
    async fn mark(&self) -> PortResult<CollectionMark>;

    /// Names this installation as the owner; without a collection nothing happens. A collection that cannot be marked
    /// (an older server, a key without the right) stays unmarked.
    async fn set_mark(&self, installation: &Installation) -> PortResult<()>;
}
