//! Settings of a collection: accepted by both APIs, reported, changed, and kept across a restart.

use qdrant_client::qdrant::quantization_config_diff::Quantization as Diff;
use qdrant_client::qdrant::{
    CollectionParamsDiffBuilder, CreateCollectionBuilder, Datatype, Disabled, Distance, HnswConfigDiffBuilder,
    QuantizationConfigDiff, ScalarQuantizationBuilder, ShardingMethod, StrictModeConfigBuilder, UpdateCollection,
    UpdateCollectionBuilder, VectorParamsBuilder, vectors_config::Config,
};
use serde_json::{Value, json};
use tonic::Code;

use super::server::{DOCS, TestServer, all, numbered, refused, upsert};

/// The settings of a configuration that the tests look at.
fn shown(info: &Value) -> Value {
    let (config, params) = (&info["config"], &info["config"]["params"]);
    json!({
        "vectors": params["vectors"],
        "shards": [params["shard_number"], params["replication_factor"], params["write_consistency_factor"]],
        "on_disk_payload": params["on_disk_payload"],
        "quantization": config["quantization_config"],
        "m": config["hnsw_config"]["m"],
        "strict": config["strict_mode_config"],
        "threads": config["optimizer_config"]["max_optimization_threads"],
    })
}

#[tokio::test]
async fn settings_are_reported_changed_and_kept_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(dir.path()).await;
    let (client, rest) = (server.client(), server.rest());
    let create = json!({
        "vectors": {"size": 4, "distance": "Cosine", "on_disk": true, "datatype": "float16"},
        "shard_number": 6,
        "replication_factor": 2,
        "on_disk_payload": true,
        "quantization_config": {"scalar": {"type": "int8", "always_ram": true, "quantile": 0.99}},
        "hnsw_config": {"m": 24},
        "optimizers_config": {"max_optimization_threads": "auto"},
        "strict_mode_config": {"enabled": true, "max_query_limit": 10},
    });
    rest.put("/collections/docs", create).await;
    let mut expected = json!({
        "vectors": {"size": 4, "distance": "Cosine", "on_disk": true, "datatype": "float16"},
        "shards": [6, 2, 1],
        "on_disk_payload": true,
        "quantization": {"scalar": {"type": "int8", "always_ram": true, "quantile": 0.99}},
        "m": 24,
        "strict": {"enabled": true, "max_query_limit": 10},
        "threads": "auto",
    });
    let mut found = shown(&rest.get("/collections/docs").await);
    // The engine holds a quantile as a 32-bit float.
    let quantile = found["quantization"]["scalar"]["quantile"].take().as_f64().unwrap();
    assert!((quantile - 0.99).abs() < 1e-6);
    expected["quantization"]["scalar"]["quantile"] = Value::Null;
    assert_eq!(found, expected);
    upsert(&client, (0..5).map(|id| numbered(id, 1)).collect()).await;
    assert_eq!(all(&client, DOCS).await.len(), 5);

    let patch = json!({
        "params": {"replication_factor": 3, "on_disk_payload": false},
        "vectors": {"": {"on_disk": false}},
        "quantization_config": {"binary": {"encoding": "two_bits"}},
        "strict_mode_config": {"max_query_limit": 20},
    });
    rest.ok("PATCH", "/collections/docs", Some(patch)).await;
    server.stop().await.unwrap();

    let server = TestServer::start_in(dir.path()).await;
    let (client, rest) = (server.client(), server.rest());
    let found = shown(&rest.get("/collections/docs").await);
    expected["vectors"]["on_disk"] = json!(false);
    expected["shards"] = json!([6, 3, 1]);
    expected["on_disk_payload"] = json!(false);
    expected["quantization"] = json!({"binary": {"encoding": "two_bits"}});
    expected["strict"]["max_query_limit"] = json!(20);
    assert_eq!(found, expected);
    assert_eq!(all(&client, DOCS).await.len(), 5, "the engine applies the changes at its start");
    rest.ok("PATCH", "/collections/docs", Some(json!({"quantization_config": "Disabled"}))).await;
    assert_eq!(shown(&rest.get("/collections/docs").await)["quantization"], Value::Null);
}

#[tokio::test]
#[allow(deprecated, reason = "current clients use the plain flags")]
async fn grpc_reports_what_it_accepts() {
    let server = TestServer::start().await;
    let client = server.client();
    let vectors = VectorParamsBuilder::new(4, Distance::Dot).datatype(Datatype::Uint8).on_disk(true);
    let create = CreateCollectionBuilder::new(DOCS)
        .vectors_config(vectors)
        .shard_number(4)
        .sharding_method(ShardingMethod::Auto.into())
        .replication_factor(2)
        .write_consistency_factor(2)
        .quantization_config(ScalarQuantizationBuilder::default().always_ram(true))
        .strict_mode_config(StrictModeConfigBuilder::default().enabled(true).read_rate_limit(9));
    client.create_collection(create).await.unwrap();
    let config = async || client.collection_info(DOCS).await.unwrap().result.unwrap().config.unwrap();
    let found = config().await;
    let params = found.params.unwrap();
    assert_eq!((params.shard_number, params.write_consistency_factor), (4, Some(2)));
    let Some(Config::Params(vector)) = params.vectors_config.unwrap().config else { panic!("one vector") };
    assert_eq!((vector.datatype(), vector.on_disk), (Datatype::Uint8, Some(true)));
    assert!(found.quantization_config.is_some());
    assert_eq!(found.strict_mode_config.unwrap().read_rate_limit, Some(9));

    let update = UpdateCollectionBuilder::new(DOCS)
        .params(CollectionParamsDiffBuilder::default().replication_factor(3))
        .hnsw_config(HnswConfigDiffBuilder::default().m(8));
    client.update_collection(update).await.unwrap();
    let off = QuantizationConfigDiff { quantization: Some(Diff::Disabled(Disabled {})) };
    let off = UpdateCollection {
        collection_name: DOCS.to_owned(),
        quantization_config: Some(off),
        ..UpdateCollection::default()
    };
    client.update_collection(off).await.unwrap();
    let found = config().await;
    assert_eq!((found.params.unwrap().replication_factor, found.quantization_config), (Some(3), None));
    assert_eq!(found.hnsw_config.unwrap().m, Some(8));
}

#[tokio::test]
async fn invalid_settings_are_rejected_and_change_nothing() {
    let server = TestServer::start().await;
    let (client, rest) = (server.client(), server.rest());
    let vectors = VectorParamsBuilder::new(4, Distance::Dot);
    let custom = CreateCollectionBuilder::new("custom")
        .vectors_config(vectors.clone())
        .sharding_method(ShardingMethod::Custom.into());
    let (code, message) = refused(client.create_collection(custom).await);
    assert_eq!(code, Code::Unimplemented);
    assert!(message.contains("custom sharding"), "{message}");
    let turbo = CreateCollectionBuilder::new("turbo").vectors_config(vectors.datatype(Datatype::Turbo16));
    assert_eq!(refused(client.create_collection(turbo).await).0, Code::Unimplemented);

    rest.put("/collections/docs", json!({"vectors": {"size": 4, "distance": "Dot"}})).await;
    for (patch, part) in [
        (json!({"params": {"replication_factor": 0}}), "replication_factor"),
        (json!({"vectors": {"text": {"on_disk": true}}}), "Not existing vector name error: text"),
        (json!({"quantization_config": {"scalar": {"type": "int8", "quantile": 0.1}}}), "quantile"),
        (json!({"hnsw_config": {"m": 3}, "quantization_config": {"scalar": {"type": "int4"}}}), "QuantizationChange"),
    ] {
        let (status, answer) = rest.call("PATCH", "/collections/docs", Some(patch)).await;
        assert_eq!(status, 400);
        assert!(answer["status"]["error"].as_str().unwrap().contains(part), "{answer}");
    }
    let info = rest.get("/collections/docs").await;
    assert_eq!(
        (&info["config"]["hnsw_config"]["m"], &info["config"]["quantization_config"]),
        (&json!(16), &Value::Null)
    );
}
