use std::time::Duration;

use tidewheel_core::catalog::{Catalog, CollectionSpec, Generation, State, Switch, VectorLayout};
use tidewheel_core::embedded::Vectors;
use tidewheel_core::payload::{MADE, RESERVED};
use tidewheel_core::ports::{CatalogStore as _, CollectionAdmin as _, Handover as _, Queue as _};
use tidewheel_stores::redis::keys::STAGE_2;
use tidewheel_testkit::contracts::samples::{REVISION, deletion, embedded, embedded_for};
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::queue::FakeQueue;
use tokio::time::{Instant, timeout};

use super::*;
use crate::targets::samples::{Servers, catalog, first};

/// An upserter's work, and the servers.
struct Bench {
    servers: Servers,
    queue: Arc<FakeQueue<Embedded>>,
    targets: Arc<Targets>,
    work: Arc<dyn Work<Embedded>>,
}

impl Bench {
    fn new(servers: &Servers) -> Self {
        let queue = Arc::new(servers.streams.embedded("upserter"));
        let retry = RetryPolicy { health: Health::of(NAME), shutdown: CancellationToken::new() };
        let targets = Arc::new(servers.targets());
        let work = work(Some(queue.clone()), queue.clone(), targets.clone(), None, retry);
        Self { servers: servers.clone(), queue, targets, work: Arc::new(work) }
    }

    async fn with(catalog: &Catalog) -> Self {
        let servers = Servers::new();
        servers.apply(catalog).await;
        Self::new(&servers)
    }

    /// Works on a batch of these records.
    async fn deliver(&self, records: &[Embedded]) -> Result<(), RetryError> {
        self.servers.streams.handover().hand_over(records, &[]).await.unwrap();
        let deliveries = self.queue.read(100, Duration::ZERO).await.unwrap();
        assert_eq!(deliveries.len(), records.len());
        self.work.batch(deliveries).await
    }

    /// The number of points in a collection.
    fn points(&self, collection: &str) -> usize {
        self.servers.collections.index(collection).points().len()
    }

    fn pending(&self) -> u64 {
        self.servers.streams.status(STAGE_2).pending
    }

    /// The lost targets.
    async fn lost(&self) -> Vec<String> {
        let lost = self.servers.streams.catalog().lost().await.unwrap();
        lost.into_iter().map(|(target, _)| target.to_string()).collect()
    }

    /// Makes a collection unavailable.
    fn fails(&self, collection: &str) {
        for call in ["exists", "upsert", "stored", "delete"] {
            self.servers.collections.index(collection).faults().always(call, Fault::unreachable());
        }
    }

    fn heals(&self, collection: &str) {
        self.servers.collections.index(collection).faults().heal();
    }
}

/// Tickets serve, notes are being filled.
fn two() -> Catalog {
    catalog(REVISION, &[("tickets", State::Serving, true), ("notes", State::Filling, false)])
}

#[tokio::test]
async fn records_are_written_to_the_collection_of_their_target() {
    let bench = Bench::with(&two()).await;
    let records = [embedded_for(1, "tickets.g1"), embedded_for(2, "notes.g1"), embedded_for(1, "notes.g1")];
    bench.deliver(&records).await.unwrap();
    assert_eq!((bench.points("tickets.g1"), bench.points("notes.g1"), bench.pending()), (2, 4, 0));
    let tickets = bench.servers.collections.index("tickets.g1");
    let made = tickets.points()[0].payload[RESERVED][MADE].clone();
    let declared = two().generation(&first("tickets")).unwrap().declaration.made();
    assert_eq!(
        (made["text"].as_str(), made["payload"].as_str()),
        (Some("0123456789abcdef"), Some(declared.payload.to_string().as_str()))
    );
    assert!(tickets.spec().is_some(), "created as declared");
    assert_eq!(tickets.record().await.unwrap().map(|record| record.revision), Some(REVISION));
    assert!(bench.lost().await.is_empty(), "nothing was known of the collections before");
}

#[tokio::test]
async fn deletion_for_one_target_leaves_the_document_in_another() {
    let bench = Bench::with(&two()).await;
    bench.deliver(&[embedded_for(1, "tickets.g1"), embedded_for(1, "notes.g1")]).await.unwrap();
    let mut removal = Embedded { target: embedded_for(1, "notes.g1").target, ..deletion(1) };
    removal.change.version.ordinal += 1;
    bench.deliver(&[removal]).await.unwrap();
    assert_eq!((bench.points("tickets.g1"), bench.points("notes.g1"), bench.pending()), (2, 0, 0));
    bench.deliver(&[embedded_for(1, "notes.g1")]).await.unwrap();
    assert_eq!(bench.points("notes.g1"), 0, "an older version does not return");
}

#[tokio::test]
async fn target_of_local_settings_is_written_as_before_there_were_catalogs() {
    let bench = Bench::new(&Servers::new());
    bench.deliver(&[embedded(1), embedded(2), deletion(3)]).await.unwrap();
    assert_eq!((bench.points("documents"), bench.pending()), (4, 0));
    let documents = bench.servers.collections.index("documents");
    assert_eq!(documents.spec(), None);
    assert!(documents.points().iter().all(|point| point.payload[RESERVED].get(MADE).is_none()));
}

#[tokio::test]
async fn records_of_a_target_that_is_not_routed_are_acknowledged_without_effect() {
    let bench =
        Bench::with(&catalog(REVISION, &[("tickets", State::Serving, true), ("notes", State::Retiring, true)])).await;
    let records = [embedded_for(1, "notes.g1"), embedded_for(1, "old.g7"), embedded(1), embedded_for(1, "tickets.g1")];
    bench.deliver(&records).await.unwrap();
    assert_eq!((bench.points("tickets.g1"), bench.pending()), (2, 0));
    assert_eq!(bench.servers.collections.names(), ["tickets.g1"]);
}

#[tokio::test]
async fn nothing_is_left_out_by_a_catalog_that_the_store_has_lost() {
    let bench = Bench::with(&two()).await;
    bench.deliver(&[embedded_for(1, "notes.g1")]).await.unwrap();
    let before = bench.servers.streams.save();
    let later = catalog(REVISION + 1, &[("tickets", State::Serving, true), ("notes", State::Retiring, false)]);
    bench.servers.apply(&later).await;
    let mut newer = embedded_for(2, "tickets.g1");
    newer.target.as_mut().unwrap().catalog = REVISION + 1;
    bench.deliver(&[newer]).await.unwrap();
    bench.servers.streams.restore(&before);
    bench.deliver(&[embedded_for(3, "notes.g1")]).await.unwrap();
    assert_eq!((bench.points("notes.g1"), bench.pending()), (4, 0));
}

#[tokio::test]
async fn index_that_is_created_again_has_another_dimension() {
    let bench = Bench::with(&two()).await;
    bench.deliver(&[embedded_for(1, "notes.g1")]).await.unwrap();
    bench.servers.collections.index("notes.g1").drop_collection();
    let again = catalog(REVISION + 1, &[("tickets", State::Serving, true), ("notes", State::Filling, false)]);
    bench.servers.apply(&again).await;
    let mut record = embedded_for(2, "notes.g1");
    record.target.as_mut().unwrap().catalog = REVISION + 1;
    record.vectors = Vectors::new(2, vec![1.0, 0.0, 0.0, 1.0]).unwrap();
    bench.deliver(&[record]).await.unwrap();
    assert_eq!((bench.points("notes.g1"), bench.pending()), (2, 0));
}

#[tokio::test]
async fn record_of_a_newer_catalog_waits_for_it() {
    let bench = Bench::with(&catalog(REVISION - 1, &[("tickets", State::Serving, true)])).await;
    let records = [embedded_for(1, "notes.g1")];
    let delivered = timeout(Duration::from_millis(300), bench.deliver(&records)).await;
    assert!(delivered.is_err(), "the catalog is older than the record");
    assert_eq!(bench.pending(), 1);
    bench.servers.apply(&two()).await;
    bench.deliver(&[embedded_for(2, "notes.g1")]).await.unwrap();
    assert_eq!(bench.points("notes.g1"), 2);
}

#[tokio::test]
async fn deleted_collection_is_created_again_as_declared_and_its_target_is_lost() {
    let bench = Bench::with(&two()).await;
    bench.deliver(&[embedded_for(1, "tickets.g1"), embedded_for(1, "notes.g1")]).await.unwrap();
    bench.servers.collections.index("tickets.g1").drop_collection();
    bench.deliver(&[embedded_for(2, "tickets.g1")]).await.unwrap();
    assert_eq!((bench.points("tickets.g1"), bench.points("notes.g1"), bench.pending()), (2, 2, 0));
    assert!(bench.servers.collections.index("tickets.g1").spec().is_some());
    assert_eq!(bench.lost().await, ["tickets.g1"]);
}

#[tokio::test]
async fn collection_of_a_target_retired_meanwhile_is_not_created() {
    let bench = Bench::with(&two()).await;
    bench.deliver(&[embedded_for(1, "tickets.g1")]).await.unwrap();
    let later = catalog(REVISION + 1, &[("tickets", State::Serving, true), ("notes", State::Retiring, false)]);
    bench.servers.apply(&later).await;
    bench.deliver(&[embedded_for(2, "notes.g1")]).await.unwrap();
    assert_eq!(bench.servers.collections.names(), ["tickets.g1"]);
    assert_eq!(bench.pending(), 0);
    assert!(bench.lost().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn plain_collection_is_not_created_while_an_alias_replaces_it() {
    let mut plain = catalog(REVISION, &[("documents", State::Serving, true)]);
    let documents = first("documents").index;
    let index = plain.indexes.get_mut(&documents).unwrap();
    let second = Generation { state: State::Ready, ..index.generations[&1].clone() };
    index.generations.get_mut(&1).unwrap().collection = "documents".to_owned();
    index.generations.insert(2, Generation { collection: "documents.g2".to_owned(), ..second });
    (index.plain, index.switching) = (true, Some(Switch { from: Some(1), to: 2, plain: true }));
    let bench = Bench::with(&plain).await;
    let collections = &bench.servers.collections;
    let wait = || tokio::time::sleep(Duration::from_secs(60));
    let moving = async {
        wait().await;
        assert_eq!(
            (collections.names(), bench.pending()),
            (Vec::<String>::new(), 1),
            "the plain collection is deleted"
        );
        collections
            .index("documents.g2")
            .create(&CollectionSpec::default(), &VectorLayout::default(), 2)
            .await
            .unwrap();
        collections.set_alias("documents", Some("documents.g2"));
        wait().await;
        assert_eq!((bench.points("documents.g2"), bench.pending()), (0, 1), "the alias names another generation");
        let mut switched = Catalog { revision: REVISION + 1, ..plain.clone() };
        let index = switched.indexes.get_mut(&documents).unwrap();
        index.generations.remove(&1);
        (index.plain, index.switching, index.serving) = (false, None, Some(2));
        bench.servers.apply(&switched).await;
        bench.targets.reload().await.unwrap();
    };
    let records = [embedded(1)];
    let (delivered, ()) = tokio::join!(bench.deliver(&records), moving);
    delivered.unwrap();
    assert_eq!((collections.names(), bench.points("documents.g2")), (vec!["documents.g2".to_owned()], 0));
    assert_eq!(bench.pending(), 0);
}

#[tokio::test(start_paused = true)]
async fn target_that_is_being_filled_is_skipped_after_30_seconds_and_lost() {
    let bench = Bench::with(&two()).await;
    bench.deliver(&[embedded_for(1, "notes.g1")]).await.unwrap();
    bench.fails("notes.g1");
    let begun = Instant::now();
    bench.deliver(&[embedded_for(2, "tickets.g1"), embedded_for(2, "notes.g1")]).await.unwrap();
    let waited = begun.elapsed().as_secs();
    assert!((30..40).contains(&waited), "{waited} s");
    assert_eq!((bench.points("tickets.g1"), bench.points("notes.g1"), bench.pending()), (2, 2, 0));
    assert_eq!(bench.lost().await, ["notes.g1"]);
    let begun = Instant::now();
    bench.deliver(&[embedded_for(3, "tickets.g1"), embedded_for(3, "notes.g1")]).await.unwrap();
    assert_eq!((begun.elapsed().as_secs(), bench.points("tickets.g1"), bench.pending()), (0, 4, 0));
    bench.heals("notes.g1");
    tokio::time::sleep(Duration::from_secs(10)).await;
    bench.deliver(&[embedded_for(4, "notes.g1")]).await.unwrap();
    assert_eq!((bench.points("notes.g1"), bench.pending()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn outage_of_a_whole_target_is_waited_out() {
    let bench = Bench::with(&two()).await;
    bench.fails("tickets.g1");
    let heal = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!((bench.points("notes.g1"), bench.pending()), (2, 1), "the other target does not wait");
        bench.heals("tickets.g1");
    };
    let records = [embedded_for(1, "tickets.g1"), embedded_for(1, "notes.g1")];
    let (delivered, ()) = tokio::join!(bench.deliver(&records), heal);
    delivered.unwrap();
    assert_eq!((bench.points("tickets.g1"), bench.pending()), (2, 0));
    assert!(bench.lost().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn target_that_is_dropped_during_its_outage_is_no_longer_waited_for() {
    let states = |notes| [("tickets", State::Serving, true), ("notes", notes, true)];
    let bench = Bench::with(&catalog(REVISION, &states(State::Serving))).await;
    bench.fails("notes.g1");
    let dropped = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(bench.pending(), 1);
        bench.servers.apply(&catalog(REVISION + 1, &states(State::Retiring))).await;
        bench.targets.reload().await.unwrap();
    };
    let records = [embedded_for(1, "tickets.g1"), embedded_for(1, "notes.g1")];
    let (delivered, ()) = tokio::join!(bench.deliver(&records), dropped);
    delivered.unwrap();
    assert_eq!((bench.points("tickets.g1"), bench.pending()), (2, 0));
    assert!(bench.lost().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn first_installation_waits_out_an_outage() {
    let bench =
        Bench::with(&catalog(REVISION, &[("tickets", State::Serving, false), ("notes", State::Filling, false)])).await;
    bench.fails("notes.g1");
    let heal = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        bench.heals("notes.g1");
    };
    let records = [embedded_for(1, "notes.g1")];
    let (delivered, ()) = tokio::join!(bench.deliver(&records), heal);
    delivered.unwrap();
    assert_eq!((bench.points("notes.g1"), bench.pending()), (2, 0));
    assert!(bench.lost().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn outage_of_the_streams_skips_nothing() {
    let bench = Bench::with(&two()).await;
    bench.deliver(&[embedded_for(1, "notes.g1")]).await.unwrap();
    bench.servers.streams.faults().always("of", Fault::unreachable());
    let heal = async {
        tokio::time::sleep(Duration::from_secs(300)).await;
        bench.servers.streams.faults().heal();
    };
    let records = [embedded_for(2, "notes.g1")];
    let (delivered, ()) = tokio::join!(bench.deliver(&records), heal);
    delivered.unwrap();
    assert_eq!((bench.points("notes.g1"), bench.pending()), (4, 0));
    assert!(bench.lost().await.is_empty());
}
