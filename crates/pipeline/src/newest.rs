//! Reduces a batch to the newest change of each document.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::identity::DocumentId;
use tidewheel_core::ports::RecordError;
use tidewheel_core::ports::{DeadLetter, Delivery, EntryId, PortResult};
use tidewheel_core::version::Version;

use crate::carries::Carries;
use crate::parking::letter;

/// The entries of one document in a batch, or one change of a whole collection.
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

/// Returns the newest record of each document, in the order in which the documents first occur; changes of whole
/// collections unchanged. Unreadable entries go to `letters`. Every entry ends up in exactly one place.
pub(crate) fn newest<T: Carries>(deliveries: Vec<Delivery<T>>, letters: &mut Vec<DeadLetter>) -> Vec<Kept<T>> {
    let mut kept: Vec<Kept<T>> = Vec::with_capacity(deliveries.len());
    let mut places: HashMap<DocumentId, usize> = HashMap::with_capacity(deliveries.len());
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
        match places.entry(record.change().document_id()) {
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
    /// Adds another change of the same document.
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

/// Number of distinct documents in the deliveries.
pub(crate) fn documents<T: Carries>(deliveries: &[Delivery<T>]) -> usize {
    let changes = deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()).map(Carries::change);
    changes.map(|change| (&change.namespace, &change.key)).collect::<HashSet<_>>().len()
}

/// Approximate size of the delivered records in bytes.
pub(crate) fn bytes<T: Carries>(deliveries: &[Delivery<T>]) -> usize {
    deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()).map(Carries::bytes).sum()
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
