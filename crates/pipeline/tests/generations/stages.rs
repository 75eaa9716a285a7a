//! The other actors: processors and upserters, the source, operators, and other clients of the servers.

use tidewheel_core::catalog::{Generation, State as Life};

use crate::model::Model;
use crate::producer::HIGH_WATER;
use crate::safeguard::Safeguard;
use crate::state::{
    CatalogId, Collection, Document, Effect, Entry, Made, Mishaps, Next, Record, State, Work, at, time_of,
};

impl Model {
    /// What happens outside of tidewheel, and to its servers.
    pub(crate) fn outside(&mut self, state: &State, next: &mut Next) {
        if usize::from(state.committed) < self.history.len() && state.work.len() <= HIGH_WATER {
            let committed = state.committed + 1;
            next.progress("commit an operation", State { committed, time: time_of(committed), ..state.clone() });
        }
        if let Some(catalog) = self.submitted(state) {
            let stale = if self.scenario.has_stale { Some(state.catalog) } else { None };
            let commands = state.commands + 1;
            next.chance("execute a command", State { catalog, stale, commands, ..state.clone() });
        }
        if state.stale.is_some() {
            next.chance("follow the catalog", State { stale: None, ..state.clone() });
        }
        let keeps = self.generations(state.catalog).any(|(_, generation)| generation.state == Life::Kept);
        if self.scenario.passes_time && keeps && !state.is_late {
            next.chance("pass time", State { is_late: true, ..state.clone() });
        }
        if let Some(to) = state.late_alias {
            let mut late = State { late_alias: None, ..state.clone() };
            late.point_alias(Some(to));
            next.chance("a late request for the alias", late);
        }
        for (number, generation) in self.generations(state.catalog) {
            let exists = state.collections[at(number)].exists;
            let is_kept = generation.state == Life::Kept && state.alias != Some(number);
            // The controller looks for losses right before a move.
            let is_moving = matches!(state.session.pending, Some(Effect::Move(_)));
            if exists && is_kept && state.left.losses > 0 && !is_moving {
                let mut lost = state.clone();
                lost.collections[at(number)] =
                    Collection { exists: false, document: None, ..state.collections[at(number)] };
                lost.left.losses -= 1;
                next.chance("a collection is deleted", lost);
            }
            let is_missing = !exists && generation.state.is_routed();
            let mut noticed = state.clone();
            noticed.lost[at(number)] = true;
            if is_missing && !self.is_undisturbed(state) {
                let mut created = noticed.clone();
                created.collections[at(number)].exists = true;
                next.chance("a write of another document creates a missing collection", created);
            }
            if is_missing && !state.lost[at(number)] {
                next.progress("notice a missing collection", noticed);
            }
        }
    }

    /// What processors and upserters do next.
    pub(crate) fn process_and_upsert(&self, state: &State, next: &mut Next) {
        for (place, work) in state.work.iter().enumerate() {
            if place > 0 && state.work[place - 1] == *work {
                continue;
            }
            let mut rest = state.clone();
            rest.work.remove(place);
            match work {
                Work::Entry(entry) => self.process(entry, &rest, next),
                Work::Record(record) => self.upsert(record, &rest, next),
            }
            if state.left.damages > 0 && !state.is_damaged {
                rest.is_damaged = true;
                rest.left.damages -= 1;
                (rest.session.found, rest.session.pending) = (None, None);
                next.chance("a stream loses an entry", rest);
            }
        }
        if let Some((record, view)) = &state.duplicate {
            let rest = State { duplicate: None, ..state.clone() };
            next.chance("a late write", self.applied(record, &rest, *view));
        }
    }

    /// A processor turns an entry into records.
    fn process(&self, entry: &Entry, rest: &State, next: &mut Next) {
        for view in rest.views() {
            if self.revision(view) < entry.stamp && self.has(Safeguard::StampCheck) {
                continue;
            }
            let mut processed = rest.clone();
            for target in entry.targets.iter().chain(&entry.leaves) {
                let Some(generation) = self.routed(view, *target) else { continue };
                let receives = entry.targets.contains(target);
                let made = Made::by(&generation.declaration);
                processed.work.push(Work::Record(Record {
                    target: *target,
                    version: entry.version,
                    content: entry.value.filter(|_| receives).map(|value| (value, made)),
                    is_leave: entry.is_leave || !receives,
                    stamp: self.revision(view),
                }));
            }
            next.progress("process an entry", processed);
        }
    }

    /// An upserter applies a record, or leaves it out.
    fn upsert(&self, record: &Record, rest: &State, next: &mut Next) {
        for view in rest.views().filter(|view| self.revision(*view) >= record.stamp) {
            let applied = self.applied(record, rest, view);
            if rest.left.duplicates > 0 {
                let duplicate = Some((record.clone(), rest.stale.unwrap_or(view)));
                let left = Mishaps { duplicates: rest.left.duplicates - 1, ..rest.left };
                next.chance("apply a record, and again later", State { duplicate, left, ..applied.clone() });
            }
            next.progress("apply a record", applied);
        }
        let blocks = |number| self.generation(rest.catalog, number).is_some_and(Generation::may_block);
        let may_skip = self.routed(rest.catalog, record.target).is_some() && !blocks(record.target);
        if rest.left.gaps > 0 && may_skip && self.generations(rest.catalog).any(|(number, _)| blocks(number)) {
            let mut skipped = rest.clone();
            skipped.left.gaps -= 1;
            skipped.lost[at(record.target)] |= self.has(Safeguard::RecordedGap);
            next.chance("skip a record", skipped);
        }
    }

    /// The state after a record, by an upserter with this catalog.
    fn applied(&self, record: &Record, rest: &State, view: CatalogId) -> State {
        let mut applied = rest.clone();
        if self.routed(view, record.target).is_none() {
            return applied;
        }
        if !rest.collections[at(record.target)].exists {
            let is_routed = self.routed(rest.catalog, record.target).is_some();
            if !is_routed && self.has(Safeguard::ReadAgain) {
                return applied;
            }
            applied.lost[at(record.target)] |= is_routed;
            applied.collections[at(record.target)].exists = true;
        }
        self.write(record, &mut applied);
        applied
    }

    /// Writes a record as the fence does: the newest version or tombstone wins.
    fn write(&self, record: &Record, state: &mut State) {
        let of_all = state.collections.iter().map(|collection| collection.tombstone).max().unwrap_or(0);
        let collection = &mut state.collections[at(record.target)];
        let tombstone = if self.has(Safeguard::OwnTombstones) { collection.tombstone } else { of_all };
        let is_newer = collection.document.is_none_or(|document| document.version < record.version);
        match record.content {
            Some((value, made)) if is_newer => {
                collection.document = Some(Document { version: record.version, value, made });
                remove_older(collection, tombstone);
            }
            Some(_) => {}
            None => {
                if !record.is_leave || self.has(Safeguard::LeaveTombstone) {
                    collection.tombstone = collection.tombstone.max(record.version);
                }
                remove_older(collection, record.version);
            }
        }
    }
}

fn remove_older(collection: &mut Collection, version: u8) {
    collection.document = collection.document.filter(|document| document.version >= version);
}

impl State {
    /// Points the alias to an existing collection, or deletes it. The index rejects a request for another one.
    pub fn point_alias(&mut self, to: Option<u32>) {
        if to.is_none_or(|number| self.collections[at(number)].exists) {
            self.alias = to;
        }
    }
}
