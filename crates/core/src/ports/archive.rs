//! Both streams as those see them that replay what they still hold.

use async_trait::async_trait;

use super::PortResult;
use super::journal::Position;
use super::queue::{Delivery, EntryId};

/// What a stream holds, confirmed entries that are kept for a replay included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its oldest entry; `None` if it is empty.
    pub first: Option<EntryId>,
    /// The newest entry that it ever had.
    pub last: EntryId,
    /// How many entries it holds.
    pub entries: u64,
    /// Whether it holds everything that it ever had.
    pub whole: bool,
}

/// A stage's stream from its first entry on.
#[async_trait]
pub trait Archive<T>: Send + Sync {
    /// What the stream holds.
    async fn extent(&self) -> PortResult<Extent>;

    /// Up to `max` entries behind `after`, of about [`READ_BYTES`](super::READ_BYTES) together, oldest first, whoever has worked on
    /// them. None at the end alone.
    async fn page(&self, after: &EntryId, max: usize) -> PortResult<Vec<Delivery<T>>>;

    /// Appends these records, for the stage to work on them like on any others.
    async fn append(&self, records: &[T]) -> PortResult<()>;

    /// How many entries the stage's group has not acknowledged.
    async fn backlog(&self) -> PortResult<u64>;
}

/// A group of its own on stage 2, for a replay into another collection. While it is there, nothing is trimmed that it has yet
/// to read. One that was abandoned goes an hour after its last sign of life.
#[async_trait]
pub trait Follower: Send + Sync {
    /// Begins behind `after`; goes on where it is if it has begun already.
    async fn begin(&self, after: &EntryId) -> PortResult<()>;

    /// How far it has come.
    async fn position(&self) -> PortResult<Position>;

    /// Removes it.
    async fn end(&self) -> PortResult<()>;
}
