//! The catalog, and the collections and aliases that it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewheel_core::catalog::{Catalog, State, TargetId};
use tidewheel_core::ports::{IndexInspector, IndexReader, Listed, PortResult};

use super::super::Collection;
use super::super::indexes::{IndexOverview, moved_alias};
use super::{IndexPorts, Looker};
use crate::Probe;

/// Up to this many points, the count is exact.
const EXACT: u64 = 1_000_000;

/// What the index, and the catalog of its collections, returned.
pub(super) struct Indexed {
    pub(super) catalog: Arc<Catalog>,
    pub(super) collection: Probe<Collection>,
    /// `None` if it is unknown, or older than the catalog.
    pub(super) aliases: Option<BTreeMap<String, String>>,
    /// Positions of the running comparisons.
    pub(super) audits: BTreeMap<TargetId, Option<String>>,
}

impl Looker {
    /// The catalog; while it is unreachable, the last known one.
    async fn catalog(&self) -> Arc<Catalog> {
        let Ok(queue) = self.queue() else { return Arc::default() };
        let read = async { self.readable_queue().await?.catalog.read().await };
        match Probe::within(self.timeout, read).await {
            Probe::Known(catalog) => catalog,
            Probe::Unknown(_) => queue.catalog.known(),
        }
    }

    /// The catalog with its collections. The catalog comes first: it names the collections.
    pub(super) async fn indexed(&self) -> Indexed {
        let catalog = self.catalog().await;
        let (collection, listed, audits) = tokio::join!(
            Probe::within(self.timeout, self.collection(&catalog)),
            Probe::within(self.timeout, self.listed(&catalog)),
            Probe::within(self.timeout, self.audits(&catalog)),
        );
        let listed = listed.known().cloned().flatten();
        if let Some(listed) = &listed {
            // What cannot be read in time keeps its last state.
            let _ = Probe::within(self.timeout, self.read_collections(&catalog, listed)).await;
        }
        let aliases = listed.map(|listed| listed.aliases);
        let moved = |aliases: &BTreeMap<String, String>| {
            catalog.indexes.iter().any(|(name, index)| moved_alias(name, index, &[], aliases).is_some())
        };
        // An alias may have moved, as intended, between both looks.
        let is_outdated = aliases.as_ref().is_some_and(moved) && self.catalog().await.revision != catalog.revision;
        Indexed {
            collection,
            aliases: aliases.filter(|_| !is_outdated),
            audits: audits.known().cloned().unwrap_or_default(),
            catalog,
        }
    }

    /// The collection that searches of the first index read.
    async fn collection(&self, catalog: &Catalog) -> PortResult<Collection> {
        let IndexPorts { reader, inspector, collections } = self.index()?;
        match catalog.indexes.keys().next().filter(|_| !catalog.is_short_form()) {
            None => self.inspect(&**reader, &**inspector).await,
            Some(name) => {
                let opened = collections.open(name.as_str());
                self.inspect(&*opened, &*opened).await
            }
        }
    }

    async fn inspect(&self, reader: &dyn IndexReader, inspector: &dyn IndexInspector) -> PortResult<Collection> {
        let state = inspector.index_state().await?;
        // The collection's own count is an estimate; an exact count is expensive for many points.
        let points = match state.collection.as_ref().map(|collection| collection.points) {
            Some(about) if about > EXACT => Some(about),
            _ => reader.count().await?,
        };
        let (version, collection) = (state.version, state.collection);
        Ok(Collection {
            url: self.names.index_url.clone(),
            name: reader.name().to_owned(),
            version,
            exists: collection.is_some(),
            points,
            indexed_vectors: collection.as_ref().map(|collection| collection.indexed_vectors),
            dimension: collection.as_ref().and_then(|collection| collection.dimension),
            status: collection.map(|collection| collection.status),
        })
    }

    /// All collections and aliases; `None` before a catalog is applied.
    async fn listed(&self, catalog: &Catalog) -> PortResult<Option<Listed>> {
        if catalog.is_short_form() {
            return Ok(None);
        }
        self.index()?.collections.list().await.map(Some)
    }

    /// Reads the states of some collections of the catalog, in turn.
    async fn read_collections(&self, catalog: &Catalog, listed: &Listed) -> PortResult<()> {
        let first = catalog.indexes.values().next().and_then(|index| index.serving_generation());
        let first = first.map(|(_, generation)| generation.collection.as_str());
        let names: Vec<&str> = catalog
            .targets()
            .map(|(_, generation)| generation.collection.as_str())
            .filter(|name| Some(*name) != first && listed.collections.contains(*name))
            .collect();
        let next = self.memory().collections.next(&names);
        for name in next {
            let state = self.index()?.collections.open(&name).index_state().await?;
            self.memory().collections.put(name, state.collection);
        }
        Ok(())
    }

    /// The positions of the comparisons that are running.
    async fn audits(&self, catalog: &Catalog) -> PortResult<BTreeMap<TargetId, Option<String>>> {
        let mut audits = BTreeMap::new();
        for (target, generation) in catalog.targets().filter(|(_, generation)| generation.state == State::Comparing) {
            let plain = generation.collection == target.index.as_str();
            let position = self.queue()?.states.target(&target, plain).audit().await?;
            audits.insert(target, position);
        }
        Ok(audits)
    }
}

/// Adds what the first index's collection returned: it is inspected in every overview. Indexes that are declared and not
/// applied may precede it.
pub(super) fn describe_first(indexes: &mut [IndexOverview], collection: Option<&Collection>) {
    let Some(collection) = collection else { return };
    let Some(first) = indexes.iter_mut().find(|index| index.is_read_by(&collection.name)) else { return };
    first.points = collection.points;
    let serving = first.serving.as_ref().map(|serving| serving.generation);
    if let Some(generation) = first.generations.iter_mut().find(|generation| Some(generation.number) == serving) {
        generation.points = collection.points;
        generation.status.clone_from(&collection.status);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overview::samples::declared;

    #[test]
    fn collection_describes_its_own_index_only() {
        let mut overview = declared();
        let mut collection = overview.collection.known().unwrap().clone();
        (collection.name, collection.points) = ("tickets".to_owned(), Some(7));
        describe_first(&mut overview.indexes, Some(&collection));
        let points: Vec<_> = overview.indexes.iter().map(|index| (index.name.as_str(), index.points)).collect();
        assert_eq!(points, [("articles", Some(8_120)), ("tickets", Some(7)), ("users", Some(0))]);
        let serving = overview.indexes[1].serving_generation().unwrap();
        assert_eq!((serving.number, serving.points), (3, Some(7)));
    }
}
