//! Collection metadata.

use qdrant_client::qdrant::{CreateCollectionBuilder, Distance, UpdateCollection, VectorParamsBuilder};
use serde_json::{Value, json};

use super::server::{DOCS, TestServer};

#[tokio::test]
async fn metadata_is_stored_merged_and_returned_by_both_apis() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(dir.path()).await;
    let (client, rest) = (server.client(), server.rest());
    let create = CreateCollectionBuilder::new(DOCS).vectors_config(VectorParamsBuilder::new(4, Distance::Cosine));
    client.create_collection(create).await.unwrap();
    let shown = async |rest: &super::server::Rest| rest.get("/collections/docs").await["config"]["metadata"].clone();
    assert_eq!(shown(&rest).await, Value::Null);
    let metadata = json!({"owner": {"id": "a", "numbers": [1, 2.5, null]}, "team": "search"});
    let metadata: qdrant_client::Payload = metadata.try_into().unwrap();
    let update = |metadata: qdrant_client::Payload| UpdateCollection {
        collection_name: DOCS.to_owned(),
        metadata: metadata.into(),
        ..UpdateCollection::default()
    };
    client.update_collection(update(metadata)).await.unwrap();
    client.update_collection(update(json!({"team": null, "since": 2024}).try_into().unwrap())).await.unwrap();
    let expected = json!({"owner": {"id": "a", "numbers": [1, 2.5, null]}, "since": 2024});
    assert_eq!(shown(&rest).await, expected);
    server.stop().await.unwrap();

    let server = TestServer::start_in(dir.path()).await;
    let (client, rest) = (server.client(), server.rest());
    let config = client.collection_info(DOCS).await.unwrap().result.unwrap().config.unwrap();
    let kept: serde_json::Map<_, Value> = config.metadata.into_iter().map(|(key, value)| (key, value.into())).collect();
    assert_eq!(Value::Object(kept), expected);
    rest.ok("PATCH", "/collections/docs", Some(json!({"metadata": {"since": 2025}}))).await;
    assert_eq!(shown(&rest).await["since"], 2025);
    let other = json!({"vectors": {"size": 4, "distance": "Cosine"}, "metadata": {"owner": "b"}});
    rest.put("/collections/other", other).await;
    assert_eq!(rest.get("/collections/other").await["config"]["metadata"], json!({"owner": "b"}));
}
