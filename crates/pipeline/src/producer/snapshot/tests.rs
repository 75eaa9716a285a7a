use std::time::Duration;

use serde_json::json;
use tidewheel_core::catalog::{Due, IndexName, Needs, Routed, Rows, State};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{CatalogStore as _, IndexWriter as _, ResumeToken, Source, SourceFilter, Written};
use tidewheel_core::version::ClusterTime;
use tidewheel_testkit::contracts::index::document;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::source::FakeSource;

use super::*;
use crate::targets::samples::{Servers, catalog, first};

/// The barrier that the snapshots wait for.
const BARRIER: u64 = 1;

/// Dimension of the points of [`document`].
const DIMENSION: usize = 4;

/// Notes are open tickets, tickets are all documents.
struct World {
    servers: Servers,
    source: FakeSource,
    adopted: Adopted,
}

impl World {
    /// Both are due for this.
    async fn new(needs: Needs) -> Self {
        let mut catalog = catalog(7, &[("notes", State::Serving, false), ("tickets", State::Filling, false)]);
        for (name, index) in &mut catalog.indexes {
            let generation = index.generations.get_mut(&1).unwrap();
            generation.needs = needs;
            if *name == IndexName::new("notes").unwrap() {
                let filter = SourceFilter(r#"{"state":"open"}"#.to_owned());
                Arc::make_mut(&mut generation.declaration).filter = Some(filter);
            }
        }
        let (servers, source) = (Servers::new(), FakeSource::new("shop"));
        servers.apply(&catalog).await;
        let applied = servers.targets().reload().await.unwrap();
        let adopted = Adopted::new(applied, &(Arc::new(source.clone()) as Arc<dyn Source>));
        for (number, state) in [(1, "open"), (2, "draft"), (3, "open")] {
            source.insert("tickets", json!({"_id": number, "state": state}));
        }
        Self { servers, source, adopted }
    }

    /// Writes the document with this number and text to the collection of a target, as an earlier version.
    async fn index(&self, name: &str, number: u32, text: &str) {
        let (index, key) = (self.servers.collections.index(&first(name).collection()), key(number));
        let namespace = Namespace::new("shop", "tickets");
        let version = Version::of_snapshot(0, ClusterTime { seconds: 5, increment: 1 });
        index.prepare(DIMENSION).await.unwrap();
        let written = index.upsert(&[&document(&namespace, &key, version, &[text])]).await.unwrap();
        assert_eq!(written, Written::Durably);
    }

    /// Writes the current state of a document.
    async fn index_current(&self, name: &str, number: u32) {
        let row = self.source.rows("tickets").into_iter().find(|row| row.key == key(number)).unwrap();
        self.index(name, number, &row.document.unwrap()).await;
    }

    /// A snapshot of these targets in this half, behind its barrier.
    async fn snapshot(&self, names: &[&str], half: impl Fn(ClusterTime) -> SnapshotState) -> Snapshot {
        let time = self.source.now().await.unwrap();
        let scope = names.iter().map(|name| Due { target: first(name), due: 7 }).collect();
        let begun = plan::begun(None, String::new(), ResumeToken(String::new()), time, true);
        let checkpoint = Checkpoint { catalog: 7, scope, snapshot: half(time), ..begun };
        let mut snapshot = Snapshot::of(&checkpoint, &self.adopted, BARRIER, 1_000).await.unwrap();
        snapshot.passed(BARRIER);
        snapshot
    }
}

fn key(number: u32) -> String {
    format!(r#"{{"$numberInt":"{number}"}}"#)
}

fn running(time: ClusterTime) -> SnapshotState {
    SnapshotState::Running { time, after: None, rows: 0 }
}

fn sweeping(time: ClusterTime) -> SnapshotState {
    SnapshotState::Sweeping { time, rows: 0, after: None }
}

async fn rows(snapshot: &mut Snapshot) -> Read {
    match snapshot.next().await.unwrap() {
        Page::Rows(read) => read,
        _ => panic!("expected rows"),
    }
}

/// The differing rows of a page, each with its targets.
fn differing(page: PageRead) -> Vec<(String, Vec<String>)> {
    let targets = |routed: &Routed| routed.stamp.targets.iter().map(|target| target.index.to_string()).collect();
    page.differing.into_iter().map(|(row, routed)| (row.id, targets(&routed))).collect()
}

fn pairs(expected: &[(&str, &[&str])]) -> Vec<(String, Vec<String>)> {
    let owned = |names: &&[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    expected.iter().map(|(row, names)| ((*row).to_owned(), owned(names))).collect()
}

#[tokio::test(start_paused = true)]
async fn row_is_appended_for_the_targets_that_lack_it() {
    let world = World::new(plan::COMPLETE).await;
    world.index_current("tickets", 3).await;
    world.index("tickets", 1, r#"{"_id":1,"state":"closed"}"#).await;
    let mut snapshot = world.snapshot(&["notes", "tickets"], running).await;
    let read = rows(&mut snapshot).await;
    let page = snapshot.compare(read).await;
    assert_eq!((page.count, page.last.as_deref()), (3, Some(key(3).as_str())));
    let expected: [(&str, &[&str]); 3] = [("1", &["notes", "tickets"]), ("2", &["tickets"]), ("3", &["notes"])];
    assert_eq!(differing(page), pairs(&expected));
}

#[tokio::test(start_paused = true)]
async fn only_targets_in_scope_are_compared_and_filled() {
    let world = World::new(plan::COMPLETE).await;
    world.index_current("notes", 1).await;
    world.index_current("tickets", 1).await;
    let mut snapshot = world.snapshot(&["notes"], running).await;
    let read = rows(&mut snapshot).await;
    let ids: Vec<&str> = read.rows.iter().map(|row| row.id.as_str()).collect();
    assert_eq!(ids, ["1", "3"], "the source leaves out what matches no filter in scope");
    let expected: [(&str, &[&str]); 1] = [("3", &["notes"])];
    assert_eq!(differing(snapshot.compare(read).await), pairs(&expected));
    assert_eq!(world.servers.collections.index("tickets.g1").calls("points"), 0);
}

#[tokio::test(start_paused = true)]
async fn every_row_is_appended_to_a_target_that_lost_its_content() {
    let world = World::new(Needs { rows: Rows::All, sweep: true }).await;
    world.index_current("tickets", 1).await;
    let mut snapshot = world.snapshot(&["tickets"], running).await;
    let read = rows(&mut snapshot).await;
    assert_eq!(snapshot.compare(read).await.differing.len(), 3);
    assert_eq!(world.servers.collections.index("tickets.g1").calls("points"), 0);
}

#[tokio::test(start_paused = true)]
async fn sweep_removes_what_does_not_exist_or_does_not_match_from_each_target() {
    let world = World::new(plan::COMPLETE).await;
    for name in ["notes", "tickets"] {
        for number in [1, 2, 9] {
            world.index(name, number, "indexed").await;
        }
    }
    let mut snapshot = world.snapshot(&["notes", "tickets"], sweeping).await;
    let mut swept = Vec::new();
    while let Page::Points(page) = snapshot.next().await.unwrap() {
        let keys: Vec<String> = page.absent.into_iter().map(|(_, key)| key).collect();
        swept.push((page.target.expect("a target"), keys));
    }
    assert_eq!(swept, [(first("notes"), vec![key(2), key(9)]), (first("tickets"), vec![key(9)])]);
}

#[tokio::test(start_paused = true)]
async fn points_of_a_collection_that_is_no_longer_covered_are_swept() {
    let world = World::new(plan::COMPLETE).await;
    let index = world.servers.collections.index("tickets.g1");
    let (namespace, key) = (Namespace::new("crm", "articles"), key(1));
    let version = Version::of_snapshot(0, ClusterTime { seconds: 5, increment: 1 });
    index.prepare(DIMENSION).await.unwrap();
    let _ = index.upsert(&[&document(&namespace, &key, version, &["former"])]).await.unwrap();
    let mut snapshot = world.snapshot(&["tickets"], sweeping).await;
    let Page::Points(page) = snapshot.next().await.unwrap() else { panic!("expected points") };
    assert_eq!(page.absent, [(namespace, key)]);
}

#[tokio::test(start_paused = true)]
async fn targets_that_need_no_sweep_end_with_their_rows() {
    let world = World::new(Needs { rows: Rows::Payload, sweep: false }).await;
    world.index("tickets", 9, "indexed").await;
    let mut snapshot = world.snapshot(&["notes", "tickets"], running).await;
    assert_eq!(rows(&mut snapshot).await.rows.len(), 3);
    assert!(matches!(snapshot.next().await, Ok(Page::CollectionRead)));
    snapshot.next_collection();
    assert!(matches!(snapshot.next().await, Ok(Page::AllRead)));
    snapshot.sweep(BARRIER + 1);
    assert!(matches!(snapshot.next().await, Ok(Page::Swept)), "without a barrier");
}

#[tokio::test(start_paused = true)]
async fn retired_target_is_neither_filled_nor_swept_further() {
    let world = World::new(plan::COMPLETE).await;
    for name in ["notes", "tickets"] {
        world.index(name, 9, "indexed").await;
    }
    let mut snapshot = world.snapshot(&["notes", "tickets"], sweeping).await;
    let (mut catalog, _) = world.servers.streams.catalog().load().await.unwrap();
    catalog.indexes.get_mut(&first("notes").index).unwrap().generations.get_mut(&1).unwrap().retire(9);
    catalog.revision = 9;
    world.servers.apply(&catalog).await;
    let applied = world.servers.targets().reload().await.unwrap();
    let adopted = Adopted::new(applied, &(Arc::new(world.source.clone()) as Arc<dyn Source>));
    snapshot.adopt(&adopted);
    let Page::Points(page) = snapshot.next().await.unwrap() else { panic!("expected points") };
    assert_eq!(page.target, Some(first("tickets")));
    assert!(matches!(snapshot.next().await, Ok(Page::Swept)));
}

#[tokio::test(start_paused = true)]
async fn target_that_lost_something_does_not_delay_the_sweep_of_the_others() {
    let world = World::new(plan::COMPLETE).await;
    for name in ["notes", "tickets"] {
        world.index(name, 9, "indexed").await;
    }
    world.servers.collections.index("notes.g1").faults().always("page", Fault::unreachable());
    let mut snapshot = world.snapshot(&["notes", "tickets"], sweeping).await;
    snapshot.leave_out(&[]);
    let waiting = tokio::time::timeout(Duration::from_secs(600), snapshot.next()).await;
    assert!(waiting.is_err(), "its collection is unavailable");
    snapshot.leave_out(&[Lost { target: first("notes"), recent: true }]);
    let Page::Points(page) = snapshot.next().await.unwrap() else { panic!("expected points") };
    assert_eq!(page.target, Some(first("tickets")));
    assert!(matches!(snapshot.next().await, Ok(Page::Swept)));
}
