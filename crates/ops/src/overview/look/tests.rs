//! Overviews of fakes.

use std::sync::Arc;

use tidewheel_core::error::PortError;
use tidewheel_core::ports::{
    Acknowledge as _, Checkpoint, Embedder as EmbedderPort, IndexWriter as _, Journal as _, Queue as _,
};
use tidewheel_core::report::{
    Bucket, EmbedderReport, FORMAT, LatencyReport, ProcessReport, ProcessorReport, ProducerReport, ServiceReport,
    UpserterReport,
};
use tidewheel_core::version::ClusterTime;
use tidewheel_testkit::contracts::samples::{change, changes, checkpoint};
use tidewheel_testkit::fakes::embedder::FakeEmbedder;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::ownership::FakeRegistry;
use tidewheel_testkit::fakes::queue_server::FakeQueueServer;
use tidewheel_testkit::fakes::reports::FakeReports;
use tidewheel_testkit::fakes::source::FakeSource;
use tidewheel_testkit::fakes::streams::FakeStreams;

use super::*;
use crate::catalog::CatalogReader;
use crate::overview::samples::thresholds;
use crate::samples::{Servers, declaration};

mod declared;

/// All servers: stage 1 has two unread changes, and the collection is empty.
struct World {
    servers: Servers,
    streams: FakeStreams,
    registry: FakeRegistry,
    reports: FakeReports,
    source: FakeSource,
    index: FakeIndex,
    embedder: FakeEmbedder,
}

impl World {
    async fn new() -> Self {
        let servers = Servers::new();
        let world = Self {
            streams: servers.streams.clone(),
            registry: FakeRegistry::default(),
            reports: FakeReports::default(),
            source: FakeSource::new("shop"),
            index: servers.collections.index("documents"),
            embedder: FakeEmbedder::new(3),
            servers,
        };
        world.index.prepare(3).await.unwrap();
        world.streams.journal().append(None, &changes(1..=2), &checkpoint(2)).await.unwrap();
        world
    }

    fn ports(&self) -> OverviewPorts {
        let index = Arc::new(self.index.clone());
        let embedder = self.embedder.clone();
        OverviewPorts {
            queue: Ok(QueuePorts {
                registry: Arc::new(self.registry.clone()),
                stages: Arc::new(self.streams.inspector()),
                server: Arc::new(FakeQueueServer::new(self.streams.clone())),
                journal: Arc::new(self.streams.journal()),
                reports: Arc::new(self.reports.clone()),
                catalog: Arc::new(CatalogReader::new(Arc::new(self.streams.catalog()), Some(declaration("documents")))),
                states: Arc::new(self.streams.clone()),
            }),
            source: Some(Arc::new(self.source.clone())),
            index: Ok(IndexPorts {
                reader: index.clone(),
                inspector: index,
                collections: Arc::new(self.servers.collections.clone()),
            }),
            embedder: Box::new(move || Ok(Arc::new(embedder.clone()) as Arc<dyn EmbedderPort>)),
        }
    }

    fn looker(&self) -> Looker {
        looker(self.ports())
    }

    /// A processor acknowledges one change.
    async fn process_one(&self) {
        let queue = self.streams.changes("a");
        let read = queue.read(1, Duration::ZERO).await.unwrap();
        queue.acknowledge(&[read[0].id.clone()]).await.unwrap();
    }

    /// A process publishes its figures.
    fn publish(&self, process: &str, services: &[&str], figures: Figures) {
        let service = |name: &&str| ServiceReport { service: (*name).into(), ready: true, reasons: Vec::new() };
        let report = ProcessReport {
            format: FORMAT,
            version: "1".into(),
            layout: Some(2),
            up_seconds: 60.0,
            operations: None,
            services: services.iter().map(service).collect(),
            figures: Some(figures),
        };
        self.reports.publish(process, &serde_json::to_string(&report).unwrap());
    }

    /// Makes every call to Redis fail.
    fn stop_redis(&self) {
        for call in ["status", "queue_server", "load", "applied", "positions"] {
            self.streams.faults().always(call, Fault::unreachable());
        }
        self.reports.faults().always("reports", Fault::unreachable());
        self.registry.faults().always("installation", Fault::unreachable());
    }
}

fn looker(ports: OverviewPorts) -> Looker {
    let names = ServerNames { database: Some("shop".into()), ..ServerNames::default() };
    Looker::new(ports, names, thresholds())
}

/// What an overview does not know.
async fn unknown(looker: &Looker) -> Vec<&'static str> {
    let overview = looker.look().await;
    let parts = [
        ("stages", overview.stages.iter().all(|stage| stage.error().is_some())),
        ("redis", overview.redis.error().is_some()),
        ("position", overview.source.error().is_some()),
        ("source", overview.source.known().is_some_and(|source| source.error.is_some())),
        ("collection", overview.collection.error().is_some()),
        ("embedder", overview.embedder.error().is_some()),
    ];
    parts.into_iter().filter(|(_, unknown)| *unknown).map(|(name, _)| name).collect()
}

#[tokio::test(start_paused = true)]
async fn rates_are_computed_between_overviews() {
    let world = World::new().await;
    let looker = world.looker();
    let first = looker.look().await;
    let stage = first.stages[0].known().unwrap();
    assert_eq!((stage.backlog, stage.in_per_second, stage.out_per_second, stage.alive), (2, None, None, 0));
    assert_eq!(first.collection.known().unwrap().points, Some(0));
    assert!(first.complete(), "{first:?}");

    world.process_one().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = looker.look().await;
    let stage = second.stages[0].known().unwrap();
    assert_eq!((stage.backlog, stage.in_per_second, stage.alive), (1, Some(0.0), 1));
    let (out, eta) = (stage.out_per_second.unwrap(), stage.eta_seconds.unwrap());
    assert!((out - 1.0).abs() < 0.01 && (eta - 1.0).abs() < 0.01, "{stage:?}");
}

#[tokio::test(start_paused = true)]
async fn backlog_without_an_acknowledgement_is_stalled_until_the_next_one() {
    let world = World::new().await;
    let looker = world.looker();
    let stalled = async || looker.look().await.stages[0].known().unwrap().stalled_seconds;
    assert_eq!(stalled().await, 0.0);
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert!((stalled().await - 90.0).abs() < 1.0);
    world.process_one().await;
    assert_eq!(stalled().await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn first_overview_knows_a_stall_from_reports() {
    let world = World::new().await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    let processor = |idle: f64| Figures {
        processor: Some(ProcessorReport { progressed_at: now_seconds() - idle, tokens_saved: 0 }),
        ..Figures::default()
    };
    world.publish("host-1", &["processor"], processor(500.0));
    let stalled = async || world.looker().look().await.stages[0].known().unwrap().stalled_seconds;
    assert!((stalled().await - 90.0).abs() < 1.0, "not longer than the oldest change has waited");
    // Another processor made progress more recently.
    world.publish("host-2", &["processor"], processor(40.0));
    let seconds = stalled().await;
    assert!((40.0..60.0).contains(&seconds), "{seconds}");
}

#[tokio::test(start_paused = true)]
async fn unreachable_server_is_unknown_and_the_others_answer() {
    let world = World::new().await;
    let looker = world.looker();
    assert_eq!(unknown(&looker).await, [""; 0]);

    world.source.faults().always("history", Fault::unreachable());
    assert_eq!(unknown(&looker).await, ["source"]);
    world.source.faults().heal();
    world.index.faults().always("index_state", Fault::unreachable());
    assert_eq!(unknown(&looker).await, ["collection"]);
    world.index.faults().heal();
    world.embedder.faults().always("info", Fault::unreachable());
    assert_eq!(unknown(&looker).await, ["embedder"]);
    world.embedder.faults().heal();

    world.stop_redis();
    assert_eq!(unknown(&world.looker()).await, ["stages", "redis", "position"]);
    // The source's history moves on meanwhile, so the last position still matters.
    assert_eq!(unknown(&looker).await, ["stages", "redis"]);
    let overview = looker.look().await;
    assert_eq!(overview.verdict.state, SyncState::Unknown);
    assert_eq!(overview.source.known().unwrap().read_until, Some(change(2).version.time.seconds));
}

#[tokio::test(start_paused = true)]
async fn server_without_an_answer_delays_the_overview_up_to_the_timeout() {
    let world = World::new().await;
    world.index.faults().always("index_state", Fault::Slow(Duration::from_secs(60)));
    let looker = world.looker().within(Duration::from_secs(1));
    let begun = tokio::time::Instant::now();
    let overview = looker.look().await;
    assert_eq!(begun.elapsed().as_secs(), 1);
    assert_eq!(overview.collection.error(), Some("no answer within 1 s"));
    assert!(overview.redis.known().is_some());
}

#[tokio::test(start_paused = true)]
async fn keys_of_a_newer_release_are_not_read() {
    let world = World::new().await;
    let looker = world.looker();
    assert_eq!(unknown(&looker).await, [""; 0]);
    world.registry.set_newer_layout();
    assert_eq!(unknown(&looker).await, ["stages", "position"], "the last position is not kept");
}

#[tokio::test(start_paused = true)]
async fn invalid_settings_of_a_client_are_the_error_of_its_server() {
    let world = World::new().await;
    let index = Err(PortError::fatal("invalid qdrant.url"));
    let overview = looker(OverviewPorts { index, source: None, ..world.ports() }).look().await;
    assert_eq!(overview.collection.error(), Some("invalid qdrant.url"));
    assert!(overview.source.known().unwrap().error.is_none(), "no database is set");
    assert!(overview.problems.iter().any(|problem| problem.code == "qdrant-unreachable"), "{overview:?}");
}

#[tokio::test(start_paused = true)]
async fn reports_of_several_processes_are_merged() {
    let world = World::new().await;
    let embedder = |tokens| Some(EmbedderReport { tokens, queued_tokens: 2 });
    let latency = LatencyReport { changes: 2, buckets: vec![Bucket { le: 1.0, changes: 2 }] };
    let producer = ProducerReport { checkpoint_saved_at: Some(now_seconds() - 30.0), ..ProducerReport::default() };
    let one = Figures { producer: Some(producer), embedder: embedder(5), ..Figures::default() };
    let two = Figures {
        processor: Some(ProcessorReport { progressed_at: now_seconds(), tokens_saved: 8 }),
        upserter: Some(UpserterReport { progressed_at: now_seconds(), latency, ..UpserterReport::default() }),
        embedder: embedder(7),
        ..Figures::default()
    };
    world.publish("host-1", &["producer", "embedder"], one);
    world.publish("host-2", &["processor", "upserter", "embedder"], two);
    let previous = r#"{"version": "0.0.9", "services": [{"service": "upserter", "ready": false, "reasons": ["why"]}]}"#;
    world.reports.publish("host-3", previous);

    let overview = world.looker().look().await;
    let listed = overview.services.iter().map(|service| (service.service.as_str(), service.process.as_str()));
    assert_eq!(
        listed.collect::<Vec<_>>(),
        [
            ("embedder", "host-1"),
            ("embedder", "host-2"),
            ("processor", "host-2"),
            ("producer", "host-1"),
            ("upserter", "host-2"),
            ("upserter", "host-3"),
        ]
    );
    let foreign = overview.services.iter();
    let foreign = foreign.filter_map(|service| Some((service.process.as_str(), service.foreign_version.as_deref()?)));
    assert_eq!(foreign.collect::<Vec<_>>(), [("host-3", "0.0.9")]);
    let embedder = overview.embedder.known().unwrap();
    assert_eq!((embedder.tokens, embedder.queued_tokens), (Some(12), Some(4)));
    let tokens = overview.tokens.as_ref().unwrap();
    assert_eq!((tokens.embedded, tokens.saved), (12, 8));
    assert_eq!(overview.latency.as_ref().unwrap().changes, 2);
    let age = overview.source.known().unwrap().checkpoint_age_seconds.unwrap();
    assert!((30.0..60.0).contains(&age), "{age}");
}

#[tokio::test(start_paused = true)]
async fn snapshot_has_a_rate_and_an_eta() {
    let world = World::new().await;
    let journal = world.streams.journal();
    let reads = |rows| {
        let snapshot = SnapshotState::Running { time: ClusterTime::default(), after: None, rows };
        Checkpoint { snapshot, ..checkpoint(2) }
    };
    journal.append(Some(&checkpoint(2)), &[], &reads(100)).await.unwrap();
    let expected = ProducerReport { snapshot_expected: Some(1_000), ..ProducerReport::default() };
    world.publish("host-1", &["producer"], Figures { producer: Some(expected), ..Figures::default() });
    let looker = world.looker();
    let snapshot = looker.look().await.source.known().unwrap().snapshot.clone().unwrap();
    assert_eq!((snapshot.rows, snapshot.of, snapshot.rows_per_second), (100, Some(1_000), None));
    tokio::time::sleep(Duration::from_secs(2)).await;
    journal.append(Some(&reads(100)), &[], &reads(300)).await.unwrap();
    let snapshot = looker.look().await.source.known().unwrap().snapshot.clone().unwrap();
    let (rate, eta) = (snapshot.rows_per_second.unwrap(), snapshot.eta_seconds.unwrap());
    assert!((rate - 100.0).abs() < 1.0 && (eta - 7.0).abs() < 0.1, "{snapshot:?}");
}

#[tokio::test(start_paused = true)]
async fn selection_without_a_collection_names_the_existing_ones() {
    let world = World::new().await;
    world.source.insert("tickets", serde_json::json!({"_id": 1}));
    let source = world.source.selecting(&["orders"]);
    let ports = OverviewPorts { source: Some(Arc::new(source)), ..world.ports() };
    assert_eq!(looker(ports).look().await.source.known().unwrap().passed_over, ["tickets"]);
    assert!(world.looker().look().await.source.known().unwrap().passed_over.is_empty());
}
