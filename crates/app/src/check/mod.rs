//! What follows from what the servers say of themselves: right, doubtful or wrong, and what to do about it.
//!
//! Facts in, findings out, no network: the same facts always give the same findings.

mod judge;
#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;
use tidewheel_core::installation::{CollectionMark, Installation, SourceIdentity};
use tidewheel_stores::mongo::MongoFacts;
use tidewheel_stores::qdrant::QdrantFacts;
use tidewheel_stores::redis::RedisFacts;

use crate::exit::Failure;

pub(crate) use judge::findings;

/// What a server said, or why it said nothing.
pub(crate) type Told<T> = Result<T, Failure>;

/// Everything that was asked.
pub(crate) struct Facts {
    pub(crate) mongodb_uri: String,
    pub(crate) mongodb: Told<MongoFacts>,
    pub(crate) redis_url: String,
    pub(crate) redis: Told<RedisFacts>,
    pub(crate) embedder_url: String,
    pub(crate) embedder: Told<EmbedderFacts>,
    pub(crate) qdrant_url: String,
    pub(crate) collection: String,
    pub(crate) qdrant: Told<QdrantFacts>,
    pub(crate) owners: Owners,
    /// `None` if nothing is traced.
    pub(crate) traces: Option<Told<CollectorFacts>>,
}

/// Who owns what, as far as the servers answered.
#[derive(Default)]
pub(crate) struct Owners {
    /// The database that these settings name.
    pub(crate) source: Option<SourceIdentity>,
    /// The installation that Redis names.
    pub(crate) redis: Option<Installation>,
    /// The owner that the collection names.
    pub(crate) collection: Option<CollectionMark>,
}

/// The embedder.
pub(crate) enum EmbedderFacts {
    /// How it did with a short text.
    Running {
        model: String,
        /// Of the vector that it really gave.
        dimension: usize,
        latency: Duration,
        /// How it computes, if it says.
        computes: Option<String>,
    },
    /// It does not run yet, and `run` starts it.
    ToStart {
        model: String,
        /// Of the model, which was loaded; `None` if it has to be fetched first.
        dimension: Option<usize>,
    },
}

impl EmbedderFacts {
    /// Dimensions of its vectors, if they are known.
    pub(crate) fn dimension(&self) -> Option<usize> {
        match self {
            Self::Running { dimension, .. } => Some(*dimension),
            Self::ToStart { dimension, .. } => *dimension,
        }
    }
}

/// How the collector of traces took an empty request.
pub(crate) struct CollectorFacts {
    pub(crate) address: String,
    /// Why it did not, if so.
    pub(crate) refused: Option<String>,
}

/// How it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As it should be.
    Right,
    /// It works, but a person should look at it.
    Doubtful,
    /// It does not work, or will lose data.
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) part: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) message: String,
    /// What to do, unless it is right.
    pub(crate) hint: Option<String>,
}
