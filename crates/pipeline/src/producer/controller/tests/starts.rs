//! What precedes a session: first starts, losses of the store, and interrupted moves.

use tidewheel_core::catalog::{Catalog, State};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::installation::{Installation, SourceIdentity};
use tidewheel_core::ports::{CatalogStore as _, CollectionAdmin as _, Ownable as _, Registry as _};
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::process::Process;

use super::super::prepare;
use super::bench::{Bench, TICKETS, options, remodelled, tickets};
use crate::targets::samples::declaration;

fn installation(database: &str) -> Installation {
    let source = SourceIdentity {
        database: database.to_owned(),
        replica_set: "rs0".to_owned(),
        hosts: vec!["db1:27017".to_owned()],
        cluster: String::new(),
    };
    Installation::new(source, 7)
}

#[tokio::test(start_paused = true)]
async fn first_start_applies_the_declared_indexes_once() {
    let mut bench = Bench::new();
    let options = options(vec![declaration(TICKETS)], true);
    prepare(&options, &bench.ports).await.unwrap();
    let store = bench.streams().catalog();
    let (catalog, _) = store.load().await.unwrap();
    assert_eq!(catalog.indexes[&tickets()].generations[&1].state, State::Creating);
    assert_eq!(bench.streams().required_layout(), Some(2));
    assert_eq!(bench.ports.targets.current().revision(), catalog.revision);
    prepare(&options, &bench.ports).await.unwrap();
    assert_eq!(store.load().await.unwrap().0, catalog);
    bench.until("it is filled", |bench| bench.is_served_by(1)).await;
}

#[tokio::test(start_paused = true)]
async fn changed_declarations_are_not_applied_by_a_start() {
    let bench = Bench::serving().await;
    prepare(&options(vec![remodelled(TICKETS)], true), &bench.ports).await.unwrap();
    let (catalog, _) = bench.streams().catalog().load().await.unwrap();
    assert_eq!(catalog.indexes[&tickets()].generations.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn refused_declarations_stop_the_first_start() {
    let bench = Bench::new();
    let declared = vec![declaration(TICKETS), remodelled(TICKETS)];
    let error = prepare(&options(declared, true), &bench.ports).await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.hint.is_some(), "{error}");
    assert!(error.message.contains("declared twice"), "{error}");
    assert_eq!(bench.streams().catalog().revision().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn declared_indexes_wait_for_an_apply_where_the_short_form_has_worked() {
    let mut bench = Bench::new();
    bench.look().await;
    let error = prepare(&options(vec![declaration(TICKETS)], true), &bench.ports).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.hint.unwrap().contains("tidewheel apply"));
    assert_eq!(bench.streams().catalog().revision().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn short_form_records_what_its_points_conform_to_and_applies_nothing() {
    let mut bench = Bench::new();
    let options = options(vec![declaration("documents")], false);
    bench.servers.collections.faults().always("list", Fault::unreachable());
    prepare(&options, &bench.ports).await.unwrap();
    assert_eq!(bench.streams().catalog().plain().await, Ok(Some(declaration("documents"))));
    bench.look().await;
    let before = bench.servers.collections.faults().hits("list");
    prepare(&options, &bench.ports).await.unwrap();
    assert_eq!(bench.servers.collections.faults().hits("list"), before, "with a checkpoint nothing is looked for");
    assert_eq!(bench.streams().catalog().revision().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn declared_indexes_wait_for_the_index_of_a_wiped_store() {
    let bench = Bench::new();
    bench.servers.collections.faults().always("list", Fault::unreachable());
    let error = prepare(&options(vec![declaration(TICKETS)], true), &bench.ports).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
}

#[tokio::test(start_paused = true)]
async fn wiped_store_is_restored_from_the_collections_of_the_same_source() {
    let mut bench = Bench::changing(State::Serving).await;
    bench.looks(20).await;
    let before = bench.catalog();
    bench.index("tickets.g1").set_mark(&installation("shop")).await.unwrap();
    bench.index("tickets.g2").set_mark(&installation("shop")).await.unwrap();
    bench.streams().wipe();
    bench.restart(&Process::default());
    bench.registry.register(&installation("shop")).await.unwrap();
    prepare(&options(vec![remodelled(TICKETS)], true), &bench.ports).await.unwrap();
    let (catalog, _) = bench.streams().catalog().load().await.unwrap();
    let index = &catalog.indexes[&tickets()];
    assert!(catalog.revision > before.revision);
    assert_eq!((index.serving, index.generations[&1].state), (Some(2), State::Kept));
    assert!(index.generations.values().all(|generation| !generation.is_filled()), "everything is compared");
    assert_eq!(bench.streams().required_layout(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn wiped_store_does_not_resurrect_a_dropped_index() {
    let mut bench = Bench::changing(State::Serving).await;
    bench.looks(20).await;
    // Nothing is deleted while changes are in flight.
    bench.is_busy = true;
    bench.apply(&[]).await;
    bench.looks(40).await;
    for name in ["tickets.g1", "tickets.g2"] {
        let index = bench.index(name);
        index.set_mark(&installation("shop")).await.unwrap();
        assert_eq!(index.record().await.unwrap().unwrap().state, State::Retiring, "{name}");
    }
    assert_eq!(bench.alias(TICKETS).as_deref(), Some("tickets.g2"));
    bench.streams().wipe();
    bench.restart(&Process::default());
    bench.registry.register(&installation("shop")).await.unwrap();
    prepare(&options(Vec::new(), true), &bench.ports).await.unwrap();
    let (catalog, _) = bench.streams().catalog().load().await.unwrap();
    let index = &catalog.indexes[&tickets()];
    assert!(index.serving.is_none() && index.generations.values().all(|one| one.state == State::Retiring), "{index:?}");
    bench.is_busy = false;
    bench.until("it is dropped", |bench| bench.servers.collections.names().is_empty()).await;
    assert_eq!(bench.alias(TICKETS), None);
}

#[tokio::test(start_paused = true)]
async fn collections_of_another_source_are_not_restored() {
    let mut bench = Bench::serving().await;
    bench.looks(20).await;
    bench.index("tickets.g1").set_mark(&installation("crm")).await.unwrap();
    bench.streams().wipe();
    bench.restart(&Process::default());
    bench.registry.register(&installation("shop")).await.unwrap();
    prepare(&options(vec![declaration("documents")], false), &bench.ports).await.unwrap();
    assert_eq!(bench.streams().catalog().revision().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn lost_catalog_of_a_checkpoint_is_not_replaced_by_local_settings() {
    let mut bench = Bench::serving().await;
    bench.looks(20).await;
    bench.index("tickets.g1").set_mark(&installation("crm")).await.unwrap();
    bench.servers.apply(&Catalog::default()).await;
    bench.restart(&Process::default());
    bench.registry.register(&installation("shop")).await.unwrap();
    let local = options(vec![declaration("documents")], false);
    let error = prepare(&local, &bench.ports).await.unwrap_err();
    assert!(error.message.contains("is missing in Redis"), "{error}");
    assert!(error.hint.unwrap().contains("tidewheel apply"));
    bench.servers.collections.faults().always("list", Fault::unreachable());
    let error = prepare(&local, &bench.ports).await.unwrap_err();
    assert!(!error.message.contains("is missing in Redis"), "the collections may have records: {error}");
    assert_eq!(bench.streams().catalog().revision().await, Ok(0));
}

#[tokio::test(start_paused = true)]
async fn running_producer_writes_its_catalog_back() {
    let mut bench = Bench::serving().await;
    let before = bench.catalog();
    bench.streams().wipe();
    bench.looks(3).await;
    let (catalog, _) = bench.streams().catalog().load().await.unwrap();
    assert!(catalog.revision > before.revision, "a revision is never given to two catalogs");
    assert_eq!(catalog.indexes, before.indexes);

    bench.streams().wipe();
    prepare(&options(Vec::new(), false), &bench.ports).await.unwrap();
    let (again, _) = bench.streams().catalog().load().await.unwrap();
    assert!(again.revision > catalog.revision && again.indexes == catalog.indexes);
}

/// A plain index whose move is intended.
async fn intended() -> Bench {
    let mut bench = Bench::plain().await;
    let is_intended = |bench: &Bench| bench.entry().is_some_and(|index| index.switching.is_some());
    bench.until("the move is intended", is_intended).await;
    bench.restart(&Process::default());
    bench
}

/// Prepares a session, and checks that the move is recorded.
async fn complete(bench: &mut Bench) {
    prepare(&options(Vec::new(), false), &bench.ports).await.unwrap();
    assert_eq!(bench.alias("documents").as_deref(), Some("documents.g2"));
    let (catalog, _) = bench.streams().catalog().load().await.unwrap();
    let index = catalog.indexes.values().next().unwrap();
    assert_eq!((index.serving, index.switching, index.plain, index.generations.len()), (Some(2), None, false, 1));
    bench.until("it serves", |bench| bench.is_served_by(2)).await;
}

#[tokio::test(start_paused = true)]
async fn alias_of_a_deleted_plain_collection_is_created_before_the_feed_opens() {
    let mut bench = intended().await;
    bench.index("documents").drop_collection();
    complete(&mut bench).await;
}

#[tokio::test(start_paused = true)]
async fn move_of_a_plain_index_is_recorded_before_the_feed_opens() {
    let mut bench = intended().await;
    bench.index("documents").drop_collection();
    bench.servers.collections.set_alias("documents", Some("documents.g2"));
    bench.servers.collections.faults().always("point", Fault::unreachable());
    complete(&mut bench).await;
}

#[tokio::test(start_paused = true)]
async fn intended_move_is_not_begun_by_a_start() {
    let mut bench = intended().await;
    prepare(&options(Vec::new(), false), &bench.ports).await.unwrap();
    assert!(bench.index("documents").is_there() && bench.alias("documents").is_none());
    bench.until("it serves", |bench| bench.is_served_by(2)).await;
}
