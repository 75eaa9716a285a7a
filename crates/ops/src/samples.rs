//! Catalogs and servers for tests.

use std::sync::Arc;

use tidewheel_core::catalog::{
    Catalog, Declaration, EmbeddingSpec, Generation, Index, IndexName, Provider, Selector, State, TargetId,
};
use tidewheel_core::ports::{Appended, CatalogStore as _, SourceFilter};
use tidewheel_pipeline::targets::{CatalogPorts, LocalTarget, TargetPorts, Targets};
use tidewheel_testkit::fakes::collections::FakeCollections;
use tidewheel_testkit::fakes::embedder::FakeEmbedder;
use tidewheel_testkit::fakes::embedders::FakeEmbedders;
use tidewheel_testkit::fakes::index::FakeIndex;
use tidewheel_testkit::fakes::streams::FakeStreams;
use uuid::Uuid;

/// Dimension of all vectors here.
pub(crate) const DIMENSION: usize = 4;

/// The name of an index.
pub(crate) fn index(name: &str) -> IndexName {
    IndexName::new(name).unwrap()
}

/// A target, such as `tickets.g1`.
pub(crate) fn target(name: &str) -> TargetId {
    name.parse().unwrap()
}

/// An index of all documents in `shop`.
pub(crate) fn declaration(name: &str) -> Declaration {
    let source = Selector::of_database::<&str>("shop", &[]);
    let model = FakeEmbedder::new(DIMENSION).model().to_owned();
    Declaration::new(index(name), source, EmbeddingSpec::new("default", Provider::own(), model))
}

/// A catalog of indexes with one generation each, in this state, which is filled.
pub(crate) fn catalog(revision: u64, indexes: &[(&str, State)]) -> Catalog {
    let indexes = indexes.iter().map(|(name, state)| {
        let name = index(name);
        let mut generation = Generation::new(&name.target(1), Arc::new(declaration(name.as_str())), revision);
        generation.state = *state;
        generation.filled = revision;
        (name, Index { serving: Some(1), generations: [(1, generation)].into(), ..Index::default() })
    });
    Catalog { revision, indexes: indexes.collect(), ..Catalog::default() }
}

/// The catalog, in which this index only has documents that match the filter.
pub(crate) fn filtered(mut catalog: Catalog, name: &str, filter: &str) -> Catalog {
    let generations = &mut catalog.indexes.get_mut(&index(name)).unwrap().generations;
    for generation in generations.values_mut() {
        Arc::make_mut(&mut generation.declaration).filter = Some(SourceFilter(filter.to_owned()));
    }
    catalog
}

/// The target of local settings that only has this collection and these streams, and never changes.
pub(crate) fn fixed(index: &FakeIndex, streams: &FakeStreams) -> Arc<Targets> {
    let ports = TargetPorts::new(Arc::new(index.clone()), Arc::new(streams.tombstones()));
    Arc::new(Targets::fixed(&LocalTarget { declaration: Arc::new(declaration("documents")), ports }))
}

/// The servers of an installation.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) streams: FakeStreams,
    pub(crate) collections: FakeCollections,
    pub(crate) embedders: FakeEmbedders,
    /// The embedder of local settings, and of every [`declaration`].
    pub(crate) embedder: FakeEmbedder,
}

impl Servers {
    pub(crate) fn new() -> Self {
        let embedder = FakeEmbedder::new(DIMENSION);
        Self {
            streams: FakeStreams::new(),
            collections: FakeCollections::new(),
            embedders: FakeEmbedders::new([embedder.clone()]),
            embedder,
        }
    }

    /// Applies a catalog in place of another one.
    pub(crate) async fn apply(&self, catalog: &Catalog) {
        let store = self.streams.catalog();
        let (before, _) = store.load().await.unwrap();
        let removed = before.indexes.keys().filter(|name| !catalog.indexes.contains_key(*name));
        let removed = removed.map(|name| (name.clone(), None));
        let present = catalog.indexes.iter().map(|(name, index)| (name.clone(), Some(index.clone())));
        let indexes: Vec<_> = removed.chain(present).collect();
        let change = Uuid::from_u128(catalog.revision.into());
        let saved = store.save(change, before.revision, catalog.revision, &indexes, None).await.unwrap();
        assert_eq!(saved, Appended::Saved);
    }

    /// The targets of the applied catalog; before that, the plain collection `documents` of local settings.
    pub(crate) fn targets(&self) -> Arc<Targets> {
        let ports = CatalogPorts {
            store: Arc::new(self.streams.catalog()),
            collections: Arc::new(self.collections.clone()),
            states: Arc::new(self.streams.clone()),
            embedders: Arc::new(self.embedders.clone()),
            reuse: true,
        };
        let local = LocalTarget {
            declaration: Arc::new(declaration("documents")),
            ports: TargetPorts {
                embedder: Ok(Arc::new(self.embedder.clone())),
                ..TargetPorts::new(Arc::new(self.collections.index("documents")), Arc::new(self.streams.tombstones()))
            },
        };
        Arc::new(Targets::new(Some(&local), ports))
    }
}
