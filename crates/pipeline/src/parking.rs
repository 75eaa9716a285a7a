//! Parks changes that failed permanently in the dead-letter queue, and decides what happens to their documents.

pub use tidewheel_core::catalog::OnDeadLetter;
use tidewheel_core::catalog::{IndexName, TargetId};
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{DeadLetter, EntryId, Park, ParkedChange};
use tidewheel_core::version::Version;
use tracing::warn;

use crate::metric;
use crate::retry::{RetryError, RetryPolicy};
use crate::spans::BatchSpans;

/// Maximum number of characters of an `_id` in the log.
const LOGGED_ID: usize = 200;

/// The actions for a document whose newest change in a batch is parked.
#[derive(Clone, Debug)]
pub(crate) struct ParkingPlan {
    /// The parked change.
    pub(crate) letter: DeadLetter,
    /// The version of a deletion to apply in its place.
    pub(crate) deletion: Option<Version>,
    /// Entries of older changes: settled by the deletion, or superseded.
    pub(crate) older: Vec<EntryId>,
}

/// Parks the newest change of a document. `entries` start with its own entry; `deletion` is the version of the newest
/// deletion among the others.
///
/// A removal has the version of the parked change itself: it removes older versions, and the change wins over it when
/// it is retried.
pub(crate) fn park(
    policy: OnDeadLetter,
    version: Version,
    entries: Vec<EntryId>,
    deletion: Option<Version>,
    error: &PortError,
) -> ParkingPlan {
    let mut entries = entries.into_iter();
    let own = entries.next().expect("a change has an entry");
    let deletion = match policy {
        OnDeadLetter::Keep => deletion,
        OnDeadLetter::Remove => Some(version),
    };
    ParkingPlan { letter: letter(own, error), deletion, older: entries.collect() }
}

/// A dead letter for an entry that failed permanently.
pub(crate) fn letter(id: EntryId, error: &PortError) -> DeadLetter {
    DeadLetter::new(id, error.message.clone(), error.attempts)
}

/// Moves these entries to the dead-letter queue of their stage, logs and counts them, and ends their spans. `index` is that
/// of letters without targets, if it is known.
pub(crate) async fn send(
    service: &'static str,
    letters: Vec<DeadLetter>,
    queue: &dyn Park,
    retry: &RetryPolicy,
    spans: Option<&mut BatchSpans>,
    index: Option<&IndexName>,
) -> Result<(), RetryError> {
    if letters.is_empty() {
        return Ok(());
    }
    retry.call("park entries", || queue.park(&letters)).await?;
    for letter in &letters {
        let index = if letter.targets.is_empty() { index } else { common_index(&letter.targets) };
        report(service, index, Some(&letter.id), None, &letter.reason);
    }
    if let Some(spans) = spans {
        spans.park(&letters);
    }
    Ok(())
}

/// Logs and counts changes that the producer has parked with an append, like [`send`]. Their spans are emitted with
/// those of the appended changes. `plain` is the index of changes without targets.
pub(crate) fn report_changes(service: &'static str, parked: &[ParkedChange], plain: Option<&IndexName>) {
    for ParkedChange { change, reason } in parked {
        let index = match change.route.stamp() {
            Some(stamp) => common_index(&stamp.targets),
            None => plain,
        };
        report(service, index, None, Some(change), reason);
    }
}

/// The index of these targets, if they all belong to one.
fn common_index(targets: &[TargetId]) -> Option<&IndexName> {
    let first = &targets.first()?.index;
    targets.iter().all(|target| target.index == *first).then_some(first)
}

/// Logs and counts an entry that is now in a dead-letter queue. An entry of a stream may be unreadable, and a change
/// that was not appended has no entry.
fn report(
    service: &'static str,
    index: Option<&IndexName>,
    entry: Option<&EntryId>,
    change: Option<&Change>,
    reason: &str,
) {
    let index = index.map(IndexName::as_str);
    let entry = entry.map(|entry| entry.0.as_str());
    let namespace = change.map(|change| change.namespace.as_str());
    let operation = change.map(|change| change.operation.as_str());
    let id: Option<String> = change.map(|change| change.id.chars().take(LOGGED_ID).collect());
    warn!(index, entry, namespace, operation, id, "parked: {reason}");
    metric::parked(service, index, 1);
}

/// Returns a deletion of everything of a change's document that is older than this version.
pub(crate) fn deletion_at(version: Version, change: &Change) -> Change {
    Change {
        operation: Operation::Delete,
        namespace: change.namespace.clone(),
        key: change.key.clone(),
        id: change.id.clone(),
        version,
        committed_at: change.committed_at,
        document: None,
        route: change.route.clone(),
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::version::ClusterTime;

    use super::*;

    fn version(seconds: u32) -> Version {
        Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 }
    }

    #[test]
    fn index_of_an_entry_is_that_of_all_its_targets() {
        let targets = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<TargetId>>();
        let common = |names: &[&str]| common_index(&targets(names)).map(IndexName::to_string);
        assert_eq!(common(&["tickets.g1", "tickets.g2"]).as_deref(), Some("tickets"));
        assert_eq!((common(&["tickets.g1", "notes.g1"]), common(&[])), (None, None));
    }

    #[test]
    fn parked_update_applies_older_deletion_and_removes_document_only_on_request() {
        let entry = |id: &str| EntryId(id.to_owned());
        let parked = |policy, deletion| {
            let entries = vec![entry("3-0"), entry("1-0"), entry("2-0")];
            let parked = park(policy, version(3), entries, deletion, &PortError::poison("rejected"));
            assert_eq!(parked.letter.id, entry("3-0"));
            assert_eq!(parked.older, [entry("1-0"), entry("2-0")]);
            parked.deletion
        };
        for deletion in [None, Some(version(2))] {
            assert_eq!(parked(OnDeadLetter::Keep, deletion), deletion);
            assert_eq!(parked(OnDeadLetter::Remove, deletion), Some(version(3)));
        }
    }
}
