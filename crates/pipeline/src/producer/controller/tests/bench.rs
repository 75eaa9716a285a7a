//! A session's side of the controller, on fakes: it adopts the catalog, fills what is due at once, and moves the barrier.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{
    ApplyOptions, Catalog, Choice, Declaration, EmbedderIdentity, Generation, Index, IndexName, Lost, State, Submitted,
    TargetId, next_scope, submit,
};
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{
    Appended, CatalogStore as _, Checkpoint, CollectionAdmin as _, Journal as _, Repair, ResumeToken, SnapshotState,
    TargetStates as _,
};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::ownership::FakeRegistry;
use tidewheel_testkit::fakes::process::Process;
use tidewheel_testkit::fakes::source::FakeSource;
use tidewheel_testkit::fakes::streams::FakeStreams;
use tokio::time::timeout;
use uuid::Uuid;

use super::super::{Controller, ControllerPorts, Moment};
use crate::producer::{ProducerOptions, ProducerPorts};
use crate::targets::samples::{DIMENSION, Servers, declaration};
use crate::targets::{CatalogPorts, Targets};

/// The longest time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Most looks at which a test waits for something.
pub(super) const MOST_LOOKS: usize = 2_000;

/// The longest time of a look. Faults may hold calls of the bench itself too.
const LONGEST_LOOK: Duration = Duration::from_secs(60);

/// The index of most tests.
pub(super) const TICKETS: &str = "tickets";

pub(super) fn tickets() -> IndexName {
    IndexName::of_collection(TICKETS)
}

/// All documents of `shop`, by another model.
pub(super) fn remodelled(name: &str) -> Declaration {
    let mut changed = declaration(name);
    "other".clone_into(&mut changed.embedding.model);
    changed
}

/// The installation, and the controller of the active producer.
pub(super) struct Bench {
    pub(super) servers: Servers,
    pub(super) source: FakeSource,
    pub(super) registry: FakeRegistry,
    pub(super) controller: Controller,
    pub(super) ports: ProducerPorts,
    /// What the session knows.
    targets: Arc<Targets>,
    pub(super) current: Checkpoint,
    pub(super) applied: Option<Checkpoint>,
    passed: u64,
    /// Whether changes are in flight.
    pub(super) is_busy: bool,
    /// Whether the session adopts the catalog.
    pub(super) adopts: bool,
    /// Whether the first catalog continues the short form.
    has_short_form: bool,
    /// Looks after which searches of a serving index failed.
    pub(super) interruptions: u64,
}

impl Bench {
    /// An installation without a catalog.
    pub(super) fn new() -> Self {
        let (servers, source, registry) = (Servers::new(), FakeSource::new("shop"), FakeRegistry::default());
        let ports = ports(&servers, &source, &registry, &Process::default());
        let time = ClusterTime { seconds: u32::MAX, increment: 1 };
        let current = Checkpoint {
            token: ResumeToken("token".to_owned()),
            last: (time, 0),
            through: time,
            epoch: 0,
            selection: String::new(),
            snapshot: SnapshotState::Done { time, rows: 0 },
            catalog: 0,
            scope: Vec::new(),
        };
        Self {
            controller: Controller::new(&ports),
            targets: Arc::new(servers.targets()),
            servers,
            source,
            registry,
            ports,
            current,
            applied: None,
            passed: 0,
            is_busy: false,
            adopts: true,
            has_short_form: false,
            interruptions: 0,
        }
    }

    /// An installation with `tickets`, whose first generation serves.
    pub(super) async fn serving() -> Self {
        let mut bench = Self::new();
        bench.apply(&[declaration(TICKETS)]).await;
        bench.until("the first generation is filled", |bench| bench.is_served_by(1)).await;
        bench
    }

    /// The same, while a second generation of another model is in this state.
    pub(super) async fn changing(state: State) -> Self {
        let mut bench = Self::serving().await;
        bench.apply(&[remodelled(TICKETS)]).await;
        bench.until("the second generation has this state", |bench| bench.state(2) == Some(state)).await;
        bench
    }

    /// The same, with a plain collection `documents`, and a second generation.
    pub(super) async fn plain() -> Self {
        Self::plain_in("documents").await
    }

    /// The same; the name of the index is an alias if the collection has another one.
    pub(super) async fn plain_in(collection: &str) -> Self {
        let bench = Self { has_short_form: true, ..Self::new() };
        let spec = declaration("documents");
        bench.index(collection).create(&spec.collection, &spec.vectors, DIMENSION).await.unwrap();
        if collection != "documents" {
            bench.servers.collections.set_alias("documents", Some(collection));
        }
        bench.apply(&[remodelled("documents")]).await;
        bench
    }

    /// A producer that dies is replaced by one with the calls of this process.
    pub(super) fn restart(&mut self, process: &Process) {
        self.ports = ports(&self.servers, &self.source, &self.registry, process);
        self.controller = Controller::new(&self.ports);
    }

    pub(super) fn streams(&self) -> &FakeStreams {
        &self.servers.streams
    }

    /// A collection.
    pub(super) fn index(&self, name: &str) -> FakeIndex {
        self.servers.collections.index(name)
    }

    pub(super) fn alias(&self, name: &str) -> Option<String> {
        self.servers.collections.alias(name)
    }

    /// The catalog as it was last loaded.
    pub(super) fn catalog(&self) -> Catalog {
        self.targets.current().catalog().clone()
    }

    /// The index `tickets`, or the only one; `None` until a look has found an applied catalog.
    pub(super) fn entry(&self) -> Option<Index> {
        let catalog = self.catalog();
        if catalog.is_short_form() {
            return None;
        }
        catalog.indexes.get(&tickets()).or_else(|| catalog.indexes.values().next()).cloned()
    }

    pub(super) fn generation(&self, number: u32) -> Option<Generation> {
        self.entry()?.generations.get(&number).cloned()
    }

    pub(super) fn state(&self, number: u32) -> Option<State> {
        self.generation(number).map(|generation| generation.state)
    }

    /// Whether this generation serves, is filled, and nothing is about to change.
    pub(super) fn is_served_by(&self, number: u32) -> bool {
        let is_final = |index: &Index| index.serving == Some(number) && index.switching.is_none();
        self.entry().is_some_and(|index| is_final(&index)) && self.generation(number).is_some_and(|g| g.is_filled())
    }

    /// Submits these declarations.
    pub(super) async fn apply(&self, declared: &[Declaration]) {
        self.apply_with(declared, ApplyOptions::default()).await;
    }

    pub(super) async fn apply_with(&self, declared: &[Declaration], options: ApplyOptions) {
        let collections = self.servers.collections.names().into_iter().collect();
        self.submit(declared, &Choice::Declared(ApplyOptions { collections, ..options })).await;
    }

    pub(super) async fn submit(&self, declared: &[Declaration], choice: &Choice) {
        let store = self.streams().catalog();
        let (stored, now_ms) = store.load().await.unwrap();
        let current = if stored.is_short_form() && self.has_short_form { self.catalog() } else { stored };
        let submitted = submit(&current, declared, choice, now_ms);
        assert!(submitted.refused.is_empty(), "{:?}", submitted.refused);
        let changes = submitted.changes(&current);
        let Submitted { expected, catalog, .. } = submitted;
        let saved = store.save(Uuid::new_v4(), expected, catalog.revision, &changes, Some(Catalog::LAYOUT)).await;
        assert_eq!(saved, Ok(Appended::Saved));
    }

    /// Changes the catalog as another client.
    pub(super) async fn edit(&self, edit: impl FnOnce(&mut Index)) {
        let store = self.streams().catalog();
        let (mut catalog, now_ms) = store.load().await.unwrap();
        let (expected, next) = (catalog.revision, catalog.next_revision(now_ms));
        let (name, index) = catalog.indexes.iter_mut().next().unwrap();
        edit(index);
        let changes = [(name.clone(), Some(index.clone()))];
        store.save(Uuid::new_v4(), expected, next, &changes, None).await.unwrap();
    }

    /// Records that a target has lost its collection.
    pub(super) async fn lose(&self, target: &TargetId) {
        let (state, name) = (self.streams().target(target, false), target.collection());
        state.collection(&name, true).await.unwrap();
        state.collection(&name, false).await.unwrap();
    }

    pub(super) async fn lost(&self) -> Vec<(TargetId, String)> {
        self.streams().catalog().lost().await.unwrap()
    }

    /// Looks as a session does, and continues what the controller has begun until some of it has ended.
    pub(super) async fn look(&mut self) {
        timeout(LONGEST_LOOK, self.look_at_all()).await.expect("a call of the bench itself is held");
    }

    async fn look_at_all(&mut self) {
        self.identify().await;
        let positions = self.streams().journal().positions().await.unwrap();
        let adopted = self.targets.reload().await.unwrap();
        if self.adopts {
            self.current.catalog = adopted.revision();
        }
        let lost = positions.lost.into_iter().map(|(target, _)| Lost { target, recent: false });
        let lost: Vec<Lost> = lost.collect();
        if let Some(scope) = next_scope(adopted.catalog(), &self.current, &lost, |_| None) {
            // Its snapshot ends at once.
            self.current.scope = scope;
        }
        if !self.is_busy {
            self.applied = Some(self.current.clone());
            self.passed += 1;
        }
        self.save().await;
        self.controller.look(&Moment {
            adopted: &adopted,
            revision: positions.catalog,
            now_ms: positions.at,
            current: &self.current,
            applied: self.applied.as_ref(),
            lost: &lost,
            passed: self.passed,
            next: self.passed + 1,
        });
        let _ = timeout(LOOK, self.controller.next()).await;
        self.check_alias();
    }

    pub(super) async fn looks(&mut self, count: usize) {
        for _ in 0..count {
            self.look().await;
        }
    }

    pub(super) async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..MOST_LOOKS {
            if holds(self) {
                return;
            }
            self.look().await;
        }
        panic!("{what} never happens: {:#?}", self.catalog());
    }

    /// Reports the models of new generations, as a processor does.
    pub(super) async fn identify(&self) {
        let store = self.streams().catalog();
        let (catalog, now_ms) = store.load().await.unwrap();
        let mut changes = Vec::new();
        for (name, index) in &catalog.indexes {
            let mut changed = index.clone();
            for generation in changed.generations.values_mut().filter(|generation| generation.embedder.is_none()) {
                let model = generation.declaration.embedding.model.clone();
                generation.embedder = Some(EmbedderIdentity { model, revision: String::new(), dimension: DIMENSION });
            }
            if changed != *index {
                changes.push((name.clone(), Some(changed)));
            }
        }
        if !changes.is_empty() {
            let next = catalog.next_revision(now_ms);
            store.save(Uuid::new_v4(), catalog.revision, next, &changes, None).await.unwrap();
        }
    }

    /// Saves both checkpoints, which comparisons wait for.
    async fn save(&self) {
        let journal = self.streams().journal();
        let saved = journal.load().await.unwrap();
        if saved.as_ref() != Some(&self.current) {
            journal.restart(saved.as_ref(), &[], &[], &self.current, Repair::Entries).await.unwrap();
        }
        if let Some(applied) = &self.applied {
            journal.confirm(&self.current, applied).await.unwrap();
        }
    }

    /// Counts the moments in which searches of a serving index fail.
    fn check_alias(&mut self) {
        let names = self.servers.collections.names();
        let fails = |(name, index): (&IndexName, &Index)| {
            let alias = self.alias(name.as_str());
            let searched = alias.unwrap_or_else(|| name.as_str().to_owned());
            index.serving.is_some() && !names.contains(&searched)
        };
        let failing = self.catalog().indexes.iter().any(fails);
        self.interruptions += u64::from(failing);
    }
}

/// The ports of a producer, with the calls of a process.
fn ports(servers: &Servers, source: &FakeSource, registry: &FakeRegistry, process: &Process) -> ProducerPorts {
    let streams = servers.streams.used_by(process);
    let catalog = CatalogPorts {
        store: Arc::new(streams.catalog()),
        collections: Arc::new(servers.collections.used_by(process)),
        states: Arc::new(streams.clone()),
        embedders: Arc::new(servers.embedders.used_by(process)),
        reuse: true,
    };
    ProducerPorts {
        source: Arc::new(source.used_by(process)),
        journal: Arc::new(streams.journal()),
        backlog: Arc::new(streams.stream_log::<Change>(Stage::Raw)),
        targets: Arc::new(Targets::new(Some(&servers.local()), catalog)),
        controller: Some(ControllerPorts {
            embedded: Arc::new(streams.stream_log::<Embedded>(Stage::Embedded)),
            letters: Arc::new(streams.inspector()),
            registry: Arc::new(registry.clone()),
        }),
    }
}

/// The options of a producer with these declared indexes.
pub(super) fn options(declared: Vec<Declaration>, is_declared: bool) -> ProducerOptions {
    ProducerOptions {
        owner: "anna".to_owned(),
        snapshot: true,
        high_water: 10_000,
        lease: Duration::from_secs(10),
        tombstone_grace: Duration::from_secs(600),
        audit_interval: Duration::ZERO,
        declared,
        is_declared,
    }
}
