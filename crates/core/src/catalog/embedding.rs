//! What decides a vector.

use serde::{Deserialize, Serialize};

use crate::fingerprint::Fingerprints;
use crate::ports::EmbedderInfo;

/// A model, as an index declares it. It has no secrets; keys, timeouts and limits of requests are local settings of the
/// same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EmbeddingSpec {
    /// Its name in the settings.
    pub name: String,
    /// The kind of server that embeds.
    pub provider: Provider,
    /// The model's name.
    pub model: String,
    /// The server, if its address decides which model embeds; else `None`, and the local settings have the address, which
    /// may differ from process to process. Without user name and password.
    #[serde(default)]
    pub url: Option<String>,
    /// The requested dimension of vectors, of models that have several.
    #[serde(default)]
    pub dimensions: Option<usize>,
    /// How the model's numbers are rounded.
    #[serde(default)]
    pub rounding: Rounding,
    /// Text before every text to index.
    #[serde(default)]
    pub passage_prefix: Option<String>,
    /// Text before every query. It decides no vector of a point.
    #[serde(default)]
    pub query_prefix: Option<String>,
}

impl EmbeddingSpec {
    /// A model with defaults for everything else.
    pub fn new(name: impl Into<String>, provider: impl Into<Provider>, model: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            provider: provider.into(),
            model: model.into(),
            url: None,
            dimensions: None,
            rounding: Rounding::default(),
            passage_prefix: None,
            query_prefix: None,
        }
    }

    /// Whether nothing but the name stands for the model: tidewheel's own embedder, at the address of the local settings,
    /// embeds with its default model.
    pub fn is_nameless(&self) -> bool {
        self.provider.is_own() && self.model.is_empty() && self.url.is_none()
    }
}

/// A kind of server that embeds, by its name in the settings. Opaque to all but the clients of embedders, so that an
/// earlier release can read what it does not support.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Provider(String);

/// The name of tidewheel's own embedder.
const OWN: &str = "tidewheel";

impl Provider {
    /// Tidewheel's own embedder.
    pub fn own() -> Self {
        OWN.into()
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is tidewheel's own embedder, of this installation or of another one.
    pub fn is_own(&self) -> bool {
        self.0 == OWN
    }
}

impl From<&str> for Provider {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl std::fmt::Display for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a model's numbers are rounded. Vectors of one rounding can be compared with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// Floating-point numbers of any width: vectors differ by less than what matters for a search.
    #[default]
    Exact,
    /// Weights and activations of 8 bits.
    Int8,
}

/// What the embedder reported when a generation was created. Vectors of equal identities can be compared with each
/// other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EmbedderIdentity {
    /// The model's name.
    pub model: String,
    /// Everything else that a vector depends on: see [`EmbedderInfo::revision`].
    #[serde(default)]
    pub revision: String,
    /// Dimension of a vector.
    pub dimension: usize,
}

impl EmbedderIdentity {
    /// Computes the fingerprints of texts that this model embeds.
    pub fn fingerprints(&self) -> Fingerprints {
        Fingerprints::new(&self.model, &self.revision, self.dimension)
    }
}

impl From<&EmbedderInfo> for EmbedderIdentity {
    fn from(info: &EmbedderInfo) -> Self {
        Self { model: info.model.clone(), revision: info.revision.clone(), dimension: info.dimension }
    }
}
