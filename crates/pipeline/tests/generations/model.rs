//! The model: the states that follow from a state. The decisions about catalogs, routes, scopes and steps are the real
//! ones.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tidewheel_core::catalog::{
    ApplyOptions, Catalog, Choice, Declaration, Due, EmbedderIdentity, Generation, Index, IndexName, Lost, Parts,
    Routes, State as Life, Submitted, TargetId, TargetRecord, routes, submit,
};
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Checkpoint, ResumeToken, SnapshotState, SourceEvent, Touched};
use tidewheel_core::version::ClusterTime;

use crate::safeguard::Safeguard;
use crate::scenario::{Command, Declared, Scenario, Start, Write};
use crate::state::{CatalogId, Collection, Entry, GENERATIONS, Gate, Mark, Next, Phase, Session, State, at, time_of};

/// The collections that an alias can name.
pub const COLLECTIONS: [&str; GENERATIONS] = ["tickets.g1", "tickets.g2", "tickets.g3"];

/// A catalog, and what is derived from it.
struct Known {
    catalog: Catalog,
    routes: Routes,
    /// The records of its collections.
    records: BTreeMap<u32, TargetRecord>,
}

/// The transitions of one history.
pub struct Model {
    /// The history.
    pub history: Vec<Write>,
    pub(crate) name: IndexName,
    pub(crate) scenario: Scenario,
    removed: Option<Safeguard>,
    known: Vec<Known>,
    submitted: HashMap<(CatalogId, u8, bool, [bool; GENERATIONS]), Option<CatalogId>>,
    routed: HashMap<(CatalogId, u8, u8), Option<Entry>>,
}

impl Model {
    /// The model of a history, without one of the safeguards, and its first state.
    pub fn new(scenario: &Scenario, history: &[Write], removed: Option<Safeguard>) -> (Self, State) {
        let mut model = Self {
            history: history.to_vec(),
            name: IndexName::new("tickets").expect("a valid name"),
            scenario: scenario.clone(),
            removed,
            known: Vec::new(),
            submitted: HashMap::new(),
            routed: HashMap::new(),
        };
        let start = model.start();
        (model, start)
    }

    /// The states that may follow.
    ///
    /// # Errors
    /// The violation of an invariant, by this state or by what follows.
    pub fn next(&mut self, state: &State) -> Result<Next, String> {
        let mut next = Next::default();
        self.outside(state, &mut next);
        self.produce(state, &mut next);
        self.process_and_upsert(state, &mut next);
        self.control(state, &mut next)?;
        self.check(state, next.has_progress)?;
        Ok(next)
    }

    /// Whether the safeguard is not removed.
    pub(crate) fn has(&self, safeguard: Safeguard) -> bool {
        self.removed != Some(safeguard)
    }

    /// The number of a catalog, which may be new.
    pub(crate) fn number_of(&mut self, catalog: Catalog) -> CatalogId {
        let is_known = |known: &Known| known.catalog.revision == catalog.revision && known.catalog == catalog;
        if let Some(number) = self.known.iter().position(is_known) {
            return number;
        }
        let targets = catalog.targets();
        let records =
            targets.map(|(target, generation)| (target.generation, self.record(target.generation, generation)));
        let records = records.collect();
        self.known.push(Known { routes: routes(&catalog), records, catalog });
        self.known.len() - 1
    }

    /// A record that agrees with the catalog. Fingerprints are left out: no decision here reads them.
    fn record(&self, number: u32, generation: &Generation) -> TargetRecord {
        TargetRecord {
            index: self.name.clone(),
            generation: number,
            plain: generation.collection == self.name.as_str(),
            state: generation.state,
            parts: Parts::default(),
            declaration: Declaration::clone(&generation.declaration),
            embedder: generation.embedder.clone(),
            revision: 0,
        }
    }

    /// A catalog.
    pub fn catalog(&self, number: CatalogId) -> &Catalog {
        &self.known[number].catalog
    }

    pub(crate) fn records(&self, number: CatalogId) -> &BTreeMap<u32, TargetRecord> {
        &self.known[number].records
    }

    pub(crate) fn revision(&self, number: CatalogId) -> u64 {
        self.catalog(number).revision
    }

    pub(crate) fn index(&self, number: CatalogId) -> Option<&Index> {
        self.catalog(number).indexes.get(&self.name)
    }

    /// The generations of a catalog.
    pub(crate) fn generations(&self, catalog: CatalogId) -> impl Iterator<Item = (u32, &Generation)> {
        let all = self.index(catalog).into_iter().flat_map(|index| &index.generations);
        all.map(|(number, generation)| (*number, generation))
    }

    pub(crate) fn generation(&self, catalog: CatalogId, number: u32) -> Option<&Generation> {
        self.index(catalog)?.generations.get(&number)
    }

    /// The generation, if changes are routed to it.
    pub(crate) fn routed(&self, catalog: CatalogId, number: u32) -> Option<&Generation> {
        self.generation(catalog, number).filter(|generation| generation.state.is_routed())
    }

    /// Whether this is a plain collection that an alias is about to replace.
    pub(crate) fn is_being_replaced(&self, catalog: CatalogId, number: u32) -> bool {
        let switch = self.index(catalog).and_then(|index| index.switching);
        switch.is_some_and(|switch| switch.plain && switch.from == Some(number))
    }

    /// The document after this many operations: its content, and whether it matches the filter.
    fn document(&self, operations: u8) -> Option<(u8, bool)> {
        let last = self.history.get(usize::from(operations).checked_sub(1)?)?;
        (*last != Write::Delete).then_some((operations, *last == Write::In))
    }

    /// The content of the document after this many operations, if it belongs to an index of this declaration.
    pub(crate) fn member(&self, declaration: &Declaration, operations: u8) -> Option<u8> {
        let (value, matches) = self.document(operations)?;
        (matches || declaration.filter.is_none()).then_some(value)
    }

    /// The entry of an operation, as a catalog routes it; `None` if it concerns no generation. An update carries the
    /// document as the source has it when the event is read.
    pub(crate) fn entry(&mut self, catalog: CatalogId, operation: u8, committed: u8) -> Option<Entry> {
        let key = (catalog, operation, committed);
        if let Some(entry) = self.routed.get(&key) {
            return entry.clone();
        }
        let entry = self.route(catalog, operation, committed);
        self.routed.insert(key, entry.clone());
        entry
    }

    fn route(&self, catalog: CatalogId, number: u8, committed: u8) -> Option<Entry> {
        let write = self.history[usize::from(number) - 1];
        let operation = write.operation(self.document(number - 1).is_some());
        let found = self.document(if write == Write::Leave { committed } else { number });
        if operation.has_document() && found.is_none() {
            // The event of the deletion follows.
            return None;
        }
        let touched = match operation {
            Operation::Update => Touched::Paths(vec!["status".to_owned()]),
            Operation::Replace if self.has(Safeguard::Replacements) => Touched::All,
            _ => Touched::Nothing,
        };
        let routes = &self.known[catalog].routes;
        let judged = found.filter(|_| operation.has_document());
        let filters = routes.coverage().filters.len();
        let verdicts = judged.map_or_else(Vec::new, |(_, matches)| vec![matches; filters]);
        let event = SourceEvent {
            operation,
            namespace: Namespace::new("shop", "tickets"),
            key: "1".to_owned(),
            id: "1".to_owned(),
            shard: String::new(),
            time: ClusterTime { seconds: u32::from(number), increment: 1 },
            committed_at: 0,
            document: judged.map(|_| Ok("{}".to_owned())),
            verdicts: verdicts.into_iter().collect(),
            touched,
        };
        let routed = routes.event(&event)?;
        let numbers = |targets: &[TargetId]| targets.iter().map(|target| target.generation).collect();
        Some(Entry {
            version: time_of(number),
            value: judged.filter(|_| routed.keeps_document).map(|(value, _)| value),
            targets: numbers(&routed.stamp.targets),
            leaves: numbers(&routed.stamp.leaves),
            is_leave: operation.has_document() && !routed.keeps_document,
            stamp: routed.stamp.catalog,
        })
    }

    /// The catalog after the next command; `None` if there is none, or it is refused, or changes nothing.
    pub(crate) fn submitted(&mut self, state: &State) -> Option<CatalogId> {
        let command = *self.scenario.commands.get(usize::from(state.commands))?;
        let exists = state.collections.map(|collection| collection.exists);
        let key = (state.catalog, state.commands, state.is_late, exists);
        if let Some(known) = self.submitted.get(&key) {
            return *known;
        }
        let options = ApplyOptions { collections: self.existing(state), ..ApplyOptions::default() };
        let (declared, choice) = match command {
            Command::Apply(declared) => (vec![declared.declaration(&self.name)], Choice::Declared(options)),
            Command::Drop => (Vec::new(), Choice::Declared(options)),
            Command::RollBack => (Vec::new(), Choice::Rollback(self.name.clone())),
        };
        let submitted = submit(self.catalog(state.catalog), &declared, &choice, state.now_ms());
        let number = self.accepted(submitted).map(|catalog| self.number_of(catalog));
        self.submitted.insert(key, number);
        number
    }

    /// The submitted catalog, in which a processor has recorded what the embedder reports. `None` beyond the model.
    fn accepted(&self, submitted: Submitted) -> Option<Catalog> {
        let mut catalog = (submitted.refused.is_empty() && submitted.has_work()).then_some(submitted.catalog)?;
        let index = catalog.indexes.get_mut(&self.name)?;
        for generation in index.generations.values_mut() {
            let model = &generation.declaration.embedding.model;
            generation.embedder.get_or_insert_with(|| identity(model));
        }
        index.generations.keys().all(|number| at(*number) < GENERATIONS).then_some(catalog)
    }

    /// The names of the existing collections.
    pub(crate) fn existing(&self, state: &State) -> BTreeSet<String> {
        let all = state.collections.iter().zip(1..).filter(|(collection, _)| collection.exists);
        let name = |number: u32| match self.generation(state.catalog, number) {
            Some(generation) => generation.collection.clone(),
            None => COLLECTIONS[at(number)].to_owned(),
        };
        all.map(|(_, number)| name(number)).collect()
    }

    /// The losses, as decisions read them.
    pub(crate) fn lost(&self, state: &State) -> Vec<Lost> {
        let lost = (1..).zip(state.lost).filter(|(_, lost)| *lost);
        lost.map(|(number, _)| Lost { target: self.name.target(number), recent: false }).collect()
    }

    /// The checkpoint, as decisions read it.
    pub(crate) fn checkpoint(&self, mark: &Mark) -> Checkpoint {
        let time = ClusterTime { seconds: u32::from(mark.begun), increment: 1 };
        let due = |(number, due): &(u32, u64)| Due { target: self.name.target(*number), due: *due };
        Checkpoint {
            token: ResumeToken(String::new()),
            last: (ClusterTime { seconds: u32::from(time_of(mark.position)), increment: 1 }, 1),
            through: ClusterTime::default(),
            epoch: 0,
            selection: String::new(),
            snapshot: match mark.phase {
                Phase::Reading => SnapshotState::Running { time, after: None, rows: 0 },
                Phase::Sweeping => SnapshotState::Sweeping { time, rows: 0, after: None },
                Phase::Done => SnapshotState::Done { time, rows: 0 },
            },
            catalog: self.revision(mark.catalog),
            scope: mark.scope.iter().map(due).collect(),
        }
    }

    fn start(&mut self) -> State {
        let (adopted, saved) = match self.scenario.start {
            Start::Nothing => (Catalog::default(), None),
            Start::ShortForm(first) => (Catalog::short_form(Arc::new(first.declaration(&self.name))), None),
            Start::Serving(first) => (self.serving(1, [(first, Life::Serving)]), None),
            Start::Filling(first, second) => {
                let adopted = self.serving(1, [(first, Life::Serving)]);
                (adopted, Some(self.serving(2, [(first, Life::Serving), (second, Life::Filling)])))
            }
            Start::Retiring(first, second) => {
                let adopted = self.serving(2, [(first, Life::Serving), (second, Life::Filling)]);
                let again = [first.declaration(&self.name)];
                let submitted = submit(&adopted, &again, &Choice::Declared(ApplyOptions::default()), 0);
                let saved = self.accepted(submitted);
                (adopted, saved)
            }
            Start::Ready(first, second) => (self.serving(2, [(first, Life::Serving), (second, Life::Ready)]), None),
            Start::Switched(first, second) => (self.serving(2, [(first, Life::Kept), (second, Life::Serving)]), None),
        };
        let adopted = self.number_of(adopted);
        let catalog = saved.map_or(adopted, |saved| self.number_of(saved));
        let mut collections = [Collection::default(); GENERATIONS];
        for (number, _) in self.generations(catalog) {
            collections[at(number)].exists = true;
        }
        let index = self.index(catalog).filter(|index| !index.plain);
        let alias = index.and_then(|index| index.serving);
        let mark = Mark { position: 0, catalog: adopted, phase: Phase::Done, begun: 0, scope: Vec::new() };
        State {
            committed: 0,
            time: 0,
            commands: 0,
            is_late: false,
            catalog,
            stale: (self.scenario.has_stale && adopted != catalog).then_some(adopted),
            session: Session::new(Gate::Open, adopted),
            current: mark.clone(),
            applied: mark,
            work: Vec::new(),
            collections,
            alias,
            lost: [false; GENERATIONS],
            is_damaged: false,
            duplicate: None,
            late_alias: None,
            left: self.scenario.mishaps,
        }
    }

    /// A catalog with these generations of the index.
    fn serving<const N: usize>(&self, revision: u64, generations: [(Declared, Life); N]) -> Catalog {
        let mut index = Index::default();
        for (number, (declared, life)) in (1..).zip(generations) {
            // The generation before it exists since the revision before.
            let since = u64::from(number).min(revision);
            let declaration = Arc::new(declared.declaration(&self.name));
            let mut generation = Generation::new(&self.name.target(number), declaration, since);
            generation.embedder = Some(identity(declared.model));
            generation.filled = if life == Life::Filling { 0 } else { since };
            generation.until_ms = (life == Life::Kept).then_some(1_000);
            generation.state = life;
            if life == Life::Serving {
                index.serving = Some(number);
            }
            index.generations.insert(number, generation);
        }
        Catalog { revision, indexes: [(self.name.clone(), index)].into(), ..Catalog::default() }
    }
}

fn identity(model: &str) -> EmbedderIdentity {
    EmbedderIdentity { model: model.to_owned(), revision: String::new(), dimension: 1 }
}
