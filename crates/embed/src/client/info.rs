//! The self-description of a tidewheel embedder, of this release or an earlier one.

use serde::Deserialize;
use tidewheel_core::catalog::Rounding;
use tidewheel_core::ports::EmbedderLoad;
use tidewheel_engine::{Measurement, Precision};

use super::choice::rounding;
use crate::service::{DEFAULT, MODELS, ServedModel};

/// The used part of the service's `/info`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct RemoteInfo {
    pub(super) model: String,
    pub(super) revision: String,
    pub(super) precision: Precision,
    pub(super) passage_prefix: String,
    #[serde(default)]
    query_prefix: String,
    pub(super) dimension: usize,
    pub(super) max_text_tokens: usize,
    pub(super) limits: RemoteLimits,
    /// Missing in older embedders.
    #[serde(default)]
    pub(super) kernel: String,
    #[serde(default)]
    pub(super) measured: Vec<Measurement>,
    /// Missing in older embedders.
    #[serde(default)]
    features: Vec<String>,
    /// Missing in older embedders.
    #[serde(default)]
    models: Vec<ServedModel>,
    /// Missing in older embedders.
    pub(super) load: Option<EmbedderLoad>,
}

impl RemoteInfo {
    /// Returns everything besides the name that a document's vector depends on. Excludes f32 and bf16, because embedders
    /// that share the load may run on different CPUs; includes rounding to 8 bits.
    pub(super) fn vector_revision(&self) -> String {
        [self.revision.as_str(), suffix(rounding(self.precision)), &self.passage_prefix].join("/")
    }

    pub(super) fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|known| known == feature)
    }

    /// Lists the server's models, the default one first. An older embedder serves one.
    pub(super) fn served(&self) -> Vec<ServedModel> {
        if self.has(MODELS) && !self.models.is_empty() {
            return self.models.clone();
        }
        vec![ServedModel {
            name: DEFAULT.to_owned(),
            model: self.model.clone(),
            revision: self.revision.clone(),
            dimension: self.dimension,
            precision: self.precision,
            query_prefix: self.query_prefix.clone(),
            passage_prefix: self.passage_prefix.clone(),
        }]
    }
}

fn suffix(rounding: Rounding) -> &'static str {
    match rounding {
        Rounding::Exact => "",
        Rounding::Int8 => "int8",
    }
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RemoteLimits {
    pub(super) body_bytes: usize,
    pub(super) texts: usize,
}
