//! Sessions with an applied catalog, on the fakes: nothing consumes the entries, unless a test acknowledges them.

use std::time::Duration;

use serde_json::json;
use tidewheel_core::catalog::{Catalog, Due, Needs, Rows, Selector, State};
use tidewheel_core::change::{Change, Operation};
use tidewheel_core::ports::{
    Acknowledge as _, CatalogStore as _, Checkpoint, Queue as _, SnapshotState, TargetStates as _,
};
use tidewheel_core::stage::Stage;
use tidewheel_stores::redis::keys::RAW;
use tidewheel_testkit::fakes::source::FakeSource;
use tidewheel_testkit::source_write::SourceWrite;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::targets::samples::{Servers, catalog, first};

/// Long enough for several looks, and for an idle source to advance its time.
const A_WHILE: Duration = Duration::from_secs(15);

struct World {
    servers: Servers,
    source: FakeSource,
    running: JoinHandle<Result<(), ServiceError>>,
}

impl World {
    /// A producer whose first snapshot is done, with local settings.
    async fn new() -> Self {
        let (servers, source) = (Servers::new(), FakeSource::with("shop", Duration::from_millis(100), 2));
        source.insert("tickets", json!({"_id": 0}));
        let running = start(&servers, &source);
        let world = Self { servers, source, running };
        world.settle().await;
        world
    }

    /// The same, after a catalog has been applied and adopted.
    async fn with(catalog: &Catalog) -> Self {
        let world = Self::new().await;
        world.apply(catalog).await;
        world
    }

    /// Lets the producer work, and acknowledges everything that it appends.
    async fn settle(&self) {
        let queue = self.servers.streams.changes("tests");
        for _ in 0..A_WHILE.as_secs() * 10 {
            sleep(Duration::from_millis(100)).await;
            let read = queue.read(1_000, Duration::ZERO).await.unwrap();
            let ids: Vec<_> = read.into_iter().map(|delivery| delivery.id).collect();
            queue.acknowledge(&ids).await.unwrap();
        }
    }

    async fn apply(&self, catalog: &Catalog) {
        self.servers.apply(catalog).await;
        self.settle().await;
    }

    async fn checkpoint(&self) -> Checkpoint {
        self.servers.streams.journal().load().await.unwrap().expect("a checkpoint")
    }

    async fn catalog(&self) -> Catalog {
        self.servers.streams.catalog().load().await.unwrap().0
    }

    /// The number of entries so far.
    fn appended(&self) -> usize {
        self.servers.streams.records::<Change>(RAW).len()
    }

    /// The entries after this number: the operation and `_id` of each, with its targets.
    fn after(&self, number: usize) -> Vec<(Operation, String, Vec<String>)> {
        let records = self.servers.streams.records::<Change>(RAW).into_iter().skip(number);
        let targets = |change: &Change| {
            let stamp = change.route.stamp().cloned().unwrap_or_default();
            stamp.targets.iter().map(|target| target.index.to_string()).collect()
        };
        records.map(|(_, change)| (change.operation, change.id.clone(), targets(&change))).collect()
    }

    /// Ends the producer, and starts another one after some work.
    async fn restart(&mut self, meanwhile: impl FnOnce(&Self)) {
        self.running.abort();
        sleep(Duration::from_secs(5)).await;
        meanwhile(self);
        self.running = start(&self.servers, &self.source);
        self.settle().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn start(servers: &Servers, source: &FakeSource) -> JoinHandle<Result<(), ServiceError>> {
    let options = ProducerOptions {
        owner: "producer".into(),
        snapshot: true,
        high_water: 10_000,
        lease: Duration::from_secs(3),
        tombstone_grace: Duration::from_secs(600),
        audit_interval: Duration::ZERO,
        declared: Vec::new(),
        is_declared: false,
    };
    let ports = ProducerPorts {
        source: Arc::new(source.clone()),
        journal: Arc::new(servers.streams.journal()),
        backlog: Arc::new(servers.streams.stream_log::<Change>(Stage::Raw)),
        targets: Arc::new(servers.targets()),
        controller: None,
    };
    tokio::spawn(Producer::new(options, ports).run(CancellationToken::new()))
}

/// Notes and tickets, both serving and filled.
fn both(revision: u64) -> Catalog {
    catalog(revision, &[("notes", State::Serving, true), ("tickets", State::Serving, true)])
}

/// The catalog in which these are due.
fn due(mut catalog: Catalog, revision: u64, names: &[&str], needs: Needs) -> Catalog {
    catalog.revision = revision;
    for name in names {
        let index = catalog.indexes.get_mut(&first(name).index).unwrap();
        index.generations.get_mut(&1).unwrap().make_due(revision, needs);
    }
    catalog
}

fn entry(operation: Operation, id: &str, targets: &[&str]) -> (Operation, String, Vec<String>) {
    (operation, id.to_owned(), targets.iter().map(|name| (*name).to_owned()).collect())
}

fn scope(names: &[&str], due: u64) -> Vec<Due> {
    names.iter().map(|name| Due { target: first(name), due }).collect()
}

fn is_done(checkpoint: &Checkpoint) -> bool {
    matches!(checkpoint.snapshot, SnapshotState::Done { .. })
}

#[tokio::test(start_paused = true)]
async fn catalog_of_the_same_collections_is_adopted_in_place() {
    let world = World::new().await;
    let (opened, before) = (world.source.opened(), world.appended());
    world.source.insert("tickets", json!({"_id": 1}));
    world.settle().await;
    assert_eq!(world.after(before), [entry(Operation::Insert, "1", &[])], "without a catalog");
    world.apply(&both(7)).await;
    let checkpoint = world.checkpoint().await;
    assert_eq!((checkpoint.catalog, is_done(&checkpoint)), (7, true));
    assert_eq!(world.appended(), before + 1, "the revision is appended alone");
    world.source.insert("tickets", json!({"_id": 2}));
    world.settle().await;
    assert_eq!(world.after(before + 1), [entry(Operation::Insert, "2", &["notes", "tickets"])]);
    assert_eq!(world.source.opened(), opened);
}

#[tokio::test(start_paused = true)]
async fn catalog_of_other_collections_reopens_the_feed_and_reads_nothing_again() {
    let world = World::with(&both(7)).await;
    let (opened, before, since) = (world.source.opened(), world.appended(), world.checkpoint().await);
    let mut wider = both(9);
    let index = wider.indexes.get_mut(&first("notes").index).unwrap();
    let declaration = &mut index.generations.get_mut(&1).unwrap().declaration;
    Arc::make_mut(declaration).source = Selector::parse(&["shop.*", "crm.articles"], None).unwrap();
    world.apply(&wider).await;
    let checkpoint = world.checkpoint().await;
    assert_eq!((checkpoint.catalog, &checkpoint.snapshot), (9, &since.snapshot), "no snapshot");
    assert_ne!(checkpoint.selection, since.selection);
    assert_eq!((world.source.opened(), checkpoint.last.1 >= since.last.1), (opened + 1, true));
    let again = world.appended();
    world.source.in_database("crm").insert("articles", json!({"_id": 3}));
    world.settle().await;
    assert_eq!(world.after(again), [entry(Operation::Insert, "3", &["notes"])]);
    assert!(world.after(before).iter().all(|(operation, ..)| *operation != Operation::Read));
}

#[tokio::test(start_paused = true)]
async fn due_target_is_filled_alone_and_its_scope_stays_in_the_checkpoint() {
    let world = World::with(&both(7)).await;
    let before = world.appended();
    world.apply(&due(both(7), 9, &["notes"], Needs { rows: Rows::All, sweep: true })).await;
    world.settle().await;
    assert_eq!(world.after(before), [entry(Operation::Read, "0", &["notes"])]);
    let checkpoint = world.checkpoint().await;
    assert_eq!((checkpoint.catalog, &checkpoint.scope, is_done(&checkpoint)), (9, &scope(&["notes"], 9), true));
    world.settle().await;
    assert_eq!(world.after(before).len(), 1, "until the catalog records it as filled, no other snapshot begins");
}

#[tokio::test(start_paused = true)]
async fn documents_that_are_rendered_again_win_over_repairs_of_the_same_moment() {
    let world = World::with(&both(7)).await;
    let before = world.appended();
    let repaired = world.source.now().await.unwrap();
    world.servers.apply(&due(both(7), 9, &["notes"], Needs { rows: Rows::Text, sweep: false })).await;
    world.settle().await;
    assert_eq!(world.after(before), [entry(Operation::Read, "0", &["notes"])]);
    let read = world.servers.streams.records::<Change>(RAW).pop().unwrap().1;
    assert!(read.version.time > repaired, "{:?}", read.version);
}

#[tokio::test(start_paused = true)]
async fn loss_of_one_target_is_not_read_again_for_the_others() {
    let world = World::with(&both(7)).await;
    let (before, since, opened) = (world.appended(), world.checkpoint().await, world.source.opened());
    let state = world.servers.streams.target(&first("notes"), false);
    state.collection("notes.g1", true).await.unwrap();
    state.collection("notes.g1", false).await.unwrap();
    world.settle().await;
    assert_eq!((world.appended(), world.checkpoint().await.snapshot), (before, since.snapshot), "nothing is due yet");
    assert_eq!(world.source.opened(), opened, "and nothing is damaged");
    world.apply(&due(both(7), 9, &["notes"], Needs { rows: Rows::All, sweep: true })).await;
    assert_eq!(world.appended(), before, "until the loss is settled, more may follow");
    let (target, text) = world.servers.streams.catalog().lost().await.unwrap().remove(0);
    world.servers.streams.catalog().found(&target, &text).await.unwrap();
    world.settle().await;
    assert_eq!(world.after(before), [entry(Operation::Read, "0", &["notes"])]);
}

#[tokio::test(start_paused = true)]
async fn lost_history_makes_every_target_due() {
    let mut world = World::with(&both(7)).await;
    let before = world.appended();
    let lose = |world: &World| {
        world.source.insert("tickets", json!({"_id": 1}));
        world.source.lose_history();
    };
    world.restart(lose).await;
    let (catalog, checkpoint) = (world.catalog().await, world.checkpoint().await);
    assert!(catalog.revision > 7 && checkpoint.catalog == catalog.revision);
    assert_eq!(checkpoint.scope, scope(&["notes", "tickets"], catalog.revision));
    assert!(catalog.routed().all(|(_, generation)| !generation.is_filled() && generation.needs.sweep));
    let expected = ["0", "1"].map(|id| entry(Operation::Read, id, &["notes", "tickets"]));
    assert_eq!(world.after(before), expected);
}

#[tokio::test(start_paused = true)]
async fn lost_entries_are_appended_again_for_the_current_targets() {
    let world = World::with(&both(7)).await;
    let mut fewer = both(9);
    fewer.indexes.remove(&first("notes").index);
    world.apply(&fewer).await;
    let before = world.appended();
    let queue = world.servers.streams.changes("tests");
    world.source.insert("tickets", json!({"_id": 1}));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.after(before), [entry(Operation::Insert, "1", &["tickets"])]);
    assert_eq!(queue.read(10, Duration::ZERO).await.unwrap().len(), 1, "pending");
    world.servers.apply(&both(11)).await;
    sleep(Duration::from_secs(2)).await;
    world.servers.streams.delete_stream(RAW);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(world.checkpoint().await.catalog, 11);
    assert_eq!(world.after(0), [entry(Operation::Insert, "1", &["notes", "tickets"])]);
}

#[tokio::test(start_paused = true)]
async fn renamed_collection_is_read_for_the_targets_that_cover_it() {
    let mut catalog = both(7);
    let tickets = catalog.indexes.get_mut(&first("tickets").index).unwrap().generations.get_mut(&1).unwrap();
    Arc::make_mut(&mut tickets.declaration).source = Selector::of_database("shop", &["tickets"]);
    let world = World::with(&catalog).await;
    let before = world.appended();
    world.source.insert("drafts", json!({"_id": 6}));
    world.source.write(SourceWrite::Rename { from: "drafts".into(), to: "news".into() });
    world.settle().await;
    world.settle().await;
    let catalog = world.catalog().await;
    let due: Vec<String> = catalog
        .routed()
        .filter(|(_, generation)| !generation.is_filled())
        .map(|(target, _)| target.index.to_string())
        .collect();
    assert_eq!(due, ["notes"]);
    let read = world.after(before).into_iter().filter(|(operation, ..)| *operation == Operation::Read);
    let expected = ["6", "0"].map(|id| entry(Operation::Read, id, &["notes"]));
    assert_eq!(read.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn catalog_without_routed_targets_reads_nothing() {
    let creating = catalog(7, &[("notes", State::Creating, false)]);
    let world = World::new().await;
    let (opened, before) = (world.source.opened(), world.appended());
    world.apply(&creating).await;
    assert_eq!(world.checkpoint().await.catalog, 7, "the controller depends on it");
    world.source.insert("tickets", json!({"_id": 1}));
    world.settle().await;
    assert_eq!((world.source.opened(), world.appended()), (opened, before));
    world.apply(&both(9)).await;
    assert_eq!((world.checkpoint().await.catalog, world.source.opened()), (9, opened + 1));
}

#[tokio::test(start_paused = true)]
async fn catalog_that_vanished_stays_in_effect() {
    let world = World::with(&both(7)).await;
    let before = world.appended();
    let empty = Catalog { revision: 0, ..Catalog::default() };
    world.apply(&empty).await;
    world.source.insert("tickets", json!({"_id": 1}));
    world.settle().await;
    assert_eq!(world.after(before), [entry(Operation::Insert, "1", &["notes", "tickets"])]);
}
