//! Payload indexes that a declaration wants, compared with those of the collection.
//!
//! The collection's metadata lists the indexes that tidewheel has created for a declaration. Only those are deleted:
//! other clients may have created indexes for their own searches.

use std::collections::BTreeMap;

use qdrant_client::qdrant::payload_index_params::IndexParams;
use qdrant_client::qdrant::stemming_algorithm::StemmingParams;
use qdrant_client::qdrant::{
    BoolIndexParams, CreateFieldIndexCollection, DatetimeIndexParams, DisabledStemmer, FieldType, FloatIndexParams,
    GeoIndexParams, IntegerIndexParams, KeywordIndexParams, PayloadIndexParams, SnowballParams, StemmingAlgorithm,
    StopwordsSet, TextIndexParams, TokenizerType, UuidIndexParams,
};
use serde_json::Value;
use tidewheel_core::catalog::{PayloadIndex, PayloadKind};
use tidewheel_core::error::PortError;

use super::typed::{Object, invalid};

/// Payload indexes by payload path.
pub(super) type Indexes = BTreeMap<String, PayloadIndex>;

/// What turns the present indexes into the wanted ones, in this order. An interruption after any step is completed by
/// the next comparison.
#[derive(Debug, PartialEq)]
pub(super) struct Changes {
    /// The indexes to delete.
    pub(super) delete: Vec<String>,
    /// The list in the metadata afterwards. It is saved before creation, so that no created index is missing from it.
    pub(super) listed: Indexes,
    /// The indexes to create.
    pub(super) create: Indexes,
}

impl Changes {
    /// Compares what is wanted with the list in the metadata and with the types of the present indexes.
    pub(super) fn between(wanted: &Indexes, listed: &Indexes, present: &BTreeMap<String, String>) -> Self {
        let of_type =
            |field: &str, index: &PayloadIndex| present.get(field).is_some_and(|kind| kind == index.kind.name());
        let fits = |field: &str, index: &PayloadIndex| {
            let options = match listed.get(field) {
                Some(own) => own == index,
                // Another client's. Its options are unknown.
                None => index.options.is_empty(),
            };
            options && of_type(field, index)
        };
        let missing = wanted.iter().filter(|(field, index)| !fits(field, index));
        let create: Indexes = missing.map(|(field, index)| (field.clone(), index.clone())).collect();
        let unwanted = listed.keys().filter(|field| !wanted.contains_key(*field));
        let delete = unwanted.chain(create.keys()).filter(|field| present.contains_key(*field)).cloned().collect();
        let kept = wanted.iter().filter(|(field, _)| listed.contains_key(*field) || create.contains_key(*field));
        let listed = kept.map(|(field, index)| (field.clone(), index.clone())).collect();
        Self { delete, listed, create }
    }
}

/// The requests that create these indexes.
///
/// # Errors
/// Fatal, for an option that is unknown or invalid.
pub(super) fn creations(collection: &str, indexes: &Indexes) -> Result<Vec<CreateFieldIndexCollection>, PortError> {
    indexes.iter().map(|(field, index)| creation(collection, field, index)).collect()
}

fn creation(collection: &str, field: &str, index: &PayloadIndex) -> Result<CreateFieldIndexCollection, PortError> {
    let field_type = match index.kind {
        PayloadKind::Keyword => FieldType::Keyword,
        PayloadKind::Integer => FieldType::Integer,
        PayloadKind::Float => FieldType::Float,
        PayloadKind::Bool => FieldType::Bool,
        PayloadKind::Datetime => FieldType::Datetime,
        PayloadKind::Uuid => FieldType::Uuid,
        PayloadKind::Geo => FieldType::Geo,
        PayloadKind::Text => FieldType::Text,
    };
    let params = if index.options.is_empty() { None } else { Some(params(field, index)?) };
    Ok(CreateFieldIndexCollection {
        collection_name: collection.to_owned(),
        wait: Some(true),
        field_name: field.to_owned(),
        field_type: Some(field_type.into()),
        field_index_params: params.map(|params| PayloadIndexParams { index_params: Some(params) }),
        ..CreateFieldIndexCollection::default()
    })
}

#[allow(deprecated, reason = "servers since 1.16 understand `on_disk`, `memory` is newer")]
fn params(field: &str, index: &PayloadIndex) -> Result<IndexParams, PortError> {
    let mut object = Object::new(format!("payload.indexes.{field}"), &index.options);
    let on_disk = object.flag("on_disk")?;
    let enable_hnsw = object.flag("enable_hnsw")?;
    let params = match index.kind {
        PayloadKind::Keyword => IndexParams::KeywordIndexParams(KeywordIndexParams {
            is_tenant: object.flag("is_tenant")?,
            on_disk,
            enable_hnsw,
            ..KeywordIndexParams::default()
        }),
        PayloadKind::Uuid => IndexParams::UuidIndexParams(UuidIndexParams {
            is_tenant: object.flag("is_tenant")?,
            on_disk,
            enable_hnsw,
            ..UuidIndexParams::default()
        }),
        PayloadKind::Integer => IndexParams::IntegerIndexParams(IntegerIndexParams {
            lookup: object.flag("lookup")?,
            range: object.flag("range")?,
            is_principal: object.flag("is_principal")?,
            on_disk,
            enable_hnsw,
            ..IntegerIndexParams::default()
        }),
        PayloadKind::Float => IndexParams::FloatIndexParams(FloatIndexParams {
            is_principal: object.flag("is_principal")?,
            on_disk,
            enable_hnsw,
            ..FloatIndexParams::default()
        }),
        PayloadKind::Datetime => IndexParams::DatetimeIndexParams(DatetimeIndexParams {
            is_principal: object.flag("is_principal")?,
            on_disk,
            enable_hnsw,
            ..DatetimeIndexParams::default()
        }),
        PayloadKind::Bool => {
            IndexParams::BoolIndexParams(BoolIndexParams { on_disk, enable_hnsw, ..BoolIndexParams::default() })
        }
        PayloadKind::Geo => {
            IndexParams::GeoIndexParams(GeoIndexParams { on_disk, enable_hnsw, ..GeoIndexParams::default() })
        }
        PayloadKind::Text => {
            IndexParams::TextIndexParams(TextIndexParams { on_disk, enable_hnsw, ..text(&mut object)? })
        }
    };
    object.end().map(|()| params)
}

fn text(object: &mut Object<'_>) -> Result<TextIndexParams, PortError> {
    const TOKENIZERS: [(&str, TokenizerType); 4] = [
        ("word", TokenizerType::Word),
        ("whitespace", TokenizerType::Whitespace),
        ("prefix", TokenizerType::Prefix),
        ("multilingual", TokenizerType::Multilingual),
    ];
    Ok(TextIndexParams {
        tokenizer: object.choice("tokenizer", &TOKENIZERS)?.unwrap_or(TokenizerType::Word).into(),
        lowercase: object.flag("lowercase")?,
        min_token_len: object.number("min_token_len")?,
        max_token_len: object.number("max_token_len")?,
        phrase_matching: object.flag("phrase_matching")?,
        ascii_folding: object.flag("ascii_folding")?,
        stopwords: object.take("stopwords").map(|(path, value)| stopwords(&path, value)).transpose()?,
        stemmer: object.object("stemmer")?.map(stemmer).transpose()?,
        ..TextIndexParams::default()
    })
}

/// The name of a language, or an object of languages and own words.
fn stopwords(path: &str, value: &Value) -> Result<StopwordsSet, PortError> {
    match value {
        Value::String(language) => Ok(StopwordsSet { languages: vec![language.clone()], custom: Vec::new() }),
        Value::Object(fields) => {
            let mut object = Object::new(path, fields);
            let words = StopwordsSet { languages: object.texts("languages")?, custom: object.texts("custom")? };
            object.end().map(|()| words)
        }
        other => Err(invalid(path, other, "a language, or a table of languages and custom")),
    }
}

fn stemmer(mut object: Object<'_>) -> Result<StemmingAlgorithm, PortError> {
    let is_off = object.choice("type", &[("snowball", false), ("none", true)])?.unwrap_or_default();
    let language = object.text("language")?.unwrap_or_default().to_owned();
    object.end()?;
    let params = if is_off {
        StemmingParams::Disabled(DisabledStemmer {})
    } else {
        StemmingParams::Snowball(SnowballParams { language })
    };
    Ok(StemmingAlgorithm { stemming_params: Some(params) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn index(json: Value) -> PayloadIndex {
        serde_json::from_value(json).unwrap()
    }

    fn keyword() -> PayloadIndex {
        PayloadIndex::new(PayloadKind::Keyword)
    }

    fn indexes(given: &[(&str, PayloadIndex)]) -> Indexes {
        given.iter().map(|(field, index)| ((*field).to_owned(), index.clone())).collect()
    }

    fn present(given: &[(&str, &str)]) -> BTreeMap<String, String> {
        given.iter().map(|(field, kind)| ((*field).to_owned(), (*kind).to_owned())).collect()
    }

    #[test]
    fn only_indexes_that_tidewheel_created_are_deleted() {
        let (plain, tenant) = (keyword(), index(json!({"type": "keyword", "is_tenant": true})));
        let wanted = indexes(&[("kept", plain.clone()), ("new", plain.clone()), ("theirs", plain.clone())]);
        let listed = indexes(&[("kept", plain.clone()), ("removed", plain.clone()), ("gone", plain.clone())]);
        let there = present(&[("kept", "keyword"), ("removed", "keyword"), ("theirs", "keyword"), ("foreign", "uuid")]);
        let changes = Changes::between(&wanted, &listed, &there);
        assert_eq!(changes.delete, ["removed"]);
        assert_eq!(changes.create, indexes(&[("new", plain.clone())]));
        assert_eq!(changes.listed, indexes(&[("kept", plain.clone()), ("new", plain.clone())]));

        // Other options, another type, and an index that is gone.
        let wanted = indexes(&[("options", tenant.clone()), ("type", plain.clone()), ("gone", plain.clone())]);
        let listed = indexes(&[("options", plain.clone()), ("type", plain.clone()), ("gone", plain)]);
        let there = present(&[("options", "keyword"), ("type", "integer")]);
        let changes = Changes::between(&wanted, &listed, &there);
        assert_eq!(changes.delete, ["options", "type"]);
        assert_eq!((&changes.create, &changes.listed), (&wanted, &wanted));

        // Another client's index stays only if it certainly is the wanted one.
        let wanted = indexes(&[("theirs", tenant)]);
        let changes = Changes::between(&wanted, &Indexes::new(), &present(&[("theirs", "keyword")]));
        assert_eq!((changes.delete, changes.create), (vec!["theirs".to_owned()], wanted));
    }

    fn some_indexes() -> impl Strategy<Value = Indexes> {
        let kind = prop::sample::select(vec![PayloadKind::Keyword, PayloadKind::Integer]);
        let index = (kind, any::<bool>()).prop_map(|(kind, on_disk)| {
            let mut index = PayloadIndex::new(kind);
            if on_disk {
                index.options.insert("on_disk".to_owned(), json!(true));
            }
            index
        });
        prop::collection::btree_map("[a-c]", index, 0..3)
    }

    fn types(server: &Indexes) -> BTreeMap<String, String> {
        server.iter().map(|(field, index)| (field.clone(), index.kind.name().to_owned())).collect()
    }

    proptest! {
        /// A model of the server, with definitions by field. After whatever step a change is interrupted, the next one
        /// reaches the wanted state.
        #[test]
        fn interrupted_changes_are_completed(
            wanted in some_indexes(),
            before in some_indexes(),
            foreign in some_indexes(),
            first in 0usize..10,
        ) {
            let mut server = foreign;
            server.extend(before.clone());
            let mut listed = before;
            for mut left in [first, usize::MAX] {
                let changes = Changes::between(&wanted, &listed, &types(&server));
                let mut step = || {
                    let goes = left > 0;
                    left = left.saturating_sub(1);
                    goes
                };
                for field in &changes.delete {
                    if step() {
                        server.remove(field);
                    }
                }
                if step() {
                    listed = changes.listed;
                }
                for (field, index) in changes.create {
                    if step() {
                        server.insert(field, index);
                    }
                }
            }
            for (field, index) in &wanted {
                let there = &server[field];
                let is_theirs = !listed.contains_key(field) && there.kind == index.kind && index.options.is_empty();
                prop_assert!(there == index || is_theirs, "{field}: {there:?} instead of {index:?}");
            }
            let done = Changes::between(&wanted, &listed, &types(&server));
            prop_assert!(done.delete.is_empty() && done.create.is_empty());
            prop_assert_eq!(done.listed, listed);
        }
    }

    #[test]
    #[allow(deprecated, reason = "`on_disk` is sent")]
    fn options_are_sent_with_their_type() {
        let request = creation("tickets.g1", "status", &index(json!({"type": "keyword"}))).unwrap();
        assert_eq!((request.field_type(), request.wait), (FieldType::Keyword, Some(true)));
        assert_eq!(request.field_index_params, None);
        let params = |json: Value| {
            let request = creation("tickets.g1", "field", &index(json)).unwrap();
            request.field_index_params.unwrap().index_params.unwrap()
        };
        let keyword = params(json!({"type": "keyword", "is_tenant": true, "on_disk": true}));
        let IndexParams::KeywordIndexParams(keyword) = keyword else { panic!("keyword") };
        assert_eq!((keyword.is_tenant, keyword.on_disk, keyword.enable_hnsw), (Some(true), Some(true), None));
        let text = params(json!({
            "type": "text", "tokenizer": "prefix", "lowercase": true, "stopwords": "english",
            "stemmer": {"type": "snowball", "language": "english"},
        }));
        let IndexParams::TextIndexParams(text) = text else { panic!("text") };
        assert_eq!((text.tokenizer(), text.lowercase), (TokenizerType::Prefix, Some(true)));
        assert_eq!(text.stopwords.unwrap().languages, ["english"]);
        assert!(text.stemmer.is_some());
        let IndexParams::IntegerIndexParams(integer) = params(json!({"type": "integer", "range": false})) else {
            panic!("integer")
        };
        assert_eq!((integer.lookup, integer.range), (None, Some(false)));
    }

    #[test]
    fn invalid_and_unknown_options_name_their_field() {
        for (json, message) in [
            (json!({"type": "keyword", "tenant": true}), "unknown setting payload.indexes.a.b.tenant"),
            (json!({"type": "geo", "is_tenant": true}), "unknown setting payload.indexes.a.b.is_tenant"),
            (
                json!({"type": "uuid", "is_tenant": 1}),
                "invalid payload.indexes.a.b.is_tenant 1: expected true or false",
            ),
            (
                json!({"type": "text", "tokenizer": "x"}),
                "invalid payload.indexes.a.b.tokenizer \"x\": expected one of word",
            ),
            (json!({"type": "text", "stopwords": 1}), "invalid payload.indexes.a.b.stopwords 1"),
        ] {
            let error = creation("tickets.g1", "a.b", &index(json)).unwrap_err();
            assert!(error.message.starts_with(message), "{error}");
        }
    }
}
