//! Declarations and catalogs for tests.

use std::sync::Arc;

use super::{
    Catalog, Declaration, EmbedderIdentity, EmbeddingSpec, Generation, Index, IndexName, Provider, Selector, State,
};
use crate::ports::{Checkpoint, ResumeToken, SnapshotState};
use crate::version::ClusterTime;

pub(super) fn name(text: &str) -> IndexName {
    IndexName::new(text).unwrap()
}

/// All documents of one collection of the database `shop`.
pub(super) fn declaration(index: &str, collection: &str) -> Declaration {
    let source = Selector::of_database("shop", &[collection]);
    Declaration::new(name(index), source, EmbeddingSpec::new("default", Provider::own(), "minilm"))
}

pub(super) fn identity(model: &str) -> EmbedderIdentity {
    EmbedderIdentity { model: model.to_owned(), revision: String::new(), dimension: 384 }
}

/// An index that serves its first generation, which is filled.
pub(super) fn serving(declaration: Declaration, revision: u64) -> (IndexName, Index) {
    let name = declaration.name.clone();
    let mut generation = Generation::new(&name.target(1), Arc::new(declaration), revision);
    generation.state = State::Serving;
    generation.embedder = Some(identity(&generation.declaration.embedding.model));
    generation.filled = revision;
    let index = Index { serving: Some(1), generations: [(1, generation)].into(), ..Index::default() };
    (name, index)
}

/// A catalog of indexes that serve.
pub(super) fn catalog(revision: u64, declarations: impl IntoIterator<Item = Declaration>) -> Catalog {
    let indexes = declarations.into_iter().map(|declaration| serving(declaration, revision)).collect();
    Catalog { revision, indexes, ..Catalog::default() }
}

/// A checkpoint after a snapshot, which routes by the catalog of this revision.
pub(super) fn checkpoint(catalog: u64) -> Checkpoint {
    let time = ClusterTime { seconds: 1, increment: 1 };
    Checkpoint {
        token: ResumeToken("token".to_owned()),
        last: (time, 0),
        through: time,
        epoch: 0,
        selection: String::new(),
        snapshot: SnapshotState::Done { time, rows: 0 },
        catalog,
        scope: Vec::new(),
    }
}
