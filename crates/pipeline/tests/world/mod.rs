//! The three services on the fakes, in tokio's paused clock: minutes of backoff and idle time pass instantly.
#![allow(dead_code, reason = "each test that shares this module uses a part of it")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidewheel_core::catalog::{ChunkDeclaration, Declaration, EmbeddingSpec, IndexName, Provider};
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, plain_document};
use tidewheel_core::ports::Retention;
use tidewheel_core::stage::Stage;
use tidewheel_core::tokens::{Tokens, Words};
use tidewheel_core::trace::Tracer;
use tidewheel_pipeline::consumer::ConsumerOptions;
use tidewheel_pipeline::parking::OnDeadLetter;
use tidewheel_pipeline::processor::{Blank, Processor, ProcessorOptions, ProcessorPorts};
use tidewheel_pipeline::producer::{Producer, ProducerOptions, ProducerPorts};
use tidewheel_pipeline::service::ServiceError;
use tidewheel_pipeline::targets::{LocalTarget, TargetPorts, Targets};
use tidewheel_pipeline::upserter::{Upserter, UpserterOptions};
use tidewheel_stores::redis::keys::{STAGE_1, STAGE_2, StreamKeys};
use tidewheel_testkit::fakes::embedder::{FakeEmbedder, vector_of};
use tidewheel_testkit::fakes::faults::Faults;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::process::Process;
use tidewheel_testkit::fakes::source::FakeSource;
use tidewheel_testkit::fakes::streams::FakeStreams;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PRODUCER: &str = "producer";
pub const PROCESSOR: &str = "processor";
pub const UPSERTER: &str = "upserter";
pub const SERVICES: [&str; 3] = [PRODUCER, PROCESSOR, UPSERTER];

pub const DATABASE: &str = "shop";
pub const COLLECTIONS: [&str; 2] = ["tickets", "notes"];

/// Longer than any write is in flight here.
pub const GRACE: Duration = Duration::from_secs(600);

/// Idle time after which a producer's lease and a consumer's entries are taken over.
pub const TAKEN_OVER: Duration = Duration::from_secs(3);

pub const DIMENSION: usize = 8;

/// Words per chunk.
pub const CHUNK: usize = 4;

/// All fakes, and the running services.
pub struct World {
    pub source: FakeSource,
    pub streams: FakeStreams,
    pub index: FakeIndex,
    pub embedder: FakeEmbedder,
    /// Consumer options of services started from now on.
    pub consumer: ConsumerOptions,
    /// Audit interval of producers started from now on; zero disables audits.
    pub audit_interval: Duration,
    /// Tombstone grace of producers started from now on.
    pub grace: Duration,
    /// Tracer of services started from now on.
    pub tracer: Option<Tracer>,
    /// Handling of documents without text by processors started from now on.
    pub blank: Blank,
    /// Template with which producers started from now on find documents without text; the processors' is another one.
    pub template: Option<String>,
    /// Dead-letter policy of services started from now on.
    pub on_dead_letter: OnDeadLetter,
    /// High-water mark of stage 1.
    pub stage_1_high_water: u64,
    services: HashMap<&'static str, Vec<Instance>>,
    started: usize,
    /// The log of actions, for failing schedules.
    pub story: Vec<String>,
}

/// High-water mark of stage 2 in unacknowledged entries.
pub const HIGH_WATER: u64 = 40;

/// High-water mark of stage 1: more entries than any scenario appends without a processor.
const STAGE_1_HIGH_WATER: u64 = 10_000;

/// A running service.
pub struct Instance {
    pub process: Process,
    pub task: JoinHandle<Result<(), ServiceError>>,
}

impl World {
    /// An empty world, whose source is polled often and read in small pages.
    pub fn new() -> Self {
        Self {
            source: FakeSource::with(DATABASE, Duration::from_millis(20), 3),
            streams: FakeStreams::new(),
            index: FakeIndex::new(),
            embedder: FakeEmbedder::new(DIMENSION),
            consumer: ConsumerOptions {
                batch: 4,
                concurrency: 2,
                claim_after: TAKEN_OVER,
                retention: Retention { age: Duration::from_secs(20), entries: 50, bytes: u64::MAX },
            },
            audit_interval: Duration::ZERO,
            grace: GRACE,
            stage_1_high_water: STAGE_1_HIGH_WATER,
            tracer: None,
            blank: Blank::Index,
            template: None,
            on_dead_letter: OnDeadLetter::Keep,
            services: HashMap::new(),
            started: 0,
            story: Vec::new(),
        }
    }

    /// A world whose source is polled less often, and whose streams retain everything.
    pub fn calm() -> Self {
        let mut world = Self::new();
        world.source = FakeSource::with(DATABASE, Duration::from_secs(1), 3);
        world.consumer.retention = Retention { age: Duration::MAX, entries: u64::MAX, bytes: u64::MAX };
        world
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
        let consumer = self.consumer.clone();
        let streams = self.streams.used_by(&process);
        let (shutdown, tracer) = (CancellationToken::new(), self.tracer.clone());
        let task = match service {
            PRODUCER => {
                let options = ProducerOptions {
                    owner: name,
                    snapshot: true,
                    high_water: self.stage_1_high_water,
                    lease: TAKEN_OVER,
                    tombstone_grace: self.grace,
                    audit_interval: self.audit_interval,
                    declared: Vec::new(),
                    is_declared: false,
                };
                let mut target = self.target(&process);
                Arc::make_mut(&mut target.declaration).text.template = self.template.clone();
                let ports = ProducerPorts {
                    source: Arc::new(self.source.used_by(&process)),
                    journal: Arc::new(streams.journal()),
                    backlog: Arc::new(streams.stream_log::<Change>(Stage::Raw)),
                    targets: Arc::new(Targets::fixed(&target)),
                    controller: None,
                };
                tokio::spawn(Producer::new(options, ports).traced(tracer).run(shutdown))
            }
            PROCESSOR => {
                let queue = Arc::new(streams.changes(&name));
                let ports = ProcessorPorts {
                    queue: queue.clone(),
                    maintenance: Some(queue),
                    handover: Arc::new(streams.handover()),
                    backlog: Some(Arc::new(streams.stream_log::<Embedded>(Stage::Embedded))),
                    targets: Arc::new(Targets::fixed(&self.target(&process))),
                };
                let options = ProcessorOptions { consumer, high_water: HIGH_WATER };
                let processor = Processor::new(options, ports).expect("no template");
                tokio::spawn(processor.traced(tracer).run(shutdown))
            }
            _ => {
                let queue = Arc::new(streams.embedded(&name));
                let targets = Arc::new(Targets::fixed(&self.target(&process)));
                let upserter = Upserter::new(UpserterOptions { consumer }, queue, targets);
                tokio::spawn(upserter.traced(tracer).run(shutdown))
            }
        };
        self.services.entry(service).or_default().push(Instance { process, task });
    }

    /// The only target, with the calls of this process.
    fn target(&self, process: &Process) -> LocalTarget {
        let (streams, index) = (self.streams.used_by(process), Arc::new(self.index.used_by(process)));
        let model = EmbeddingSpec::new("default", Provider::own(), self.embedder.model());
        let name = IndexName::of_collection("documents");
        let selector = self.source.covered().coverage.selectors[0].clone();
        let mut declaration = Declaration::new(name, selector, model);
        declaration.text.fields = vec!["text".into()];
        declaration.text.blank = self.blank;
        declaration.chunk = ChunkDeclaration { tokens: Some(CHUNK), overlap: 0, ..ChunkDeclaration::default() };
        declaration.rules.on_dead_letter = self.on_dead_letter;
        let ports = TargetPorts {
            known: Some(index.clone()),
            registry: Some(Arc::new(streams.collection_registry())),
            embedder: Ok(Arc::new(self.embedder.used_by(process))),
            ..TargetPorts::new(index, Arc::new(streams.tombstones()))
        };
        LocalTarget { declaration: Arc::new(declaration), ports }
    }

    /// Crashes the newest instance at its current point.
    pub fn kill(&mut self, service: &'static str) {
        self.story.push(format!("kill a {service}"));
        if let Some(instance) = self.services.get_mut(service).and_then(Vec::pop) {
            instance.process.die();
            instance.task.abort();
        }
    }

    /// Waits for the newest instance of a service to stop, and returns its result.
    pub async fn ending(&mut self, service: &'static str) -> Result<(), ServiceError> {
        let instance = self.services.get_mut(service).and_then(Vec::pop).expect("it was started");
        let ended = tokio::time::timeout(Duration::from_secs(60), instance.task).await;
        ended.expect("it ends within a minute").expect("it does not panic")
    }

    /// The names of all calls, with the faults that they share.
    pub fn faults(&self) -> [(&'static [&'static str], &Faults); 5] {
        [
            (&["open", "next", "now", "scan", "page", "collections", "estimate", "existing"], self.source.faults()),
            (
                &[
                    "append",
                    "load",
                    "most_bytes",
                    "lease",
                    "backlog",
                    "read",
                    "claim",
                    "keep",
                    "acknowledge",
                    "hand_over",
                    "trim",
                ],
                self.streams.faults(),
            ),
            (
                &["raise", "of", "collect", "positions", "confirm", "applied", "restart", "collection"],
                self.streams.faults(),
            ),
            (
                &["upsert", "refresh", "known", "stored", "delete", "prepare", "exists", "points", "page", "count"],
                self.index.faults(),
            ),
            (&["embed", "info", "tokens"], self.embedder.faults()),
        ]
    }

    /// The first difference between index and source, if any.
    pub fn difference(&self) -> Option<String> {
        let mut points: BTreeMap<DocumentId, BTreeMap<u64, Value>> = BTreeMap::new();
        for point in self.index.points() {
            let stamp = &point.payload[RESERVED];
            let namespace = Namespace::parse(stamp["namespace"].as_str()?).expect("a namespace");
            let document = DocumentId::new(&namespace, stamp["key"].as_str()?);
            let chunk = stamp["chunk"].as_u64().expect("a chunk number");
            assert_eq!(point.id, document.point(chunk as u32));
            let text = stamp["text"].as_str().expect("a text");
            if text.is_empty() {
                assert!(point.vector.iter().all(|number| *number == 0.0), "a vector of no text");
            } else {
                assert_eq!(point.vector, vector_of(text, DIMENSION), "the vector of {text:?}");
            }
            points.entry(document).or_default().insert(chunk, Value::Object(point.payload));
        }
        for collection in COLLECTIONS {
            let namespace = Namespace::new(DATABASE, collection);
            for row in self.source.rows(collection) {
                let chunks = points.remove(&DocumentId::new(&namespace, &row.key));
                let Some(chunks) = chunks else { return Some(format!("{collection} {} is missing", row.key)) };
                let expected = plain_document(row.document.as_ref().expect("readable")).expect("a document");
                let count = chunks.len() as u64;
                let version = chunks.values().next().map(|payload| payload[RESERVED]["version"].clone());
                for (chunk, mut payload) in chunks {
                    let stamp = payload[RESERVED].take();
                    payload.as_object_mut().expect("an object").remove(RESERVED);
                    if payload != Value::Object(expected.clone()) {
                        return Some(format!("{collection} {} is stale: {payload}", row.key));
                    }
                    if stamp["chunks"] != count || chunk >= count || Some(&stamp["version"]) != version.as_ref() {
                        return Some(format!("{collection} {} has stray chunks: {stamp} of {count}", row.key));
                    }
                }
            }
        }
        points.keys().next().map(|document| format!("{document} should not be there"))
    }

    /// Whether everything has been read and acknowledged.
    pub fn drained(&self) -> bool {
        self.drained_by(STAGE_1) && self.drained_by(STAGE_2)
    }

    /// Whether everything in a stage has been read and acknowledged.
    pub fn drained_by(&self, stage: StreamKeys) -> bool {
        let status = self.streams.status(stage);
        status.pending == 0 && status.lag == Some(0)
    }

    /// Waits until the index equals the source and the streams are drained.
    pub async fn settle(&self, what: &str) {
        for _ in 0..2_000 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.drained() && self.difference().is_none() {
                return;
            }
        }
        let difference = self.difference().unwrap_or_else(|| "the streams are not drained".into());
        panic!("{what}: {difference}\n{}", self.story.join("\n"));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for instance in self.services.values().flatten() {
            instance.process.die();
            instance.task.abort();
        }
    }
}

/// A document with a text of this many chunks, whose words are its name: one token each.
pub fn document(id: i32, name: &str, chunks: usize) -> Value {
    assert_eq!(Words.spans(name).len(), 1, "{name:?} is one token");
    json!({"_id": id, "text": vec![name; chunks * CHUNK].join(" ")})
}

/// Waits in the world's clock.
pub async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// Waits until the condition holds.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1_200 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} never happened");
}
