//! The collection of a generation: its vectors, its payload indexes, and the record that it carries.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::declaration::Declaration;
use super::embedding::EmbedderIdentity;
use super::generation::State;
use super::name::{IndexName, TargetId};
use super::parts::Parts;

/// The vectors of a point, except their dimension, which is the model's. None of it can be altered in place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VectorLayout {
    /// The name of the dense vector; empty for the unnamed vector.
    pub dense: String,
    /// How vectors are compared.
    pub distance: Distance,
    /// How their numbers are stored.
    pub datatype: Datatype,
}

/// How vectors are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// By their angle.
    #[default]
    Cosine,
}

/// How the numbers of vectors are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Datatype {
    /// Floating-point numbers of 32 bits.
    #[default]
    Float32,
    /// Floating-point numbers of 16 bits.
    Float16,
    /// Unsigned integers of 8 bits.
    Uint8,
}

/// Properties of a collection beside its vectors and its payload indexes. Absent ones are left to the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CollectionSpec {
    /// Number of shards; cannot be altered in place.
    pub shard_number: Option<u32>,
    /// How points are assigned to shards; cannot be altered in place.
    pub sharding_method: Option<ShardingMethod>,
    /// Properties that can be altered in place, in the form of the server's own API. Opaque to all but the settings,
    /// which validate them, and the adapter. Each has one spelling: without the suffix `_config`, and without nulls.
    pub settings: Map<String, Value>,
}

/// How points are assigned to shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShardingMethod {
    /// By the server, evenly.
    Auto,
    /// By a key of each write.
    Custom,
}

/// An index of a payload field. Written as an object with `type` and the options.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PayloadIndex {
    /// The type of the field's values.
    #[serde(rename = "type")]
    pub kind: PayloadKind,
    /// Other options, in the form of the server's own API. Opaque to all but the settings, which validate them, and the
    /// adapter.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl PayloadIndex {
    /// An index without options.
    pub fn new(kind: PayloadKind) -> Self {
        Self { kind, options: Map::new() }
    }
}

/// The type of the values of a payload field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadKind {
    /// Strings that match as a whole.
    Keyword,
    /// Integers.
    Integer,
    /// Floating-point numbers.
    Float,
    /// `true` and `false`.
    Bool,
    /// Dates.
    Datetime,
    /// UUIDs.
    Uuid,
    /// Locations.
    Geo,
    /// Strings that match by their words.
    Text,
}

impl PayloadKind {
    /// All types.
    pub const ALL: [Self; 8] =
        [Self::Keyword, Self::Integer, Self::Float, Self::Bool, Self::Datetime, Self::Uuid, Self::Geo, Self::Text];

    /// The name in settings and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keyword => "keyword",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Bool => "bool",
            Self::Datetime => "datetime",
            Self::Uuid => "uuid",
            Self::Geo => "geo",
            Self::Text => "text",
        }
    }
}

impl std::str::FromStr for PayloadKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("invalid type {text:?} of a payload index: expected one of {}", names()))
    }
}

/// What a collection records about the generation that it holds, so that the catalog can be restored from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// The index.
    pub index: IndexName,
    /// The number of the generation.
    pub generation: u32,
    /// Whether the collection has the name of the index, and no alias.
    #[serde(default)]
    pub plain: bool,
    /// Its state when this was recorded.
    pub state: State,
    /// The fingerprints of the declaration. A release that computes them otherwise compares the declarations.
    #[serde(default)]
    pub parts: Parts,
    /// The declaration to which its points conform, or will.
    pub declaration: Declaration,
    /// What the embedder reported; `None` before that.
    #[serde(default)]
    pub embedder: Option<EmbedderIdentity>,
    /// The revision of the catalog that recorded this.
    #[serde(default)]
    pub revision: u64,
}

impl TargetRecord {
    /// The target that the collection holds.
    pub fn target(&self) -> TargetId {
        self.index.target(self.generation)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn payload_types_have_one_spelling() {
        for kind in PayloadKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        let error = "date".parse::<PayloadKind>().unwrap_err();
        assert!(error.contains("\"date\"") && error.contains("datetime, uuid"), "{error}");
    }

    #[test]
    fn payload_index_is_an_object_of_its_type_and_options() {
        let json = json!({"type": "keyword", "is_tenant": true, "on_disk": false});
        let index: PayloadIndex = serde_json::from_value(json.clone()).unwrap();
        assert_eq!((index.kind, index.options.len()), (PayloadKind::Keyword, 2));
        assert_eq!(serde_json::to_value(&index).unwrap(), json);
        assert_eq!(serde_json::to_value(PayloadIndex::new(PayloadKind::Geo)).unwrap(), json!({"type": "geo"}));
    }
}
