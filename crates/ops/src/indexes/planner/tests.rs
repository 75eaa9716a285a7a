use serde_json::json;
use tidewheel_core::catalog::{EmbedderIdentity, State};
use tidewheel_core::error::{Cause, Server};
use tidewheel_core::ports::{CatalogStore as _, CollectionAdmin as _, IndexWriter as _, Journal as _, SourceFilter};
use tidewheel_core::report::FORMAT;
use tidewheel_testkit::contracts::samples::checkpoint;
use tidewheel_testkit::fakes::embedder::FakeEmbedder;
use tidewheel_testkit::fakes::faults::Fault;
use tidewheel_testkit::fakes::reports::FakeReports;
use tidewheel_testkit::fakes::source::FakeSource;

use super::*;
use crate::indexes::{Submission, samples, submit as save};
use crate::samples::{DIMENSION, Servers, catalog, declaration, index};

/// Three tickets, and the servers of an installation.
struct World {
    servers: Servers,
    source: FakeSource,
    reports: FakeReports,
    ports: IndexesPorts,
}

impl World {
    fn new() -> Self {
        let (servers, source, reports) = (Servers::new(), FakeSource::new("shop"), FakeReports::default());
        for (id, subject) in [(1, "late parcel"), (2, "invoice"), (3, "broken")] {
            source.insert("tickets", json!({"_id": id, "subject": subject, "status": "open"}));
        }
        let ports = IndexesPorts { reports: Arc::new(reports.clone()), ..samples::ports(&servers) };
        Self { servers, source, reports, ports }
    }

    async fn serving() -> Self {
        let world = Self::new();
        let mut applied = catalog(7, &[("tickets", State::Serving)]);
        let tickets = applied.indexes.get_mut(&index("tickets")).unwrap();
        tickets.generations.get_mut(&1).unwrap().embedder = Some(identity());
        world.servers.apply(&applied).await;
        world
    }

    /// A producer has run with local settings.
    async fn with_checkpoint(self) -> Self {
        let _ = self.servers.streams.journal().append(None, &[], &checkpoint(1)).await.unwrap();
        self
    }

    async fn try_plan(&self, request: &PlanRequest) -> PortResult<Planned> {
        let world = EstimatePorts { source: &self.source, embedders: &self.servers.embedders };
        plan(&self.ports, world, request).await
    }

    async fn plan(&self, declared: Vec<Declaration>) -> Planned {
        self.try_plan(&request(declared)).await.unwrap()
    }
}

fn identity() -> EmbedderIdentity {
    let model = FakeEmbedder::new(DIMENSION).model().to_owned();
    EmbedderIdentity { model, revision: FakeEmbedder::REVISION.to_owned(), dimension: DIMENSION }
}

fn request(declared: Vec<Declaration>) -> PlanRequest {
    PlanRequest { declared, short_form: false, options: ApplyOptions::default(), sample: 100, reuse: true }
}

fn changed(change: impl Fn(&mut Declaration)) -> Declaration {
    let mut declaration = declaration("tickets");
    change(&mut declaration);
    declaration
}

fn only(planned: &Planned) -> &IndexPlan {
    let [only] = planned.plan.indexes.as_slice() else { panic!("{planned:?}") };
    only
}

#[tokio::test]
async fn new_installation_creates_and_fills_its_indexes() {
    let world = World::new();
    let planned = world.plan(vec![declaration("tickets")]).await;
    let plan = only(&planned);
    assert_eq!((plan.action, plan.generation), (Action::Create, Some(1)));
    assert_eq!(plan.details, ["model fake:4, 4 dimensions"]);
    let cost = plan.cost.as_ref().unwrap();
    assert_eq!((cost.documents, cost.texts, cost.points, cost.sampled), (3, 3, 3, 3));
    assert_eq!((cost.vector_bytes, cost.rate, cost.seconds), (Some(3 * 4 * 4), RateSource::Sampled, Some(1)));
    assert!(planned.plan.todo && planned.plan.running.is_empty());
    assert_eq!(planned.plan.warnings, ["no producer has run yet: its first start applies the declarations"]);
    assert_eq!(save(&world.ports, &planned, false).await.unwrap(), Submission::Saved);
    assert_eq!(world.servers.streams.required_layout(), Some(Catalog::LAYOUT));
    let again = world.plan(vec![declaration("tickets")]).await;
    assert!(!again.plan.todo && again.plan.running.len() == 1, "{again:?}");
    assert_eq!(save(&world.ports, &again, false).await.unwrap(), Submission::Saved, "nothing had to be saved");
}

#[tokio::test]
async fn wiped_store_is_restored_by_the_producer() {
    let world = World::new();
    let collection = world.servers.collections.index("tickets.g2");
    collection.prepare(DIMENSION).await.unwrap();
    assert!(world.try_plan(&request(vec![declaration("tickets")])).await.is_ok(), "a collection without a record");
    let mut lost = catalog(7, &[("tickets", State::Serving)]);
    let tickets = lost.indexes.get_mut(&index("tickets")).unwrap();
    let first = tickets.generations.remove(&1).unwrap();
    tickets.generations.insert(2, first);
    let record = tickets.record(&index("tickets"), 2, 7).unwrap();
    collection.set_record(&record).await.unwrap();
    let error = world.try_plan(&request(vec![declaration("tickets")])).await.unwrap_err();
    assert!(error.message.contains("\"tickets.g2\"") && error.hint.is_some(), "{error}");
    assert!(world.try_plan(&request(vec![declaration("notes")])).await.is_ok());
}

#[tokio::test]
async fn model_change_embeds_every_text_and_names_both_dimensions() {
    let world = World::serving().await;
    world.servers.embedders.serve(FakeEmbedder::named("hash:64", 64));
    let planned = world.plan(vec![changed(|declaration| declaration.embedding.model = "hash:64".into())]).await;
    let plan = only(&planned);
    assert_eq!((plan.action, plan.parts.as_slice()), (Action::Generation, [Part::Embedding].as_slice()));
    assert_eq!(plan.details, ["model fake:4 → hash:64, 4 → 64 dimensions"]);
    let cost = plan.cost.as_ref().unwrap();
    assert_eq!((cost.texts, cost.vector_bytes), (3, Some(3 * 64 * 4)));
    assert_eq!(planned.plan.warnings, ["no producer is running: nothing advances until one starts"]);
}

#[tokio::test]
async fn vectors_in_place_and_in_other_indexes_are_not_computed_again() {
    let world = World::serving().await;
    let payload = world.plan(vec![changed(|declaration| declaration.payload.full = true)]).await;
    let cost = only(&payload).cost.as_ref().unwrap();
    assert_eq!((only(&payload).action, cost.documents, cost.texts), (Action::Payload, 3, 0));
    assert_eq!((cost.seconds, cost.rate), (None, RateSource::Unknown));
    let template = |declaration: &mut Declaration| {
        declaration.text.template = Some("{{ subject | replace('late', 'delayed') }}\n{{ status }}".to_owned());
    };
    let text = world.plan(vec![changed(template)]).await;
    let cost = only(&text).cost.as_ref().unwrap();
    assert_eq!((only(&text).action, cost.documents, cost.texts), (Action::Text, 3, 1));
    let fourth = world.plan(vec![declaration("tickets"), declaration("notes")]).await;
    let notes = &fourth.plan.indexes[0];
    assert_eq!((notes.index.as_str(), notes.action, notes.cost.as_ref().unwrap().texts), ("notes", Action::Create, 0));
    let layout = world.plan(vec![changed(|declaration| declaration.collection.shard_number = Some(6))]).await;
    let cost = only(&layout).cost.as_ref().unwrap();
    assert_eq!((only(&layout).action, cost.documents, cost.texts), (Action::Generation, 3, 0));
    let request = PlanRequest { reuse: false, ..request(vec![changed(|one| one.payload.full = true)]) };
    let without = world.try_plan(&request).await.unwrap();
    assert_eq!(only(&without).cost.as_ref().unwrap().texts, 3);
}

#[tokio::test]
async fn time_of_what_embeds_nothing_follows_from_the_last_snapshot() {
    let world = World::serving().await;
    let mut measured = world.servers.streams.catalog().load().await.unwrap().0;
    measured.revision += 1;
    measured.indexes.get_mut(&index("tickets")).unwrap().generations.get_mut(&1).unwrap().pace = Some(2);
    world.servers.apply(&measured).await;
    let payload = world.plan(vec![changed(|declaration| declaration.payload.full = true)]).await;
    let cost = only(&payload).cost.as_ref().unwrap();
    assert_eq!((cost.seconds, cost.rate), (Some(2), RateSource::Measured));
}

#[tokio::test]
async fn filter_counts_what_enters_and_what_leaves() {
    let world = World::serving().await;
    world.source.insert("tickets", json!({"_id": 4, "subject": "draft", "status": "draft"}));
    let open = changed(|declaration| declaration.filter = Some(SourceFilter(r#"{"status": "open"}"#.to_owned())));
    let planned = world.plan(vec![open]).await;
    let cost = only(&planned).cost.as_ref().unwrap();
    assert_eq!((only(&planned).action, cost.documents, cost.removed), (Action::Adjust, 0, 1));
}

#[tokio::test]
async fn what_the_source_refuses_is_named_by_index_and_not_submitted() {
    let world = World::serving().await;
    let wrong = || changed(|one| one.filter = Some(SourceFilter(r#"{"$where": "true"}"#.to_owned())));
    let planned = world.plan(vec![wrong()]).await;
    let [refused] = planned.plan.refused.as_slice() else { panic!("{planned:?}") };
    assert_eq!(refused.index, Some(index("tickets")));
    assert!(refused.reason.contains("$where"), "{refused:?}");
    assert!(only(&planned).cost.is_none());
    assert!(save(&world.ports, &planned, true).await.is_err());
    let mut other = wrong();
    other.name = index("notes");
    let options = ApplyOptions { only: [index("tickets")].into(), ..ApplyOptions::default() };
    let beside = PlanRequest { options, ..request(vec![declaration("tickets"), other]) };
    assert!(world.try_plan(&beside).await.unwrap().plan.refused.is_empty(), "the other index is not planned");
    world.source.faults().always("check", Fault::unreachable());
    let error = world.try_plan(&request(vec![declaration("tickets")])).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
}

#[tokio::test]
async fn rounding_that_the_embedder_does_not_compute_is_refused_with_the_fix() {
    let world = World::serving().await;
    let other = FakeEmbedder::named("other", DIMENSION);
    let refusal = PortError::transient("computes other in f32").because(Server::EMBEDDER, Cause::Refused);
    other.faults().always("info", Fault::Refused(refusal.with_hint("set the precision to \"auto\"")));
    world.servers.embedders.serve(other.clone());
    let rounded = |declaration: &mut Declaration| {
        declaration.embedding.model = "other".to_owned();
        declaration.embedding.rounding = Rounding::Int8;
    };
    let planned = world.plan(vec![changed(rounded)]).await;
    let [refused] = planned.plan.refused.as_slice() else { panic!("{planned:?}") };
    assert_eq!((refused.index.as_ref(), refused.reason.as_str()), (Some(&index("tickets")), "computes other in f32"));
    assert_eq!(refused.hint, "set the precision to \"auto\"");
    assert!(save(&world.ports, &planned, true).await.is_err());
    assert!(planned.plan.warnings.iter().all(|warning| !warning.contains("does not answer")), "{planned:?}");

    other.faults().always("info", Fault::unreachable());
    let planned = world.plan(vec![changed(rounded)]).await;
    assert!(planned.plan.refused.is_empty(), "an embedder that does not answer may compute it: {planned:?}");
}

#[tokio::test]
async fn short_form_with_a_rounding_that_was_never_computed_is_not_adopted() {
    let world = World::new().with_checkpoint().await;
    let mut rounded = declaration("documents");
    rounded.embedding.model = "other".to_owned();
    rounded.embedding.rounding = Rounding::Int8;
    world.servers.streams.catalog().set_plain(&rounded).await.unwrap();
    let other = FakeEmbedder::named("other", DIMENSION);
    let refusal = PortError::transient("computes other in f32").because(Server::EMBEDDER, Cause::Refused);
    other.faults().always("info", Fault::Refused(refusal));
    world.servers.embedders.serve(other);
    let planned = world.plan(vec![rounded]).await;
    assert_eq!(planned.plan.refused.len(), 1, "{planned:?}");
}

#[tokio::test]
async fn dropped_index_names_its_points() {
    let world = World::serving().await;
    world.servers.collections.index("tickets.g1").prepare(DIMENSION).await.unwrap();
    let planned = world.plan(Vec::new()).await;
    assert_eq!(only(&planned).lines(), ["drop: collection tickets.g1 with 0 points"]);
}

#[tokio::test]
async fn settings_without_indexes_do_not_drop_all_of_them() {
    let world = World::serving().await;
    let plan = |name: &str, only: &[&str]| {
        let only = only.iter().map(|name| index(name)).collect();
        let options = ApplyOptions { only, ..ApplyOptions::default() };
        PlanRequest { short_form: true, options, ..request(vec![declaration(name)]) }
    };
    let planned = world.try_plan(&plan("documents", &[])).await.unwrap();
    let [refused] = planned.plan.refused.as_slice() else { panic!("{planned:?}") };
    assert!(refused.reason.contains("every applied index would be dropped"), "{refused:?}");
    assert!(save(&world.ports, &planned, true).await.is_err());
    for (name, only) in [("tickets", &[][..]), ("documents", &["tickets"][..])] {
        let planned = world.try_plan(&plan(name, only)).await.unwrap();
        assert!(planned.plan.refused.is_empty(), "{name} {only:?}: {planned:?}");
    }
}

#[tokio::test]
async fn short_form_is_compared_with_what_its_points_were_made_by() {
    let local = || PlanRequest { short_form: true, ..request(vec![declaration("documents")]) };
    let world = World::new();
    assert!(!world.try_plan(&local()).await.unwrap().plan.todo, "its first start makes it");
    let mut plain = declaration("documents");
    plain.payload.full = true;
    world.servers.streams.catalog().set_plain(&plain).await.unwrap();
    let planned = world.with_checkpoint().await.try_plan(&local()).await.unwrap();
    assert_eq!((only(&planned).action, planned.plan.revision), (Action::Payload, 0));
}

#[tokio::test]
async fn short_form_behind_an_alias_keeps_its_collection() {
    let world = World::new().with_checkpoint().await;
    world.servers.streams.catalog().set_plain(&declaration("documents")).await.unwrap();
    world.servers.collections.index("docs_v1").prepare(DIMENSION).await.unwrap();
    world.servers.collections.set_alias("documents", Some("docs_v1"));
    world.servers.embedders.serve(FakeEmbedder::named("hash:64", 64));
    let mut other = declaration("documents");
    other.embedding.model = "hash:64".to_owned();
    let planned = world.plan(vec![other]).await;
    let lines = only(&planned).lines();
    assert!(lines[0].ends_with("the alias documents leaves collection docs_v1, which stays"), "{lines:?}");
    assert!(lines[2].ends_with("searches: no interruption · rollback: not possible"), "{lines:?}");
    let taken = world.plan(vec![declaration("documents"), declaration("tickets")]).await;
    assert!(taken.plan.refused.is_empty(), "{taken:?}");
    world.servers.collections.set_alias("tickets", Some("docs_v1"));
    let taken = world.plan(vec![declaration("documents"), declaration("tickets")]).await;
    assert!(taken.plan.refused[0].reason.contains("is an alias of collection \"docs_v1\""), "{taken:?}");
}

#[tokio::test]
async fn declarations_replace_the_short_form_once_earlier_releases_are_gone() {
    let world = World::new().with_checkpoint().await;
    let error = world.try_plan(&request(vec![declaration("documents")])).await.unwrap_err();
    assert!(error.message.contains("the settings by which the index was made are unknown"), "{error}");
    world.servers.streams.catalog().set_plain(&declaration("documents")).await.unwrap();
    world.reports.publish("old-1", &json!({"format": FORMAT, "version": "0.9"}).to_string());
    let planned = world.plan(vec![declaration("documents")]).await;
    assert!(planned.plan.todo && planned.raises_layout());
    assert_eq!(only(&planned).lines(), ["no change: its declaration replaces the short form"]);
    assert_eq!(
        planned.plan.warnings.last().unwrap(),
        "processes of an earlier release have to be upgraded first: old-1"
    );
    let error = save(&world.ports, &planned, false).await.unwrap_err();
    assert!(error.message.ends_with("would stop: old-1"), "{error}");
    assert_eq!(save(&world.ports, &planned, true).await.unwrap(), Submission::Saved);
    assert!(world.servers.streams.catalog().revision().await.unwrap() > 0);
}

#[tokio::test]
async fn plan_of_another_catalog_has_to_be_made_again() {
    let world = World::serving().await;
    let change = || vec![changed(|declaration| declaration.payload.full = true)];
    let planned = world.plan(change()).await;
    let mut newer = world.servers.streams.catalog().load().await.unwrap().0;
    newer.revision += 1;
    world.servers.apply(&newer).await;
    assert_eq!(save(&world.ports, &planned, false).await.unwrap(), Submission::Changed);
    let again = world.plan(change()).await;
    assert!(again.is_same(&planned) && !again.is_same(&world.plan(Vec::new()).await));
    assert_eq!(save(&world.ports, &again, false).await.unwrap(), Submission::Saved);
    assert_eq!(again.watched().indexes, [index("tickets")].into());
}
