//! Where replayed changes go: to the targets of the applied catalog, of one index or of all.
//!
//! The catalog may change while a replay runs. Each page is routed by the catalog as it is then, so that a replay adds
//! nothing to a target that no longer selects it: after a sweep for another filter, nothing would remove it again.

use std::sync::{Arc, Mutex, PoisonError};

use tidewheel_core::catalog::{
    Catalog, Declaration, Generation, IndexName, OnDeadLetter, Routed, Routes, TargetId, routes,
};
use tidewheel_core::change::{Change, Operation, Route, Stamp};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Coverage, PortResult, SourceFilter, SourceRow};

use crate::targets::Targets;

/// The targets of a replay. Cheap to clone.
#[derive(Clone)]
pub struct Destinations {
    from: From,
    /// The last routing.
    known: Arc<Mutex<Option<Arc<Routing>>>>,
}

#[derive(Clone)]
enum From {
    Applied(Arc<Targets>, Option<IndexName>),
    Fixed(Arc<Catalog>),
}

impl Destinations {
    /// All targets of this index, or else of every one.
    pub fn new(targets: Arc<Targets>, index: Option<IndexName>) -> Self {
        Self { from: From::Applied(targets, index), known: Arc::default() }
    }

    /// The plain target of the short form, regardless of any catalog.
    pub fn plain(declaration: Arc<Declaration>) -> Self {
        Self { from: From::Fixed(Arc::new(Catalog::short_form(declaration))), known: Arc::default() }
    }

    /// The routing by the catalog as it is now.
    ///
    /// # Errors
    /// Those of the catalog's store. Fatal if the catalog does not have the index.
    pub(super) async fn now(&self) -> PortResult<Arc<Routing>> {
        let (applied, index) = match &self.from {
            From::Fixed(catalog) => return Ok(self.routing(catalog, None)),
            From::Applied(targets, index) => (targets.reload().await?, index.as_ref()),
        };
        if let Some(index) = index
            && !applied.catalog().indexes.contains_key(index)
        {
            return Err(PortError::fatal(format!("index {:?} is not in the applied catalog", index.as_str())));
        }
        Ok(self.routing(applied.catalog(), index))
    }

    fn routing(&self, catalog: &Catalog, index: Option<&IndexName>) -> Arc<Routing> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(routing) = known.as_ref().filter(|routing| routing.revision() == catalog.revision) {
            return routing.clone();
        }
        known.insert(Arc::new(Routing::new(catalog, index))).clone()
    }
}

/// The routes of one catalog to the selected targets.
pub(super) struct Routing {
    catalog: Catalog,
    routes: Routes,
}

impl Routing {
    fn new(catalog: &Catalog, index: Option<&IndexName>) -> Self {
        let mut catalog = catalog.clone();
        catalog.indexes.retain(|name, _| index.is_none_or(|index| index == name));
        for generation in catalog.indexes.values_mut().flat_map(|index| index.generations.values_mut()) {
            // What a replay cannot read, it skips.
            Arc::make_mut(&mut generation.declaration).rules.on_dead_letter = OnDeadLetter::Keep;
        }
        Self { routes: routes(&catalog), catalog }
    }

    /// The revision of the catalog.
    pub(super) fn revision(&self) -> u64 {
        self.catalog.revision
    }

    /// The routes.
    pub(super) fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What the selected targets cover, and their filters.
    pub(super) fn coverage(&self) -> &Arc<Coverage> {
        self.routes.coverage()
    }

    /// The condition that the documents of a collection have to match to belong to any selected target; `None` if there
    /// is none.
    pub(super) fn condition(&self, namespace: &Namespace) -> Option<SourceFilter> {
        let declarations = self.catalog.routed().map(|(_, generation)| &generation.declaration);
        let covering = declarations.filter(|declaration| declaration.source.covers(namespace));
        let mut filters: Vec<&str> =
            covering.map(|declaration| declaration.filter.as_ref().map(|filter| &*filter.0)).collect::<Option<_>>()?;
        filters.sort_unstable();
        filters.dedup();
        match filters.as_slice() {
            [] => None,
            [only] => Some(SourceFilter((*only).to_owned())),
            several => Some(SourceFilter(format!(r#"{{"$or": [{}]}}"#, several.join(", ")))),
        }
    }

    /// The route of a row, judged by the filters of the coverage; `None` if it belongs to no selected target.
    pub(super) fn row(&self, namespace: &Namespace, row: &SourceRow) -> Option<Route> {
        self.routes.row(namespace, row, &[], |_| true).map(Routed::into_route)
    }

    /// The generation of a selected target that changes are routed to.
    pub(super) fn generation(&self, id: &TargetId) -> Option<&Generation> {
        self.catalog.generation(id).filter(|generation| generation.state.is_routed())
    }

    /// Whether the catalog of this revision has routed to the selected target as it is now: a dropped index may have had
    /// one of the same name, with other documents and vectors.
    fn has_routed(&self, id: &TargetId, revision: u64) -> bool {
        self.generation(id).is_some_and(|generation| generation.since <= revision)
    }

    /// The selected target of entries that name none.
    pub(super) fn plain(&self) -> Option<TargetId> {
        let plain = |(id, _): &(TargetId, &Generation)| {
            self.catalog.indexes.get(&id.index).is_some_and(|index| index.is_plain(&id.index, id.generation))
        };
        self.catalog.routed().find(plain).map(|(id, _)| id)
    }

    /// The change of an entry for those of its targets that are selected; `None` if none is left.
    pub(super) fn restricted(&self, change: Change) -> Option<Change> {
        let stamped = change.route.stamp().map(|stamp| stamp.catalog);
        self.for_targets(change, |id| stamped.is_none_or(|revision| self.has_routed(id, revision)))
    }

    /// The change for those of its selected targets that are `wanted`. It still removes its document from those that it
    /// leaves.
    pub(super) fn for_targets(&self, change: Change, wanted: impl Fn(&TargetId) -> bool) -> Option<Change> {
        let Some(stamp) = change.route.stamp() else {
            return self.plain().is_some_and(|plain| wanted(&plain)).then_some(change);
        };
        let selected = |id: &&TargetId| self.generation(id).is_some();
        let leaves: Vec<TargetId> = stamp.leaves.iter().filter(selected).cloned().collect();
        let targets: Vec<TargetId> = stamp.targets.iter().filter(selected).filter(|id| wanted(id)).cloned().collect();
        let catalog = self.revision();
        match (targets.is_empty(), leaves.is_empty()) {
            (false, _) => Some(Change { route: Stamp { catalog, targets, leaves }.into(), ..change }),
            (true, true) => None,
            // No target receives the document any more.
            (true, false) => Some(Change {
                operation: Operation::Delete,
                document: None,
                route: Stamp { catalog, targets: leaves, leaves: Vec::new() }.into(),
                ..change
            }),
        }
    }

    /// Whether the target of a record is selected, and still the one that it was made for.
    pub(super) fn selects(&self, record: &Embedded) -> bool {
        match &record.target {
            Some(target) => self.has_routed(&target.id, target.catalog),
            None => self.plain().is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::State;
    use tidewheel_testkit::contracts::samples::{REVISION, change, embedded, embedded_for, routed, targets};

    use super::*;
    use crate::targets::samples::{Servers, catalog, declaration, first};

    /// Tickets and notes serve, users are being deleted.
    fn three(revision: u64) -> Catalog {
        let serving = State::Serving;
        catalog(revision, &[("tickets", serving, true), ("notes", serving, true), ("users", State::Retiring, true)])
    }

    fn names(change: Option<Change>) -> Option<(Vec<TargetId>, Vec<TargetId>, bool)> {
        let change = change?;
        let Stamp { targets, leaves, .. } = change.route.stamp()?.clone();
        Some((targets, leaves, change.document.is_some()))
    }

    #[tokio::test]
    async fn destinations_follow_the_catalog() {
        let servers = Servers::new();
        let destinations = Destinations::new(Arc::new(servers.targets()), None);
        let routing = destinations.now().await.unwrap();
        assert_eq!((routing.revision(), routing.plain()), (0, Some(first("documents"))));
        assert_eq!(routing.restricted(change(1)), Some(change(1)), "unchanged");
        assert!(routing.selects(&embedded(1)));
        servers.apply(&three(7)).await;
        let routing = destinations.now().await.unwrap();
        assert_eq!((routing.revision(), routing.plain()), (7, None));
        assert_eq!(routing.restricted(change(1)), None, "the plain index is gone");
        assert!(!routing.selects(&embedded(1)) && routing.selects(&embedded_for(1, "tickets.g1")));
        assert!(Arc::ptr_eq(&routing, &destinations.now().await.unwrap()));
        let plain = Destinations::plain(Arc::new(declaration("documents")));
        assert_eq!(plain.now().await.unwrap().revision(), 0);
    }

    #[tokio::test]
    async fn entries_keep_the_selected_targets_that_are_still_routed() {
        let servers = Servers::new();
        servers.apply(&three(7)).await;
        let of = |index: Option<&str>| {
            let index = index.map(|name| IndexName::new(name).unwrap());
            Destinations::new(Arc::new(servers.targets()), index)
        };
        let all = of(None).now().await.unwrap();
        let entry = || routed(1, &["tickets.g1", "users.g1", "old.g1"], &["notes.g1"]);
        let change = all.restricted(entry()).unwrap();
        assert_eq!(change.route.catalog(), 7);
        assert_eq!(names(Some(change)), Some((targets(&["tickets.g1"]), targets(&["notes.g1"]), true)));
        let tickets = of(Some("tickets")).now().await.unwrap();
        assert_eq!(names(tickets.restricted(entry())), Some((targets(&["tickets.g1"]), Vec::new(), true)));
        let notes = of(Some("notes")).now().await.unwrap();
        let removal = notes.restricted(entry()).unwrap();
        assert_eq!(removal.operation, Operation::Delete);
        assert_eq!(names(Some(removal)), Some((targets(&["notes.g1"]), Vec::new(), false)));
        assert_eq!(notes.restricted(routed(1, &["tickets.g1"], &["old.g1"])), None);
        let unknown = of(Some("x")).now().await.err().unwrap();
        assert!(unknown.message.contains("\"x\" is not in the applied catalog"), "{unknown}");
    }

    #[test]
    fn entries_of_a_dropped_index_do_not_reach_its_successor_of_the_same_name() {
        let old = Routing::new(&three(REVISION), None);
        assert!(old.selects(&embedded_for(1, "tickets.g1")));
        let new = Routing::new(&three(REVISION + 1), None);
        assert!(!new.selects(&embedded_for(1, "tickets.g1")));
        assert_eq!(new.restricted(routed(1, &["tickets.g1"], &[])), None);
        let removal = new.restricted(routed(1, &["tickets.g1"], &["notes.g1"])).unwrap();
        assert_eq!(names(Some(removal)), Some((targets(&["notes.g1"]), Vec::new(), false)));
        assert!(new.for_targets(routed(1, &["tickets.g1"], &[]), |_| true).is_some(), "judged again, it is current");
    }

    #[test]
    fn condition_is_that_of_any_target_of_the_collection() {
        let namespace = Namespace::new("shop", "tickets");
        let mut applied = three(7);
        let condition = |catalog: &Catalog| Routing::new(catalog, None).condition(&namespace).map(|filter| filter.0);
        assert_eq!(condition(&applied), None);
        for (name, filter) in [("tickets", r#"{"open": true}"#), ("notes", r#"{"open": false}"#)] {
            assert_eq!(condition(&applied), None, "one index has all documents");
            let index = applied.indexes.get_mut(&first(name).index).unwrap();
            let generation = index.generations.get_mut(&1).unwrap();
            Arc::make_mut(&mut generation.declaration).filter = Some(SourceFilter(filter.to_owned()));
        }
        let both = condition(&applied);
        assert_eq!(both.as_deref(), Some(r#"{"$or": [{"open": false}, {"open": true}]}"#));
        applied.indexes.remove(&first("notes").index);
        assert_eq!(condition(&applied).as_deref(), Some(r#"{"open": true}"#));
    }
}
