use tidewheel_core::catalog::{Selector, State};
use tidewheel_core::error::{Cause, ErrorClass};
use tidewheel_core::ports::{
    Acknowledge as _, DocumentPoints, Fence, FenceTarget, IndexWriter as _, Journal as _, Queue as _,
    TargetStates as _, Tombstones as _,
};
use tidewheel_testkit::contracts::index::document;
use tidewheel_testkit::contracts::samples::{change, checkpoint, embedded_for, routed};
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::ownership::FakeRegistry;
use tidewheel_testkit::fakes::source::FakeSource;
use tidewheel_testkit::fakes::streams::FakeStreams;

use super::*;
use crate::samples::{Servers, catalog, filtered, fixed, index, target};

/// A source with the document of [`change`] 1, and its change in stage 1.
struct World {
    registry: FakeRegistry,
    source: FakeSource,
    streams: FakeStreams,
    index: FakeIndex,
}

impl World {
    async fn new() -> Self {
        let source = FakeSource::new("shop");
        source.insert("tickets", serde_json::json!({"_id": 1, "subject": "Grüße 1"}));
        let (streams, index) = (FakeStreams::new(), FakeIndex::new());
        index.prepare(4).await.unwrap();
        streams.journal().append(None, &[change(1)], &checkpoint(1)).await.unwrap();
        Self { registry: FakeRegistry::default(), source, streams, index }
    }

    /// Asks for the `_id` 1, as a number and as text.
    async fn ask(&self, namespaces: &[Namespace]) -> PortResult<Inspection> {
        self.ask_in(&fixed(&self.index, &self.streams), namespaces, None).await
    }

    async fn ask_in(
        &self,
        targets: &Targets,
        namespaces: &[Namespace],
        index: Option<IndexName>,
    ) -> PortResult<Inspection> {
        let inspector = self.streams.inspector();
        let ports = InspectPorts {
            source: Ok(Arc::new(self.source.clone())),
            registry: &self.registry,
            stages: &inspector,
            finder: &inspector,
            targets,
        };
        let reading = |kind, key: &str| IdReading { kind, key: key.to_owned(), id: "1".to_owned() };
        let readings = vec![reading("number", &change(1).key), reading("text", "\"1\"")];
        let question = Question { id: "1".into(), readings, namespaces: namespaces.to_vec(), scan: 100, index };
        inspect(&ports, &question).await
    }

    /// Acknowledges every entry of stage 1.
    async fn process(&self) {
        let queue = self.streams.changes("a");
        let read = queue.read(100, Duration::ZERO).await.unwrap();
        queue.acknowledge(&read.into_iter().map(|read| read.id).collect::<Vec<_>>()).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn known_reading_is_followed_from_stage_1_into_the_index() {
    let world = World::new().await;
    let found = world.ask(&[]).await.unwrap();
    assert_eq!((found.read_as, found.namespaces), (vec!["number", "text"], vec!["shop.tickets".to_owned()]));
    let [document] = &found.documents[..] else { panic!("{:?}", found.documents) };
    assert_eq!((document.kind, document.verdict.state), ("number", DocumentState::OnItsWay));
    assert_eq!(document.newest(), Some(change(1).version));
    assert_eq!(document.raw.known().unwrap().entries[0].state, Progress::Waiting);

    let row = world.source.rows("tickets").remove(0);
    let text = row.document.unwrap();
    let points = document_points(&text);
    let _ = world.index.upsert(&[&points]).await.unwrap();
    world.process().await;
    let found = world.ask(&[]).await.unwrap();
    assert_eq!(found.documents[0].verdict.state, DocumentState::Searchable, "{:?}", found.documents[0]);
}

/// The document's points at the version of its change.
fn document_points(text: &str) -> DocumentPoints {
    document(&change(1).namespace, &change(1).key, change(1).version, &[text])
}

#[tokio::test(start_paused = true)]
async fn inspection_is_rejected_if_a_newer_release_has_written_the_keys() {
    let world = World::new().await;
    world.registry.set_newer_layout();
    let error = world.ask(&[]).await.unwrap_err();
    assert_eq!((error.class, error.cause), (ErrorClass::Fatal, Cause::Newer));
    world.registry.faults().always("installation", Fault::unreachable());
    assert_eq!(world.ask(&[]).await.unwrap().documents.len(), 1, "an unreachable Redis is part of the answer");
}

#[tokio::test(start_paused = true)]
async fn acknowledged_document_without_points_is_missing() {
    let world = World::new().await;
    world.process().await;
    let begun = tokio::time::Instant::now();
    let found = world.ask(&[]).await.unwrap();
    assert_eq!(found.documents[0].verdict.state, DocumentState::Missing);
    assert!(begun.elapsed() >= MOMENT, "a change just committed is in no stream yet");
}

#[tokio::test(start_paused = true)]
async fn deleted_document_is_explained_by_its_tombstone() {
    let world = World::new().await;
    world.process().await;
    world.source.delete("tickets", serde_json::json!(1));
    world.streams.trim_all(Stage::Raw.name());
    let target = FenceTarget::Document(DocumentId::new(&change(1).namespace, &change(1).key));
    world.streams.tombstones().raise(&[Fence { target, version: change(2).version }]).await.unwrap();
    let found = world.ask(&[]).await.unwrap();
    let document = &found.documents[0];
    assert_eq!(document.verdict.state, DocumentState::Deleted, "{document:?}");
    assert_eq!(document.deleted.known().unwrap().document, Some(change(2).version.to_string()));
}

#[tokio::test(start_paused = true)]
async fn unreachable_server_is_part_of_the_answer() {
    let world = World::new().await;
    let tickets = [change(1).namespace];
    world.index.faults().always("points", Fault::unreachable());
    let found = world.ask(&tickets).await.unwrap();
    let document = &found.documents[0];
    assert_eq!((document.kind, document.verdict.state), ("number", DocumentState::Unknown));
    assert!(document.index.error().is_some() && document.source.known().unwrap().exists);

    world.index.faults().heal();
    world.source.faults().always("now", Fault::unreachable());
    assert_eq!(world.ask(&tickets).await.unwrap().documents[0].verdict.text, "MongoDB did not answer");
    world.source.faults().always("collections", Fault::unreachable());
    assert!(world.ask(&[]).await.is_err(), "the collections are unknown");
}

#[tokio::test(start_paused = true)]
async fn unreachable_streams_are_not_needed_for_a_searchable_document() {
    let world = World::new().await;
    let text = world.source.rows("tickets").remove(0).document.unwrap();
    let _ = world.index.upsert(&[&document_points(&text)]).await.unwrap();
    for call in ["entries_of", "letters_of", "leader"] {
        world.streams.faults().always(call, Fault::unreachable());
    }
    let found = world.ask(&[]).await.unwrap();
    assert_eq!(found.documents[0].verdict.state, DocumentState::Searchable);
    assert!(found.documents[0].raw.error().is_some() && found.documents[0].dead_letters.error().is_some());
}

#[tokio::test(start_paused = true)]
async fn document_is_reported_for_each_index_that_covers_it() {
    let (world, servers) = (World::new().await, Servers::new());
    let servers = Servers { streams: world.streams.clone(), ..servers };
    let indexes = [("all", State::Serving), ("open", State::Serving), ("users", State::Serving)];
    let mut applied = filtered(catalog(7, &indexes), "open", r#"{"status": "open"}"#);
    let users = applied.indexes.get_mut(&index("users")).unwrap().generations.get_mut(&1).unwrap();
    Arc::make_mut(&mut users.declaration).source = Selector::of_database("shop", &["users"]);
    servers.apply(&applied).await;
    let (journal, stage_2) = (world.streams.journal(), world.streams.stream_log(Stage::Embedded));
    journal.append(Some(&checkpoint(1)), &[routed(1, &["all.g1"], &["open.g1"])], &checkpoint(2)).await.unwrap();
    tidewheel_core::ports::StreamLog::append(&stage_2, &[embedded_for(1, "all.g1")]).await.unwrap();
    let all = servers.collections.index("all.g1");
    all.prepare(4).await.unwrap();
    let text = world.source.rows("tickets").remove(0).document.unwrap();
    let _ = all.upsert(&[&document_points(&text)]).await.unwrap();
    servers.collections.index("open.g1").prepare(4).await.unwrap();
    let fence = FenceTarget::Document(document_points(&text).document);
    let open = servers.streams.target(&target("open.g1"), false);
    open.raise(&[Fence { target: fence, version: change(1).version }]).await.unwrap();
    world.process().await;

    let targets = servers.targets();
    let found = world.ask_in(&targets, &[], None).await.unwrap();
    let brief = |document: &DocumentReport| (document.target.clone().unwrap(), document.verdict.state);
    let expected = [("all.g1", DocumentState::Searchable), ("open.g1", DocumentState::Excluded)];
    let expected = expected.map(|(target, state)| (target.to_owned(), state));
    assert_eq!(found.documents.iter().map(brief).collect::<Vec<_>>(), expected);
    let [all, open] = &found.documents[..] else { panic!("{:?}", found.documents) };
    let entries = |document: &DocumentReport| {
        let count = |stage: &Probe<StageFacts>| stage.known().unwrap().entries.len();
        (count(&document.raw), count(&document.embedded))
    };
    assert_eq!((entries(all), entries(open)), ((1, 1), (1, 0)), "entries without targets belong to no index here");
    assert!(all.deleted.known().unwrap().document.is_none() && open.deleted.known().unwrap().document.is_some());
    assert!(open.source.known().unwrap().excluded);

    let found = world.ask_in(&targets, &[], Some(index("open"))).await.unwrap();
    assert_eq!(found.documents.len(), 1);
    let error = world.ask_in(&targets, &[], Some(index("x"))).await.unwrap_err();
    assert!(error.message.contains("expected one of all, open, users"), "{error}");
}
