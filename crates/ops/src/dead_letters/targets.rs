//! The targets of dead letters: which indexes they concern, and where a retry sends them.

use tidewheel_core::catalog::{Catalog, Generation, IndexName, TargetId};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::PortResult;

use crate::selection;

/// The targets that an entry names, and the revision of the catalog that decided them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addressed {
    /// Empty for an entry of the short form, which belongs to the plain index.
    pub(super) targets: Vec<TargetId>,
    /// 0 for an entry of the short form.
    pub(super) catalog: u64,
}

impl Addressed {
    /// Whether the entry concerns this target of the catalog.
    pub(super) fn concerns(&self, id: &TargetId, catalog: &Catalog) -> bool {
        if self.targets.is_empty() {
            return catalog.indexes.get(&id.index).is_some_and(|index| index.is_plain(&id.index, id.generation));
        }
        self.targets.contains(id)
    }

    /// Whether the catalog has changed which documents belong to one of the targets, so that its document, in this
    /// collection, may not belong to them any more; or whether one belonged to a dropped index of the same name.
    pub(super) fn is_outdated(&self, namespace: &Namespace, catalog: &Catalog) -> bool {
        let has_changed = |generation: &Generation| {
            let declaration = &generation.declaration;
            let selects = declaration.filter.is_some() || !declaration.source.covers(namespace);
            self.catalog < generation.since || (self.catalog < generation.due && selects)
        };
        !catalog.is_short_form()
            && catalog.routed().any(|(id, generation)| self.concerns(&id, catalog) && has_changed(generation))
    }
}

/// The targets of a parked record.
pub(super) fn addressed(record: &Embedded) -> Addressed {
    if let Some(target) = &record.target {
        return Addressed { targets: vec![target.id.clone()], catalog: target.catalog };
    }
    let stamp = record.change.route.stamp();
    stamp.map_or_else(Addressed::default, |stamp| Addressed {
        targets: stamp.targets.iter().chain(&stamp.leaves).cloned().collect(),
        catalog: stamp.catalog,
    })
}

/// An index whose dead letters are selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfIndex {
    name: IndexName,
    /// Whether entries of the short form, which name no index, belong to it.
    is_plain: bool,
}

impl OfIndex {
    /// Selects an index of the catalog.
    ///
    /// # Errors
    /// Fatal, if there is no such index.
    pub fn new(catalog: &Catalog, name: &IndexName) -> PortResult<Self> {
        selection::indexes(catalog, Some(name))?;
        let is_plain = catalog.indexes.get(name).is_some_and(|index| index.plain);
        Ok(Self { name: name.clone(), is_plain })
    }

    /// Whether a record concerns the index.
    pub(super) fn holds(&self, record: &Embedded) -> bool {
        let Addressed { targets, .. } = addressed(record);
        if targets.is_empty() { self.is_plain } else { targets.iter().any(|target| target.index == self.name) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidewheel_core::catalog::{Selector, State};
    use tidewheel_testkit::contracts::samples::{REVISION, change, embedded, embedded_for, routed};

    use super::*;
    use crate::samples::{catalog, declaration, filtered, index, target};

    fn of_stage_1(change: tidewheel_core::change::Change) -> Embedded {
        Embedded::without_vectors(change)
    }

    #[test]
    fn record_concerns_the_targets_that_it_names() {
        let routed = addressed(&of_stage_1(routed(1, &["tickets.g1"], &["notes.g1"])));
        assert_eq!(routed, Addressed { targets: vec![target("tickets.g1"), target("notes.g1")], catalog: REVISION });
        assert_eq!(addressed(&embedded_for(1, "tickets.g2")).targets, [target("tickets.g2")]);
        for plain in [of_stage_1(change(1)), embedded(1)] {
            assert_eq!(addressed(&plain), Addressed::default());
        }
    }

    #[test]
    fn records_without_targets_belong_to_the_plain_index() {
        let short_form = Catalog::short_form(Arc::new(declaration("documents")));
        let plain = of_stage_1(change(1));
        assert!(OfIndex::new(&short_form, &index("documents")).unwrap().holds(&plain));
        assert!(addressed(&plain).concerns(&target("documents.g1"), &short_form));
        let applied = catalog(7, &[("tickets", State::Serving), ("notes", State::Serving)]);
        let of = |name: &str| OfIndex::new(&applied, &index(name)).unwrap();
        assert!(!of("tickets").holds(&plain) && !addressed(&plain).concerns(&target("tickets.g1"), &applied));
        let record = of_stage_1(routed(1, &["tickets.g1"], &[]));
        assert!(of("tickets").holds(&record) && !of("notes").holds(&record));
        assert!(OfIndex::new(&applied, &index("users")).is_err());
    }

    #[test]
    fn record_is_outdated_once_its_targets_select_other_documents() {
        let namespace = Namespace::new("shop", "tickets");
        let record = addressed(&of_stage_1(routed(1, &["tickets.g1"], &[])));
        let of = |catalog: &Catalog| record.is_outdated(&namespace, catalog);
        let created = |revision: u64| catalog(revision, &[("tickets", State::Serving), ("notes", State::Serving)]);
        let later = |revision: u64| {
            let mut catalog = created(revision);
            for generation in catalog.indexes.values_mut().flat_map(|index| index.generations.values_mut()) {
                generation.since = REVISION;
            }
            catalog
        };
        assert!(!of(&later(REVISION + 1)), "the same documents");
        assert!(!of(&created(REVISION)) && of(&created(REVISION + 1)), "an index that was created again");
        assert!(of(&filtered(later(REVISION + 1), "tickets", "{\"open\": true}")));
        assert!(!of(&filtered(later(REVISION), "tickets", "{\"open\": true}")), "it was routed by this filter");
        assert!(!of(&filtered(later(REVISION + 1), "notes", "{\"open\": true}")), "another index");
        let mut elsewhere = later(REVISION + 1);
        let tickets = elsewhere.indexes.get_mut(&index("tickets")).unwrap();
        let generation = tickets.generations.get_mut(&1).unwrap();
        Arc::make_mut(&mut generation.declaration).source = Selector::of_database("shop", &["users"]);
        assert!(of(&elsewhere));
    }
}
