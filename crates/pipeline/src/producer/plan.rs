//! Plans where a session starts, and the appends for events of the source, without I/O.

mod due;
mod rows;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use tidewheel_core::catalog::Routes;
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::ports::{Checkpoint, Damage, FeedBatch, ResumeToken, SnapshotState, StartAt};
use tidewheel_core::version::{ClusterTime, MAX_ORDINAL, Version};

use super::admission::{Rules, admit};
use super::moves::Moves;
pub use super::moves::doubtful;
use super::step::Step;
#[cfg(test)]
pub use due::COMPLETE;
pub use due::{
    abandon, begin, everything, filled_by, is_being_filled, is_in_scope, is_of_short_form, made_due, missed,
};
pub use rows::{PageRead, Read, differs, last_short, parts, read, remaining};
pub use sweep::{PageSwept, former, gone, read_all, still_swept, suspects, swept};

/// How to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing was ever appended: begin now, with an initial snapshot if enabled.
    Fresh,
    /// Continue where the checkpoint ends.
    Resume(StartAt),
    /// The applied catalog has changed what is covered, so that the token may no longer be valid: continue at a time up
    /// to which everything was appended. The catalog states what has to be read again.
    Reopen(StartAt),
    /// The selection of collections in local settings has changed, or the form of keys, so that the token may no longer
    /// be valid: continue at the time of the last event, and read everything again, because newly selected collections
    /// may exist.
    Reselect(StartAt),
}

/// The scope in which a saved token is valid: a selection of collections with one form of keys. With another form
/// everything is compared, so that points with keys of the earlier form are removed.
pub fn selection(of_source: &str) -> String {
    format!("{of_source}{}", key_form())
}

fn key_form() -> String {
    format!(" keys={}", key::FORM)
}

/// Decides where to start, given the saved checkpoint and the revision of the applied catalog.
pub fn start(saved: Option<&Checkpoint>, selection: &str, revision: u64) -> Start {
    match saved {
        None => Start::Fresh,
        Some(saved) if saved.selection == selection => Start::Resume(StartAt::Token(saved.token.clone())),
        Some(saved) if is_reopened(saved, revision) => Start::Reopen(StartAt::Time(saved.last.0.max(saved.through))),
        Some(saved) => Start::Reselect(StartAt::Time(saved.last.0)),
    }
}

/// Whether a checkpoint with another selection can be continued from without comparing everything.
fn is_reopened(saved: &Checkpoint, revision: u64) -> bool {
    revision > 0 && saved.selection.ends_with(&key_form())
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
/// compared with the index. Events that concern no target are counted too: the number of an event depends on no catalog.
///
/// `present` are the existing ones of the [`doubtful`] documents.
pub fn follow(
    checkpoint: &Checkpoint,
    batch: FeedBatch,
    present: &HashSet<(Namespace, String)>,
    rules: Rules<'_>,
) -> (Step, bool) {
    let next = Checkpoint { token: batch.token, ..checkpoint.clone() };
    let mut step = Step { changes: Vec::with_capacity(batch.events.len()), parked: Vec::new(), next };
    let (mut moves, mut read_again) = (Moves::new(checkpoint.last.0, present), false);
    for event in batch.events {
        let (time, count) = step.next.last;
        let next = &mut step.next;
        if event.time < time {
            next.epoch += 1;
            next.through = ClusterTime::default();
        }
        read_again |= event.time != time && count > MAX_ORDINAL;
        let count = if event.time == time { count.saturating_add(1) } else { 1 };
        next.last = (event.time, count);
        if moves.supersedes(&event) || (event.operation.has_document() && event.document.is_none()) {
            // The deletion of a document that has moved to another shard, or an update whose document was already
            // deleted when it was looked up; the event of its deletion follows.
            continue;
        }
        let Some(routed) = rules.route(&event) else { continue };
        let (operation, document) =
            if routed.keeps_document { (event.operation, event.document) } else { (Operation::Delete, None) };
        let (epoch, ordinal, stamp) = (next.epoch, count.min(MAX_ORDINAL), routed.stamp.clone());
        let change = Change {
            operation,
            namespace: event.namespace,
            key: event.key,
            id: event.id,
            version: Version { epoch, time: event.time, ordinal, replay: 0 },
            committed_at: event.committed_at,
            document: None,
            route: routed.into_route(),
        };
        match admit(change, document, rules.limits) {
            Ok(change) => step.changes.push(change),
            // It was never in the index.
            Err(refused) if !refused.change.operation.has_document() => {}
            Err(refused) => rules.park(*refused, &stamp, &mut step),
        }
    }
    let next = &mut step.next;
    next.through = next.through.max(batch.through);
    if next.last.1 > MAX_ORDINAL && next.through >= next.last.0 {
        read_again = true;
        next.last.1 = MAX_ORDINAL;
    }
    (step, read_again)
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
    pub fn follow(
        &mut self,
        batch: FeedBatch,
        present: &HashSet<(Namespace, String)>,
        routes: &Routes,
    ) -> (Vec<Change>, u64) {
        let rules = Rules { routes: Some(routes), ..Rules::NONE };
        let (Step { changes, parked, next }, _) = follow(&self.0, batch, present, rules);
        self.0 = next;
        (changes, parked.len() as u64)
    }
}

/// An append of nothing but this checkpoint.
pub fn saving(next: Checkpoint) -> Step {
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
/// position, or would assign versions older than those in the index. With an applied catalog, another selection only
/// means that the feed is [opened again](Start::Reopen). The changes after the applied checkpoint are routed by the
/// current catalog: by an earlier one they would miss the targets that were added since.
pub fn recover(current: &Checkpoint, applied: Option<Checkpoint>, damage: &Damage) -> Recovery {
    let is_usable = |applied: &Checkpoint| {
        applied.epoch == current.epoch
            && (applied.selection == current.selection || is_reopened(applied, current.catalog))
    };
    let applied = applied.filter(is_usable).map(|applied| Checkpoint { catalog: current.catalog, ..applied });
    match (damage, applied) {
        (Damage::Entries(_), Some(applied)) => Recovery::Rewind(applied),
        (Damage::Collection(_), Some(applied)) => Recovery::Compare(applied),
        (_, None) => Recovery::Compare(current.clone()),
    }
}

#[cfg(test)]
mod tests;
