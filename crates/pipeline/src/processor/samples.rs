//! Models, planners, lanes and changes for tests.

use std::sync::Arc;

use tidewheel_core::catalog::{Catalog, Declaration, TargetId};
use tidewheel_core::change::{Change, Operation, Route, Stamp};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Delivery, EmbedderInfo, EntryId};
use tidewheel_core::tokens::Words;
use tidewheel_core::version::{ClusterTime, Version};
use tidewheel_testkit::fakes::embedder::FakeEmbedder;

use super::lane::{Lanes, Planners};
use super::model::Model;
use super::options::{Blank, SettingNames};
use super::planner::{Planner, Texts};
use crate::targets::samples::{DIMENSION, Servers, declaration, first};
use crate::targets::{LocalTarget, Targets};

/// The revision of catalogs here.
pub(super) const REVISION: u64 = 7;

/// A model of texts of up to 256 words.
pub(super) fn model() -> Arc<Model> {
    named("hash:2")
}

/// A model of this name.
pub(super) fn named(model: &str) -> Arc<Model> {
    let (model, revision) = (model.to_owned(), "1".to_owned());
    let info = EmbedderInfo { model, revision, dimension: DIMENSION, max_tokens: 256, load: None };
    Arc::new(Model::new(Arc::new(FakeEmbedder::new(DIMENSION)), info, Arc::new(Words)))
}

/// The declaration of an index of the field `text`.
pub(super) fn texts(name: &str) -> Declaration {
    let mut declaration = declaration(name);
    declaration.text.fields = vec!["text".into()];
    declaration.chunk.max = 1_000;
    declaration
}

/// A planner for the field `text`.
pub(super) fn planner(prefix: Option<&str>, blank: Blank) -> Arc<Planner> {
    let mut declaration = texts("tickets");
    declaration.text.blank = blank;
    declaration.chunk.prefix = prefix.map(ToOwned::to_owned);
    planner_of(&declaration, model())
}

/// A planner of this declaration.
pub(super) fn planner_of(declaration: &Declaration, model: Arc<Model>) -> Arc<Planner> {
    let texts = Texts::new(declaration, &SettingNames::SHORT_FORM).unwrap();
    Arc::new(Planner::new(texts, &declaration.chunk, model))
}

/// The lane of local settings.
pub(super) fn local(declaration: Declaration) -> Lanes {
    let local = LocalTarget { declaration: Arc::new(declaration), ..Servers::new().local() };
    prepared(Lanes::new(Targets::fixed(&local).current()))
}

/// The lanes of a catalog, all with the same model.
pub(super) async fn applied(catalog: &Catalog) -> Lanes {
    let servers = Servers::new();
    servers.apply(catalog).await;
    prepared(Lanes::new(servers.targets().at_least(catalog.revision).await.unwrap()))
}

fn prepared(lanes: Lanes) -> Lanes {
    let (model, planners) = (model(), Planners::default());
    for number in 0..lanes.len() {
        lanes.get(number).prepare(model.clone(), &planners).unwrap();
    }
    lanes
}

/// A change of `shop.tickets` at this second, of a document with a text.
pub(super) fn change(operation: Operation, key: u8, time: u32) -> Change {
    Change {
        operation,
        namespace: Namespace::new("shop", "tickets"),
        key: if operation.is_of_collection() { String::new() } else { key.to_string() },
        id: key.to_string(),
        version: Version { epoch: 0, time: ClusterTime { seconds: time, increment: 1 }, ordinal: 1, replay: 0 },
        committed_at: 0,
        document: operation.has_document().then(|| format!(r#"{{"_id":{key},"text":"version {time}"}}"#)),
        route: Route::Plain,
    }
}

/// A change for the first generations of these indexes.
pub(super) fn routed(change: Change, targets: &[&str], leaves: &[&str]) -> Change {
    let ids = |names: &[&str]| -> Vec<TargetId> { names.iter().map(|name| first(name)).collect() };
    let stamp = Stamp { catalog: REVISION, targets: ids(targets), leaves: ids(leaves) };
    Change { route: stamp.into(), ..change }
}

/// Deliveries of these changes, as the entries `0-0`, `1-0` and so on.
pub(super) fn deliveries(changes: impl IntoIterator<Item = Change>) -> Vec<Delivery<Change>> {
    let delivery = |(number, change): (usize, Change)| Delivery { id: entry(number), record: Ok(change) };
    changes.into_iter().enumerate().map(delivery).collect()
}

/// The entry of this number.
pub(super) fn entry(number: usize) -> EntryId {
    EntryId(format!("{number}-0"))
}
