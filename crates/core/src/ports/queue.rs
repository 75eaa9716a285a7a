//! Both streams as those see them that work on their entries.

use std::cmp::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::PortResult;
use crate::embedded::Embedded;

/// About how many bytes of entries one read, claim or page brings: a count alone bounds nothing where an entry may be as large
/// as a document. An entry that is larger comes alone.
pub const READ_BYTES: usize = 8 << 20;

/// The id of a stream entry, `milliseconds-sequence`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryId(pub String);

impl EntryId {
    /// Before every entry.
    pub fn zero() -> Self {
        Self("0-0".to_owned())
    }

    /// Milliseconds since the Unix epoch, and the sequence number within the millisecond. What is no id counts as the
    /// smallest.
    pub fn parts(&self) -> (u64, u64) {
        let parse = |(milliseconds, sequence): (&str, &str)| Some((milliseconds.parse().ok()?, sequence.parse().ok()?));
        self.0.split_once('-').and_then(parse).unwrap_or_default()
    }
}

impl Ord for EntryId {
    /// As Redis orders them: both parts are numbers.
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for EntryId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// An entry that was delivered.
#[derive(Clone, Debug)]
pub struct Delivery<T> {
    /// Its id, to acknowledge it with.
    pub id: EntryId,
    /// Its record, or why it could not be read.
    pub record: Result<T, crate::wire::WireError>,
}

/// What was taken over from consumers that no longer work on it.
#[derive(Clone, Debug)]
pub struct Claimed<T> {
    /// The entries, now this consumer's.
    pub deliveries: Vec<Delivery<T>>,
    /// Entries that were pending but are no longer in the stream: somebody trimmed or deleted what was not confirmed.
    pub lost: Vec<EntryId>,
}

/// An entry that no attempt could process, on its way to the dead letters.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The entry in its stream.
    pub id: EntryId,
    /// Why it was given up.
    pub reason: String,
    /// How often it was tried, not counting attempts that failed for a transient reason.
    pub attempts: u32,
}

/// A stage's stream, as one consumer of its group sees it. Entries stay this consumer's until they are acknowledged.
#[async_trait]
pub trait Queue<T>: Send + Sync {
    /// Up to `max` new entries, of about [`READ_BYTES`] together; waits up to `wait` for the first. Not cancel-safe: an answer that
    /// is dropped leaves its entries pending until they are claimed.
    async fn read(&self, max: usize, wait: Duration) -> PortResult<Vec<Delivery<T>>>;

    /// Takes over up to `max` entries, of about [`READ_BYTES`] together, that have been pending with anyone for at least `idle`.
    /// Entries that are found to be gone are put on record as damage in the same step: see [`Positions`](super::Positions).
    async fn claim(&self, idle: Duration, max: usize) -> PortResult<Claimed<T>>;

    /// Says that this consumer still works on these entries, so that nobody claims them.
    async fn keep(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Gives up these entries, unconfirmed: anyone may claim them at once, whatever the idle time. For a clean shutdown.
    async fn hand_back(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Confirms these entries: their effect is durable.
    async fn acknowledge(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Moves entries to the stage's dead letters and confirms them, in one step.
    async fn park(&self, letters: &[DeadLetter]) -> PortResult<()>;

    /// Removes this consumer from the group if nothing is pending with it; says whether it did.
    async fn leave(&self) -> PortResult<bool>;

    /// Removes entries that every group has confirmed and that the retention no longer covers; says how many. Entries
    /// that any group has yet to read or to acknowledge are never touched.
    async fn trim(&self, retention: Retention) -> PortResult<u64>;
}

/// How much of what is confirmed stays in a stream, to be replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Confirmed entries older than this go.
    pub age: Duration,
    /// Confirmed entries go, oldest first, while the stream is longer than this.
    pub entries: u64,
    /// Confirmed entries go, oldest first, while the stream takes more memory than this many bytes, about.
    pub bytes: u64,
}

/// A stage as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StageStatus {
    /// The stream's key.
    pub stream: String,
    /// The group that works on it.
    pub group: String,
    /// Entries in the stream, confirmed ones that are kept for replay included.
    pub length: u64,
    /// Entries that were ever appended to this stream: the difference of two looks is what came in between.
    pub appended: u64,
    /// Entries that the group has not been given yet. `None` when Redis cannot tell.
    pub lag: Option<u64>,
    /// Entries given to a consumer and not yet confirmed.
    pub pending: u64,
    /// Age in milliseconds of the oldest entry that is not confirmed, by Redis' clock.
    pub oldest_age_ms: Option<u64>,
    /// Entries in the stage's dead letters.
    pub dead_letters: u64,
    /// The group's consumers.
    pub consumers: Vec<ConsumerStatus>,
}

/// One consumer of a group.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ConsumerStatus {
    /// Its name.
    pub name: String,
    /// Entries pending with it.
    pub pending: u64,
    /// Milliseconds since it last asked for work.
    pub idle_ms: u64,
}

/// The step from stage 1 to stage 2.
#[async_trait]
pub trait Handover: Send + Sync {
    /// Appends the records to stage 2 and acknowledges the entries on stage 1, in one atomic step; neither, if none of the
    /// entries is pending any more: then the work was done already, or its stream is gone.
    async fn hand_over(&self, records: &[Embedded], acknowledge: &[EntryId]) -> PortResult<()>;

    /// How many entries stage 2 holds that its group has not acknowledged.
    async fn backlog(&self) -> PortResult<u64>;
}
