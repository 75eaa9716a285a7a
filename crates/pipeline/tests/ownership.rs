//! Two installations on one Redis or one collection.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{
    Catalog, CollectionSpec, Declaration, EmbeddingSpec, Generation, Index, IndexName, Provider, Selector, State,
    VectorLayout,
};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::installation::{CollectionMark, Installation, SourceIdentity};
use tidewheel_core::ports::{CatalogStore as _, Collections as _, IndexWriter, Ownable, Registry};
use tidewheel_pipeline::ownership::{Checked, Guard, INTERVAL, OwnedCollections, Serves};
use tidewheel_pipeline::targets::{CatalogPorts, Targets};
use tidewheel_stores::redis::layout::LAYOUT;
use tidewheel_testkit::fakes::collections::FakeCollections;
use tidewheel_testkit::fakes::embedders::FakeEmbedders;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::ownership::FakeRegistry;
use tidewheel_testkit::fakes::streams::FakeStreams;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

fn source(database: &str) -> SourceIdentity {
    SourceIdentity {
        database: database.to_owned(),
        replica_set: "rs0".to_owned(),
        hosts: vec!["db1:27017".to_owned()],
        cluster: String::new(),
    }
}

fn producer(redis: &FakeRegistry, index: &FakeIndex, database: &str) -> Guard {
    let serves = Serves { source: Some(source(database)), database: Some(database.to_owned()) };
    Guard::new(Arc::new(redis.clone()), Some(Arc::new(index.clone())), serves)
}

fn upserter(redis: &FakeRegistry, index: &FakeIndex) -> Guard {
    Guard::new(Arc::new(redis.clone()), Some(Arc::new(index.clone())), Serves::default())
}

async fn fatal(guard: &Guard) -> String {
    let error = guard.check().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.unwrap().contains("tidewheel installation adopt"));
    error.message
}

async fn registered(redis: &FakeRegistry) -> Installation {
    redis.installation().await.unwrap().unwrap()
}

#[tokio::test]
async fn new_installation_registers_itself_and_marks_its_collection_once_it_exists() {
    let (redis, index) = (FakeRegistry::default(), FakeIndex::new());
    assert_eq!(upserter(&redis, &index).check().await.unwrap(), Checked::Pending, "no producer yet");
    assert_eq!(redis.installation().await.unwrap(), None);
    let producer = producer(&redis, &index, "shop");
    assert_eq!(producer.check().await.unwrap(), Checked::Pending, "no collection yet");
    let own = registered(&redis).await;
    assert_eq!((own.source.clone(), own.collection.as_str()), (source("shop"), ""));
    index.prepare(4).await.unwrap();
    assert_eq!(producer.check().await.unwrap(), Checked::Marked);
    let own = registered(&redis).await;
    assert_eq!(own.collection, "documents");
    let CollectionMark::Of(mark) = index.mark().await.unwrap() else { panic!("it is marked") };
    assert_eq!(mark.id, own.id);

    // Deleted while running, and recreated.
    index.drop_collection();
    assert_eq!(producer.check().await.unwrap(), Checked::Pending);
    index.prepare(4).await.unwrap();
    assert_eq!(upserter(&redis, &index).check().await.unwrap(), Checked::Marked);
    assert!(matches!(index.mark().await.unwrap(), CollectionMark::Of(mark) if mark.id == own.id));
}

#[tokio::test]
async fn second_database_on_one_redis_or_one_collection_is_rejected() {
    let (redis, index) = (FakeRegistry::default(), FakeIndex::new());
    index.prepare(4).await.unwrap();
    producer(&redis, &index, "shop").check().await.unwrap();
    let message = fatal(&producer(&redis, &index, "crm")).await;
    assert!(message.contains("\"shop\"") && message.contains("\"crm\""), "{message}");
    let elsewhere = FakeRegistry::default();
    let message = fatal(&producer(&elsewhere, &index, "crm")).await;
    assert!(message.contains("\"documents\"") && message.contains("\"shop\""), "{message}");
    assert_eq!(producer(&redis, &index, "shop").check().await.unwrap(), Checked::Marked, "the first one continues");
}

#[tokio::test]
async fn wiped_redis_gets_its_installation_back_from_a_running_service() {
    let (redis, index) = (FakeRegistry::default(), FakeIndex::new());
    index.prepare(4).await.unwrap();
    let upserter = upserter(&redis, &index);
    producer(&redis, &index, "shop").check().await.unwrap();
    upserter.check().await.unwrap();
    let before = registered(&redis).await;
    redis.wipe();
    assert_eq!(upserter.check().await.unwrap(), Checked::Marked);
    assert_eq!(registered(&redis).await, before);
}

#[tokio::test]
async fn new_redis_inherits_the_collection_and_the_former_installation_stops_permanently() {
    let (redis, index) = (FakeRegistry::default(), FakeIndex::new());
    index.prepare(4).await.unwrap();
    let former = producer(&redis, &index, "shop");
    former.check().await.unwrap();
    let elsewhere = FakeRegistry::default();
    let heir = producer(&elsewhere, &index, "shop");
    // The response to the mark is lost: the next check finds the mark.
    index.faults().once("set_mark", Fault::answer_lost());
    assert_eq!(heir.check().await.unwrap_err().class, ErrorClass::Transient);
    assert_eq!(heir.check().await.unwrap(), Checked::Marked);
    fatal(&former).await;
    // It does not take the collection back after a restart.
    fatal(&producer(&redis, &index, "shop")).await;
    assert_eq!(heir.check().await.unwrap(), Checked::Marked);
}

#[tokio::test(start_paused = true)]
async fn running_service_waits_out_outages_and_stops_after_a_takeover() {
    let (redis, index) = (FakeRegistry::default(), FakeIndex::new());
    index.prepare(4).await.unwrap();
    producer(&redis, &index, "shop").check().await.unwrap();
    let guard = upserter(&redis, &index);
    guard.check().await.unwrap();
    let stop = CancellationToken::new();
    let watch = tokio::spawn({
        let stop = stop.clone();
        async move { guard.watch(stop).await }
    });
    for call in ["installation", "installation", "installation"] {
        redis.faults().once(call, Fault::unreachable());
    }
    tokio::time::sleep(10 * INTERVAL).await;
    assert!(!watch.is_finished());
    redis.replace(&Installation::new(source("crm"), 0)).await.unwrap();
    let error = tokio::time::timeout(2 * INTERVAL, watch).await.unwrap().unwrap().unwrap();
    assert!(error.message.contains("\"crm\""), "{error}");

    // On shutdown it ends without an error.
    let idle = upserter(&FakeRegistry::default(), &index);
    stop.cancel();
    assert_eq!(tokio::time::timeout(Duration::from_secs(1), idle.watch(stop)).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn older_service_refuses_to_start_and_stops_when_a_newer_release_changes_the_layout() {
    let (redis, index) = (FakeRegistry::default(), FakeIndex::new());
    index.prepare(4).await.unwrap();
    let producer = producer(&redis, &index, "shop");
    producer.check().await.unwrap();
    redis.set_newer_layout();
    let stopped = producer.watch(CancellationToken::new()).await.unwrap();
    for error in [stopped, upserter(&redis, &index).check().await.unwrap_err()] {
        assert_eq!(error.class, ErrorClass::Fatal);
        for part in [format!("unsupported layout {}", LAYOUT + 1), format!("layouts up to {LAYOUT}")] {
            assert!(error.message.contains(&part), "{error}");
        }
        assert!(error.hint.unwrap().contains("upgrade this service"));
    }
}

/// A server with collections, and a catalog of the indexes `tickets` and `notes` with one generation each.
struct Indexes {
    redis: FakeRegistry,
    collections: FakeCollections,
    targets: Arc<Targets>,
}

impl Indexes {
    async fn new() -> Self {
        let (streams, collections) = (FakeStreams::new(), FakeCollections::new());
        let index = |name: &str| {
            let name = IndexName::new(name).unwrap();
            let source = Selector::of_database::<&str>("shop", &[]);
            let embedding = EmbeddingSpec::new("default", Provider::own(), "fake:4");
            let declaration = Arc::new(Declaration::new(name.clone(), source, embedding));
            let mut generation = Generation::new(&name.target(1), declaration, 7);
            generation.state = State::Serving;
            (name, Index { serving: Some(1), generations: [(1, generation)].into(), ..Index::default() })
        };
        let catalog = Catalog { revision: 7, indexes: [index("tickets"), index("notes")].into(), ..Catalog::default() };
        let indexes: Vec<_> = catalog.indexes.into_iter().map(|(name, index)| (name, Some(index))).collect();
        streams.catalog().save(Uuid::from_u128(7), 0, 7, &indexes, None).await.unwrap();
        for name in ["tickets.g1", "notes.g1"] {
            // Counts the calls.
            collections.index(name).faults().always("mark", Fault::Slow(Duration::ZERO));
        }
        let ports = CatalogPorts {
            store: Arc::new(streams.catalog()),
            collections: Arc::new(collections.clone()),
            states: Arc::new(streams.clone()),
            embedders: Arc::new(FakeEmbedders::default()),
            reuse: false,
        };
        Self { redis: FakeRegistry::default(), collections, targets: Arc::new(Targets::new(None, ports)) }
    }

    /// The guard of a producer, and the collections that it checks.
    fn producer(&self, redis: &FakeRegistry) -> (Arc<Guard>, OwnedCollections) {
        let serves = Serves { source: Some(source("shop")), database: None };
        let guard = Arc::new(Guard::new(Arc::new(redis.clone()), None, serves));
        guard.follow(&self.targets);
        (guard.clone(), OwnedCollections::new(Arc::new(self.collections.clone()), guard))
    }

    async fn mark(&self, collection: &str) -> CollectionMark {
        self.collections.index(collection).mark().await.unwrap()
    }

    fn looks(&self, collection: &str) -> u64 {
        self.collections.index(collection).faults().hits("mark")
    }
}

#[tokio::test(start_paused = true)]
async fn owner_of_a_collection_is_checked_before_writes_and_not_while_it_is_idle() {
    let world = Indexes::new().await;
    let (guard, owned) = world.producer(&world.redis);
    guard.check().await.unwrap();
    let tickets = owned.open("tickets.g1");
    assert!(tickets.create(&CollectionSpec::default(), &VectorLayout::default(), 4).await.unwrap());
    let own = registered(&world.redis).await;
    assert!(matches!(world.mark("tickets.g1").await, CollectionMark::Of(mark) if mark.id == own.id), "by the creation");
    world.collections.index("notes.g1").prepare(4).await.unwrap();
    assert_eq!(guard.check().await.unwrap(), Checked::Marked);
    assert_eq!(registered(&world.redis).await.collection, "tickets.g1");
    assert!(matches!(world.mark("notes.g1").await, CollectionMark::Of(mark) if mark.id == own.id));

    let (before, idle) = (world.looks("tickets.g1"), world.looks("notes.g1"));
    for _ in 0..110 {
        let _ = tickets.upsert(&[]).await.unwrap();
        tokio::time::sleep(INTERVAL / 50).await;
    }
    assert_eq!(world.looks("tickets.g1") - before, 2, "every 5 s");
    for _ in 0..10 {
        guard.check().await.unwrap();
    }
    assert_eq!(world.looks("notes.g1"), idle);

    world.collections.index("tickets.g1").set_mark(&Installation::new(source("crm"), 0)).await.unwrap();
    tokio::time::sleep(INTERVAL).await;
    let error = tickets.upsert(&[]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("\"tickets.g1\"") && error.message.contains("\"crm\""), "{error}");
}

#[tokio::test(start_paused = true)]
async fn new_redis_inherits_every_collection_of_the_catalog() {
    let world = Indexes::new().await;
    for name in ["tickets.g1", "notes.g1"] {
        world.collections.index(name).prepare(4).await.unwrap();
    }
    let (former, _) = world.producer(&world.redis);
    former.check().await.unwrap();
    let elsewhere = FakeRegistry::default();
    let (heir, owned) = world.producer(&elsewhere);
    // The second mark is not set: the next check continues.
    world.collections.index("tickets.g1").faults().once("set_mark", Fault::unreachable());
    assert!(heir.check().await.is_err());
    assert_eq!(registered(&elsewhere).await.collection, "");
    heir.check().await.unwrap();
    let own = registered(&elsewhere).await;
    assert!(!own.collection.is_empty());
    for name in ["tickets.g1", "notes.g1"] {
        assert!(matches!(world.mark(name).await, CollectionMark::Of(mark) if mark.id == own.id), "{name}");
    }
    let (_, of_former) = world.producer(&world.redis);
    let error = of_former.open("notes.g1").upsert(&[]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    let _ = owned.open("notes.g1").upsert(&[]).await.unwrap();
}

#[tokio::test]
async fn collection_of_another_client_is_refused_and_stays_unmarked() {
    let world = Indexes::new().await;
    let (guard, owned) = world.producer(&world.redis);
    guard.check().await.unwrap();
    world.collections.index("tickets.g2").prepare(4).await.unwrap();
    let created = owned.open("tickets.g2").create(&CollectionSpec::default(), &VectorLayout::default(), 4).await;
    assert_eq!(created.unwrap_err().class, ErrorClass::Fatal);
    assert_eq!(world.mark("tickets.g2").await, CollectionMark::Unmarked);
}
