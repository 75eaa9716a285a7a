//! Reduces a batch to the newest change of each document, in each of its targets.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::identity::DocumentId;
use tidewheel_core::ports::RecordError;
use tidewheel_core::ports::{DeadLetter, Delivery, EntryId, PortResult};
use tidewheel_core::version::Version;

use crate::carries::Carries;
use crate::parking::letter;

/// The entries of one document for one target in a batch, or one change of a whole collection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Kept<T> {
    /// The newest record.
    pub(crate) record: T,
    /// Its entry, followed by the entries of older changes of the same document, which it supersedes.
    pub(crate) entries: Vec<EntryId>,
    /// The version of the newest deletion among the older changes: it has to be applied if the newest record cannot be
    /// applied.
    pub(crate) deletion: Option<Version>,
}

/// Returns the newest record of each document for each target, in the order in which they first occur; changes of whole
/// collections unchanged. Unreadable entries go to `letters`. Every entry ends up in exactly one place.
pub(crate) fn newest<T: Carries>(deliveries: Vec<Delivery<T>>, letters: &mut Vec<DeadLetter>) -> Vec<Kept<T>> {
    let mut kept: Vec<Kept<T>> = Vec::with_capacity(deliveries.len());
    let mut places: HashMap<(DocumentId, Option<TargetId>), usize> = HashMap::with_capacity(deliveries.len());
    for Delivery { id, record } in deliveries {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                letters.push(letter(id, &PortError::poison(error.to_string())));
                continue;
            }
        };
        let alone = |record, id| Kept { record, entries: vec![id], deletion: None };
        if record.change().operation.is_of_collection() {
            kept.push(alone(record, id));
            continue;
        }
        match places.entry((record.change().document_id(), record.target().cloned())) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(alone(record, id));
            }
            Entry::Occupied(place) => kept[*place.get()].join(record, id),
        }
    }
    kept
}

impl<T: Carries> Kept<T> {
    /// Adds another change of the same document and target.
    fn join(&mut self, record: T, id: EntryId) {
        let older = if rank(record.change()) > rank(self.record.change()) {
            self.entries.insert(0, id);
            std::mem::replace(&mut self.record, record)
        } else {
            self.entries.push(id);
            record
        };
        let older = older.change();
        if older.operation == Operation::Delete {
            self.deletion = self.deletion.max(Some(older.version));
        }
    }
}

/// The order of changes of one document. A parked update may leave a deletion of its own version, which it replaces
/// when it is retried.
fn rank(change: &Change) -> (Version, bool) {
    (change.version, change.operation.has_document())
}

/// Number of distinct documents in the deliveries; a document counts once for each target.
pub(crate) fn documents<T: Carries>(deliveries: &[Delivery<T>]) -> usize {
    let documents = readable(deliveries).map(|record| {
        let change = record.change();
        (&change.namespace, &change.key, record.target())
    });
    documents.collect::<HashSet<_>>().len()
}

/// The newest revision of the catalog that a delivered record requires.
pub(crate) fn catalog<T: Carries>(deliveries: &[Delivery<T>]) -> u64 {
    readable(deliveries).map(Carries::catalog).max().unwrap_or(0)
}

/// Approximate size of the delivered records in bytes.
pub(crate) fn bytes<T: Carries>(deliveries: &[Delivery<T>]) -> usize {
    readable(deliveries).map(Carries::bytes).sum()
}

fn readable<T>(deliveries: &[Delivery<T>]) -> impl Iterator<Item = &T> {
    deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok())
}

/// Checks that this release can read all entries. An entry of a newer release is valid, so it is neither parked nor
/// skipped: the service has to stop and leave it to an upgraded one.
///
/// # Errors
/// Fatal, if a newer release has written one of them.
pub(crate) fn refuse_newer<T>(deliveries: &[Delivery<T>]) -> PortResult<()> {
    let newer = |delivery: &&Delivery<T>| matches!(delivery.record, Err(RecordError::Newer { .. }));
    let Some(Delivery { id, record: Err(error) }) = deliveries.iter().find(newer) else { return Ok(()) };
    Err(PortError::fatal(format!("failed to read entry {}: {error}", id.0))
        .because(Server::OTHER, Cause::Newer)
        .with_hint(
            "upgrade this service: a newer release of tidewheel has written the entry, which stays in the stream",
        ))
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::{Fp, IndexName};
    use tidewheel_core::change::Route;
    use tidewheel_core::embedded::{Embedded, Target};
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::version::ClusterTime;

    use super::*;

    fn record(key: &str, seconds: u32, target: Option<(&str, u64)>) -> Embedded {
        let change = Change {
            operation: Operation::Delete,
            namespace: Namespace::new("shop", "tickets"),
            key: key.to_owned(),
            id: key.to_owned(),
            version: Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 },
            committed_at: 0,
            document: None,
            route: Route::Plain,
        };
        let made: Fp = "0123456789abcdef".parse().unwrap();
        let id = |name| IndexName::new(name).unwrap().target(1);
        let target = target.map(|(name, catalog)| Target { catalog, id: id(name), made });
        Embedded { target, ..Embedded::without_vectors(change) }
    }

    fn deliveries(records: impl IntoIterator<Item = Embedded>) -> Vec<Delivery<Embedded>> {
        let id = |place| EntryId(format!("{place}-0"));
        (1..).zip(records).map(|(place, record)| Delivery { id: id(place), record: Ok(record) }).collect()
    }

    #[test]
    fn newest_change_is_kept_for_each_target() {
        let (tickets, notes) = (Some(("tickets", 7)), Some(("notes", 9)));
        let batch = deliveries([
            record("1", 1, tickets),
            record("1", 2, notes),
            record("1", 3, tickets),
            record("1", 4, None),
            record("2", 1, tickets),
        ]);
        assert_eq!((documents(&batch), catalog(&batch)), (4, 9));
        let kept = newest(batch, &mut Vec::new());
        let entries: Vec<Vec<&str>> =
            kept.iter().map(|kept| kept.entries.iter().map(|id| id.0.as_str()).collect()).collect();
        assert_eq!(entries, [vec!["3-0", "1-0"], vec!["2-0"], vec!["4-0"], vec!["5-0"]]);
        assert_eq!(catalog(&deliveries([record("1", 1, None)])), 0);
    }
}
