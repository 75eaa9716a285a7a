//! Plans the processing of a batch of stage 1, without I/O: the newest change of each document in each of its targets.
//!
//! Every entry of the batch ends up in exactly one place: a unit, the letters, or the retired changes.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tidewheel_core::change::{Change, Operation};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::ports::{DeadLetter, Delivery, EntryId};
use tidewheel_core::version::Version;

use super::lane::{Effect, Lanes, Skipped};
use super::planner::{Planned, Planner, parsed};
use super::split::Chunks;
use super::unit::{Part, Unit};
use crate::parking::letter;

/// A document to embed for targets that share its text and its model.
#[derive(Clone)]
pub(super) struct Job {
    /// The number of its unit.
    pub(super) unit: usize,
    pub(super) document: DocumentId,
    /// The operation of its change.
    pub(super) operation: Operation,
    /// The numbers of the targets' lanes.
    pub(super) to: Vec<usize>,
    /// What splits it.
    pub(super) planner: Arc<Planner>,
    /// Its chunks, at least one.
    pub(super) chunks: Vec<String>,
    /// The text in front of every chunk in the input of the embedder; the chunks do not contain it.
    pub(super) prefix: String,
    /// Maximum number of tokens per chunk used for the split.
    pub(super) limit: usize,
}

/// The plan for a batch.
#[derive(Default)]
pub(super) struct Plan {
    /// What is settled in one step each, in order of arrival. One with jobs waits for them.
    pub(super) units: Vec<Unit>,
    /// What has to be embedded for the units.
    pub(super) jobs: Vec<Job>,
    /// Entries to park.
    pub(super) letters: Vec<DeadLetter>,
    /// Changes without effect, because the catalog routes none of their targets.
    pub(super) retired: Vec<(Change, EntryId)>,
}

/// The changes of one document, or one change of a whole collection, in order of arrival.
struct Group {
    /// `None` for a change of a whole collection.
    document: Option<DocumentId>,
    first: (Change, EntryId),
    more: Vec<(Change, EntryId)>,
}

/// The lanes that one change affects.
#[derive(Default)]
struct Effects {
    removals: Vec<usize>,
    documents: Vec<usize>,
}

impl Effects {
    fn add(&mut self, lane: usize, effect: Effect) {
        match effect {
            Effect::Removal => self.removals.push(lane),
            Effect::Document => self.documents.push(lane),
        }
    }

    fn is_empty(&self) -> bool {
        self.removals.is_empty() && self.documents.is_empty()
    }
}

/// The order of changes of one document in one target. A parked update may leave a deletion of its own version, which it
/// replaces when it is retried.
type Rank = (Version, Effect);

/// The changes of a document that count in one lane.
struct Counting {
    newest: (Rank, usize),
    /// The newest removal among the older changes: it is applied too, because the newest change may be parked, here or
    /// later.
    removal: Option<(Version, usize)>,
}

impl Lanes {
    /// Reduces the batch to what counts in each target, renders and chunks the documents.
    pub(super) fn plan(&self, deliveries: Vec<Delivery<Change>>, skipped: &Skipped) -> Plan {
        let mut plan = Plan::default();
        for Group { document, first, more } in groups(deliveries, &mut plan.letters) {
            if more.is_empty() {
                let mut effects = Effects::default();
                self.effects(&first.0, |lane, effect| effects.add(lane, effect));
                self.add(&mut plan, document, first, effects, Vec::new(), skipped);
            } else {
                let changes = std::iter::once(first).chain(more).collect();
                self.add_all(&mut plan, document, changes, skipped);
            }
        }
        plan
    }

    /// Adds several changes of one document.
    fn add_all(
        &self,
        plan: &mut Plan,
        document: Option<DocumentId>,
        changes: Vec<(Change, EntryId)>,
        skipped: &Skipped,
    ) {
        let effects = self.counting(&changes);
        let rank = |place: &usize| (changes[*place].0.version, changes[*place].0.operation.has_document());
        // The oldest change that counts settles those that do not: an older removal need not wait for the newest change.
        let settling = (0..changes.len()).filter(|place| !effects[*place].is_empty()).min_by_key(rank);
        let Some(settling) = settling else {
            plan.retired.extend(changes);
            return;
        };
        let (mut superseded, mut counting) = (Vec::new(), Vec::new());
        for (place, (change, effects)) in changes.into_iter().zip(effects).enumerate() {
            if effects.is_empty() {
                superseded.push(change.1);
            } else {
                counting.push((place, change, effects));
            }
        }
        for (place, change, effects) in counting {
            let older = if place == settling { std::mem::take(&mut superseded) } else { Vec::new() };
            self.add(plan, document, change, effects, older, skipped);
        }
    }

    /// For each change of a document, the lanes in which it counts.
    fn counting(&self, changes: &[(Change, EntryId)]) -> Vec<Effects> {
        let mut lanes: BTreeMap<usize, Counting> = BTreeMap::new();
        for (place, (change, _)) in changes.iter().enumerate() {
            self.effects(change, |lane, effect| {
                let newer = ((change.version, effect), place);
                let Some(counting) = lanes.get_mut(&lane) else {
                    lanes.insert(lane, Counting { newest: newer, removal: None });
                    return;
                };
                let ((version, effect), place) =
                    if newer.0 > counting.newest.0 { std::mem::replace(&mut counting.newest, newer) } else { newer };
                if effect == Effect::Removal && counting.removal.is_none_or(|(newest, _)| version > newest) {
                    counting.removal = Some((version, place));
                }
            });
        }
        let mut effects: Vec<Effects> = changes.iter().map(|_| Effects::default()).collect();
        for (lane, Counting { newest: ((_, effect), place), removal }) in lanes {
            effects[place].add(lane, effect);
            if let Some((_, place)) = removal.filter(|_| effect == Effect::Document) {
                effects[place].add(lane, Effect::Removal);
            }
        }
        effects
    }

    /// Adds the unit of a change, which also settles older entries.
    fn add(
        &self,
        plan: &mut Plan,
        document: Option<DocumentId>,
        (change, entry): (Change, EntryId),
        effects: Effects,
        older: Vec<EntryId>,
        skipped: &Skipped,
    ) {
        if effects.is_empty() {
            plan.retired.push((change, entry));
            return;
        }
        let mut entries = vec![entry];
        entries.extend(older);
        let Effects { mut removals, documents } = effects;
        let mut parts = Vec::new();
        let jobs = plan.jobs.len();
        if let (Some(id), Some(text)) = (document, change.document.as_deref().filter(|_| !documents.is_empty())) {
            let parsed = parsed(text);
            for (planner, to) in self.by_planner(documents, skipped, &mut parts) {
                let planned = match &parsed {
                    Ok(document) => planner.document(id, document),
                    Err(error) => Err(error.clone()),
                };
                match planned {
                    Ok(Planned::LeftOut) => removals.extend(to),
                    Ok(Planned::Chunks { prefix, chunks: Chunks { texts: chunks, limit } }) => {
                        let (unit, operation) = (plan.units.len(), change.operation);
                        plan.jobs.push(Job { unit, document: id, operation, to, planner, chunks, prefix, limit });
                    }
                    Err(error) => parts.push(Part::Failed { to, error }),
                }
            }
        }
        if !removals.is_empty() {
            parts.push(Part::Removed { to: removals });
        }
        plan.units.push(Unit { change, entries, parts, open: plan.jobs.len() - jobs });
    }

    /// Groups lanes that share their texts and their model. Those that are skipped become parts of the unit.
    fn by_planner(
        &self,
        lanes: Vec<usize>,
        skipped: &Skipped,
        parts: &mut Vec<Part>,
    ) -> Vec<(Arc<Planner>, Vec<usize>)> {
        let mut groups: Vec<(Arc<Planner>, Vec<usize>)> = Vec::new();
        for lane in lanes {
            let Some(ready) = self.get(lane).ready() else {
                let reason = skipped.get(&lane).cloned().unwrap_or_default();
                parts.push(Part::Skipped { to: vec![lane], reason });
                continue;
            };
            match groups.iter_mut().find(|(planner, _)| Arc::ptr_eq(planner, &ready.planner)) {
                Some((_, group)) => group.push(lane),
                None => groups.push((ready.planner.clone(), vec![lane])),
            }
        }
        groups
    }
}

/// Groups changes by document, in the order in which documents first occur. Unreadable entries go to `letters`.
fn groups(deliveries: Vec<Delivery<Change>>, letters: &mut Vec<DeadLetter>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::with_capacity(deliveries.len());
    let mut places: HashMap<DocumentId, usize> = HashMap::with_capacity(deliveries.len());
    for Delivery { id, record } in deliveries {
        let change = match record {
            Ok(change) => change,
            Err(error) => {
                letters.push(letter(id, &PortError::poison(error.to_string())));
                continue;
            }
        };
        if change.operation.is_of_collection() {
            groups.push(Group { document: None, first: (change, id), more: Vec::new() });
            continue;
        }
        let document = change.document_id();
        match places.entry(document) {
            Entry::Vacant(place) => {
                place.insert(groups.len());
                groups.push(Group { document: Some(document), first: (change, id), more: Vec::new() });
            }
            Entry::Occupied(place) => groups[*place.get()].more.push((change, id)),
        }
    }
    groups
}

#[cfg(test)]
mod tests;
