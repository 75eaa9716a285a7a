use std::time::Duration;

use tidewheel_core::catalog::{Catalog, EmbedderIdentity, State};
use tidewheel_core::change::Operation;
use tidewheel_core::embedded::{Embedded, Vectors};
use tidewheel_core::ports::{CatalogStore as _, Queue as _};
use tidewheel_stores::redis::keys::{EMBEDDED, RAW, RAW_DEAD_LETTERS, STAGE_1};
use tidewheel_stores::redis::wire::Record as _;
use tidewheel_testkit::fakes::embedder::FakeEmbedder;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::queue::FakeQueue;
use tokio::time::Instant;

use super::samples::{REVISION, change, routed, texts};
use super::*;
use crate::targets::samples::{DIMENSION, Servers, catalog, declare_model, first};
use crate::targets::{LocalTarget, TargetPorts};
use crate::upserter;

mod changes;

/// A processor's work, an upserter's, and the servers.
struct Bench {
    servers: Servers,
    /// The model of all indexes, unless a test declares another.
    embedder: FakeEmbedder,
    targets: Arc<Targets>,
    queue: Arc<FakeQueue<Change>>,
    work: Worker,
}

fn policy() -> RetryPolicy {
    RetryPolicy { health: Health::of(NAME), shutdown: CancellationToken::new() }
}

impl Bench {
    async fn new(servers: Servers, embedder: FakeEmbedder, targets: Targets) -> Self {
        let (targets, queue) = (Arc::new(targets), Arc::new(servers.streams.changes("processor")));
        let ports = ProcessorPorts {
            queue: queue.clone(),
            maintenance: None,
            handover: Arc::new(servers.streams.handover()),
            backlog: None,
            targets: targets.clone(),
        };
        let work = Worker::new(ports, 1_000, None, policy());
        work.start().await.unwrap();
        Self { servers, embedder, targets, queue, work }
    }

    async fn with(catalog: &Catalog) -> Self {
        let (servers, embedder) = servers();
        servers.apply(catalog).await;
        let targets = servers.targets();
        Self::new(servers, embedder, targets).await
    }

    /// A processor with local settings.
    async fn local() -> Self {
        let (servers, embedder) = servers();
        let index = Arc::new(servers.collections.index("documents"));
        let ports = TargetPorts {
            known: Some(index.clone()),
            embedder: Ok(Arc::new(embedder.clone())),
            ..TargetPorts::new(index, Arc::new(servers.streams.tombstones()))
        };
        let local = LocalTarget { declaration: Arc::new(texts("documents")), ports };
        let targets = Targets::new(Some(&local), servers.ports());
        Self::new(servers, embedder, targets).await
    }

    /// Replaces the catalog.
    async fn apply(&self, catalog: &Catalog) {
        self.servers.apply(catalog).await;
        self.targets.reload().await.unwrap();
    }

    /// Processes a batch of these changes.
    async fn deliver(&self, changes: impl IntoIterator<Item = Change>) -> Result<(), RetryError> {
        for change in changes {
            let fields = change.encode().into_iter();
            let fields = fields.map(|(name, value)| (name.as_bytes().to_vec(), value.into_owned()));
            self.servers.streams.add_raw(RAW, fields.collect());
        }
        self.work.batch(self.queue.read(100, Duration::ZERO).await.unwrap()).await
    }

    /// Writes what is in stage 2 to the collections.
    async fn upsert(&self) {
        let queue = Arc::new(self.servers.streams.embedded("upserter"));
        let work = upserter::work(Some(queue.clone()), queue.clone(), self.targets.clone(), None, policy());
        work.batch(queue.read(100, Duration::ZERO).await.unwrap()).await.unwrap();
    }

    fn records(&self) -> Vec<Embedded> {
        self.servers.streams.records(EMBEDDED).into_iter().map(|(_, record)| record).collect()
    }

    /// The targets of all records, with key and operation.
    fn written(&self) -> Vec<(String, String, Operation)> {
        let target = |record: &Embedded| record.target.as_ref().map(|target| target.id.to_string());
        let written = |record: &Embedded| {
            (target(record).unwrap_or_default(), record.change.key.clone(), record.change.operation)
        };
        let mut all: Vec<_> = self.records().iter().map(written).collect();
        all.sort_by_key(|(target, key, _)| (target.clone(), key.clone()));
        all
    }

    /// The targets in the dead letters.
    fn parked(&self) -> Vec<String> {
        let letters = self.servers.streams.raw(RAW_DEAD_LETTERS);
        let targets = letters.iter().map(|letter| letter.iter().find(|(name, _)| name == b"targets"));
        targets.map(|found| found.map(|(_, value)| String::from_utf8_lossy(value).into()).unwrap_or_default()).collect()
    }

    /// The lost targets.
    async fn lost(&self) -> Vec<String> {
        let lost = self.servers.streams.catalog().lost().await.unwrap();
        lost.into_iter().map(|(target, _)| target.to_string()).collect()
    }

    fn pending(&self) -> u64 {
        self.servers.streams.status(STAGE_1).pending
    }
}

fn servers() -> (Servers, FakeEmbedder) {
    let (servers, embedder) = (Servers::new(), FakeEmbedder::new(DIMENSION));
    servers.embedders.serve(embedder.clone());
    (servers, embedder)
}

/// The number of texts embedded.
fn embedded(embedder: &FakeEmbedder) -> usize {
    embedder.batches().concat().len()
}

fn update(key: u8, time: u32, to: &[&str], leaves: &[&str]) -> Change {
    routed(change(Operation::Update, key, time), to, leaves)
}

/// Tickets serve, notes are in this state; `filled` if a snapshot has filled them.
fn two(state: State, filled: bool) -> Catalog {
    catalog(REVISION, &[("tickets", State::Serving, true), ("notes", state, filled)])
}

/// A processor of two models: that of notes is another one.
async fn with_two_models(state: State, filled: bool) -> (Bench, FakeEmbedder) {
    let (servers, embedder) = servers();
    let (mut declared, other) = (two(state, filled), FakeEmbedder::named("other", DIMENSION));
    servers.embedders.serve(other.clone());
    declare_model(&mut declared, "notes", "other");
    servers.apply(&declared).await;
    let targets = servers.targets();
    (Bench::new(servers, embedder, targets).await, other)
}

#[tokio::test]
async fn indexes_with_equal_text_and_model_embed_once() {
    let bench = Bench::with(&two(State::Serving, true)).await;
    bench.deliver((1..4).map(|key| update(key, 1, &["tickets", "notes"], &[]))).await.unwrap();
    assert_eq!((embedded(&bench.embedder), bench.records().len(), bench.pending()), (1, 6, 0), "one text");
    bench.deliver((1..4).map(|key| update(key, key.into(), &["tickets", "notes"], &[]))).await.unwrap();
    assert_eq!((embedded(&bench.embedder), bench.records().len()), (4, 12));
    for record in bench.records() {
        let target = record.target.unwrap();
        assert_eq!((target.catalog, record.vectors.len(), record.chunks.len()), (REVISION, 1, 1));
    }
}

#[tokio::test]
async fn new_index_with_the_text_and_model_of_another_embeds_nothing() {
    for restarted in [false, true] {
        let bench = Bench::with(&catalog(REVISION, &[("tickets", State::Serving, true)])).await;
        bench.deliver((1..4).map(|key| update(key, key.into(), &["tickets"], &[]))).await.unwrap();
        bench.upsert().await;
        assert_eq!(embedded(&bench.embedder), 3);
        let mut grown = Catalog { revision: REVISION + 1, ..two(State::Serving, false) };
        let identity = EmbedderIdentity { model: "fake:2".into(), revision: "1".into(), dimension: DIMENSION };
        for index in grown.indexes.values_mut() {
            index.generations.get_mut(&1).unwrap().embedder = Some(identity.clone());
        }
        bench.apply(&grown).await;
        let bench = if restarted {
            let Bench { servers, embedder, .. } = bench;
            let targets = servers.targets();
            Bench::new(servers, embedder, targets).await
        } else {
            bench
        };
        let row = |key: u8| routed(change(Operation::Read, key, key.into()), &["notes"], &[]);
        bench.deliver((1..4).map(row)).await.unwrap();
        assert_eq!(embedded(&bench.embedder), 3, "after a restart: {restarted}");
        let notes: Vec<Embedded> =
            bench.records().into_iter().filter(|record| record.change.operation == Operation::Read).collect();
        assert_eq!(notes.len(), 3);
        for record in notes {
            let text = &record.chunks[0];
            assert_eq!((record.vectors.values(), record.unchanged), (&bench.embedder.vector(text)[..], false));
        }
        // Now in place.
        bench.upsert().await;
        bench.deliver([update(1, 1, &["notes"], &[])]).await.unwrap();
        assert_eq!((embedded(&bench.embedder), bench.records().last().unwrap().unchanged), (3, true));
    }
}

#[tokio::test]
async fn document_that_leaves_a_target_is_deleted_from_it() {
    let bench = Bench::with(&two(State::Serving, true)).await;
    let deletion = routed(change(Delete, 2, 2), &["tickets", "notes"], &[]);
    bench.deliver([update(1, 1, &["tickets"], &["notes"]), deletion]).await.unwrap();
    use Operation::{Delete, Update};
    let written = |target: &str, key: &str, operation| (format!("{target}.g1"), key.to_owned(), operation);
    assert_eq!(
        bench.written(),
        [
            written("notes", "1", Delete),
            written("notes", "2", Delete),
            written("tickets", "1", Update),
            written("tickets", "2", Delete),
        ]
    );
    assert_eq!((embedded(&bench.embedder), bench.pending()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn change_that_one_model_rejects_is_parked_for_its_target_only() {
    let (bench, other) = with_two_models(State::Serving, true).await;
    other.poison("version 1");
    bench.deliver([update(1, 1, &["tickets", "notes"], &[]), update(2, 2, &["tickets", "notes"], &[])]).await.unwrap();
    let keys: Vec<_> = bench.written().into_iter().map(|(target, key, _)| format!("{target} {key}")).collect();
    assert_eq!(keys, ["notes.g1 2", "tickets.g1 1", "tickets.g1 2"]);
    assert_eq!((bench.parked(), bench.pending()), (vec![r#"["notes.g1"]"#.to_owned()], 0));
    // The retry embeds nothing for the other target.
    other.cure();
    let before = embedded(&bench.embedder);
    bench.deliver([update(1, 1, &["notes"], &[])]).await.unwrap();
    assert_eq!((bench.written().len(), embedded(&bench.embedder)), (4, before));
}

#[tokio::test(start_paused = true)]
async fn change_is_handed_over_while_others_wait_for_another_model() {
    let (bench, other) = with_two_models(State::Serving, true).await;
    other.faults().always("embed", Fault::unreachable());
    let changes = [update(1, 1, &["tickets", "notes"], &[]), update(2, 2, &["tickets"], &[])];
    let mut batch = std::pin::pin!(bench.deliver(changes));
    assert!(tokio::time::timeout(Duration::from_secs(3_600), batch.as_mut()).await.is_err(), "it waits");
    let keys: Vec<_> = bench.written().into_iter().map(|(target, key, _)| format!("{target} {key}")).collect();
    assert_eq!((keys, bench.pending()), (vec!["tickets.g1 2".to_owned()], 1));
    assert!(bench.lost().await.is_empty());
    other.faults().heal();
    batch.await.unwrap();
    assert_eq!((bench.written().len(), bench.pending(), embedded(&bench.embedder)), (3, 0, 2));
}

#[tokio::test(start_paused = true)]
async fn target_that_was_never_whole_is_skipped_while_its_model_is_unavailable() {
    for call in ["info", "embed"] {
        let (bench, other) = with_two_models(State::Filling, false).await;
        other.faults().always(call, Fault::unreachable());
        let begun = Instant::now();
        bench.deliver([update(1, 1, &["tickets", "notes"], &[])]).await.unwrap();
        assert!((30..40).contains(&begun.elapsed().as_secs()), "{call}: {:?}", begun.elapsed());
        assert_eq!((bench.lost().await, bench.pending()), (vec!["notes.g1".to_owned()], 0), "{call}");
        // A document leaves it without its model.
        let begun = Instant::now();
        bench
            .deliver([update(2, 2, &["tickets", "notes"], &[]), update(3, 3, &["tickets"], &["notes"])])
            .await
            .unwrap();
        assert!(begun.elapsed() < Duration::from_secs(3), "{call}: {:?}", begun.elapsed());
        let keys: Vec<_> = bench.written().into_iter().map(|(target, key, _)| format!("{target} {key}")).collect();
        assert_eq!(keys, ["notes.g1 3", "tickets.g1 1", "tickets.g1 2", "tickets.g1 3"], "{call}");
        assert!(bench.work.retry.health.readiness().reasons.iter().all(|reason| !reason.contains("failing")));
        other.faults().heal();
        tokio::time::sleep(Duration::from_secs(15)).await;
        bench.deliver([update(4, 4, &["notes"], &[])]).await.unwrap();
        assert_eq!(bench.written().first().map(|(_, key, _)| key.as_str()), Some("3"));
        assert!(bench.written().iter().any(|(target, key, _)| (target.as_str(), key.as_str()) == ("notes.g1", "4")));
    }
}

#[tokio::test(start_paused = true)]
async fn first_index_waits_for_its_model() {
    let bench = Bench::with(&catalog(REVISION, &[("tickets", State::Serving, false)])).await;
    bench.embedder.faults().always("embed", Fault::unreachable());
    let mut batch = std::pin::pin!(bench.deliver([update(1, 1, &["tickets"], &[])]));
    assert!(tokio::time::timeout(Duration::from_secs(3_600), batch.as_mut()).await.is_err());
    assert!(bench.lost().await.is_empty() && bench.records().is_empty());
    bench.embedder.faults().heal();
    batch.await.unwrap();
    assert_eq!((bench.records().len(), bench.pending()), (1, 0));
}

#[tokio::test]
async fn local_settings_write_what_earlier_releases_wrote() {
    let bench = Bench::local().await;
    use Operation::{Delete, Insert, Update};
    let changes =
        [change(Insert, 1, 1), change(Update, 1, 3), change(Delete, 1, 2), change(Delete, 2, 1), change(Insert, 3, 1)];
    bench.deliver(changes.clone()).await.unwrap();
    assert_eq!((bench.pending(), bench.parked().len(), embedded(&bench.embedder)), (0, 0, 2));
    let embedded = |change: &Change, text: &str| Embedded {
        change: change.clone(),
        model: bench.embedder.model().to_owned(),
        revision: FakeEmbedder::REVISION.to_owned(),
        chunks: vec![text.to_owned()],
        vectors: Vectors::new(DIMENSION, bench.embedder.vector(text)).unwrap(),
        unchanged: false,
        target: None,
        prefix: String::new(),
    };
    let deleted = |change: &Change| Embedded::without_vectors(change.clone());
    let expected = [
        embedded(&changes[1], "version 3"),
        deleted(&changes[2]),
        deleted(&changes[3]),
        embedded(&changes[4], "version 1"),
    ];
    let mut records = bench.records();
    records.sort_by_key(|record| (record.change.key.clone(), !record.change.operation.has_document()));
    assert_eq!(records, expected);
    for fields in bench.servers.streams.raw(EMBEDDED) {
        let names: Vec<_> = fields.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect();
        let added = ["catalog", "targets", "leaves", "index", "generation", "made", "prefix"];
        assert!(names.iter().all(|name| !added.contains(&name.as_str())), "{names:?}");
    }
}

#[tokio::test]
async fn entry_of_a_newer_catalog_is_processed_by_its_declarations() {
    let bench = Bench::local().await;
    bench.servers.apply(&two(State::Serving, true)).await;
    bench.deliver([change(Operation::Insert, 1, 1)]).await.unwrap();
    assert_eq!(bench.records()[0].target, None, "not known yet");
    bench.deliver([update(2, 2, &["notes"], &[]), change(Operation::Insert, 3, 1)]).await.unwrap();
    let records = bench.records();
    let target = records[1].target.as_ref().unwrap();
    assert_eq!((target.catalog, target.id.clone()), (REVISION, first("notes")));
    assert_eq!((records.len(), bench.pending()), (2, 0), "the plain index is gone");
}
