//! Both stages from a consumer's point of view.

use std::cmp::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use super::PortResult;
use super::record::RecordError;
use crate::catalog::TargetId;
use crate::embedded::Embedded;

/// Approximate size in bytes of the entries of one read, claim or page: a count alone does not bound memory when an
/// entry may be as large as a document. A larger entry is returned alone.
pub const READ_BYTES: usize = 8 << 20;

/// The id of an entry, `milliseconds-sequence`. Entries are appended in the order of their ids.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EntryId(pub String);

impl EntryId {
    /// The id before every entry.
    pub fn zero() -> Self {
        Self::from_parts(0, 0)
    }

    /// The id of these [`parts`](Self::parts).
    pub fn from_parts(milliseconds: u64, sequence: u64) -> Self {
        Self(format!("{milliseconds}-{sequence}"))
    }

    /// The id before every entry of this millisecond since the Unix epoch and after every earlier one.
    pub fn before_time(milliseconds: u64) -> Self {
        match milliseconds.checked_sub(1) {
            Some(last) => Self::from_parts(last, u64::MAX),
            None => Self::zero(),
        }
    }

    /// The id right before this one; [`Self::zero`] has none and returns itself.
    #[must_use]
    pub fn preceding(&self) -> Self {
        let (milliseconds, sequence) = self.parts();
        match sequence.checked_sub(1) {
            Some(sequence) => Self::from_parts(milliseconds, sequence),
            None => Self::before_time(milliseconds),
        }
    }

    /// Milliseconds since the Unix epoch, and the sequence number within the millisecond. An invalid id counts as the
    /// smallest.
    pub fn parts(&self) -> (u64, u64) {
        let parse = |(milliseconds, sequence): (&str, &str)| Some((milliseconds.parse().ok()?, sequence.parse().ok()?));
        self.0.split_once('-').and_then(parse).unwrap_or_default()
    }
}

impl Ord for EntryId {
    /// Compares both parts as numbers.
    fn cmp(&self, other: &Self) -> Ordering {
        self.parts().cmp(&other.parts()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for EntryId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A delivered entry.
#[derive(Clone, Debug)]
pub struct Delivery<T> {
    /// Its id, to acknowledge it with.
    pub id: EntryId,
    /// Its record, or the decoding error.
    pub record: Result<T, RecordError>,
}

/// Entries claimed from unresponsive consumers.
#[derive(Clone, Debug)]
pub struct Claimed<T> {
    /// The entries, now pending with this consumer.
    pub deliveries: Vec<Delivery<T>>,
    /// Entries that were pending but are no longer in the stream: another client trimmed or deleted them before they
    /// were acknowledged.
    pub lost: Vec<EntryId>,
}

/// An entry to move to the dead-letter queue.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The entry's id in its stream.
    pub id: EntryId,
    /// The reason for parking it.
    pub reason: String,
    /// Number of failed attempts while the server worked for others.
    pub attempts: u32,
    /// The targets for which a change failed: they replace its targets, and its leaves are dropped. Empty: all, and the
    /// entry moves unmodified.
    pub targets: Vec<TargetId>,
}

impl DeadLetter {
    /// An entry that failed for all of its targets.
    pub fn new(id: EntryId, reason: impl Into<String>, attempts: u32) -> Self {
        Self { id, reason: reason.into(), attempts, targets: Vec::new() }
    }
}

/// A record that was left out, because its target must not delay the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The target, which is [lost](super::CatalogStore::lost) until it has been filled again.
    pub target: TargetId,
    /// The reason.
    pub reason: String,
}

/// Acknowledges delivered entries.
#[async_trait]
pub trait Acknowledge: Send + Sync {
    /// Acknowledges these entries: their effect is durable.
    async fn acknowledge(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Records the gaps, then acknowledges these entries, without effect, in one step. A failure in between can only
    /// leave entries that are delivered again.
    async fn skip(&self, ids: &[EntryId], gaps: &[Gap]) -> PortResult<()>;
}

/// Parks delivered entries that failed permanently.
#[async_trait]
pub trait Park: Send + Sync {
    /// Moves entries to the stage's dead-letter queue and acknowledges them, atomically.
    async fn park(&self, letters: &[DeadLetter]) -> PortResult<()>;
}

/// A source of entries. They stay pending with this consumer until they are acknowledged or parked.
#[async_trait]
pub trait Queue<T>: Acknowledge + Park {
    /// Up to `max` new entries, of about [`READ_BYTES`] together; waits up to `wait` for the first. Not cancel-safe: a
    /// dropped response leaves its entries pending until they are claimed.
    async fn read(&self, max: usize, wait: Duration) -> PortResult<Vec<Delivery<T>>>;
}

/// A consumer's duties in the group of a stage that it shares with other consumers.
#[async_trait]
pub trait Maintenance<T>: Send + Sync {
    /// Claims up to `max` entries, of about [`READ_BYTES`] together, that have been pending with any consumer for at
    /// least `idle`. Missing entries are recorded as damage in the same step: see [`Positions`](super::Positions).
    async fn claim(&self, idle: Duration, max: usize) -> PortResult<Claimed<T>>;

    /// Resets the idle time of these entries, so that no other consumer claims them.
    async fn keep(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Releases these entries without acknowledging them: any consumer may claim them at once, regardless of the idle
    /// time. For a clean shutdown.
    async fn hand_back(&self, ids: &[EntryId]) -> PortResult<()>;

    /// Removes this consumer from the group if it has no pending entries; returns whether it did.
    async fn leave(&self) -> PortResult<bool>;

    /// Removes entries that every group has acknowledged and that the retention no longer covers; returns how many.
    /// Entries that any group has yet to read or to acknowledge are never touched.
    async fn trim(&self, retention: Retention) -> PortResult<u64>;
}

/// A stage, from the point of view of one consumer of its group.
pub trait StageQueue<T>: Queue<T> + Maintenance<T> {}

impl<T, Q: Queue<T> + Maintenance<T>> StageQueue<T> for Q {}

/// Retention of acknowledged entries in a stream, for replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Acknowledged entries older than this are removed.
    pub age: Duration,
    /// Acknowledged entries are removed, oldest first, while the stream is longer than this.
    pub entries: u64,
    /// Acknowledged entries are removed, oldest first, while the stream uses more than about this many bytes of memory.
    pub bytes: u64,
}

/// A stage from an operator's point of view.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct StageStatus {
    /// The stream's key.
    pub stream: String,
    /// The stage's consumer group.
    pub group: String,
    /// Entries in the stream, including acknowledged entries retained for replay.
    pub length: u64,
    /// Entries appended to this stream since its creation: the difference of two readings is the number appended in
    /// between.
    pub appended: u64,
    /// Entries not yet delivered to the group. `None` if the server cannot report it.
    pub lag: Option<u64>,
    /// Entries delivered to a consumer and not yet acknowledged.
    pub pending: u64,
    /// Age in milliseconds of the oldest unacknowledged entry, by the server's clock.
    pub oldest_age_ms: Option<u64>,
    /// Entries in the stage's dead-letter queue.
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
    /// Milliseconds since its last request for entries.
    pub idle_ms: u64,
}

/// The step from stage 1 to stage 2.
#[async_trait]
pub trait Handover: Send + Sync {
    /// Appends the records to stage 2 and acknowledges the entries on stage 1, atomically; neither, if none of the
    /// entries is pending any more: then the work was already done, or its stream is gone.
    async fn hand_over(&self, records: &[Embedded], acknowledge: &[EntryId]) -> PortResult<()> {
        self.hand_over_with_gaps(records, acknowledge, &[]).await
    }

    /// Like [`Self::hand_over`], and records these gaps in the same step.
    async fn hand_over_with_gaps(&self, records: &[Embedded], acknowledge: &[EntryId], gaps: &[Gap]) -> PortResult<()>;
}

/// The backlog of a stage.
#[async_trait]
pub trait Backlog: Send + Sync {
    /// Number of entries that the stage's group has not acknowledged, delivered or not.
    async fn backlog(&self) -> PortResult<u64>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_before_a_time_is_between_its_first_entry_and_all_earlier_ones() {
        assert!(EntryId::before_time(7) < EntryId("7-0".into()));
        assert!(EntryId::before_time(7) > EntryId("6-9".into()));
        assert_eq!(EntryId::before_time(0), EntryId::zero());
    }

    #[test]
    fn preceding_id_is_right_before() {
        for (id, preceding) in [("7-3", "7-2"), ("7-0", "6-18446744073709551615"), ("0-1", "0-0"), ("0-0", "0-0")] {
            assert_eq!(EntryId(id.into()).preceding(), EntryId(preceding.into()), "{id}");
        }
    }
}
