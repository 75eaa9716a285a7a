//! What the service reports about itself in `/info`.

use serde::{Deserialize, Serialize};
use tidewheel_engine::{Engine, EngineInfo, Kernel, Precision};

use super::options::ServiceOptions;

/// Feature: requests may set `"truncate": false`.
pub(crate) const TRUNCATE: &str = "truncate";

/// Feature: `/info` lists the served models, and requests may name one of them as `model`.
pub(crate) const MODELS: &str = "models";

/// Feature: models of the precision `int8` compute in it. Without it, the CPU lacks the instructions, and they compute in
/// `f32`.
pub(crate) const INT8: &str = "int8";

/// What does not change about a model while the service runs.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// The engine.
    #[serde(flatten)]
    pub engine: EngineInfo,
    /// Maximum tokens of a document's text, excluding special tokens and prefix.
    pub max_text_tokens: usize,
    /// Number of compute threads, which all models share.
    pub workers: usize,
    /// Limits of requests and of the queue, which all models share.
    pub limits: Limits,
    /// Request features added since the first release.
    pub features: &'static [&'static str],
    /// The tidewheel version.
    pub version: &'static str,
}

impl Info {
    pub(super) fn new(engine: &dyn Engine, workers: usize, limits: Limits) -> Self {
        let passage = engine.tokenize(&engine.info().passage_prefix).ids.len();
        Self {
            engine: engine.info().clone(),
            max_text_tokens: engine.info().max_tokens.saturating_sub(passage).max(1),
            workers,
            limits,
            features: if Kernel::computes_int8() { &[TRUNCATE, MODELS, INT8] } else { &[TRUNCATE, MODELS] },
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// The limits in [`Info`].
#[derive(Clone, Debug, Serialize)]
pub struct Limits {
    /// Maximum body size in bytes.
    pub body_bytes: usize,
    /// Maximum texts per request.
    pub texts: usize,
    /// Maximum queued tokens.
    pub queue_tokens: usize,
    /// Maximum queued requests.
    pub queue_requests: usize,
}

impl Limits {
    pub(super) fn new(options: &ServiceOptions) -> Self {
        Self {
            body_bytes: options.max_body_bytes,
            texts: options.max_texts,
            queue_tokens: options.queue_tokens,
            queue_requests: options.queue_requests,
        }
    }
}

/// A served model, as `/info` lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedModel {
    /// Its name, by which requests select it.
    pub name: String,
    /// The model's id.
    pub model: String,
    /// Fingerprint of its weights and settings, without the precision.
    pub revision: String,
    /// Dimension of its vectors.
    pub dimension: usize,
    /// Number format in use.
    pub precision: Precision,
    /// Prefix of search queries.
    pub query_prefix: String,
    /// Prefix of document texts.
    pub passage_prefix: String,
}
