//! Stage 1 from the producer's point of view.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::PortResult;
use super::queue::EntryId;
use super::source::ResumeToken;
use crate::catalog::{Due, TargetId};
use crate::change::Change;
use crate::identity::Namespace;
use crate::version::ClusterTime;

/// The progress of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// Reading the source.
    Running {
        /// The time of its rows.
        time: ClusterTime,
        /// The last row read: collection and canonical key. `None` at the start.
        after: Option<(Namespace, String)>,
        /// Rows read so far.
        rows: u64,
    },
    /// All rows are read; the orphan sweep of the index is running.
    Sweeping {
        /// The time of its rows.
        time: ClusterTime,
        /// Total rows read.
        rows: u64,
        /// The last point whose page contained orphans. Stored so that a lost removal is detected.
        after: Option<Swept>,
    },
    /// Everything that existed at this time has been read, and the targets in scope contain nothing else.
    Done {
        /// The time of its rows.
        time: ClusterTime,
        /// Total rows read.
        rows: u64,
    },
}

/// A position of the orphan sweep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The target; `None` for the one target of an installation without an applied catalog.
    pub target: Option<TargetId>,
    /// The point of its collection.
    pub point: Uuid,
}

/// The read position in the source. Saved atomically with the entries that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The resume token of the change stream.
    pub token: ResumeToken,
    /// The time of the last event, and the number of appended events of that time: the next ordinal is one more.
    pub last: (ClusterTime, u32),
    /// Every change committed at or before this time has been appended, except rows that the snapshot has not read yet.
    /// Zero if unknown.
    pub through: ClusterTime,
    /// The epoch of the assigned versions.
    pub epoch: u32,
    /// The [`Source::scope`](super::Source::scope) that the token belongs to.
    pub selection: String,
    /// The snapshot.
    pub snapshot: SnapshotState,
    /// The revision of the catalog that routes the entries after this checkpoint.
    pub catalog: u64,
    /// The targets of the snapshot. Empty at revision 0, whose snapshots cover everything.
    pub scope: Vec<Due>,
}

/// A change that cannot be appended: it is parked in the dead-letter queue of stage 1, without its document.
#[derive(Clone, Debug, PartialEq)]
pub struct ParkedChange {
    /// The change, without its document.
    pub change: Change,
    /// The reason for parking it.
    pub reason: String,
}

/// The outcome of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Entries and checkpoint were saved atomically.
    Saved,
    /// The saved checkpoint differs from the expected one: another producer is active, or the journal lost some of
    /// its history. Nothing was saved. Discard all state and load the checkpoint again.
    Conflict,
}

/// The position of a stage at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The newest entry ever appended to its stream.
    pub last: EntryId,
    /// The oldest entry that its group has not acknowledged, delivered or not, or the id right after the last delivered
    /// entry; `None` if there is no such entry.
    pub waiting: Option<EntryId>,
}

impl Position {
    /// Whether the group has acknowledged every entry up to this one.
    pub fn has_passed(&self, id: &EntryId) -> bool {
        self.waiting.as_ref().is_none_or(|waiting| waiting > id)
    }
}

/// The positions of both stages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Stage 1.
    pub raw: Position,
    /// Stage 2.
    pub embedded: Position,
    /// Known damage that is not yet repaired. With damage, the positions are meaningless.
    pub damage: Option<Damage>,
    /// Time of the positions by the clock of the streams, in milliseconds since the Unix epoch.
    pub at: u64,
    /// The revision of the applied catalog; 0 without one.
    pub catalog: u64,
    /// The targets that lost something: see [`CatalogStore::lost`](super::CatalogStore::lost).
    pub lost: Vec<(TargetId, String)>,
}

/// Loss of saved data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Stream entries deleted by another client, acknowledged or not: this cannot be determined afterwards. Names the
    /// stream.
    Entries(String),
    /// The collection is missing from the index, or the configured collection is not the one written so far. Only
    /// without an applied catalog: with one, the [target](Positions::lost) is lost.
    Collection(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Entries(what) | Self::Collection(what)) = self;
        f.write_str(what)
    }
}

/// The damage that a [`Journal::restart`] repairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Lost entries: `next` is the applied checkpoint, after which they are appended again. A lost collection stays
    /// recorded.
    Entries,
    /// Everything: a snapshot compares all documents with the index. Until it is done, there is no applied checkpoint.
    Everything,
}

/// The resume position of the slow audit of one target, opaque to all but the audit.
#[async_trait]
pub trait AuditPosition: Send + Sync {
    /// The position; `None` for a new audit.
    async fn audit(&self) -> PortResult<Option<String>>;

    /// Saves the position; `None` removes it.
    async fn save_audit(&self, place: Option<&str>) -> PortResult<()>;
}

/// Stage 1 from the producer's point of view, and the checkpoints. Its audit position is that of the plain target; those
/// of others are in their [`TargetState`](super::TargetState).
#[async_trait]
pub trait Journal: AuditPosition {
    /// The saved checkpoint, if any.
    async fn load(&self) -> PortResult<Option<Checkpoint>>;

    /// Appends the changes and replaces the checkpoint, atomically, if the saved checkpoint is `expected`. If the
    /// outcome of an append is unknown (the response was lost), the call determines it before it returns.
    async fn append(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        next: &Checkpoint,
    ) -> PortResult<Appended> {
        self.append_and_park(expected, changes, &[], next).await
    }

    /// Like [`Self::append`], and parks these in the dead-letter queue of stage 1 in the same step.
    async fn append_and_park(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[ParkedChange],
        next: &Checkpoint,
    ) -> PortResult<Appended>;

    /// Maximum size of an entry's field in bytes, if known: a longer one makes every append fail.
    async fn most_bytes(&self) -> PortResult<Option<usize>>;

    /// The newest checkpoint known to be in the index with everything that it covers: the point from which all work can
    /// be resumed. `None` before the first start.
    async fn applied(&self) -> PortResult<Option<Checkpoint>>;

    /// Saves `applied` as the applied checkpoint, if the saved checkpoint is `expected`.
    async fn confirm(&self, expected: &Checkpoint, applied: &Checkpoint) -> PortResult<Appended>;

    /// Appends and parks the changes and continues from `next`, atomically, if the saved checkpoint is `expected`;
    /// accepts the current streams as undamaged, to the extent of `repair`.
    async fn restart(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[ParkedChange],
        next: &Checkpoint,
        repair: Repair,
    ) -> PortResult<Appended>;

    /// The positions of both stages, and known damage.
    async fn positions(&self) -> PortResult<Positions>;

    /// Takes or renews the lease for `time_to_live`; false while another owner holds it. It avoids duplicate work by a
    /// second producer; safety rests on the expected checkpoint, not on the lease.
    async fn lease(&self, owner: &str, time_to_live: Duration) -> PortResult<bool>;

    /// Releases the lease, if this owner holds it.
    async fn release(&self, owner: &str) -> PortResult<()>;
}
