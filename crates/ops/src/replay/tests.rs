use std::sync::Arc;

use tidewheel_core::catalog::{EmbedderIdentity, State};
use tidewheel_core::ports::{EntryId, IndexWriter as _, Queue as _, ResumeToken, SnapshotState};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_testkit::contracts::samples::{change, checkpoint, embedded};
use tidewheel_testkit::fakes::embedder::FakeEmbedder;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::stream_log::FakeAliases;
use tidewheel_testkit::fakes::streams::FakeStreams;

use super::*;
use crate::samples::{Servers, catalog as catalog_of, declaration, index};

fn request(from: Origin, into: Option<&str>) -> ReplayRequest {
    ReplayRequest { from, since: None, filter: None, into: into.map(str::to_owned), index: None }
}

fn extent(entries: u64, whole: bool) -> Extent {
    Extent { first: None, last: EntryId("7-0".into()), entries, whole }
}

fn facts() -> ReplayFacts {
    let time = ClusterTime { seconds: 1, increment: 1 };
    ReplayFacts {
        indexes: None,
        raw: extent(10, true),
        embedded: extent(20, false),
        embedder: Some(EmbedderInfo {
            model: "minilm".into(),
            revision: "1".into(),
            dimension: 384,
            max_tokens: 254,
            load: None,
        }),
        collection: "documents".into(),
        resolved: Named::Alias("documents_1".into()),
        into: None,
        model: Some("minilm".into()),
        processors: true,
        checkpoint: Some(Checkpoint {
            token: ResumeToken(String::new()),
            last: (time, 1),
            through: time,
            epoch: 0,
            selection: String::new(),
            snapshot: SnapshotState::Done { time, rows: 0 },
            catalog: 0,
            scope: Vec::new(),
        }),
    }
}

#[test]
fn plan_describes_source_embedder_and_target() {
    let plan = plan(&request(Origin::Raw, None), &facts()).unwrap();
    assert_eq!(plan.lines()[0].1, "raw_document_changes: all 10 entries, the complete history");
    assert!(plan.lines()[1].1.contains("minilm (384 dimensions)"));
    assert!(plan.lines()[2].1.contains("live collection \"documents\""));
    assert_eq!((plan.alias, plan.warnings), (None, vec![]));
}

#[test]
fn alias_is_switched_to_a_new_collection() {
    let facts = ReplayFacts { into: Some(("documents_2".into(), None)), ..facts() };
    let planned = plan(&request(Origin::Source, Some("documents_2")), &facts).unwrap();
    assert_eq!(planned.alias.as_deref(), Some("documents"));
    assert!(planned.afterwards.contains("documents_1"), "{}", planned.afterwards);
    let facts = ReplayFacts { resolved: Named::Collection, ..facts };
    let planned = plan(&request(Origin::Source, Some("documents_2")), &facts).unwrap();
    assert_eq!((planned.alias, planned.warnings.len()), (None, 1));
    assert!(planned.afterwards.contains("qdrant.collection"));
}

#[test]
fn invalid_replays_are_rejected_with_a_hint() {
    let into = |name: &str| ReplayFacts { into: Some((name.into(), None)), ..facts() };
    let other_model = ReplayFacts { model: Some("bge".into()), ..into("documents_2") };
    let stopped = ReplayFacts { processors: false, model: Some("bge".into()), ..into("documents_2") };
    assert!(
        plan(&request(Origin::Source, Some("documents_2")), &stopped).is_ok(),
        "no processor adds such vectors any more"
    );
    let filtered = ReplayRequest { filter: Some(SourceFilter("{}".into())), ..request(Origin::Raw, None) };
    let source = |name| request(Origin::Source, Some(name));
    let cases = [
        (filtered, facts(), "--filter"),
        (request(Origin::Raw, None), ReplayFacts { raw: extent(0, true), ..facts() }, "no entries"),
        (request(Origin::Source, None), ReplayFacts { checkpoint: None, ..facts() }, "no producer"),
        (request(Origin::Embedded, Some("documents_2")), into("documents_2"), "incomplete"),
        (source("documents_1"), into("documents_1"), "live collection"),
        (source("documents"), into("documents"), "live collection"),
        (source("documents_2"), other_model, "bge"),
    ];
    for (request, facts, part) in cases {
        let rejection = plan(&request, &facts).unwrap_err();
        assert!(rejection.message.contains(part) && !rejection.hint.is_empty(), "{rejection:?}");
    }
}

#[tokio::test]
async fn facts_describe_streams_embedder_and_collections() {
    let (streams, embedder, index) = (FakeStreams::new(), FakeEmbedder::new(3), FakeIndex::new());
    streams.journal().append(None, &[change(1), change(2)], &checkpoint(2)).await.unwrap();
    streams.stream_log(Stage::Embedded).append(&[embedded(1)]).await.unwrap();
    index.prepare(3).await.unwrap();
    let (raw, stage_2, journal) =
        (streams.stream_log(Stage::Raw), streams.stream_log(Stage::Embedded), streams.journal());
    let (stages, aliases) = (streams.inspector(), FakeAliases::new(&["documents_1"]));
    aliases.switch("documents", "documents_1").await.unwrap();
    let catalog = CatalogReader::new(Arc::new(streams.catalog()), Some(declaration("documents")));
    let ports = PlanPorts {
        catalog: &catalog,
        raw: &raw,
        embedded: &stage_2,
        journal: &journal,
        stages: &stages,
        embedder: Some(&embedder),
        aliases: &aliases,
        into: Some(&index),
    };
    let request = request(Origin::Raw, Some("documents_2"));
    let found = facts_of(&ports, &request).await.unwrap();
    assert_eq!((found.raw.entries, found.embedded.entries, found.raw.whole), (2, 1, true));
    assert_eq!(
        (found.into, found.resolved),
        (Some(("documents_2".into(), Some(0))), Named::Alias("documents_1".into()))
    );
    assert_eq!((found.model.as_deref(), found.processors), (Some("hash:3"), false));
    assert_eq!((found.checkpoint, found.embedder.unwrap().dimension), (Some(checkpoint(2)), 3));
    // A processor that asks for entries is running.
    let _ = streams.changes("a").read(1, std::time::Duration::ZERO).await.unwrap();
    assert!(facts_of(&ports, &request).await.unwrap().processors);
    streams.faults().always("extent", Fault::unreachable());
    assert!(facts_of(&ports, &request).await.is_err());
}

async fn facts_of(ports: &PlanPorts<'_>, request: &ReplayRequest) -> PortResult<ReplayFacts> {
    super::facts(ports, request, "documents").await
}

#[tokio::test]
async fn plan_names_the_indexes_of_an_applied_catalog() {
    let servers = Servers::new();
    let mut applied = catalog_of(7, &[("tickets", State::Serving), ("notes", State::Serving)]);
    let notes = applied.indexes.get_mut(&index("notes")).unwrap().generations.get_mut(&1).unwrap();
    notes.embedder = Some(EmbedderIdentity { model: "bge".into(), revision: "1".into(), dimension: 384 });
    servers.apply(&applied).await;
    let streams = &servers.streams;
    streams.journal().append(None, &[change(1)], &checkpoint(1)).await.unwrap();
    let (raw, stage_2, journal) =
        (streams.stream_log(Stage::Raw), streams.stream_log(Stage::Embedded), streams.journal());
    let (stages, aliases) = (streams.inspector(), FakeAliases::new(&[]));
    let catalog = CatalogReader::new(Arc::new(streams.catalog()), Some(declaration("documents")));
    let ports = PlanPorts {
        catalog: &catalog,
        raw: &raw,
        embedded: &stage_2,
        journal: &journal,
        stages: &stages,
        embedder: Some(&servers.embedder),
        aliases: &aliases,
        into: None,
    };
    let of = async |name: Option<&str>, into: Option<&str>| {
        let request = ReplayRequest { index: name.map(index), ..request(Origin::Raw, into) };
        plan(&request, &facts_of(&ports, &request).await.unwrap())
    };
    let both = of(None, None).await.unwrap();
    assert_eq!(both.lines()[1].1, "embedders with models bge (384 dimensions), fake:4");
    assert_eq!(both.lines()[2].1, "indexes \"notes\", \"tickets\"; newer changes win");
    let one = of(Some("tickets"), None).await.unwrap();
    assert_eq!(one.lines()[1].1, "embedder with model fake:4");
    assert_eq!(one.lines()[2].1, "index \"tickets\"; newer changes win");
    assert!(of(None, Some("tickets_2")).await.unwrap_err().hint.contains("apply --generation"));
    let unknown = ReplayRequest { index: Some(index("users")), ..request(Origin::Raw, None) };
    assert!(facts_of(&ports, &unknown).await.is_err());
}
