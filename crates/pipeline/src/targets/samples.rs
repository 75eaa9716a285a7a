//! Catalogs and servers for tests.

use std::sync::Arc;

use tidewheel_core::catalog::{
    Catalog, Declaration, EmbeddingSpec, Generation, Index, IndexName, Provider, Selector, State, TargetId,
};
use tidewheel_core::ports::{Appended, CatalogStore as _};
use tidewheel_testkit::fakes::collections::FakeCollections;
use tidewheel_testkit::fakes::embedder::FakeEmbedder;
use tidewheel_testkit::fakes::embedders::FakeEmbedders;
use tidewheel_testkit::fakes::streams::FakeStreams;
use uuid::Uuid;

use super::{CatalogPorts, LocalTarget, TargetPorts, Targets};

/// Dimension of all vectors here.
pub(crate) const DIMENSION: usize = 2;

/// The servers of an installation.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) streams: FakeStreams,
    pub(crate) collections: FakeCollections,
    pub(crate) embedders: FakeEmbedders,
}

/// The declaration of an index of all documents in `shop`.
pub(crate) fn declaration(name: &str) -> Declaration {
    let source = Selector::of_database::<&str>("shop", &[]);
    let model = FakeEmbedder::new(DIMENSION).model().to_owned();
    Declaration::new(IndexName::new(name).unwrap(), source, EmbeddingSpec::new("default", Provider::own(), model))
}

/// The first generation of an index.
pub(crate) fn first(name: &str) -> TargetId {
    IndexName::new(name).unwrap().target(1)
}

/// A catalog of indexes with one generation each, in this state; `filled` if a snapshot has filled it.
pub(crate) fn catalog(revision: u64, indexes: &[(&str, State, bool)]) -> Catalog {
    let indexes = indexes.iter().map(|(name, state, filled)| {
        let target = first(name);
        let declaration = Arc::new(declaration(name));
        let mut generation = Generation::new(&target, declaration, revision);
        generation.state = *state;
        generation.filled = if *filled { revision } else { 0 };
        let index = Index { serving: Some(1), generations: [(1, generation)].into(), ..Index::default() };
        (target.index, index)
    });
    Catalog { revision, indexes: indexes.collect(), ..Catalog::default() }
}

/// Declares another model for the first generation of an index.
pub(crate) fn declare_model(catalog: &mut Catalog, index: &str, model: &str) {
    let index = catalog.indexes.get_mut(&first(index).index).unwrap();
    let generation = index.generations.get_mut(&1).unwrap();
    let mut declaration = (*generation.declaration).clone();
    model.clone_into(&mut declaration.embedding.model);
    generation.declaration = Arc::new(declaration);
}

impl Servers {
    pub(crate) fn new() -> Self {
        Self {
            streams: FakeStreams::new(),
            collections: FakeCollections::new(),
            embedders: FakeEmbedders::new([FakeEmbedder::new(DIMENSION)]),
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

    pub(crate) fn ports(&self) -> CatalogPorts {
        CatalogPorts {
            store: Arc::new(self.streams.catalog()),
            collections: Arc::new(self.collections.clone()),
            states: Arc::new(self.streams.clone()),
            embedders: Arc::new(self.embedders.clone()),
            reuse: true,
        }
    }

    /// The target of local settings: the plain collection `documents`.
    pub(crate) fn local(&self) -> LocalTarget {
        let index = Arc::new(self.collections.index("documents"));
        let ports = TargetPorts {
            registry: Some(Arc::new(self.streams.collection_registry())),
            ..TargetPorts::new(index, Arc::new(self.streams.tombstones()))
        };
        LocalTarget { declaration: Arc::new(declaration("documents")), ports }
    }

    /// The targets of the applied catalog; before that, the one of local settings.
    pub(crate) fn targets(&self) -> Targets {
        Targets::new(Some(&self.local()), self.ports())
    }
}
