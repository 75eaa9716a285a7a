//! An installation in memory for tests: it executes steps at once or in part, and checks each. As in Qdrant, collections
//! and aliases share their names, and an alias ends with its collection.

use std::collections::{BTreeMap, BTreeSet};

use super::samples::{checkpoint, identity};
use super::scope::is_lost;
use super::{
    Catalog, Compared, Facts, Index, IndexName, Lost, State, Step, Submitted, Switch, TargetId, TargetRecord, advance,
    next_scope,
};
use crate::ports::Checkpoint;

/// Milliseconds of a step.
const STEP_MS: u64 = 1_000;

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) catalog: Catalog,
    pub(super) now_ms: u64,
    pub(super) current: Checkpoint,
    pub(super) applied: Option<Checkpoint>,
    pub(super) lost: Vec<Lost>,
    pub(super) collections: BTreeSet<String>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) records: BTreeMap<String, TargetRecord>,
    /// Documents that differ in the next comparisons, and those of them without a dead letter. The last one is first.
    pub(super) drift: Vec<(u64, u64)>,
    /// Whether no quiesce becomes quiet.
    pub(super) is_busy: bool,
    /// Every request that named a collection for an alias.
    requests: Vec<(String, String)>,
    quiet: BTreeSet<IndexName>,
    expired: BTreeSet<IndexName>,
    audits: BTreeMap<IndexName, Compared>,
    deleted: BTreeMap<IndexName, BTreeSet<u32>>,
}

impl World {
    pub(super) fn new(catalog: Catalog) -> Self {
        let current = checkpoint(catalog.revision);
        let served = |index: &Index| index.serving_generation().map(|(_, serving)| serving.collection.clone());
        let collections = catalog.indexes.values().filter_map(served).collect();
        let aliased = catalog.indexes.iter().filter(|(_, index)| !index.plain);
        let aliases = aliased.filter_map(|(name, index)| Some((name.to_string(), served(index)?))).collect();
        Self {
            now_ms: catalog.revision + STEP_MS,
            applied: Some(current.clone()),
            catalog,
            current,
            lost: Vec::new(),
            collections,
            aliases,
            records: BTreeMap::new(),
            drift: Vec::new(),
            is_busy: false,
            requests: Vec::new(),
            quiet: BTreeSet::new(),
            expired: BTreeSet::new(),
            audits: BTreeMap::new(),
            deleted: BTreeMap::new(),
        }
    }

    /// Saves what was submitted.
    pub(super) fn save(&mut self, submitted: Submitted) {
        assert_eq!(submitted.expected, self.catalog.revision);
        self.catalog = submitted.catalog;
    }

    /// Loses the collection of a target, with its alias.
    pub(super) fn lose(&mut self, target: &TargetId) {
        let Some(generation) = self.catalog.generation(target) else { return };
        let collection = generation.collection.clone();
        if generation.state.is_routed() && self.collections.contains(&collection) {
            self.drop_collection(&collection);
            self.lost.push(Lost { target: target.clone(), recent: false });
        }
    }

    fn drop_collection(&mut self, collection: &str) {
        self.collections.remove(collection);
        self.records.remove(collection);
        self.aliases.retain(|_, named| named != collection);
    }

    fn point(&mut self, alias: &IndexName, collection: &str) {
        assert!(!self.collections.contains(alias.as_str()), "alias {alias} has the name of a collection");
        assert!(self.collections.contains(collection), "alias {alias} names a missing collection");
        self.aliases.insert(alias.to_string(), collection.to_owned());
        self.requests.push((alias.to_string(), collection.to_owned()));
    }

    /// Repeats an earlier request of an alias, by its place: it was sent by another producer, and arrives now.
    pub(super) fn repeat(&mut self, place: usize) {
        let Some((alias, collection)) = self.requests.get(place).cloned() else { return };
        if self.collections.contains(&collection) && !self.collections.contains(&alias) {
            self.aliases.insert(alias, collection);
        }
    }

    /// Everything but the steps: upserters create lost collections, a processor asks the embedder, and the producer
    /// adopts the catalog, begins a snapshot and ends it. Returns whether anything changed.
    pub(super) fn work(&mut self) -> bool {
        let before = (self.catalog.revision, self.current.clone(), self.applied.clone(), self.collections.len());
        for (target, generation) in self.catalog.routed() {
            // A plain collection that an alias has replaced cannot return.
            if self.aliases.contains_key(&generation.collection) {
                continue;
            }
            let created = self.collections.insert(generation.collection.clone());
            if created && !is_lost(&self.lost, &target) {
                self.lost.push(Lost { target, recent: false });
            }
        }
        let mut asked = false;
        for generation in self.catalog.indexes.values_mut().flat_map(|index| index.generations.values_mut()) {
            if generation.state == State::Creating && generation.embedder.is_none() {
                generation.embedder = Some(identity(&generation.declaration.embedding.model));
                asked = true;
            }
        }
        if asked {
            self.catalog.revision = self.catalog.next_revision(self.now_ms);
        }
        self.current.catalog = self.catalog.revision;
        if let Some(scope) = next_scope(&self.catalog, &self.current, &self.lost, |_| None) {
            self.current.scope = scope;
        }
        self.applied = Some(self.current.clone());
        before != (self.catalog.revision, self.current.clone(), self.applied.clone(), self.collections.len())
    }

    /// Executes the next step of an index, if there is one.
    pub(super) fn step(&mut self, name: &IndexName) -> bool {
        let Some((index, next, step)) = self.next(name) else { return false };
        self.execute(name, &index, next, step);
        self.now_ms += STEP_MS;
        true
    }

    /// Stops the producer in the middle of the next step of an index: of several effects, it makes the first one. The
    /// next producer has the catalog, the checkpoint and Qdrant.
    pub(super) fn crash(&mut self, name: &IndexName) {
        if let Some((index, next, step)) = self.next(name) {
            let collection = |number: &u32| index.generations[number].collection.clone();
            match step {
                Step::Create(number) => drop(self.collections.insert(collection(&number))),
                Step::Delete(number) => self.drop_collection(&collection(&number)),
                Step::Refill { index, .. } => self.save_index(name, index, next),
                Step::Move(Switch { from: Some(from), plain: true, .. }) => self.drop_collection(&collection(&from)),
                _ => {}
            }
        }
        self.quiet.clear();
        self.expired.clear();
        self.audits.clear();
        self.deleted.clear();
        self.now_ms += STEP_MS;
    }

    /// The next step of an index, with the index and the revision under which it saves something.
    fn next(&self, name: &IndexName) -> Option<(Index, u64, Step)> {
        let index = self.catalog.indexes.get(name)?.clone();
        let records = index.generations.iter().filter_map(|(number, generation)| {
            let record = self.records.get(&generation.collection)?;
            (record.target() == name.target(*number)).then(|| (*number, record.clone()))
        });
        let records: BTreeMap<u32, TargetRecord> = records.collect();
        let none = BTreeSet::new();
        let facts = Facts {
            revision: self.catalog.revision,
            now_ms: self.now_ms,
            current: &self.current,
            applied: self.applied.as_ref(),
            lost: &self.lost,
            damaged: false,
            backlog: 0,
            quiet: self.quiet.contains(name),
            expired: self.expired.contains(name),
            collections: &self.collections,
            alias: self.aliases.get(name.as_str()).map(String::as_str),
            records: &records,
            settled: true,
            audit: self.audits.get(name),
            deleted: self.deleted.get(name).unwrap_or(&none),
        };
        let step = advance(name, &index, &facts)?;
        check(name, &index, &facts, &step);
        let next = facts.next_revision();
        Some((index, next, step))
    }

    fn execute(&mut self, name: &IndexName, index: &Index, next: u64, step: Step) {
        let collection = |number: &u32| index.generations[number].collection.clone();
        match step {
            Step::Create(number) | Step::Alter(number) => {
                assert!(!self.aliases.contains_key(&collection(&number)), "an alias has the name of a collection");
                self.collections.insert(collection(&number));
                self.records.insert(collection(&number), index.record(name, number, self.catalog.revision).unwrap());
            }
            Step::Alias { to: Some(number) } => self.point(name, &collection(&number)),
            Step::Alias { to: None } => {
                self.aliases.remove(name.as_str());
            }
            Step::Save(saved) => self.save_index(name, saved, next),
            Step::Refill { index: saved, lost } => {
                self.save_index(name, saved, next);
                self.lost.retain(|loss| loss.target.index != *name || !lost.contains(&loss.target.generation));
            }
            Step::Remove => {
                self.catalog.insert(name.clone(), index.dropped());
                self.catalog.revision = next;
                self.deleted.remove(name);
            }
            Step::Compare(_) => {
                let (drift, unexplained) = self.drift.pop().unwrap_or_default();
                let revision = self.catalog.revision;
                let compared = Compared { documents: 100, drift, unexplained, at_ms: self.now_ms, revision };
                self.audits.insert(name.clone(), compared);
            }
            Step::Quiesce(_) => {
                let ended = if self.is_busy { &mut self.expired } else { &mut self.quiet };
                ended.insert(name.clone());
            }
            Step::Move(switch) => {
                if let Some(from) = switch.from.filter(|_| switch.plain) {
                    self.drop_collection(&collection(&from));
                    self.lost.retain(|loss| loss.target != name.target(from));
                }
                self.point(name, &collection(&switch.to));
                self.quiet.remove(name);
                self.expired.remove(name);
            }
            Step::Delete(number) => {
                self.drop_collection(&collection(&number));
                self.lost.retain(|loss| loss.target != name.target(number));
                self.deleted.entry(name.clone()).or_default().insert(number);
            }
        }
    }

    fn save_index(&mut self, name: &IndexName, index: Index, next: u64) {
        if let Some(deleted) = self.deleted.get_mut(name) {
            deleted.retain(|number| index.generations.contains_key(number));
        }
        self.catalog.indexes.insert(name.clone(), index);
        self.catalog.revision = next;
    }

    /// Executes steps until nothing is left to do.
    pub(super) fn settle(&mut self) {
        for _ in 0..1_000 {
            let mut progress = self.work();
            let names: Vec<IndexName> = self.catalog.indexes.keys().cloned().collect();
            for name in names {
                progress |= self.step(&name);
                self.work();
            }
            if !progress {
                return;
            }
        }
        panic!("steps without end: {self:#?}");
    }
}

/// Checks what holds for every step.
pub(super) fn check(name: &IndexName, index: &Index, facts: &Facts<'_>, step: &Step) {
    let generation = |number: &u32| &index.generations[number];
    let is_named = |number: &u32| facts.alias == Some(generation(number).collection.as_str());
    let exists = |number: &u32| facts.collections.contains(&generation(number).collection);
    let is_whole = |number: &u32| {
        let is_lost = facts.lost.iter().any(|lost| lost.target == name.target(*number));
        let generation = generation(number);
        generation.state.is_routed() && generation.is_filled() && !is_lost && !facts.damaged && exists(number)
    };
    match step {
        Step::Move(switch) => {
            assert_eq!(index.switching, Some(*switch), "a move without a saved intent");
            let is_interrupted = switch.plain && facts.alias.is_none() && !exists(&switch.from.unwrap());
            let is_rollback = generation(&switch.to).state == State::Kept;
            let is_at_rest = facts.quiet || (facts.expired && is_rollback);
            assert!(is_interrupted || (is_whole(&switch.to) && is_at_rest), "{switch:?}");
        }
        Step::Alias { to: Some(to) } => {
            assert!(exists(to) && !is_named(to));
            match generation(to).state {
                State::Serving => {}
                State::Kept => assert!(is_whole(to) && !is_whole(&index.serving.unwrap())),
                State::Creating => assert_eq!(index.serving, None),
                other => panic!("the alias moves to a generation that is {other}"),
            }
        }
        Step::Alias { to: None } => {
            assert!(index.serving.is_none() && index.generations.values().all(|other| other.state == State::Retiring));
        }
        Step::Create(number) => assert_eq!(generation(number).state, State::Creating),
        Step::Compare(number) => assert!(generation(number).state == State::Comparing && is_whole(number)),
        Step::Quiesce(number) => assert!(is_whole(number) && !facts.quiet),
        Step::Alter(number) => assert!(generation(number).state != State::Creating && exists(number)),
        Step::Delete(number) => {
            let applied = facts.applied.map_or(0, |applied| applied.catalog);
            assert!(generation(number).state == State::Retiring && !is_named(number));
            let record = facts.records.get(number).filter(|_| exists(number));
            assert!(record.is_none_or(|record| record.state == State::Retiring), "a restored catalog would keep it");
            assert!(applied >= generation(number).since, "deleted before everything routed to it is applied");
        }
        Step::Remove => assert!(index.generations.keys().all(|number| facts.deleted.contains(number))),
        Step::Save(next) | Step::Refill { index: next, .. } => check_saved(index, facts, next),
    }
}

fn check_saved(index: &Index, facts: &Facts<'_>, next: &Index) {
    assert_ne!(index, next, "a step without an effect");
    if next.serving != index.serving {
        let serving = &next.generations[&next.serving.unwrap()];
        assert_eq!(facts.alias, Some(serving.collection.as_str()), "an unnamed generation serves");
    }
    for (number, before) in &index.generations {
        let Some(after) = next.generations.get(number) else {
            let is_replaced = index.switching.is_some_and(|switch| switch.plain && switch.from == Some(*number));
            assert!(is_replaced || facts.deleted.contains(number), "generation {number} is forgotten");
            continue;
        };
        assert_eq!(before.declaration, after.declaration);
        match (before.state.is_routed(), after.state.is_routed()) {
            (true, true) => assert_eq!(before.since, after.since, "a gap in the routing of generation {number}"),
            (true, false) => assert_eq!((before.state, after.state), (State::Kept, State::Retiring)),
            (false, true) => assert_eq!(after.since, facts.next_revision()),
            (false, false) => {}
        }
        if after.filled > before.filled {
            assert_eq!((after.filled, after.due), (before.due, before.due));
            assert!(facts.applied.is_some_and(|applied| applied.catalog >= before.due));
        }
        if after.state == State::Ready && before.state != State::Ready {
            assert!(after.is_filled() && after.compared.is_some_and(|compared| compared.drift == 0));
        }
    }
    assert!(next.generations.keys().all(|number| index.generations.contains_key(number)));
}
