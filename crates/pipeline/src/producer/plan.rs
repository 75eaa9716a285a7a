//! Plans the appends for events and rows of the source, without I/O.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tidewheel_core::change::{Change, Operation, Route};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::key;
use tidewheel_core::payload::{Stamped, digest};
use tidewheel_core::ports::{
    Checkpoint, Coverage, Damage, FeedBatch, Fence, FenceTarget, IndexedPoint, ResumeToken, SnapshotState, SourceRow,
    StartAt, Swept,
};
use tidewheel_core::version::{ClusterTime, MAX_ORDINAL, Version};
use uuid::Uuid;

use super::admission::{Rules, admit};
use super::moves::Moves;
pub use super::moves::doubtful;
use super::step::Step;

/// How to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was ever appended: begin now, with an initial snapshot if enabled.
    Fresh,
    /// Continue where the checkpoint ends.
    Resume(StartAt),
    /// The selection of collections has changed, so that the token may no longer be valid: continue at the time of the
    /// last event, and read everything again, because newly selected collections may exist.
    Reselect(StartAt),
}

/// The scope in which a saved token is valid: a selection of collections with one form of keys. With another form
/// everything is compared, so that points with keys of the earlier form are removed.
pub fn selection(of_source: &str) -> String {
    format!("{of_source} keys={}", key::FORM)
}

/// Decides where to start, given the saved checkpoint.
pub fn start(saved: Option<&Checkpoint>, selection: &str) -> Start {
    match saved {
        None => Start::Fresh,
        Some(saved) if saved.selection == selection => Start::Resume(StartAt::Token(saved.token.clone())),
        Some(saved) => Start::Reselect(StartAt::Time(saved.last.0)),
    }
}

/// The checkpoint for a feed opened at `time`, before any append. The feed returns every event of that time again, so
/// that the ordinals restart too.
///
/// `known` are the epoch and the time of the newest known change. An earlier `time` means that the source's history was
/// replaced (a restored backup, a new cluster): the epoch is incremented, so that its changes win over everything
/// older.
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
    let (through, scope) = (time.before(), Vec::new());
    Checkpoint { token, last: (time, 0), through, epoch, selection, snapshot, catalog: 0, scope }
}

/// The step for a batch of the feed, and whether everything has to be read again after it.
///
/// The ordinal of an event is its position among the events of its cluster time, counted across batches and restarts by
/// the checkpoint: the events of a transaction share their time, and two of them may concern one document. Beyond
/// [`MAX_ORDINAL`] they get the same version, so that the last change of a document is undetermined: then everything is
/// compared with the index.
///
/// `present` are the existing ones of the [`doubtful`] documents.
pub fn follow(
    checkpoint: &Checkpoint,
    batch: FeedBatch,
    present: &HashSet<(Namespace, String)>,
    rules: Rules,
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
            // The deletion of a document that has moved to another shard, or an update whose document was already
            // deleted when it was looked up; the event of its deletion follows.
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
            route: Route::Plain,
        };
        match admit(change, event.document, rules.limits) {
            Ok(change) => changes.push(change),
            // It was never in the index.
            Err(refused) if !refused.change.operation.has_document() => {}
            Err(refused) => {
                changes.extend(rules.removal(&refused));
                parked.push(*refused);
            }
        }
    }
    next.through = next.through.max(batch.through);
    if next.last.1 > MAX_ORDINAL && next.through >= next.last.0 {
        read_again = true;
        next.last.1 = MAX_ORDINAL;
    }
    (Step { changes, parked, next }, read_again)
}

/// The checkpoint with a new snapshot at `time`. If collections were renamed into the selection, `time` has to be after
/// its last event: their rows must win over the drop of the collections that they replace.
pub fn read_again(checkpoint: Checkpoint, time: ClusterTime) -> Checkpoint {
    Checkpoint { snapshot: SnapshotState::Running { time, after: None, rows: 0 }, ..checkpoint }
}

/// Assigns versions to the events of a feed, without saving a checkpoint.
pub struct Position(Checkpoint);

impl Position {
    /// A feed opened at `time`: its events get the same versions as the first time.
    pub fn begin(epoch: u32, time: ClusterTime) -> Self {
        let snapshot = SnapshotState::Done { time, rows: 0 };
        Self(Checkpoint {
            token: ResumeToken(String::new()),
            last: (time, 0),
            through: ClusterTime::default(),
            epoch,
            selection: String::new(),
            snapshot,
            catalog: 0,
            scope: Vec::new(),
        })
    }

    /// The documents of the next batch for which the source has to be queried: see [`doubtful`].
    pub fn doubtful(&self, batch: &FeedBatch) -> BTreeMap<Namespace, BTreeSet<String>> {
        doubtful(&self.0, batch)
    }

    /// The changes of the next batch, and the number of those that cannot be appended.
    pub fn follow(&mut self, batch: FeedBatch, present: &HashSet<(Namespace, String)>) -> (Vec<Change>, u64) {
        let (Step { changes, parked, next }, _) = follow(&self.0, batch, present, Rules::NONE);
        self.0 = next;
        (changes, parked.len() as u64)
    }
}

/// A page of a snapshot, read and compared with the index.
#[derive(Clone, Debug, PartialEq)]
pub struct PageRead {
    /// Its collection.
    pub namespace: Namespace,
    /// The key of its last row whose key is short enough to be saved.
    pub last: Option<String>,
    /// Number of its rows.
    pub count: u64,
    /// The rows that have to be appended.
    pub differing: Vec<SourceRow>,
}

/// The step for a page of a snapshot, read at `now` (milliseconds since the Unix epoch).
///
/// Its rows carry the time at which the snapshot began: every later change wins over them, even if the row already
/// reflects it.
pub fn read(checkpoint: &Checkpoint, page: PageRead, now: u64, rules: Rules) -> Step {
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
            route: Route::Plain,
        };
        match admit(change, Some(row.document), rules.limits) {
            Ok(change) => changes.push(change),
            Err(refused) => {
                changes.extend(rules.removal(&refused));
                parked.push(*refused);
            }
        }
    }
    let after = last.map(|last| (namespace, last)).or(after);
    next.snapshot = SnapshotState::Running { time, after, rows: rows + count };
    Step { changes, parked, next }
}

/// Splits a page into parts with at most `most` rows to append.
pub fn parts(mut page: PageRead, most: usize) -> Vec<PageRead> {
    let mut parts = Vec::new();
    while page.differing.len() > most {
        let rest = page.differing.split_off(most);
        let differing = std::mem::replace(&mut page.differing, rest);
        let count = differing.len() as u64;
        page.count = page.count.saturating_sub(count);
        parts.push(PageRead { namespace: page.namespace.clone(), last: last_short(&differing), count, differing });
    }
    parts.push(page);
    parts
}

/// The last key of a page that is short enough to be saved with every append.
pub fn last_short(rows: &[SourceRow]) -> Option<String> {
    const MOST: usize = 64 * 1024;
    rows.iter().rev().map(|row| &row.key).find(|key| key.len() <= MOST).cloned()
}

/// Whether a row read by a snapshot has to be appended, given its point in the index: not if the index has the same
/// document, or a newer change.
pub fn differs(stored: Option<&Stamped>, row: &SourceRow, snapshot: Version) -> bool {
    let same = |stored: &Stamped| row.document.as_ref().is_ok_and(|document| stored.digest == digest(document));
    stored.is_none_or(|stored| stored.version < snapshot && !same(stored))
}

/// The step when a snapshot has read everything: the orphan sweep follows.
pub fn read_all(checkpoint: &Checkpoint) -> Step {
    let mut next = checkpoint.clone();
    if let SnapshotState::Running { time, rows, .. } = checkpoint.snapshot {
        next.snapshot = SnapshotState::Sweeping { time, rows, after: None };
    }
    Step { changes: Vec::new(), parked: Vec::new(), next }
}

/// The documents of a page of the index that are older than this version, by namespace: the source has to be queried
/// whether they still exist. Points of databases that are not covered, and those that tidewheel did not write, are
/// ignored.
pub fn suspects(page: &[IndexedPoint], coverage: &Coverage, now: Version) -> BTreeMap<Namespace, BTreeSet<String>> {
    let mut suspects: BTreeMap<Namespace, BTreeSet<String>> = BTreeMap::new();
    for stamp in page.iter().filter_map(|point| Stamped::read(&point.payload)) {
        if coverage.reaches_database_of(&stamp.namespace) && stamp.version < now {
            suspects.entry(stamp.namespace).or_default().insert(stamp.key);
        }
    }
    suspects
}

/// Splits documents missing in the source by the form of their keys. Keys of an earlier form do not mean deleted
/// documents: their points have to be removed directly, because a deletion in the pipeline would delete the document
/// with the current key.
pub fn former(absent: Vec<(Namespace, String)>, version: Version) -> (Vec<(Namespace, String)>, Vec<Fence>) {
    let (deleted, former): (Vec<_>, Vec<_>) = absent.into_iter().partition(|(_, key)| key::is_canonical(key));
    let fence = |(namespace, key): (Namespace, String)| {
        let target = FenceTarget::Document(DocumentId::new(&namespace, &key));
        Fence { target, version }
    };
    (deleted, former.into_iter().map(fence).collect())
}

/// Documents of a page of the index that are missing in the source.
#[derive(Clone, Debug, PartialEq)]
pub struct PageSwept {
    /// The last point of the page.
    pub last: Uuid,
    /// The time at which they did not exist.
    pub time: ClusterTime,
    /// The documents; possibly none.
    pub absent: Vec<(Namespace, String)>,
}

/// The step that removes documents that no longer exist, found at `now` (milliseconds since the Unix epoch). A document
/// inserted again since then has a newer version.
pub fn gone(checkpoint: &Checkpoint, page: PageSwept, now: u64) -> Step {
    let PageSwept { last, time, absent } = page;
    let mut next = checkpoint.clone();
    if let SnapshotState::Sweeping { after, .. } = &mut next.snapshot {
        *after = Some(Swept { target: None, point: last });
    }
    let changes = absent.into_iter().map(|(namespace, key)| Change {
        operation: Operation::Delete,
        namespace,
        // For people; falls back to the exact form, because the relaxed one is unknown.
        id: key.clone(),
        key,
        version: Version::of_snapshot(checkpoint.epoch, time),
        committed_at: now,
        document: None,
        route: Route::Plain,
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

/// The recovery from damage.
#[derive(Clone, Debug, PartialEq)]
pub enum Recovery {
    /// Append the changes after the applied checkpoint again.
    Rewind(Checkpoint),
    /// Continue from here, and compare everything with the index in a snapshot whose time is not set yet.
    Compare(Checkpoint),
}

/// Decides how damage is repaired, given the current and the applied checkpoint.
///
/// The applied checkpoint is unusable if the selection or the epoch has changed since: the feed would not find its
/// position, or would assign versions older than those in the index.
pub fn recover(current: &Checkpoint, applied: Option<Checkpoint>, damage: &Damage) -> Recovery {
    let applied = applied.filter(|applied| (applied.epoch, &applied.selection) == (current.epoch, &current.selection));
    match (damage, applied) {
        (Damage::Entries(_), Some(applied)) => Recovery::Rewind(applied),
        (Damage::Collection(_), Some(applied)) => Recovery::Compare(applied),
        (_, None) => Recovery::Compare(current.clone()),
    }
}

/// The collections that a snapshot still has to read, and the row after which the first of them continues.
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
