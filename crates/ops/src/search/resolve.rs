//! Decides what a search reads: the collection of the serving generation, and the embedder of its points.
//!
//! A request resolves both at once, and reads the collection instead of the alias, so that a switch to a generation of
//! another model cannot come between the vector of the query and those of the points.

use std::sync::Arc;

use tidewheel_core::catalog::{IndexName, TargetId};
use tidewheel_core::ports::{Embedder, PortResult, Searcher};

use super::SearchPorts;
use crate::selection::{applied_or_local, not_created, only};

/// What one search reads.
pub(super) struct Resolved {
    /// The serving generation.
    pub(super) target: TargetId,
    /// Its collection.
    pub(super) collection: Arc<dyn Searcher>,
    /// The embedder of its points.
    pub(super) embedder: Arc<dyn Embedder>,
    /// Whether the answer is final. If not, the catalog may have replaced the collection meanwhile.
    answers: Answers,
}

/// When the answer of a search is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    /// Always: local settings name the collection.
    Always,
    /// If the search succeeds: the name of the collection is never used for another one.
    IfFound,
    /// If the catalog has not changed: the name of a plain collection may have become an alias.
    IfUnchanged,
}

impl Resolved {
    /// Whether the answer is final, given whether the search has succeeded.
    pub(super) fn is_final(&self, succeeded: bool) -> bool {
        match self.answers {
            Answers::Always => true,
            Answers::IfFound => succeeded,
            Answers::IfUnchanged => false,
        }
    }
}

/// Resolves an index: the given one, or else the only one.
///
/// # Errors
/// Fatal, if there is no such index, if there are several and none is given, if it has no collection yet, or if the
/// settings here cannot reach its embedder.
pub(super) async fn resolve(ports: &SearchPorts, index: Option<&IndexName>) -> PortResult<Resolved> {
    let applied = applied_or_local(&ports.targets).await?;
    let name = only(applied.catalog(), index)?;
    let target = applied.serving(&name).ok_or_else(|| not_created(&name))?;
    let answers = match (target.is_local(), target.plain) {
        (true, _) => Answers::Always,
        (false, true) => Answers::IfUnchanged,
        (false, false) => Answers::IfFound,
    };
    let embedder = target.ports.embedder.clone()?;
    if target.declaration().embedding.is_nameless() && !target.is_local() {
        target.fits(&embedder.info().await?)?;
    }
    Ok(Resolved {
        target: target.id.clone(),
        collection: ports.collections.open(&target.generation.collection),
        embedder,
        answers,
    })
}
