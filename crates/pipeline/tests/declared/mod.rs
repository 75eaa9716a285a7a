//! The three services with declared indexes, on the fakes, in tokio's paused clock.
#![allow(dead_code, reason = "each test that shares this module uses a part of it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tidewheel_core::catalog::{
    ApplyOptions, Catalog, Choice, ChunkDeclaration, Declaration, EmbeddingSpec, Generation, Index, IndexName,
    Provider, Selector, State, submit,
};
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{MADE, RESERVED, plain_document};
use tidewheel_core::ports::{Appended, CatalogStore as _, Point, Retention, SourceFilter};
use tidewheel_core::stage::Stage;
use tidewheel_pipeline::consumer::ConsumerOptions;
use tidewheel_pipeline::processor::{Processor, ProcessorOptions, ProcessorPorts};
use tidewheel_pipeline::producer::{ControllerPorts, Producer, ProducerOptions, ProducerPorts};
use tidewheel_pipeline::targets::{CatalogPorts, LocalTarget, TargetPorts, Targets};
use tidewheel_pipeline::upserter::{Upserter, UpserterOptions};
use tidewheel_stores::redis::keys::{STAGE_1, STAGE_2};
use tidewheel_testkit::fakes::collections::FakeCollections;
use tidewheel_testkit::fakes::embedder::FakeEmbedder;
use tidewheel_testkit::fakes::embedders::FakeEmbedders;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::ownership::FakeRegistry;
use tidewheel_testkit::fakes::process::Process;
use tidewheel_testkit::fakes::source::FakeSource;
use tidewheel_testkit::fakes::streams::FakeStreams;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::world::{CHUNK, GRACE, HIGH_WATER, Instance, PROCESSOR, PRODUCER, SERVICES, TAKEN_OVER};

/// The collections of the source that indexes may cover.
const NAMESPACES: [(&str, &str); 3] = [("shop", "tickets"), ("shop", "notes"), ("crm", "notes")];

/// The models.
pub const SMALL: &str = "small";
pub const LARGE: &str = "large";

/// The servers of an installation with declared indexes, and its running services.
pub struct Installation {
    /// The source, for writes to `shop`.
    pub source: FakeSource,
    pub streams: FakeStreams,
    pub collections: FakeCollections,
    /// The model [`SMALL`].
    pub small: FakeEmbedder,
    /// The model [`LARGE`].
    pub large: FakeEmbedder,
    embedders: FakeEmbedders,
    registry: FakeRegistry,
    /// The declared indexes of producers started from now on.
    declared: Vec<Declaration>,
    /// What the settings are short for, of an installation that began without declared indexes.
    local: Option<Declaration>,
    services: HashMap<&'static str, Vec<Instance>>,
    started: usize,
}

/// An index of these collections, whose documents have texts of up to [`CHUNK`] words.
pub fn declaration(name: &str, collections: &[&str], model: &str) -> Declaration {
    let name = IndexName::new(name).expect("a valid name");
    let source = Selector::parse(collections, None).expect("valid patterns");
    let mut declaration = Declaration::new(name, source, EmbeddingSpec::new(model, Provider::own(), model));
    declaration.text.fields = vec!["text".to_owned()];
    declaration.chunk = ChunkDeclaration { tokens: Some(CHUNK), overlap: 0, ..ChunkDeclaration::default() };
    declaration
}

/// The same index, of documents that are open.
pub fn open(mut declaration: Declaration) -> Declaration {
    declaration.filter = Some(SourceFilter(r#"{"status":"open"}"#.to_owned()));
    declaration
}

/// A document. Its title is another text.
pub fn ticket(id: i32, text: &str, status: &str) -> Value {
    json!({"_id": id, "text": text, "title": format!("about {text}"), "status": status})
}

impl Installation {
    /// An installation whose first start applies these indexes.
    pub fn new(declared: &[Declaration]) -> Self {
        let (small, large) = (FakeEmbedder::named(SMALL, 4), FakeEmbedder::named(LARGE, 8));
        Self {
            source: FakeSource::with("shop", Duration::from_millis(100), 3),
            streams: FakeStreams::new(),
            collections: FakeCollections::new(),
            embedders: FakeEmbedders::new([small.clone(), large.clone()]),
            small,
            large,
            registry: FakeRegistry::default(),
            declared: declared.to_vec(),
            local: None,
            services: HashMap::new(),
            started: 0,
        }
    }

    /// An installation without declared indexes: the short form of this one.
    pub fn of_short_form(local: Declaration) -> Self {
        let mut installation = Self::new(&[]);
        installation.local = Some(local);
        installation
    }

    /// Starts one instance of each service.
    pub fn start_all(&mut self) {
        for service in SERVICES {
            self.start(service);
        }
    }

    /// Starts one more instance of a service.
    pub fn start(&mut self, service: &'static str) {
        self.start_as(service, Process::default());
    }

    /// Starts one more instance of a service as this process.
    pub fn start_as(&mut self, service: &'static str, process: Process) {
        self.started += 1;
        let name = format!("{service}-{}", self.started);
        let streams = self.streams.used_by(&process);
        let targets = Arc::new(self.targets(&process));
        let consumer = ConsumerOptions {
            batch: 4,
            concurrency: 2,
            claim_after: TAKEN_OVER,
            retention: Retention { age: Duration::MAX, entries: u64::MAX, bytes: u64::MAX },
        };
        let shutdown = CancellationToken::new();
        let task = match service {
            PRODUCER => {
                let options = ProducerOptions {
                    owner: name,
                    snapshot: true,
                    high_water: 10_000,
                    lease: TAKEN_OVER,
                    tombstone_grace: GRACE,
                    audit_interval: Duration::ZERO,
                    declared: self.declared.clone(),
                    is_declared: self.local.is_none(),
                };
                let ports = ProducerPorts {
                    source: Arc::new(self.source.used_by(&process)),
                    journal: Arc::new(streams.journal()),
                    backlog: Arc::new(streams.stream_log::<Change>(Stage::Raw)),
                    targets,
                    controller: Some(ControllerPorts {
                        embedded: Arc::new(streams.stream_log::<Embedded>(Stage::Embedded)),
                        letters: Arc::new(streams.inspector()),
                        registry: Arc::new(self.registry.clone()),
                    }),
                };
                tokio::spawn(Producer::new(options, ports).run(shutdown))
            }
            PROCESSOR => {
                let queue = Arc::new(streams.changes(&name));
                let ports = ProcessorPorts {
                    queue: queue.clone(),
                    maintenance: Some(queue),
                    handover: Arc::new(streams.handover()),
                    backlog: Some(Arc::new(streams.stream_log::<Embedded>(Stage::Embedded))),
                    targets,
                };
                let options = ProcessorOptions { consumer, high_water: HIGH_WATER };
                tokio::spawn(Processor::new(options, ports).expect("no template").run(shutdown))
            }
            _ => {
                let queue = Arc::new(streams.embedded(&name));
                tokio::spawn(Upserter::new(UpserterOptions { consumer }, queue, targets).run(shutdown))
            }
        };
        self.services.entry(service).or_default().push(Instance { process, task });
    }

    /// Crashes the newest instance at its current point.
    pub fn kill(&mut self, service: &'static str) {
        if let Some(instance) = self.services.get_mut(service).and_then(Vec::pop) {
            instance.process.die();
            instance.task.abort();
        }
    }

    /// The targets of the catalog, with the calls of this process.
    fn targets(&self, process: &Process) -> Targets {
        let streams = self.streams.used_by(process);
        let ports = CatalogPorts {
            store: Arc::new(streams.catalog()),
            collections: Arc::new(self.collections.used_by(process)),
            states: Arc::new(streams.clone()),
            embedders: Arc::new(self.embedders.used_by(process)),
            reuse: true,
        };
        let local = self.local.as_ref().map(|declaration| {
            let index = Arc::new(self.collections.index(declaration.name.as_str()).used_by(process));
            let ports = TargetPorts {
                known: Some(index.clone()),
                registry: Some(Arc::new(streams.collection_registry())),
                embedder: Ok(Arc::new(self.small.used_by(process))),
                ..TargetPorts::new(index, Arc::new(streams.tombstones()))
            };
            LocalTarget { declaration: Arc::new(declaration.clone()), ports }
        });
        Targets::new(local.as_ref(), ports)
    }

    /// Applies these declarations.
    pub async fn apply(&self, declared: &[Declaration]) {
        self.apply_with(declared, ApplyOptions::default()).await;
    }

    /// Applies these declarations with options.
    pub async fn apply_with(&self, declared: &[Declaration], options: ApplyOptions) {
        let collections = self.collections.names().into_iter().collect();
        self.submit(declared, &Choice::Declared(ApplyOptions { collections, ..options })).await;
    }

    /// Returns an index to its kept generation.
    pub async fn roll_back(&self, name: &str) {
        self.submit(&[], &Choice::Rollback(IndexName::of_collection(name))).await;
    }

    /// Submits what must be possible and change something, until it is saved.
    async fn submit(&self, declared: &[Declaration], choice: &Choice) {
        let store = self.streams.catalog();
        loop {
            let (stored, now_ms) = store.load().await.expect("no fault is planned");
            let short_form = self.local.clone().filter(|_| stored.is_short_form());
            let current = short_form.map_or(stored, |local| Catalog::short_form(Arc::new(local)));
            let submitted = submit(&current, declared, choice, now_ms);
            assert!(submitted.refused.is_empty() && submitted.has_work(), "{submitted:#?}");
            let (changes, next) = (submitted.changes(&current), submitted.catalog.revision);
            let saved = store.save(Uuid::new_v4(), submitted.expected, next, &changes, Some(Catalog::LAYOUT)).await;
            if saved.expect("no fault is planned") == Appended::Saved {
                return;
            }
        }
    }

    /// The saved catalog.
    pub async fn catalog(&self) -> Catalog {
        self.streams.catalog().load().await.expect("no fault is planned").0
    }

    /// An index in the saved catalog.
    pub async fn index(&self, name: &str) -> Index {
        self.catalog().await.indexes[&IndexName::of_collection(name)].clone()
    }

    /// The state of a generation; `None` if it does not exist.
    pub async fn state(&self, name: &str, number: u32) -> Option<State> {
        let catalog = self.catalog().await;
        catalog.generation(&IndexName::of_collection(name).target(number)).map(|generation| generation.state)
    }

    /// A collection.
    pub fn collection(&self, name: &str) -> FakeIndex {
        self.collections.index(name)
    }

    /// The collection that the alias of an index names.
    pub fn alias(&self, name: &str) -> Option<String> {
        self.collections.alias(name)
    }

    /// Number of texts embedded by each model, the small one first.
    pub fn embedded(&self) -> (usize, usize) {
        let count = |embedder: &FakeEmbedder| embedder.batches().concat().len();
        (count(&self.small), count(&self.large))
    }

    /// Waits until every index is as declared and equals the source, and nothing is in flight.
    pub async fn settle(&self, what: &str) {
        for _ in 0..3_000 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.unsettled().await.is_none() {
                return;
            }
        }
        let unsettled = self.unsettled().await.unwrap_or_default();
        panic!("{what}: {unsettled}\n{:#?}", self.catalog().await);
    }

    /// What is not as it has to be at rest.
    async fn unsettled(&self) -> Option<String> {
        let is_drained = [STAGE_1, STAGE_2].into_iter().all(|stage| {
            let status = self.streams.status(stage);
            status.pending == 0 && status.lag == Some(0)
        });
        if !is_drained {
            return Some("the streams are not drained".to_owned());
        }
        let lost = self.streams.catalog().lost().await.expect("no fault is planned");
        if let Some((target, text)) = lost.first() {
            return Some(format!("{target}: {text}"));
        }
        let catalog = self.catalog().await;
        if catalog.is_short_form() {
            let Some(local) = &self.local else { return Some("nothing is applied".to_owned()) };
            return self.difference(local.name.as_str(), local, false);
        }
        for (name, index) in &catalog.indexes {
            if !self.is_at_rest(name, index) {
                return Some(format!("index {name} is not at rest"));
            }
            for generation in index.generations.values() {
                let Generation { collection, declaration, .. } = generation;
                if let Some(difference) = self.difference(collection, declaration, true) {
                    return Some(format!("{collection}: {difference}"));
                }
            }
        }
        None
    }

    fn is_at_rest(&self, name: &IndexName, index: &Index) -> bool {
        let is_whole = |generation: &Generation| {
            matches!(generation.state, State::Serving | State::Kept) && generation.is_filled()
        };
        let is_named = |serving: &Generation| self.alias(name.as_str()).as_ref() == Some(&serving.collection);
        index.switching.is_none()
            && index.generations.values().all(is_whole)
            && index.serving_generation().is_some_and(|(_, serving)| index.plain || is_named(serving))
    }

    /// The first difference between a collection and what its declaration makes of the source. `is_made`: whether its
    /// points carry what they were made by.
    fn difference(&self, collection: &str, declaration: &Declaration, is_made: bool) -> Option<String> {
        let points = self.collection(collection).points();
        let mut points: BTreeMap<Uuid, Point> = points.into_iter().map(|point| (point.id, point)).collect();
        for (database, name) in NAMESPACES {
            let namespace = Namespace::new(database, name);
            if !declaration.source.covers(&namespace) {
                continue;
            }
            for row in self.source.in_database(database).rows(name) {
                let document = plain_document(row.document.as_ref().expect("readable")).expect("a document");
                if declaration.filter.is_some() && document.get("status") != Some(&json!("open")) {
                    continue;
                }
                let id = DocumentId::new(&namespace, &row.key).point(0);
                let Some(point) = points.remove(&id) else {
                    return Some(format!("{namespace} {} is missing", row.key));
                };
                if let Some(difference) = self.difference_of(point, document, declaration, is_made) {
                    return Some(format!("{namespace} {}: {difference}", row.key));
                }
            }
        }
        points.into_values().next().map(|point| format!("{:?} should not be there", point.payload))
    }

    fn difference_of(
        &self,
        point: Point,
        document: Map<String, Value>,
        declaration: &Declaration,
        is_made: bool,
    ) -> Option<String> {
        let Point { vector, mut payload, .. } = point;
        let stamp = payload.remove(RESERVED)?;
        let text = document[&declaration.text.fields[0]].as_str()?.to_owned();
        let model = if declaration.embedding.model == SMALL { &self.small } else { &self.large };
        let mut expected = document;
        expected.retain(|field, _| !declaration.payload.exclude.contains(field));
        if payload != expected {
            return Some(format!("payload {payload:?}"));
        }
        if stamp["text"] != text || vector != model.vector(&text) || stamp["chunks"] != 1 {
            return Some(format!("text {} instead of {text:?}, or another vector", stamp["text"]));
        }
        let made = serde_json::to_value(declaration.made()).expect("plain data");
        (is_made && stamp[MADE] != made).then(|| format!("made by {} instead of {made}", stamp[MADE]))
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        for instance in self.services.values().flatten() {
            instance.process.die();
            instance.task.abort();
        }
    }
}
