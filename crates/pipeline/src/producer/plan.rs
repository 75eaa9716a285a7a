//! Decides what is appended for what the source says, without appending it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::key;
use tidewheel_core::payload::{Stamped, digest};
use tidewheel_core::ports::{
    Checkpoint, Damage, FeedBatch, Fence, FenceTarget, IndexedPoint, Parked, ResumeToken, SnapshotState, SourceRow,
    StartAt,
};
use tidewheel_core::version::{ClusterTime, MAX_ORDINAL, Version};
use uuid::Uuid;

use super::admission::{Limits, admit};
use super::moves::Moves;
pub use super::moves::doubtful;

/// An append: the entries and the checkpoint that covers them.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The entries of stage 1.
    pub changes: Vec<Change>,
    /// What goes to its dead letters.
    pub parked: Vec<Parked>,
    /// The checkpoint after them.
    pub next: Checkpoint,
}

/// How to take up the work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was ever appended: begin now, with a snapshot if one is wanted.
    Fresh,
    /// Go on where the checkpoint ends.
    Resume(StartAt),
    /// The selection of collections has changed, so that the token may no longer be found: go on at the time of the
    /// last event, and read everything again, for there may be collections that were not followed before.
    Reselect(StartAt),
}

/// What a saved token is good for: a selection of collections, with one form of keys. With another form everything is compared,
/// so that points with keys of the earlier form go.
pub fn selection(of_source: &str) -> String {
    format!("{of_source} keys={}", key::FORM)
}

/// Where to begin, given what was saved.
pub fn start(saved: Option<&Checkpoint>, selection: &str) -> Start {
    match saved {
        None => Start::Fresh,
        Some(saved) if saved.selection == selection => Start::Resume(StartAt::Token(saved.token.clone())),
        Some(saved) => Start::Reselect(StartAt::Time(saved.last.0)),
    }
}

/// The checkpoint for a feed that was opened at `time`, before anything of it was appended. The feed gives every event of that time
/// again, so that the ordinals start again too.
///
/// `known` are the epoch and the time of the newest change that is known. A time before that means that the source's history is
/// another one (a restored backup, a new cluster): the epoch rises, so that its changes win over everything older.
pub fn begun(
    known: Option<(u32, ClusterTime)>,
    selection: String,
    token: ResumeToken,
    time: ClusterTime,
    snapshot: bool,
) -> Checkpoint {
    let epoch = known.map_or(0, |(epoch, last)| epoch + u32::from(time < last));
    let snapshot = if snapshot {
        SnapshotState::Running { time, after: None, rows: 0 }
    } else {
        SnapshotState::Done { time, rows: 0 }
    };
    Checkpoint { token, last: (time, 0), through: time.before(), epoch, selection, snapshot }
}

/// The step for a batch of the feed, and whether everything has to be read again behind it.
///
/// The ordinal of an event is its position among the events of its cluster time, counted across batches and restarts
/// by the checkpoint: the events of a transaction share their time, and two of them may concern one document. Behind
/// [`MAX_ORDINAL`] they get the same version, so that it cannot be said which change of a document is its last: then everything is
/// compared with the index.
///
/// `present` are those of the [`doubtful`] documents that exist.
pub fn follow(
    checkpoint: &Checkpoint,
    batch: FeedBatch,
    present: &HashSet<(Namespace, String)>,
    limits: Limits,
) -> (Step, bool) {
    let mut next = Checkpoint { token: batch.token, ..checkpoint.clone() };
    let mut changes = Vec::with_capacity(batch.events.len());
    let (mut parked, mut read_again) = (Vec::new(), false);
    let mut moves = Moves::new(checkpoint.last.0, present);
    for event in batch.events {
        let (time, count) = next.last;
        if event.time < time {
            next.epoch += 1;
            next.through = ClusterTime::default();
        }
        let count = if event.time == time { count.saturating_add(1) } else { 1 };
        read_again |= event.time != time && next.last.1 > MAX_ORDINAL;
        next.last = (event.time, count);
        if moves.supersedes(&event) || (event.operation.has_document() && event.document.is_none()) {
            // The deletion of a document that has moved to another shard, or an update whose document was gone when it was
            // looked up, the deletion of which follows.
            continue;
        }
        let ordinal = count.min(MAX_ORDINAL);
        let change = Change {
            operation: event.operation,
            namespace: event.namespace,
            key: event.key,
            id: event.id,
            version: Version { epoch: next.epoch, time: event.time, ordinal, replay: 0 },
            committed_at: event.committed_at,
            document: None,
        };
        match admit(change, event.document, limits) {
            Ok(change) => changes.push(change),
            // It was never in the index.
            Err(refused) if !refused.change.operation.has_document() => {}
            Err(refused) => parked.push(*refused),
        }
    }
    next.through = next.through.max(batch.through);
    if next.last.1 > MAX_ORDINAL && next.through >= next.last.0 {
        read_again = true;
        next.last.1 = MAX_ORDINAL;
    }
    (Step { changes, parked, next }, read_again)
}

/// The checkpoint, with everything to be read again at `time`. Where collections were renamed into the selection, that has to
/// be after its last event: their rows must win over the drop of the collections that they replace.
pub fn read_again(checkpoint: Checkpoint, time: ClusterTime) -> Checkpoint {
    Checkpoint { snapshot: SnapshotState::Running { time, after: None, rows: 0 }, ..checkpoint }
}

/// Gives the events of a feed their versions, without a checkpoint to save.
pub struct Position(Checkpoint);

impl Position {
    /// A feed that was opened at `time`: its events get the versions that they got the first time.
    pub fn begin(epoch: u32, time: ClusterTime) -> Self {
        let snapshot = SnapshotState::Done { time, rows: 0 };
        Self(Checkpoint {
            token: ResumeToken(String::new()),
            last: (time, 0),
            through: ClusterTime::default(),
            epoch,
            selection: String::new(),
            snapshot,
        })
    }

    /// Which documents of the next batch the source has to be asked about: see [`doubtful`].
    pub fn doubtful(&self, batch: &FeedBatch) -> BTreeMap<Namespace, BTreeSet<String>> {
        doubtful(&self.0, batch)
    }

    /// The changes of the next batch, and how many of it cannot be appended.
    pub fn follow(&mut self, batch: FeedBatch, present: &HashSet<(Namespace, String)>) -> (Vec<Change>, u64) {
        let (Step { changes, parked, next }, _) = follow(&self.0, batch, present, Limits::of(None));
        self.0 = next;
        (changes, parked.len() as u64)
    }
}

/// A page of a snapshot that was read and compared with the index.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRead {
    /// Its collection.
    pub namespace: Namespace,
    /// The key of its last row whose key is short enough to be saved.
    pub last: Option<String>,
    /// How many rows it had.
    pub count: u64,
    /// Those of its rows that have to be appended.
    pub differing: Vec<SourceRow>,
}

/// The step for a page of a snapshot, read at `now` (milliseconds since the Unix epoch).
///
/// Its rows carry the time at which the snapshot began: whatever has happened since wins over them, even where the row
/// already shows it.
pub fn read(checkpoint: &Checkpoint, page: PageRead, now: u64, limits: Limits) -> Step {
    let SnapshotState::Running { time, ref after, rows } = checkpoint.snapshot else {
        unreachable!("rows are only read while a snapshot runs");
    };
    let after = after.clone();
    let PageRead { namespace, last, count, differing } = page;
    let mut next = checkpoint.clone();
    let (mut changes, mut parked) = (Vec::with_capacity(differing.len()), Vec::new());
    for row in differing {
        let change = Change {
            operation: Operation::Read,
            namespace: namespace.clone(),
            key: row.key,
            id: row.id,
            version: Version::of_snapshot(checkpoint.epoch, time),
            committed_at: now,
            document: None,
        };
        match admit(change, Some(row.document), limits) {
            Ok(change) => changes.push(change),
            Err(refused) => parked.push(*refused),
        }
    }
    let after = last.map(|last| (namespace, last)).or(after);
    next.snapshot = SnapshotState::Running { time, after, rows: rows + count };
    Step { changes, parked, next }
}

/// The last key of a page that is short enough to be saved with every append.
pub fn last_short(rows: &[SourceRow]) -> Option<String> {
    const MOST: usize = 64 * 1024;
    rows.iter().rev().map(|row| &row.key).find(|key| key.len() <= MOST).cloned()
}

/// Whether a row that a snapshot has read has to be appended, given what the index says of it: not if the index has the
/// same document, or a newer change.
pub fn differs(stored: Option<&Stamped>, row: &SourceRow, snapshot: Version) -> bool {
    let same = |stored: &Stamped| row.document.as_ref().is_ok_and(|document| stored.digest == digest(document));
    stored.is_none_or(|stored| stored.version < snapshot && !same(stored))
}

/// The step when a snapshot has read everything: what the index has beyond it is to be found.
pub fn read_all(checkpoint: &Checkpoint) -> Step {
    let mut next = checkpoint.clone();
    if let SnapshotState::Running { time, rows, .. } = checkpoint.snapshot {
        next.snapshot = SnapshotState::Sweeping { time, rows, after: None };
    }
    Step { changes: Vec::new(), parked: Vec::new(), next }
}

/// The documents of a page of the index that are older than this version, by namespace: the source is to be asked whether they
/// still exist. Points of other databases, and those that tidewheel did not write, are nobody's business.
pub fn suspects(page: &[IndexedPoint], database: &str, now: Version) -> BTreeMap<Namespace, BTreeSet<String>> {
    let mut suspects: BTreeMap<Namespace, BTreeSet<String>> = BTreeMap::new();
    for stamp in page.iter().filter_map(|point| Stamped::read(&point.payload)) {
        if stamp.namespace.database() == database && stamp.version < now {
            suspects.entry(stamp.namespace).or_default().insert(stamp.key);
        }
    }
    suspects
}

/// Divides documents that the source does not have by their keys. Those of an earlier form are not documents that were deleted:
/// their points are to be removed themselves, for a deletion in the pipeline would be that of the document with the present key.
pub fn former(absent: Vec<(Namespace, String)>, version: Version) -> (Vec<(Namespace, String)>, Vec<Fence>) {
    let (deleted, former): (Vec<_>, Vec<_>) = absent.into_iter().partition(|(_, key)| key::is_canonical(key));
    let fence = |(namespace, key): (Namespace, String)| {
        let target = FenceTarget::Document(DocumentId::new(&namespace, &key));
        Fence { target, version }
    };
    (deleted, former.into_iter().map(fence).collect())
}

/// Documents of a page of the index that the source does not have.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSwept {
    /// The last point of the page.
    pub last: Uuid,
    /// When they did not exist.
    pub time: ClusterTime,
    /// The documents; possibly none.
    pub absent: Vec<(Namespace, String)>,
}

/// The step that removes documents which do not exist any more, found at `now` (milliseconds since the Unix epoch).
/// Whoever has inserted one of them again since then has a newer version.
pub fn gone(checkpoint: &Checkpoint, page: PageSwept, now: u64) -> Step {
    let PageSwept { last, time, absent } = page;
    let mut next = checkpoint.clone();
    if let SnapshotState::Sweeping { after, .. } = &mut next.snapshot {
        *after = Some(last);
    }
    let changes = absent.into_iter().map(|(namespace, key)| Change {
        operation: Operation::Delete,
        namespace,
        // For people; the exact form is as good where the relaxed one is not known.
        id: key.clone(),
        key,
        version: Version::of_snapshot(checkpoint.epoch, time),
        committed_at: now,
        document: None,
    });
    Step { changes: changes.collect(), parked: Vec::new(), next }
}

/// The step at the end of a snapshot.
pub fn swept(checkpoint: &Checkpoint) -> Step {
    let mut next = checkpoint.clone();
    if let SnapshotState::Sweeping { time, rows, .. } = checkpoint.snapshot {
        next.snapshot = SnapshotState::Done { time, rows };
    }
    Step { changes: Vec::new(), parked: Vec::new(), next }
}

/// Where to take up the work after damage.
#[derive(Clone, Debug, PartialEq)]
pub enum Recovery {
    /// Append again what came after the applied checkpoint.
    Rewind(Checkpoint),
    /// Follow from here on, and compare everything with the index in a snapshot whose time is yet to be set.
    Compare(Checkpoint),
}

/// How damage is repaired, given the checkpoint and the one that is known to be applied.
///
/// The applied checkpoint is of no use if the selection or the epoch has changed since: the feed would not find its place, or
/// give versions out again that are older than what is in the index.
pub fn recover(current: &Checkpoint, applied: Option<Checkpoint>, damage: &Damage) -> Recovery {
    let applied = applied.filter(|applied| (applied.epoch, &applied.selection) == (current.epoch, &current.selection));
    match (damage, applied) {
        (Damage::Entries(_), Some(applied)) => Recovery::Rewind(applied),
        (Damage::Collection(_), Some(applied)) => Recovery::Compare(applied),
        (_, None) => Recovery::Compare(current.clone()),
    }
}

/// The collections that a snapshot has yet to read, and the row after which the first of them goes on.
pub fn remaining(collections: Vec<Namespace>, after: Option<&(Namespace, String)>) -> Vec<(Namespace, Option<String>)> {
    let resume = |namespace: Namespace| match after {
        Some((last, _)) if namespace < *last => None,
        Some((last, key)) if namespace == *last => Some((namespace, Some(key.clone()))),
        _ => Some((namespace, None)),
    };
    collections.into_iter().filter_map(resume).collect()
}

#[cfg(test)]
mod tests;
