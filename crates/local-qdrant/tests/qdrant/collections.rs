//! Collections and aliases over gRPC.

use qdrant_client::qdrant::{AliasOperations, ChangeAliases, CreateAlias, alias_operations::Action};
use qdrant_client::qdrant::{
    CollectionStatus, CreateAliasBuilder, CreateCollectionBuilder, DeleteAlias, Distance, HnswConfigDiffBuilder,
    OptimizersConfigDiffBuilder, SparseVectorParamsBuilder, SparseVectorsConfigBuilder, UpdateCollectionBuilder,
    VectorParamsBuilder, VectorsConfigBuilder,
};
use tonic::Code;

use super::server::{DOCS, TestServer, all, create, numbered, refused, upsert};

#[tokio::test]
async fn collection_is_created_described_updated_and_deleted() {
    let server = TestServer::start().await;
    let client = server.client();
    assert!(client.list_collections().await.unwrap().collections.is_empty());
    assert!(!client.collection_exists(DOCS).await.unwrap());

    create(&client, DOCS, 4).await;
    assert!(client.collection_exists(DOCS).await.unwrap());
    let (code, message) = refused(
        client
            .create_collection(
                CreateCollectionBuilder::new(DOCS).vectors_config(VectorParamsBuilder::new(4, Distance::Cosine)),
            )
            .await,
    );
    assert_eq!(code, Code::AlreadyExists);
    assert!(message.contains("Collection `docs` already exists!"), "{message}");

    upsert(&client, (0..7).map(|id| numbered(id, 1)).collect()).await;
    let info = client.collection_info(DOCS).await.unwrap().result.unwrap();
    assert_eq!(info.status(), CollectionStatus::Green);
    assert_eq!(info.points_count, Some(7));
    assert!(info.segments_count >= 1);
    let config = info.config.unwrap();
    let params = config.params.unwrap().vectors_config.unwrap().config.unwrap();
    let qdrant_client::qdrant::vectors_config::Config::Params(params) = params else { panic!("one vector") };
    assert_eq!((params.size, params.distance()), (4, Distance::Cosine));
    assert_eq!(config.hnsw_config.unwrap().m, Some(16));

    let update = UpdateCollectionBuilder::new(DOCS)
        .hnsw_config(HnswConfigDiffBuilder::default().m(8))
        .optimizers_config(OptimizersConfigDiffBuilder::default().indexing_threshold(123));
    client.update_collection(update).await.unwrap();
    let config = client.collection_info(DOCS).await.unwrap().result.unwrap().config.unwrap();
    assert_eq!(config.hnsw_config.unwrap().m, Some(8));
    assert_eq!(config.optimizer_config.unwrap().indexing_threshold, Some(123));

    assert!(client.delete_collection(DOCS).await.unwrap().result);
    assert!(!client.delete_collection(DOCS).await.unwrap().result, "already deleted");
    let (code, message) = refused(client.collection_info(DOCS).await);
    assert_eq!(code, Code::NotFound);
    assert!(message.contains("Collection `docs` doesn't exist!"), "{message}");

    create(&client, DOCS, 4).await;
    assert!(all(&client, DOCS).await.is_empty(), "a new collection is empty");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn creation_rejects_unsupported_features_and_invalid_names() {
    let server = TestServer::start().await;
    let client = server.client();
    let mut sparse = SparseVectorsConfigBuilder::default();
    sparse.add_named_vector_params("words", SparseVectorParamsBuilder::default());
    let request = CreateCollectionBuilder::new("sparse")
        .vectors_config(VectorParamsBuilder::new(4, Distance::Dot))
        .sparse_vectors_config(sparse);
    let (code, message) = refused(client.create_collection(request).await);
    assert_eq!(code, Code::Unimplemented);
    assert!(message.contains("sparse vectors"), "{message}");
    for name in ["a/b", "..", ""] {
        let request = CreateCollectionBuilder::new(name).vectors_config(VectorParamsBuilder::new(4, Distance::Cosine));
        assert_eq!(refused(client.create_collection(request).await).0, Code::InvalidArgument, "{name:?}");
    }
    assert!(client.list_collections().await.unwrap().collections.is_empty());
}

#[tokio::test]
async fn alias_resolves_to_its_collection_and_moves_atomically() {
    let server = TestServer::start().await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    create(&client, "next", 4).await;
    upsert(&client, vec![numbered(1, 1)]).await;
    client.create_alias(CreateAliasBuilder::new(DOCS, "live")).await.unwrap();
    assert_eq!(all(&client, "live").await.len(), 1, "requests by alias");

    let step = |action| AliasOperations { action: Some(action) };
    let create_alias = |to: &str| {
        step(Action::CreateAlias(CreateAlias { collection_name: to.to_owned(), alias_name: "live".to_owned() }))
    };
    let delete = step(Action::DeleteAlias(DeleteAlias { alias_name: "live".to_owned() }));
    // The second step fails, so the first must not be applied.
    let half = ChangeAliases { actions: vec![delete.clone(), create_alias("nowhere")], timeout: None };
    let mut aliases =
        qdrant_client::qdrant::collections_client::CollectionsClient::connect(format!("http://{}", server.grpc))
            .await
            .unwrap();
    assert_eq!(aliases.update_aliases(half).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(all(&client, "live").await.len(), 1);

    let swap = ChangeAliases { actions: vec![delete, create_alias("next")], timeout: None };
    aliases.update_aliases(swap).await.unwrap();
    assert_eq!(all(&client, "live").await.len(), 0, "the alias resolves to the other collection");
    let listed = client.list_aliases().await.unwrap().aliases;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].collection_name, "next");
    assert!(client.list_collection_aliases(DOCS).await.unwrap().aliases.is_empty());

    client.delete_collection("next").await.unwrap();
    assert!(client.list_aliases().await.unwrap().aliases.is_empty(), "aliases are deleted with their collection");
    let data = server.data().to_owned();
    assert_eq!(std::fs::read_to_string(data.join("aliases.json")).unwrap(), "{}");
}

#[tokio::test]
async fn named_vectors_are_searched_separately() {
    use qdrant_client::qdrant::{NamedVectors, PointStruct, QueryPointsBuilder, UpsertPointsBuilder, Vector};
    let server = TestServer::start().await;
    let client = server.client();
    let mut vectors = VectorsConfigBuilder::default();
    vectors.add_named_vector_params("title", VectorParamsBuilder::new(2, Distance::Dot));
    vectors.add_named_vector_params("body", VectorParamsBuilder::new(3, Distance::Dot));
    client.create_collection(CreateCollectionBuilder::new(DOCS).vectors_config(vectors)).await.unwrap();
    let both = |title: [f32; 2], body: [f32; 3]| {
        NamedVectors::default()
            .add_vector("title", Vector::new_dense(title.to_vec()))
            .add_vector("body", Vector::new_dense(body.to_vec()))
    };
    let points = vec![
        PointStruct::new(1, both([1.0, 0.0], [0.0, 0.0, 1.0]), qdrant_client::Payload::new()),
        PointStruct::new(2, both([0.0, 1.0], [1.0, 0.0, 0.0]), qdrant_client::Payload::new()),
    ];
    client.upsert_points(UpsertPointsBuilder::new(DOCS, points).wait(true)).await.unwrap();
    for (using, query, best) in [("title", vec![1.0, 0.0], 1), ("body", vec![1.0, 0.0, 0.0], 2)] {
        let request = QueryPointsBuilder::new(DOCS).query(query).using(using).limit(1);
        let found = client.query(request).await.unwrap().result;
        assert_eq!(found[0].id, Some(best.into()), "{using}");
    }
    let unknown = QueryPointsBuilder::new(DOCS).query(vec![1.0, 0.0]).using("footer").limit(1);
    assert_eq!(refused(client.query(unknown).await).0, Code::InvalidArgument);
}
