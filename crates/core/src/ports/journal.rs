//! The producer's side of stage 1.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::PortResult;
use super::dead_letters::ABOUT;
use super::queue::EntryId;
use super::source::ResumeToken;
use crate::change::Change;
use crate::identity::Namespace;
use crate::streams::RAW;
use crate::version::ClusterTime;
use crate::wire::{Fields, Record as _};

/// How far a snapshot has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotState {
    /// Still reading.
    Running {
        /// Its rows carry this time.
        time: ClusterTime,
        /// The last row read: collection and canonical key. `None` at the very beginning.
        after: Option<(Namespace, String)>,
        /// Rows read so far.
        rows: u64,
    },
    /// Everything has been read; what the index has beyond it is being looked for.
    Sweeping {
        /// The time of its rows.
        time: ClusterTime,
        /// Rows read in all.
        rows: u64,
        /// The last point whose page had something to remove. It is here so that a Redis that forgets a removal is noticed.
        after: Option<Uuid>,
    },
    /// Everything that was there at this time has been read, and nothing else is in the index.
    Done {
        /// The time of its rows.
        time: ClusterTime,
        /// Rows read in all.
        rows: u64,
    },
}

/// How far the source has been read. Saved in one step with the entries that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Where to resume the feed.
    pub token: ResumeToken,
    /// The time of the last event, and how many events of that time have been appended: the next one's ordinal is one more.
    pub last: (ClusterTime, u32),
    /// Every change committed at this time or before has been appended, apart from what the snapshot has yet to read. Zero where
    /// that is not known.
    pub through: ClusterTime,
    /// The epoch of the versions given out.
    pub epoch: u32,
    /// The [`Source::selection`](super::Source::selection) that the token belongs to.
    pub selection: String,
    /// The snapshot.
    pub snapshot: SnapshotState,
}

/// A change that cannot be appended: it goes to the dead letters of stage 1, without its document.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// The change, without its document.
    pub change: Change,
    /// Why it cannot be appended.
    pub reason: String,
}

impl Parked {
    /// The fields of its dead letter: what [`Letter::read`](super::Letter::read) reads.
    pub fn fields(&self, parked_at: u64) -> Fields<'_> {
        let mut fields = self.change.encode();
        let about = [RAW.to_owned(), EntryId::zero().0, self.reason.clone(), "1".to_owned(), parked_at.to_string()];
        fields.extend(ABOUT.into_iter().zip(about).map(|(name, value)| (name, Cow::Owned(value.into_bytes()))));
        fields
    }
}

/// How an append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Entries and checkpoint were saved together.
    Saved,
    /// The checkpoint was not the expected one: another producer is at work, or Redis lost some of its history.
    /// Nothing was saved. Forget everything and load the checkpoint again.
    Conflict,
}

/// How far a stage has come, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// The newest entry that its stream ever had.
    pub last: EntryId,
    /// The oldest entry that its group has not acknowledged, delivered or not, or a place right behind the last one that was
    /// delivered; `None` if there is no such entry.
    pub waiting: Option<EntryId>,
}

impl Position {
    /// Whether the group has acknowledged every entry up to this one.
    pub fn has_passed(&self, id: &EntryId) -> bool {
        self.waiting.as_ref().is_none_or(|waiting| waiting > id)
    }
}

/// How far both stages have come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    /// Stage 1.
    pub raw: Position,
    /// Stage 2.
    pub embedded: Position,
    /// What is known to be lost and not repaired yet. With it, the positions say nothing.
    pub damage: Option<Damage>,
    /// When that was, by the clock of the streams, in milliseconds since the Unix epoch.
    pub at: u64,
}

/// Something that was saved, and is gone before its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Entries of a stream that somebody else has deleted, acknowledged or not: afterwards nobody can tell. Says which stream.
    Entries(String),
    /// The collection in Qdrant, or the one that is configured is not the one that was written so far.
    Collection(String),
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Entries(what) | Self::Collection(what)) = self;
        f.write_str(what)
    }
}

/// What a [`Journal::restart`] makes good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Lost entries: `next` is the applied checkpoint, after which they will be appended again. A lost collection stays on
    /// record.
    Entries,
    /// Everything: all will be compared with the index. There is no applied checkpoint until that is done.
    Everything,
}

/// Stage 1 as the producer sees it, and the record of how far everything has come.
#[async_trait]
pub trait Journal: Send + Sync {
    /// The saved checkpoint; `None` if there is none.
    async fn load(&self) -> PortResult<Option<Checkpoint>>;

    /// Appends the changes and replaces the checkpoint, both or neither, if the saved checkpoint is `expected`.
    /// If it is not known whether an append happened (the answer was lost), the call finds out before it answers.
    async fn append(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        next: &Checkpoint,
    ) -> PortResult<Appended> {
        self.append_and_park(expected, changes, &[], next).await
    }

    /// The same, and adds these to the dead letters of stage 1 in the same step.
    async fn append_and_park(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[Parked],
        next: &Checkpoint,
    ) -> PortResult<Appended>;

    /// Most bytes that a field of an entry may have, as far as that is known: a longer one makes every append fail.
    async fn most_bytes(&self) -> PortResult<Option<usize>>;

    /// The newest checkpoint that is known to be in the index with all that it covers: where everything can be taken up
    /// again. `None` before the first start.
    async fn applied(&self) -> PortResult<Option<Checkpoint>>;

    /// Saves `applied` as such, if the saved checkpoint is `expected`.
    async fn confirm(&self, expected: &Checkpoint, applied: &Checkpoint) -> PortResult<Appended>;

    /// Appends and parks the changes and goes on from `next`, all or nothing, if the saved checkpoint is `expected`; takes the
    /// streams as they are now for undamaged, as far as `repair` says.
    async fn restart(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[Parked],
        next: &Checkpoint,
        repair: Repair,
    ) -> PortResult<Appended>;

    /// How far both stages have come, and what is known to be lost.
    async fn positions(&self) -> PortResult<Positions>;

    /// Where the slow audit is to be resumed, as text that only the audit understands; `None` for a new one.
    async fn audit(&self) -> PortResult<Option<String>>;

    /// Saves that place; forgets it with `None`.
    async fn save_audit(&self, place: Option<&str>) -> PortResult<()>;

    /// Takes or renews the lease for `time_to_live`; false while another owner has it. It keeps a second producer from doing the
    /// work twice; safety does not rest on it but on the expected checkpoint.
    async fn lease(&self, owner: &str, time_to_live: Duration) -> PortResult<bool>;

    /// Gives the lease back, if this owner has it.
    async fn release(&self, owner: &str) -> PortResult<()>;

    /// How many entries stage 1 holds that its group has not acknowledged, delivered or not.
    async fn backlog(&self) -> PortResult<u64>;
}
