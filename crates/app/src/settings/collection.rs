//! The settings of a collection and of its payload indexes, as in Qdrant's own API.
//!
//! Left out are what tidewheel decides itself (dimension, distance), what it does not use (multivectors, sparse vectors, custom
//! sharding) and what Qdrant has deprecated.

use super::shape::{Field, Shape, field, required};

use Shape::{Amount, Between, Count, Either, Flag, Line, Lines, OneOf, Reserved, Table, Typed, Word};

/// `qdrant.vectors`.
pub(super) const VECTORS: Shape = Table(&[
    field("on_disk", Flag),
    field("datatype", Word(&["float32", "float16", "uint8"])),
    field("size", Reserved),
    field("distance", Reserved),
]);

/// `qdrant.hnsw`.
pub(super) const HNSW: Shape = Table(&[
    field("m", Count(0)),
    field("ef_construct", Count(4)),
    field("full_scan_threshold", Count(0)),
    field("max_indexing_threads", Count(0)),
    field("on_disk", Flag),
    field("payload_m", Count(0)),
    field("inline_storage", Flag),
]);

/// `qdrant.quantization`.
pub(super) const QUANTIZATION: Shape = OneOf(&[
    field(
        "scalar",
        Table(&[required("type", Word(&["int8"])), field("quantile", Between(50, 100)), field("always_ram", Flag)]),
    ),
    field(
        "product",
        Table(&[required("compression", Word(&["x4", "x8", "x16", "x32", "x64"])), field("always_ram", Flag)]),
    ),
    field(
        "binary",
        Table(&[
            field("always_ram", Flag),
            field("encoding", Word(&["one_bit", "two_bits", "one_and_half_bits"])),
            field("query_encoding", Word(&["default", "binary", "scalar4bits", "scalar8bits"])),
        ]),
    ),
    field(
        "turbo",
        Table(&[field("always_ram", Flag), field("bits", Word(&["bits1", "bits1_5", "bits2", "bits4", "bits8"]))]),
    ),
]);

/// `qdrant.optimizers`.
pub(super) const OPTIMIZERS: Shape = Table(&[
    field("deleted_threshold", Between(0, 100)),
    field("vacuum_min_vector_number", Count(0)),
    field("default_segment_number", Count(0)),
    field("max_segment_size", Count(0)),
    field("memmap_threshold", Count(0)),
    field("indexing_threshold", Count(0)),
    field("flush_interval_sec", Count(0)),
    field("max_optimization_threads", Either(&[Count(0), Word(&["auto"])])),
    field("prevent_unoptimized", Flag),
]);

/// `qdrant.strict_mode`.
pub(super) const STRICT_MODE: Shape = Table(&[
    field("enabled", Flag),
    field("max_query_limit", Count(1)),
    field("max_timeout", Count(1)),
    field("unindexed_filtering_retrieve", Flag),
    field("unindexed_filtering_update", Flag),
    field("search_max_hnsw_ef", Count(0)),
    field("search_allow_exact", Flag),
    field("search_max_oversampling", Amount),
    field("search_max_batchsize", Count(0)),
    field("upsert_max_batchsize", Count(0)),
    field("max_collection_vector_size_bytes", Count(0)),
    field("max_collection_payload_size_bytes", Count(0)),
    field("max_points_count", Count(1)),
    field("max_payload_index_count", Count(0)),
    field("read_rate_limit", Count(1)),
    field("write_rate_limit", Count(1)),
    field("filter_max_conditions", Count(0)),
    field("condition_max_size", Count(0)),
]);

const ON_DISK: Field = field("on_disk", Flag);
const ENABLE_HNSW: Field = field("enable_hnsw", Flag);
const IS_TENANT: Field = field("is_tenant", Flag);
const IS_PRINCIPAL: Field = field("is_principal", Flag);

/// One of `payload.indexes`.
pub(super) const PAYLOAD_INDEX: Shape = Typed(&[
    field("keyword", Table(&[IS_TENANT, ON_DISK, ENABLE_HNSW])),
    field("integer", Table(&[field("lookup", Flag), field("range", Flag), IS_PRINCIPAL, ON_DISK, ENABLE_HNSW])),
    field("float", Table(&[IS_PRINCIPAL, ON_DISK, ENABLE_HNSW])),
    field("bool", Table(&[ON_DISK, ENABLE_HNSW])),
    field("datetime", Table(&[IS_PRINCIPAL, ON_DISK, ENABLE_HNSW])),
    field("uuid", Table(&[IS_TENANT, ON_DISK, ENABLE_HNSW])),
    field("geo", Table(&[ON_DISK, ENABLE_HNSW])),
    field(
        "text",
        Table(&[
            field("tokenizer", Word(&["word", "whitespace", "prefix", "multilingual"])),
            field("lowercase", Flag),
            field("ascii_folding", Flag),
            field("min_token_len", Count(0)),
            field("max_token_len", Count(0)),
            field("phrase_matching", Flag),
            field("stopwords", Either(&[Line, Table(&[field("languages", Lines), field("custom", Lines)])])),
            field(
                "stemmer",
                Typed(&[field("snowball", Table(&[required("language", Line)])), field("none", Table(&[]))]),
            ),
            ON_DISK,
            ENABLE_HNSW,
        ]),
    ),
]);

/// `payload.indexes`.
pub(super) const PAYLOAD_INDEXES: Shape = Shape::Paths(&PAYLOAD_INDEX);

/// `payload.rename`.
pub(super) const RENAME: Shape = Shape::Paths(&Line);

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};
    use tidewheel_core::catalog::{PayloadIndex, PayloadKind};

    use super::super::origin::Origin;
    use super::super::shape::Report;
    use super::*;

    fn read(shape: Shape, value: &Json) -> Result<Json, String> {
        let mut problems = Vec::new();
        let read = shape.read(value, "t", &mut Report { origin: &Origin::Default, problems: &mut problems });
        read.ok_or_else(|| problems[0].to_string())
    }

    #[test]
    fn settings_of_qdrants_documentation_are_valid() {
        for (shape, value) in [
            (VECTORS, json!({"on_disk": true, "datatype": "float16"})),
            (
                HNSW,
                json!({"m": 0, "payload_m": 16, "ef_construct": 100, "full_scan_threshold": 10_000, "on_disk": true}),
            ),
            (QUANTIZATION, json!({"scalar": {"type": "int8", "quantile": 0.99, "always_ram": true}})),
            (QUANTIZATION, json!({"product": {"compression": "x16", "always_ram": true}})),
            (QUANTIZATION, json!({"binary": {}})),
            (
                OPTIMIZERS,
                json!({"deleted_threshold": 0.2, "indexing_threshold": 20_000, "max_optimization_threads": "auto"}),
            ),
            (STRICT_MODE, json!({"enabled": true, "max_query_limit": 100, "search_max_oversampling": 2.5})),
        ] {
            assert_eq!(read(shape, &value), Ok(value));
        }
    }

    #[test]
    fn payload_indexes_are_those_of_the_catalog() {
        for kind in PayloadKind::ALL {
            let read = read(PAYLOAD_INDEX, &json!(kind.name())).unwrap();
            assert_eq!(serde_json::from_value::<PayloadIndex>(read).unwrap(), PayloadIndex::new(kind));
        }
        let text = json!({
            "type": "text", "tokenizer": "word", "stopwords": {"languages": ["english"]},
            "stemmer": {"type": "snowball", "language": "english"},
        });
        assert_eq!(read(PAYLOAD_INDEX, &text), Ok(text));
        for (wrong, part) in [
            (json!("date"), "expected one of keyword, integer"),
            (json!({"type": "datetime", "is_tenant": true}), "unknown setting `t.is_tenant`"),
            (json!({"type": "text", "stemmer": {"type": "snowball"}}), "expected a table with `language`"),
        ] {
            let error = read(PAYLOAD_INDEX, &wrong).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn dimension_and_distance_belong_to_tidewheel() {
        for name in ["size", "distance"] {
            let error = read(VECTORS, &json!({name: "Dot"})).unwrap_err();
            assert!(error.starts_with(&format!("invalid t.{name}")) && error.contains("tidewheel sets it"), "{error}");
        }
    }
}
