//! Both streams from a replay's point of view.

use async_trait::async_trait;

use super::PortResult;
use super::journal::Position;
use super::queue::{Backlog, Delivery, EntryId};

/// The contents of a stream, including acknowledged entries retained for replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The oldest entry; `None` if the stream is empty.
    pub first: Option<EntryId>,
    /// The newest entry ever appended.
    pub last: EntryId,
    /// Number of entries in the stream.
    pub entries: u64,
    /// Whether the stream still holds every entry ever appended.
    pub whole: bool,
}

/// A stage's stream from its first entry.
#[async_trait]
pub trait StreamLog<T>: Backlog {
    /// The contents of the stream.
    async fn extent(&self) -> PortResult<Extent>;

    /// Up to `max` entries after `after`, of about [`READ_BYTES`](super::READ_BYTES) together, oldest first, regardless
    /// of their consumer. Empty only at the end.
    async fn page(&self, after: &EntryId, max: usize) -> PortResult<Vec<Delivery<T>>>;

    /// Appends these records for regular processing by the stage.
    async fn append(&self, records: &[T]) -> PortResult<()>;
}

/// A separate consumer group on stage 2, for a replay into another collection. While it exists, entries that it has not
/// read are not trimmed. An abandoned group is removed an hour after its last activity.
#[async_trait]
pub trait Follower: Send + Sync {
    /// Starts after `after`; continues at its position if the group exists.
    async fn begin(&self, after: &EntryId) -> PortResult<()>;

    /// The group's position.
    async fn position(&self) -> PortResult<Position>;

    /// Removes the group.
    async fn end(&self) -> PortResult<()>;
}
