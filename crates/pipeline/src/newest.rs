//! Reduces a batch to what still matters of it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::ports::{DeadLetter, Delivery, EntryId};

/// A record with the change that it carries.
pub(crate) trait Carries {
    /// The change.
    fn change(&self) -> &Change;
}

impl Carries for Change {
    fn change(&self) -> &Change {
        self
    }
}

impl Carries for Embedded {
    fn change(&self) -> &Change {
        &self.change
    }
}

/// A record, with its entry and the entries of older changes of the same document that it makes superfluous.
pub(crate) type Kept<T> = (T, Vec<EntryId>);

/// The newest record of each document, in the order in which the documents first occur; changes of whole
/// collections as they are. What cannot
/// be read goes to `letters`. Every entry ends up in exactly one place.
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
        if record.change().operation.is_of_collection() {
            kept.push((record, vec![id]));
            continue;
        }
        match places.entry(record.change().document_id()) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push((record, vec![id]));
            }
            Entry::Occupied(place) => {
                let (newest, entries) = &mut kept[*place.get()];
                entries.push(id);
                if record.change().version > newest.change().version {
                    *newest = record;
                }
            }
        }
    }
    kept
}

/// How many documents the changes are of.
pub(crate) fn documents<T: Carries>(deliveries: &[Delivery<T>]) -> usize {
    let changes = deliveries.iter().filter_map(|delivery| delivery.record.as_ref().ok()).map(Carries::change);
    changes.map(|change| (&change.namespace, &change.key)).collect::<HashSet<_>>().len()
}

/// A dead letter for an entry that failed for a reason that will not pass.
pub(crate) fn letter(id: EntryId, error: &PortError) -> DeadLetter {
    DeadLetter { id, reason: error.message.clone(), attempts: 1 }
}
