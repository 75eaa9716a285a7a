//! Turns the facts that servers report into findings (right, doubtful or wrong) with a hint for each.
//!
//! Pure and without network access: the same facts always give the same findings.

mod judge;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;
use tidewheel_core::installation::{CollectionMark, Installation, SourceIdentity};
use tidewheel_stores::mongo::MongoFacts;
use tidewheel_stores::qdrant::{CollectionFacts, QdrantFacts};
use tidewheel_stores::redis::RedisFacts;

use crate::exit::Failure;

pub(crate) use judge::findings;

/// The input of all checks: the facts of each server, or why it did not report any and what to do.
pub(crate) struct Facts {
    pub(crate) mongodb_uri: String,
    pub(crate) mongodb: Result<MongoFacts, Failure>,
    pub(crate) redis_url: String,
    pub(crate) redis: Result<RedisFacts, Failure>,
    pub(crate) embedder_url: String,
    pub(crate) embedder: Result<EmbedderFacts, Failure>,
    /// The embedders of other declared indexes, with their addresses.
    pub(crate) other_embedders: Vec<(String, Result<EmbedderFacts, Failure>)>,
    pub(crate) qdrant_url: String,
    pub(crate) collection: String,
    pub(crate) qdrant: Result<QdrantFacts, Failure>,
    /// The declared indexes, as far as they were applied; `None` for the short form.
    pub(crate) indexes: Option<Result<Vec<IndexFacts>, Failure>>,
    pub(crate) owners: Owners,
    /// `None` if tracing is off.
    pub(crate) traces: Option<Result<CollectorFacts, Failure>>,
}

/// Owners, as far as the servers answered.
#[derive(Default)]
pub(crate) struct Owners {
    /// The database in these settings.
    pub(crate) source: Option<SourceIdentity>,
    /// The installation registered in Redis.
    pub(crate) redis: Option<Installation>,
    /// The owner recorded in the collection.
    pub(crate) collection: Option<CollectionMark>,
}

/// A declared index.
pub(crate) struct IndexFacts {
    pub(crate) name: String,
    /// The collection that searches read, with its facts; `None` before it is created.
    pub(crate) serving: Option<(String, Option<CollectionFacts>)>,
}

/// State of the embedder.
pub(crate) enum EmbedderFacts {
    /// It embedded a short text.
    Running {
        model: String,
        /// Dimensions of the returned vector.
        dimension: usize,
        latency: Duration,
        /// Compute backend, if reported.
        computes: Option<String>,
    },
    /// Not running yet; `run` starts it.
    ToStart {
        model: String,
        /// Dimensions of the model after loading it; `None` if it is not downloaded yet.
        dimension: Option<usize>,
    },
}

impl EmbedderFacts {
    /// Dimensions of its vectors, if known.
    pub(crate) fn dimension(&self) -> Option<usize> {
        match self {
            Self::Running { dimension, .. } => Some(*dimension),
            Self::ToStart { dimension, .. } => *dimension,
        }
    }
}

/// Response of the trace collector to an empty request.
pub(crate) struct CollectorFacts {
    pub(crate) address: String,
    /// Why it rejected the request; `None` if it was accepted.
    pub(crate) refused: Option<String>,
}

/// Result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CheckVerdict {
    /// Passed.
    Right,
    /// Works, but needs attention.
    Doubtful,
    /// Does not work, or will lose data.
    Wrong,
}

/// Result of one check, with a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) part: &'static str,
    pub(crate) verdict: CheckVerdict,
    pub(crate) message: String,
    /// What to do; `None` if the check passed.
    pub(crate) hint: Option<String>,
}
