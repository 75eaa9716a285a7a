use qdrant_client::qdrant::quantization_config_diff::Quantization as Diff;
use serde_json::{Map, json};
use tidewheel_core::error::ErrorClass;

use super::*;

fn spec(settings: &Value) -> CollectionSpec {
    CollectionSpec { settings: settings.as_object().unwrap().clone(), ..CollectionSpec::default() }
}

fn created(spec: &CollectionSpec, layout: &VectorLayout) -> CreateCollection {
    creation("tickets.g1", spec, layout, 384).unwrap()
}

fn params(request: &CreateCollection) -> VectorParams {
    let Some(vectors_config::Config::Params(params)) = request.vectors_config.clone().unwrap().config else {
        panic!("one unnamed vector")
    };
    params
}

#[test]
fn empty_specification_leaves_everything_but_the_vectors_to_the_server() {
    let request = created(&CollectionSpec::default(), &VectorLayout::default());
    let vectors = VectorParams { size: 384, distance: proto::Distance::Cosine.into(), ..VectorParams::default() };
    assert_eq!(params(&request), vectors);
    assert_eq!(
        request,
        CreateCollection {
            collection_name: "tickets.g1".to_owned(),
            vectors_config: request.vectors_config.clone(),
            ..CreateCollection::default()
        }
    );
    assert_eq!(alteration("tickets.g1", &CollectionSpec::default(), false).unwrap(), None);
}

#[test]
#[allow(deprecated, reason = "the plain flags are sent")]
fn creation_sends_every_setting_of_the_documented_example() {
    let mut spec = spec(&json!({
        "replication_factor": 2,
        "on_disk_payload": true,
        "vectors": {"on_disk": true},
        "quantization": {"scalar": {"type": "int8", "always_ram": true, "quantile": 0.99}},
        "hnsw": {"m": 16},
        "optimizers": {"indexing_threshold": 5, "max_optimization_threads": "auto"},
        "strict_mode": {"enabled": true, "unindexed_filtering_update": false},
    }));
    spec.shard_number = Some(6);
    spec.sharding_method = Some(ShardingMethod::Auto);
    let layout = VectorLayout { datatype: Datatype::Float16, ..VectorLayout::default() };
    let request = created(&spec, &layout);
    let vectors = params(&request);
    assert_eq!((vectors.on_disk, vectors.datatype()), (Some(true), proto::Datatype::Float16));
    assert_eq!((request.shard_number, request.replication_factor), (Some(6), Some(2)));
    assert_eq!(request.on_disk_payload, Some(true));
    assert_eq!(request.hnsw_config, Some(HnswConfigDiff { m: Some(16), ..HnswConfigDiff::default() }));
    let scalar = ScalarQuantization {
        r#type: QuantizationType::Int8.into(),
        quantile: Some(0.99),
        always_ram: Some(true),
        ..ScalarQuantization::default()
    };
    assert_eq!(request.quantization_config.unwrap().quantization, Some(Quantization::Scalar(scalar)));
    let threads = request.optimizers_config.unwrap().max_optimization_threads.unwrap().variant;
    assert_eq!(threads, Some(Threads::Setting(ThreadsSetting::Auto.into())));
    assert_eq!(request.strict_mode_config.unwrap().unindexed_filtering_update, Some(false));
}

#[test]
#[allow(deprecated, reason = "the plain flags are sent")]
fn alteration_sends_what_can_be_altered_and_nothing_else() {
    let mut spec = spec(&json!({
        "replication_factor": 2, "vectors": {"on_disk": false}, "quantization": "Disabled", "hnsw": {"m": 8},
    }));
    spec.shard_number = Some(6);
    let request = alteration("tickets.g1", &spec, false).unwrap().unwrap();
    let params = request.params.unwrap();
    assert_eq!((params.replication_factor, params.write_consistency_factor), (Some(2), None));
    let Some(vectors_config_diff::Config::Params(vectors)) = request.vectors_config.unwrap().config else {
        panic!("one unnamed vector")
    };
    assert_eq!(vectors.on_disk, Some(false));
    assert_eq!(request.quantization_config.unwrap().quantization, Some(Diff::Disabled(proto::Disabled {})));
    assert!(request.optimizers_config.is_none() && request.strict_mode_config.is_none());
    // Shards cannot be altered.
    spec.settings = Map::new();
    assert_eq!(alteration("tickets.g1", &spec, false).unwrap(), None);
}

#[test]
fn quantization_that_is_no_longer_declared_is_turned_off() {
    let request = alteration("tickets.g1", &CollectionSpec::default(), true).unwrap().unwrap();
    let expected = QuantizationConfigDiff { quantization: Some(Diff::Disabled(proto::Disabled {})) };
    assert_eq!(
        request,
        UpdateCollection {
            collection_name: "tickets.g1".to_owned(),
            quantization_config: Some(expected),
            ..UpdateCollection::default()
        }
    );
    let declared = spec(&json!({"quantization": {"binary": {}}}));
    let request = alteration("tickets.g1", &declared, true).unwrap().unwrap();
    assert!(matches!(request.quantization_config.unwrap().quantization, Some(Diff::Binary(_))));
}

#[test]
fn every_quantization_method_is_sent() {
    let method = |settings: Value| {
        let request = created(&spec(&json!({"quantization": settings})), &VectorLayout::default());
        request.quantization_config.map(|config| config.quantization.unwrap())
    };
    assert_eq!(method(json!("disabled")), None);
    let Some(Quantization::Scalar(scalar)) = method(json!({"scalar": {}})) else { panic!("scalar") };
    assert_eq!(scalar.r#type(), QuantizationType::Int8);
    let Some(Quantization::Product(product)) = method(json!({"product": {"compression": "x16"}})) else {
        panic!("product")
    };
    assert_eq!(product.compression(), CompressionRatio::X16);
    let binary = json!({"binary": {"encoding": "two_bits", "query_encoding": "scalar8bits"}});
    let Some(Quantization::Binary(binary)) = method(binary) else { panic!("binary") };
    assert_eq!(binary.encoding(), BinaryQuantizationEncoding::TwoBits);
    let query = Some(QueryVariant::Setting(QueryEncoding::Scalar8Bits.into()));
    assert_eq!(binary.query_encoding.unwrap().variant, query);
    let Some(Quantization::Turboquant(turbo)) = method(json!({"turbo": {"bits": "bits1_5"}})) else { panic!("turbo") };
    assert_eq!(turbo.bits(), TurboQuantBitSize::Bits15);
}

#[test]
fn invalid_and_unknown_settings_are_fatal_and_named() {
    for (settings, message) in [
        (json!({"hnsw": {"m": "many"}}), "invalid qdrant.hnsw.m \"many\": expected a whole number"),
        (json!({"hnsw": {"size": 1}}), "unknown setting qdrant.hnsw.size"),
        (json!({"wal": {}}), "unknown setting qdrant.wal"),
        (json!({"vectors": {"datatype": "float16"}}), "unknown setting qdrant.vectors.datatype"),
        (
            json!({"optimizers": {"max_optimization_threads": "all"}}),
            "invalid qdrant.optimizers.max_optimization_threads",
        ),
        (json!({"strict_mode": {"enabled": 1}}), "invalid qdrant.strict_mode.enabled 1: expected true or false"),
        (json!({"quantization": {}}), "invalid qdrant.quantization {}: expected a table with one of scalar"),
        (json!({"quantization": {"scalar": {"type": "int4"}}}), "invalid qdrant.quantization.scalar.type \"int4\""),
        (json!({"quantization": {"scalar": {}, "binary": {}}}), "unknown setting qdrant.quantization.binary"),
        (json!({"quantization": {"product": {}}}), "expected a table with product.compression"),
    ] {
        for error in [
            creation("tickets.g1", &spec(&settings), &VectorLayout::default(), 4).unwrap_err(),
            alteration("tickets.g1", &spec(&settings), false).unwrap_err(),
        ] {
            assert_eq!(error.class, ErrorClass::Fatal);
            assert!(error.message.contains(message) && error.hint.is_some(), "{error}");
        }
    }
}

#[test]
fn layout_that_the_adapter_cannot_write_is_refused() {
    let layout = VectorLayout { dense: "text".to_owned(), ..VectorLayout::default() };
    let error = creation("tickets.g1", &CollectionSpec::default(), &layout, 4).unwrap_err();
    assert!(error.message.contains("\"text\""), "{error}");
    let custom = CollectionSpec { sharding_method: Some(ShardingMethod::Custom), ..CollectionSpec::default() };
    let error = creation("tickets.g1", &custom, &VectorLayout::default(), 4).unwrap_err();
    assert!(error.message.contains("qdrant.sharding_method \"custom\""), "{error}");
}
