//! Declarations: what an index covers, and how its documents become points.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::collection::{CollectionSpec, PayloadIndex, VectorLayout};
use super::embedding::EmbeddingSpec;
use super::name::IndexName;
use super::selector::Selector;
use crate::ports::SourceFilter;

/// The declaration of an index. It has no secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declaration {
    /// The name of the index.
    pub name: IndexName,
    /// The collections that it covers.
    pub source: Selector,
    /// The condition on documents of those collections, validated by the source; `None` for all documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<SourceFilter>,
    /// The text of a document to embed.
    #[serde(default)]
    pub text: TextDeclaration,
    /// How a text is split.
    #[serde(default)]
    pub chunk: ChunkDeclaration,
    /// The fields of a document that its points carry.
    #[serde(default)]
    pub payload: PayloadDeclaration,
    /// Indexes of payload fields, by path. Those of tidewheel's own fields are not among them.
    #[serde(default)]
    pub payload_indexes: BTreeMap<String, PayloadIndex>,
    /// The model.
    pub embedding: EmbeddingSpec,
    /// The vectors of a point.
    #[serde(default)]
    pub vectors: VectorLayout,
    /// Other properties of the collection.
    #[serde(default)]
    pub collection: CollectionSpec,
    /// Rules that change no point.
    #[serde(default)]
    pub rules: Rules,
}

impl Declaration {
    /// A declaration with defaults for everything else.
    pub fn new(name: IndexName, source: Selector, embedding: EmbeddingSpec) -> Self {
        Self {
            name,
            source,
            filter: None,
            text: TextDeclaration::default(),
            chunk: ChunkDeclaration::default(),
            payload: PayloadDeclaration::default(),
            payload_indexes: BTreeMap::new(),
            embedding,
            vectors: VectorLayout::default(),
            collection: CollectionSpec::default(),
            rules: Rules::default(),
        }
    }
}

/// The text of a document to embed: the template if set, else the fields, else (also for a document without any of the
/// fields) every string.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TextDeclaration {
    /// A template over the document's fields.
    pub template: Option<String>,
    /// [Paths](crate::paths) of fields whose texts are joined by newlines, in this order.
    pub fields: Vec<String>,
    /// Paths of fields that are excluded when every string is embedded.
    pub exclude: Vec<String>,
    /// The handling of documents without text.
    pub blank: Blank,
}

/// The handling of documents without text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Blank {
    /// Indexed without a vector: filters match the document, semantic search does not. The embedder is not called.
    #[default]
    Index,
    /// Not indexed.
    Skip,
}

/// How a text is split into chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChunkDeclaration {
    /// Maximum number of tokens per chunk, with the prefix; `None` for the model's limit.
    pub tokens: Option<usize>,
    /// Tokens that a chunk repeats from the previous one.
    pub overlap: usize,
    /// Maximum number of chunks of a document; a document with more is parked.
    pub max: usize,
    /// A template over the document's fields, whose text precedes every chunk of the document.
    pub prefix: Option<String>,
}

impl Default for ChunkDeclaration {
    fn default() -> Self {
        Self { tokens: None, overlap: 32, max: 10_000, prefix: None }
    }
}

/// The fields of a document that its points carry, as [paths](crate::paths). `_id` always stays whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PayloadDeclaration {
    /// Include only these paths; empty for all.
    pub include: Vec<String>,
    /// Exclude these paths, even if included.
    pub exclude: Vec<String>,
    /// New names of fields, by path.
    pub rename: BTreeMap<String, String>,
    /// Whether every point of a document carries all fields; else points after the first carry an
    /// [excerpt](crate::excerpt).
    pub full: bool,
}

/// Rules that change no point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rules {
    /// Effect of a parked change on the indexed version of its document.
    pub on_dead_letter: OnDeadLetter,
    /// How long the previous generation is kept up after a switch, at least [`Rules::LEAST_KEEP`]. Milliseconds in JSON.
    #[serde(rename = "keep_ms", with = "milliseconds")]
    pub keep: Duration,
}

impl Rules {
    /// Minimum of [`Rules::keep`].
    pub const LEAST_KEEP: Duration = Duration::from_secs(60);
}

impl Default for Rules {
    fn default() -> Self {
        Self { on_dead_letter: OnDeadLetter::default(), keep: Duration::from_secs(24 * 60 * 60) }
    }
}

/// Effect of a parked change on the indexed version of its document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDeadLetter {
    /// The last written version stays searchable. A deletion in between is applied.
    #[default]
    Keep,
    /// The indexed version is removed: the index never shows a state that the source no longer has.
    Remove,
}

/// Durations in JSON.
mod milliseconds {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::catalog::PayloadKind;

    fn least() -> serde_json::Value {
        json!({
            "name": "tickets",
            "source": ["shop.tickets"],
            "embedding": {"name": "default", "provider": "tidewheel", "model": "minilm"},
        })
    }

    #[test]
    fn absent_fields_have_defaults_and_unknown_fields_are_ignored() {
        let declaration: Declaration = serde_json::from_value(least()).unwrap();
        assert_eq!(
            declaration,
            Declaration::new(
                IndexName::new("tickets").unwrap(),
                Selector::parse(&["shop.tickets"], None).unwrap(),
                EmbeddingSpec::new("default", "tidewheel", "minilm"),
            )
        );
        assert_eq!(declaration.rules.keep, Duration::from_secs(86_400));
        let mut newer = least();
        newer["sparse"] = json!({"model": "bm25"});
        newer["text"] = json!({"language": "en"});
        newer["rules"] = json!({"isolate_ms": 5});
        newer["embedding"]["tenant"] = json!("x");
        assert_eq!(serde_json::from_value::<Declaration>(newer).unwrap(), declaration);
    }

    #[test]
    fn json_never_changes_between_releases() {
        let mut declaration: Declaration = serde_json::from_value(least()).unwrap();
        declaration.filter = Some(SourceFilter(r#"{"status":"open"}"#.into()));
        declaration.text.blank = Blank::Skip;
        declaration.rules = Rules { on_dead_letter: OnDeadLetter::Remove, keep: Duration::from_millis(90_500) };
        declaration.payload.rename.insert("customer.name".into(), "customer".into());
        let options = serde_json::Map::from_iter([("is_tenant".to_owned(), json!(true))]);
        declaration.payload_indexes.insert("tenant".into(), PayloadIndex { kind: PayloadKind::Keyword, options });
        declaration.collection.shard_number = Some(6);
        declaration.collection.settings.insert("on_disk_payload".into(), json!(true));
        let json = json!({
            "name": "tickets",
            "source": ["shop.tickets"],
            "filter": r#"{"status":"open"}"#,
            "text": {"template": null, "fields": [], "exclude": [], "blank": "skip"},
            "chunk": {"tokens": null, "overlap": 32, "max": 10_000, "prefix": null},
            "payload": {"include": [], "exclude": [], "rename": {"customer.name": "customer"}, "full": false},
            "payload_indexes": {"tenant": {"type": "keyword", "is_tenant": true}},
            "embedding": {
                "name": "default", "provider": "tidewheel", "model": "minilm", "url": null, "dimensions": null,
                "rounding": "exact", "passage_prefix": null, "query_prefix": null,
            },
            "vectors": {"dense": "", "distance": "cosine", "datatype": "float32"},
            "collection": {"shard_number": 6, "sharding_method": null, "settings": {"on_disk_payload": true}},
            "rules": {"on_dead_letter": "remove", "keep_ms": 90_500},
        });
        assert_eq!(serde_json::to_value(&declaration).unwrap(), json);
        assert_eq!(serde_json::from_value::<Declaration>(json).unwrap(), declaration);
    }
}
