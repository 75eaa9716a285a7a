use std::time::Duration;

use serde_json::json;
use tidewheel_core::catalog::{Catalog, IndexName, State};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::Journal as _;
use tidewheel_core::stage::Stage;
use tidewheel_testkit::contracts::samples::{change, checkpoint, embedded, embedded_for, routed};
use tidewheel_testkit::fakes::source::FakeSource;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::targets::samples::{Servers, catalog, declaration, first};

const OPEN: &str = r#"{"status": "open"}"#;

/// `all` has every document, `open` those with the status `open`.
fn two(revision: u64) -> Catalog {
    let mut catalog = catalog(revision, &[("all", State::Serving, true), ("open", State::Serving, true)]);
    let open = catalog.indexes.get_mut(&first("open").index).unwrap().generations.get_mut(&1).unwrap();
    Arc::make_mut(&mut open.declaration).filter = Some(SourceFilter(OPEN.to_owned()));
    catalog
}

/// Tickets 1 to 4, of which the even ones are open.
fn source(page: usize) -> FakeSource {
    let source = FakeSource::with("shop", Duration::from_millis(20), page);
    for number in 1..=4 {
        let status = if number % 2 == 0 { "open" } else { "closed" };
        source.insert("tickets", json!({"_id": number, "status": status}));
    }
    source
}

fn destinations(servers: &Servers, index: Option<&str>) -> Destinations {
    Destinations::new(Arc::new(servers.targets()), index.map(|name| IndexName::new(name).unwrap()))
}

/// The operation, the document and the targets of a change, such as `read 1 all open`, and what it leaves: `-open`.
fn brief(change: &Change) -> String {
    let stamp = change.route.stamp();
    let targets = stamp.into_iter().flat_map(|stamp| &stamp.targets).map(|target| format!(" {}", target.index));
    let leaves = stamp.into_iter().flat_map(|stamp| &stamp.leaves).map(|target| format!(" -{}", target.index));
    let names: String = targets.chain(leaves).collect();
    format!("{} {}{names}", change.operation, change.id)
}

async fn all(pages: &mut Pages) -> Vec<String> {
    let mut changes = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        changes.extend(page.iter().map(brief));
    }
    changes
}

#[tokio::test]
async fn rows_go_to_the_targets_that_they_belong_to() {
    let (servers, source) = (Servers::new(), source(1_000));
    let of = async |index: Option<&str>, filter: Option<&str>| {
        let filter = filter.map(|text| SourceFilter(text.to_owned()));
        let source = Arc::new(source.clone());
        let mut pages = rows(source, destinations(&servers, index), 0, filter).await.unwrap();
        let changes = all(&mut pages).await;
        assert_eq!(pages.progress().skipped, 0);
        changes
    };
    assert_eq!(of(None, None).await, ["read 1", "read 2", "read 3", "read 4"], "without a catalog");
    servers.apply(&two(7)).await;
    assert_eq!(of(None, None).await, ["read 1 all", "read 2 all open", "read 3 all", "read 4 all open"]);
    assert_eq!(of(Some("open"), None).await, ["read 2 open", "read 4 open"]);
    let late = r#"{"_id": {"$gte": 3}}"#;
    assert_eq!(of(None, Some(late)).await, ["read 3 all", "read 4 all open"]);
    assert_eq!(of(Some("open"), Some(late)).await, ["read 4 open"]);
}

#[tokio::test]
async fn page_is_routed_by_the_catalog_as_it_is_then() {
    let (servers, source) = (Servers::new(), source(2));
    servers.apply(&two(7)).await;
    let mut pages = rows(Arc::new(source), destinations(&servers, None), 0, None).await.unwrap();
    let first_page = pages.next().await.unwrap().unwrap();
    assert_eq!(first_page.iter().map(brief).collect::<Vec<_>>(), ["read 1 all", "read 2 all open"]);
    let mut later = two(9);
    later.indexes.remove(&first("all").index);
    servers.apply(&later).await;
    assert_eq!(all(&mut pages).await, ["read 4 open"]);
}

#[tokio::test]
async fn history_adds_nothing_to_targets_that_a_document_has_left() {
    let (servers, source) = (Servers::new(), FakeSource::new("shop"));
    servers.apply(&two(7)).await;
    let since = source.covered().now().await.unwrap();
    source.insert("tickets", json!({"_id": 1, "status": "open"}));
    source.insert("tickets", json!({"_id": 2, "status": "open"}));
    source.insert("tickets", json!({"_id": 3, "status": "open"}));
    source.replace("tickets", json!({"_id": 2, "status": "closed"}));
    source.delete("tickets", json!(3));
    let source = Arc::new(source);
    let mut pages = history(source.clone(), destinations(&servers, None), 0, since, 9).await.unwrap();
    let expected = ["insert 1 all open", "insert 2 all", "replace 2 all -open", "delete 3 all open"];
    assert_eq!(all(&mut pages).await, expected);
    let mut pages = history(source, destinations(&servers, Some("open")), 0, since, 9).await.unwrap();
    let mut changes = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        changes.extend(page);
    }
    assert_eq!(changes.iter().map(brief).collect::<Vec<_>>(), ["insert 1 open", "delete 2 open", "delete 3 open"]);
    assert!(changes.iter().all(|change| change.version.replay == 9 && change.route.catalog() == 7));
}

#[tokio::test]
async fn entries_supersede_each_other_only_in_the_same_targets() {
    let servers = Servers::new();
    servers.apply(&two(7)).await;
    let older = |number: u32, targets: &[&str]| Change { id: number.to_string(), ..routed(1, targets, &[]) };
    let newer = |number: u32, targets: &[&str]| Change { version: change(number).version, ..older(number, targets) };
    let entries = [
        older(1, &["all.g1", "open.g1"]),
        newer(2, &["all.g1"]),
        newer(3, &["all.g1", "open.g1"]),
        newer(4, &["all.g1"]),
        newer(5, &["old.g1"]),
    ];
    servers.streams.journal().append(None, &entries, &checkpoint(1)).await.unwrap();
    let of = async |index: Option<&str>| {
        let log = Arc::new(servers.streams.stream_log::<Change>(Stage::Raw));
        let mut pages = raw(log, destinations(&servers, index), EntryId::zero(), 9).await.unwrap();
        let changes = all(&mut pages).await;
        assert_eq!((pages.progress().read, pages.progress().replayed), (5, changes.len() as u64));
        changes
    };
    assert_eq!(of(None).await, ["insert 3 all open", "insert 4 all"]);
    assert_eq!(of(Some("open")).await, ["insert 3 open"]);
}

#[tokio::test]
async fn records_of_other_targets_are_not_replayed() {
    let servers = Servers::new();
    let log = Arc::new(servers.streams.stream_log::<Embedded>(Stage::Embedded));
    let records = [embedded(1), embedded_for(2, "all.g1"), embedded_for(3, "open.g1"), embedded_for(4, "old.g1")];
    log.append(&records).await.unwrap();
    let replay = async |index: Option<&str>| {
        let silent: Report = Arc::new(|_| {});
        let before = servers.streams.records::<Embedded>(Stage::Embedded.name()).len();
        let done = embedded_records(&servers, destinations(&servers, index), &silent).await;
        let after = servers.streams.records::<Embedded>(Stage::Embedded.name()).split_off(before);
        assert_eq!(done.replayed, after.len() as u64);
        after.into_iter().map(|(_, record)| record.change.id).collect::<Vec<_>>()
    };
    assert_eq!(replay(None).await, ["1"], "local settings have the plain target alone");
    servers.apply(&two(7)).await;
    assert_eq!(replay(Some("open")).await, ["3"]);
    assert_eq!(replay(None).await, ["2", "3"], "the plain target is gone");
}

async fn embedded_records(servers: &Servers, to: Destinations, report: &Report) -> Progress {
    let log = Arc::new(servers.streams.stream_log::<Embedded>(Stage::Embedded));
    super::embedded(log, to, EntryId::zero(), 9, report, CancellationToken::new()).await.unwrap()
}

#[tokio::test]
async fn plain_destination_ignores_every_catalog() {
    let (servers, source) = (Servers::new(), source(1_000));
    servers.apply(&two(7)).await;
    let to = Destinations::plain(Arc::new(declaration("documents")));
    let mut pages = rows(Arc::new(source), to, 0, None).await.unwrap();
    assert_eq!(all(&mut pages).await, ["read 1", "read 2", "read 3", "read 4"]);
}
