use tidewheel_core::catalog::{Catalog, EmbedderIdentity, IndexName, State};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::EmbedderInfo;
use tidewheel_testkit::fakes::faults::Fault;

use super::samples::{DIMENSION, Servers, catalog, declare_model, first};
use super::*;

/// Tickets serve, notes are being filled.
fn two(revision: u64) -> Catalog {
    catalog(revision, &[("tickets", State::Serving, true), ("notes", State::Filling, false)])
}

#[tokio::test]
async fn local_settings_are_in_effect_until_a_catalog_is_applied() {
    let servers = Servers::new();
    let targets = servers.targets();
    let applied = targets.at_least(0).await.unwrap();
    assert_eq!(applied.revision(), 0);
    let plain = applied.target(None).unwrap();
    assert!(plain.is_local() && plain.plain && plain.may_block() && plain.made.is_none());
    assert_eq!(plain.ports.index.name(), "documents");
    assert_eq!(applied.record(&plain.id), None);

    servers.apply(&two(7)).await;
    assert_eq!(targets.reload().await.unwrap().revision(), 7);
    let applied = targets.at_least(0).await.unwrap();
    assert!(applied.target(None).is_none(), "the catalog has no plain index");
    let target = applied.target(Some(&first("tickets"))).unwrap();
    assert_eq!(target.ports.index.name(), "tickets.g1");
    assert_eq!(target.made, Some(target.declaration().made()));
    assert_eq!(applied.record(&target.id).map(|record| record.revision), Some(7));
}

#[tokio::test]
async fn plain_index_of_an_applied_catalog_receives_entries_without_targets() {
    let servers = Servers::new();
    let mut plain = catalog(7, &[("documents", State::Serving, true)]);
    let index = plain.indexes.get_mut(&IndexName::new("documents").unwrap()).unwrap();
    index.plain = true;
    index.generations.get_mut(&1).unwrap().collection = "documents".into();
    servers.apply(&plain).await;
    let targets = servers.targets();
    let applied = targets.at_least(0).await.unwrap();
    assert_eq!(applied.target(None).map(|target| target.id.clone()), Some(first("documents")));
    assert!(!applied.target(None).unwrap().is_local());
}

#[tokio::test]
async fn entry_with_a_newer_stamp_loads_the_catalog() {
    let servers = Servers::new();
    let targets = servers.targets();
    assert_eq!(targets.at_least(0).await.unwrap().revision(), 0);
    let missing = targets.at_least(7).await.err().unwrap();
    assert_eq!(missing.class, ErrorClass::Transient);
    assert!(missing.message.contains("revision 0") && missing.message.contains("requires 7"), "{missing}");
    servers.apply(&two(7)).await;
    assert_eq!(targets.at_least(5).await.unwrap().revision(), 7);
    servers.streams.faults().always("load_catalog", Fault::unreachable());
    assert_eq!(targets.at_least(7).await.unwrap().revision(), 7, "nothing is loaded again");
    assert!(targets.at_least(8).await.is_err());
}

#[tokio::test]
async fn first_entry_waits_for_the_store_even_with_local_settings() {
    let servers = Servers::new();
    servers.apply(&two(7)).await;
    let targets = servers.targets();
    servers.streams.faults().once("load_catalog", Fault::unreachable());
    assert!(targets.at_least(0).await.is_err(), "a catalog may be applied");
    assert_eq!(targets.at_least(0).await.unwrap().revision(), 7);
}

#[tokio::test]
async fn nothing_is_processed_without_local_settings_and_without_a_catalog() {
    let servers = Servers::new();
    let targets = Targets::new(None, servers.ports());
    let error = targets.at_least(0).await.err().unwrap();
    assert!(error.class == ErrorClass::Transient && error.message.contains("no index is applied"), "{error}");
    servers.apply(&two(7)).await;
    assert_eq!(targets.at_least(0).await.unwrap().revision(), 7);
}

#[tokio::test(start_paused = true)]
async fn catalog_is_followed_in_both_directions_and_kept_if_it_vanishes() {
    let servers = Servers::new();
    servers.apply(&two(7)).await;
    let before = servers.streams.save();
    let targets = Arc::new(servers.targets());
    assert_eq!(targets.at_least(0).await.unwrap().revision(), 7);
    let stop = CancellationToken::new();
    let following = tokio::spawn(targets.clone().follow(stop.clone()));
    let mut changes = targets.subscribe();
    servers.apply(&two(9)).await;
    changes.changed().await.unwrap();
    assert_eq!(targets.current().revision(), 9);
    servers.streams.restore(&before);
    changes.changed().await.unwrap();
    assert_eq!(targets.current().revision(), 7, "the store lost its last second");
    servers.streams.wipe();
    tokio::time::sleep(10 * POLL).await;
    assert_eq!(targets.current().revision(), 7);
    assert_eq!(targets.reload().await.unwrap().revision(), 7);
    stop.cancel();
    following.await.unwrap();
}

#[tokio::test]
async fn only_targets_that_were_never_whole_may_be_skipped() {
    let servers = Servers::new();
    servers.apply(&two(7)).await;
    let applied = servers.targets().at_least(0).await.unwrap();
    let may_skip = |name| applied.may_skip(applied.target(Some(&first(name))).unwrap());
    assert!(applied.blocks() && may_skip("notes") && !may_skip("tickets"));

    let servers = Servers::new();
    servers.apply(&catalog(7, &[("tickets", State::Serving, false), ("notes", State::Filling, false)])).await;
    let applied = servers.targets().at_least(0).await.unwrap();
    assert!(!applied.blocks());
    assert!(applied.routed().all(|target| !applied.may_skip(target)), "a first installation waits out an outage");
}

#[tokio::test]
async fn targets_that_are_not_routed_are_known_but_receive_nothing() {
    let servers = Servers::new();
    servers
        .apply(&catalog(
            7,
            &[("new", State::Creating, false), ("old", State::Retiring, true), ("tickets", State::Kept, true)],
        ))
        .await;
    let applied = servers.targets().at_least(0).await.unwrap();
    let names = |targets: Vec<&Arc<Target>>| targets.iter().map(|target| target.id.to_string()).collect::<Vec<_>>();
    assert_eq!(names(applied.every().collect()), ["new.g1", "old.g1", "tickets.g1"]);
    assert_eq!(names(applied.routed().collect()), ["tickets.g1"]);
    assert!(applied.target(Some(&first("old"))).is_none());
    let serving = applied.serving(&IndexName::new("tickets").unwrap());
    assert_eq!(serving.map(|target| target.id.clone()), Some(first("tickets")));
}

#[tokio::test]
async fn fixed_target_ignores_every_catalog() {
    let servers = Servers::new();
    let targets = Targets::fixed(&servers.local());
    let applied = targets.at_least(7).await.unwrap();
    assert!(applied.target(None).is_some() && targets.ports().is_none());
    assert_eq!(targets.reload().await.unwrap().revision(), 0);
    Arc::new(targets).follow(CancellationToken::new()).await;
}

fn info(model: &str, dimension: usize) -> EmbedderInfo {
    EmbedderInfo { model: model.to_owned(), revision: "2".to_owned(), dimension, max_tokens: 32, load: None }
}

/// The target of an index whose collection has vectors of the model `first`, if it is known, and whose declaration names
/// this model.
async fn tickets(declared: &str, is_known: bool) -> Arc<Target> {
    let servers = Servers::new();
    let mut applied = catalog(7, &[("tickets", State::Serving, true)]);
    declare_model(&mut applied, "tickets", declared);
    let index = applied.indexes.get_mut(&first("tickets").index).unwrap();
    index.generations.get_mut(&1).unwrap().embedder =
        is_known.then(|| EmbedderIdentity::from(&info("first", DIMENSION)));
    servers.apply(&applied).await;
    servers.targets().at_least(7).await.unwrap().target(Some(&first("tickets"))).unwrap().clone()
}

#[tokio::test]
async fn model_must_have_the_dimension_of_the_collection() {
    assert_eq!(tickets("fake:2", false).await.fits(&info("other", 9)), Ok(()), "before the generation is created");
    let known = tickets("fake:2", true).await;
    assert_eq!(known.fits(&info("other", DIMENSION)), Ok(()), "the client has chosen it by its declared name");
    let error = known.fits(&info("first", 9)).unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("tickets.g1 returns vectors of dimension 9"), "{}", error.message);
}

#[tokio::test]
async fn default_model_of_an_embedder_must_be_that_of_the_collection() {
    let nameless = tickets("", true).await;
    assert_eq!(nameless.fits(&info("first", DIMENSION)), Ok(()));
    let error = nameless.fits(&info("other", DIMENSION)).unwrap_err();
    assert!(error.message.contains("serves other, but its collection has vectors of first"), "{}", error.message);
    assert!(error.hint.is_some_and(|hint| hint.contains("--generation")));
}
