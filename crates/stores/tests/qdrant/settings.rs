//! Settings of a declared collection, as the server reports them.

use std::collections::BTreeMap;

use qdrant_client::qdrant::quantization_config::Quantization;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{CollectionConfig, CompressionRatio, Datatype as Stored, VectorParams};
use serde_json::{Value, json};
use tidewheel_core::catalog::{CollectionSpec, Datatype, PayloadIndex, PayloadKind, ShardingMethod, VectorLayout};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::payload::VERSION_HIGH;
use tidewheel_core::ports::{CollectionAdmin, IndexWriter};
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
use tidewheel_testkit::contracts::index::DIMENSION;

use super::server::Server;

fn spec(settings: &Value) -> CollectionSpec {
    CollectionSpec { settings: settings.as_object().unwrap().clone(), ..CollectionSpec::default() }
}

/// The first generation of an index, which does not exist yet.
fn generation(server: &Server) -> QdrantIndex {
    let collection = format!("{}.g1", server.collection);
    QdrantIndex::connect(QdrantOptions { collection, ..server.options() }).unwrap()
}

async fn reported(server: &Server) -> CollectionConfig {
    let info = server.client().collection_info(format!("{}.g1", server.collection)).await.unwrap();
    info.result.unwrap().config.unwrap()
}

fn vector(config: &CollectionConfig) -> VectorParams {
    let vectors = config.params.as_ref().unwrap().vectors_config.as_ref().unwrap();
    let Some(Config::Params(params)) = vectors.config.clone() else { panic!("one unnamed vector") };
    params
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(deprecated, reason = "the plain flags are sent")]
async fn every_setting_of_the_documented_example_is_reported_by_the_server() {
    let server = Server::any().await;
    let mut spec = spec(&json!({
        "replication_factor": 1,
        "on_disk_payload": true,
        "vectors": {"on_disk": true},
        "quantization": {"scalar": {"type": "int8", "always_ram": true}},
        "hnsw": {"m": 24},
        "strict_mode": {"enabled": true, "max_query_limit": 1_000},
    }));
    spec.shard_number = Some(6);
    spec.sharding_method = Some(ShardingMethod::Auto);
    let layout = VectorLayout { datatype: Datatype::Float16, ..VectorLayout::default() };
    assert!(generation(&server).create(&spec, &layout, DIMENSION).await.unwrap());

    let config = reported(&server).await;
    let vector = vector(&config);
    assert_eq!((vector.size, vector.on_disk, vector.datatype()), (DIMENSION as u64, Some(true), Stored::Float16));
    let params = config.params.unwrap();
    assert_eq!((params.shard_number, params.replication_factor, params.on_disk_payload), (6, Some(1), true));
    assert_eq!(config.hnsw_config.unwrap().m, Some(24));
    let Some(Quantization::Scalar(scalar)) = config.quantization_config.unwrap().quantization else { panic!("scalar") };
    assert_eq!(scalar.always_ram, Some(true));
    assert_eq!(config.strict_mode_config.unwrap().max_query_limit, Some(1_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(deprecated, reason = "the plain flags are sent")]
async fn alteration_replaces_only_what_it_names() {
    let server = Server::any().await;
    let index = generation(&server);
    let first = spec(&json!({"hnsw": {"m": 24}, "quantization": {"product": {"compression": "x8"}}}));
    index.create(&first, &VectorLayout::default(), DIMENSION).await.unwrap();
    let altered = spec(&json!({
        "hnsw": {"ef_construct": 64},
        "vectors": {"on_disk": true},
        "on_disk_payload": false,
        "write_consistency_factor": 2,
        "optimizers": {"indexing_threshold": 1_234},
        "strict_mode": {"enabled": true, "unindexed_filtering_update": false},
    }));
    index.alter(&altered).await.unwrap();
    let config = reported(&server).await;
    let hnsw = config.hnsw_config.unwrap();
    assert_eq!((hnsw.m, hnsw.ef_construct), (Some(24), Some(64)));
    assert_eq!(vector(&config).on_disk, Some(true));
    let Some(Quantization::Product(product)) = config.quantization_config.unwrap().quantization else {
        panic!("product")
    };
    assert_eq!(product.compression(), CompressionRatio::X8);
    assert_eq!(config.optimizer_config.unwrap().indexing_threshold, Some(1_234));
    let params = config.params.unwrap();
    assert_eq!((params.write_consistency_factor, params.on_disk_payload), (Some(2), false));
    let indexes = index.inspect().await.unwrap().collection.unwrap().payload_indexes;
    assert!(indexes.contains_key(VERSION_HIGH), "strict mode requires an index of the version: {indexes:?}");

    index.alter(&spec(&json!({"quantization": "disabled"}))).await.unwrap();
    assert_eq!(reported(&server).await.quantization_config, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_setting_is_refused_before_the_server_is_changed() {
    let server = Server::any().await;
    let index = generation(&server);
    let wrong = spec(&json!({"hnsw": {"m": "many"}}));
    for error in [index.create(&wrong, &VectorLayout::default(), DIMENSION).await.unwrap_err(), {
        index.prepare(DIMENSION).await.unwrap();
        index.alter(&wrong).await.unwrap_err()
    }] {
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(error.message.contains("qdrant.hnsw.m \"many\""), "{error}");
    }
    let unknown = serde_json::from_value::<PayloadIndex>(json!({"type": "uuid", "tenant": true})).unwrap();
    let wanted = BTreeMap::from([("a".to_owned(), PayloadIndex::new(PayloadKind::Keyword)), ("b".to_owned(), unknown)]);
    let error = index.field_indexes(&wanted).await.unwrap_err();
    assert_eq!(error.message, "unknown setting payload.indexes.b.tenant");
    let indexes = index.inspect().await.unwrap().collection.unwrap().payload_indexes;
    assert!(!indexes.contains_key("a"), "{indexes:?}");
}
