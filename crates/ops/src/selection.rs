//! Which indexes a use case concerns: the one that the operator names, or else the only one, or all.

use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, IndexName};
use tidewheel_core::change::Stamp;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{FoundEntry, PortResult};
use tidewheel_pipeline::targets::{Applied, Target, Targets};

use crate::within;

/// Maximum time for the store of the catalog to answer, if local settings may suffice.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The names of the selected indexes, sorted: the wanted one, or else all.
///
/// # Errors
/// Fatal, if there is no such index, or none at all.
pub fn indexes(catalog: &Catalog, wanted: Option<&IndexName>) -> PortResult<Vec<IndexName>> {
    if catalog.indexes.is_empty() {
        return Err(PortError::fatal("no index is applied yet")
            .with_hint("run `tidewheel run`: its first start applies the declared indexes"));
    }
    match wanted {
        None => Ok(catalog.indexes.keys().cloned().collect()),
        Some(name) if catalog.indexes.contains_key(name) => Ok(vec![name.clone()]),
        Some(name) => Err(PortError::fatal(format!("invalid --index {:?}: {}", name.as_str(), expected(catalog)))),
    }
}

/// The name of the selected index of a use case that concerns exactly one: the wanted one, or else the only one.
///
/// # Errors
/// Fatal, if there is no such index, or if there are several and none is wanted.
pub fn only(catalog: &Catalog, wanted: Option<&IndexName>) -> PortResult<IndexName> {
    let mut names = indexes(catalog, wanted)?;
    if names.len() > 1 {
        return Err(PortError::fatal(format!("missing --index: {}", expected(catalog))));
    }
    Ok(names.remove(0))
}

/// The catalog that only has the selected indexes.
///
/// # Errors
/// Those of [`indexes`].
pub fn restricted(catalog: &Catalog, wanted: Option<&IndexName>) -> PortResult<Catalog> {
    let names = indexes(catalog, wanted)?;
    let indexes = names.into_iter().filter_map(|name| Some((name.clone(), catalog.indexes.get(&name)?.clone())));
    Ok(Catalog { revision: catalog.revision, indexes: indexes.collect(), ..Catalog::default() })
}

/// The targets that searches of the selected indexes read.
///
/// # Errors
/// Those of [`indexes`]; fatal too, if none of them has a collection yet.
pub fn serving(applied: &Applied, wanted: Option<&IndexName>) -> PortResult<Vec<Arc<Target>>> {
    let names = indexes(applied.catalog(), wanted)?;
    let targets: Vec<Arc<Target>> = names.iter().filter_map(|name| applied.serving(name).cloned()).collect();
    match names.first() {
        Some(name) if targets.is_empty() => Err(not_created(name)),
        _ => Ok(targets),
    }
}

/// Whether an entry concerns a target, or may do so because it cannot be read. One without targets concerns the plain one.
pub(crate) fn concerns(entry: &FoundEntry, target: &Target) -> bool {
    let Ok(change) = &entry.change else { return true };
    let names = |stamp: &Stamp| stamp.targets.iter().chain(&stamp.leaves).any(|named| *named == target.id);
    change.route.stamp().map_or(target.plain, names)
}

/// The error of an index without a collection.
pub(crate) fn not_created(name: &IndexName) -> PortError {
    PortError::fatal(format!("index {:?} has no collection yet", name.as_str()))
        .with_hint("run `tidewheel status` to see its progress")
}

fn expected(catalog: &Catalog) -> String {
    let names: Vec<&str> = catalog.indexes.keys().map(IndexName::as_str).collect();
    match names.as_slice() {
        [only] => format!("expected {only}"),
        names => format!("expected one of {}", names.join(", ")),
    }
}

/// The applied catalog. If its store fails and no catalog is known, local settings are used, unless the collection states
/// that a catalog was applied: its points may be made by another model then.
///
/// # Errors
/// Those of the store.
pub(crate) async fn applied_or_local(targets: &Targets) -> PortResult<Arc<Applied>> {
    let error = match within(TIMEOUT, targets.reload()).await {
        Ok(applied) => return Ok(applied),
        Err(error) => error,
    };
    let applied = targets.current();
    if applied.revision() > 0 {
        return Ok(applied);
    }
    let (Some(ports), Some(local)) = (targets.ports(), applied.target(None)) else { return Err(error) };
    let collection = ports.collections.open(&local.generation.collection);
    // Without an answer, the use case itself reports that the index is unreachable.
    match collection.record().await {
        Ok(Some(_)) => Err(error),
        Ok(None) | Err(_) => Ok(applied),
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::State;
    use tidewheel_core::error::ErrorClass;
    use tidewheel_core::ports::{CollectionAdmin as _, IndexWriter as _};
    use tidewheel_testkit::fakes::faults::Fault;

    use super::*;
    use crate::samples::{Servers, catalog, index};

    #[test]
    fn named_index_is_selected_or_else_all() {
        let catalog = catalog(7, &[("tickets", State::Serving), ("notes", State::Serving)]);
        assert_eq!(indexes(&catalog, None).unwrap(), [index("notes"), index("tickets")]);
        assert_eq!(indexes(&catalog, Some(&index("tickets"))).unwrap(), [index("tickets")]);
        assert_eq!(only(&catalog, Some(&index("notes"))).unwrap(), index("notes"));
        let error = indexes(&catalog, Some(&index("users"))).unwrap_err();
        assert_eq!(error.message, "invalid --index \"users\": expected one of notes, tickets");
        assert_eq!(only(&catalog, None).unwrap_err().message, "missing --index: expected one of notes, tickets");
        let kept = restricted(&catalog, Some(&index("notes"))).unwrap();
        assert_eq!((kept.revision, kept.indexes.len()), (7, 1));
    }

    #[test]
    fn only_index_needs_no_name() {
        let catalog = catalog(7, &[("tickets", State::Serving)]);
        assert_eq!(only(&catalog, None).unwrap(), index("tickets"));
        let error = only(&catalog, Some(&index("x"))).unwrap_err();
        assert_eq!(error.message, "invalid --index \"x\": expected tickets");
        let none = only(&Catalog::default(), None).unwrap_err();
        assert!(none.class == ErrorClass::Fatal && none.hint.is_some(), "{none:?}");
    }

    #[tokio::test]
    async fn index_without_a_collection_serves_nothing() {
        let servers = Servers::new();
        let mut created = catalog(7, &[("tickets", State::Creating)]);
        created.indexes.get_mut(&index("tickets")).unwrap().serving = None;
        servers.apply(&created).await;
        let applied = servers.targets().reload().await.unwrap();
        assert!(serving(&applied, None).err().unwrap().message.contains("\"tickets\" has no collection yet"));
    }

    #[tokio::test]
    async fn local_settings_are_used_without_the_store_unless_a_catalog_was_applied() {
        let servers = Servers::new();
        servers.streams.faults().always("revision", Fault::unreachable());
        let targets = servers.targets();
        assert_eq!(applied_or_local(&targets).await.unwrap().revision(), 0);
        let documents = servers.collections.index("documents");
        documents.prepare(4).await.unwrap();
        assert!(applied_or_local(&targets).await.is_ok());
        let applied = catalog(7, &[("tickets", State::Serving)]);
        let record = applied.indexes[&index("tickets")].record(&index("tickets"), 1, 7).unwrap();
        documents.set_record(&record).await.unwrap();
        assert!(applied_or_local(&targets).await.is_err());
        servers.streams.faults().heal();
        servers.apply(&applied).await;
        assert_eq!(applied_or_local(&targets).await.unwrap().revision(), 7);
        servers.streams.faults().always("revision", Fault::unreachable());
        assert_eq!(applied_or_local(&targets).await.unwrap().revision(), 7, "the one that is known");
    }
}
