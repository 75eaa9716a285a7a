//! Collections created by others, and inspection.

use qdrant_client::qdrant::{
    CreateAliasBuilder, CreateCollectionBuilder, Distance, PointStruct, UpsertPointsBuilder, VectorParamsBuilder,
    VectorParamsMap, VectorsConfig, vectors_config::Config,
};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::identity::Namespace;
use tidewheel_core::payload::{DOCUMENT, NAMESPACE};
use tidewheel_core::ports::{Aliases, IndexReader, IndexWriter, Named, Written};
use tidewheel_core::version::Version;
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
use tidewheel_testkit::contracts::index::{DIMENSION, document};

use super::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mismatched_collection_is_rejected_with_its_schema() {
    let server = Server::any().await;
    let vectors = |distance| VectorParamsBuilder::new(DIMENSION as u64, distance);
    let named = VectorParamsMap { map: [("text".to_owned(), vectors(Distance::Cosine).build())].into() };
    let named = VectorsConfig { config: Some(Config::ParamsMap(named)) };
    for (shape, found) in [
        (CreateCollectionBuilder::default().vectors_config(vectors(Distance::Dot)), "with Dot distance"),
        (CreateCollectionBuilder::default().vectors_config(named), "only named vectors (text)"),
    ] {
        server.client().create_collection(shape.collection_name(&server.collection)).await.unwrap();
        let error = server.connect().prepare(DIMENSION).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(error.message.contains(found) && error.message.contains("dimension 4"), "{error}");
        assert!(error.hint.is_some_and(|hint| hint.contains("qdrant.collection")));
        server.client().delete_collection(&server.collection).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alias_works_like_its_collection() {
    let server = Server::any().await;
    server.connect().prepare(DIMENSION).await.unwrap();
    let alias = format!("{}-alias", server.collection);
    server.client().create_alias(CreateAliasBuilder::new(&server.collection, &alias)).await.unwrap();
    let index = QdrantIndex::connect(QdrantOptions::new(&server.url, &alias)).unwrap();
    index.prepare(DIMENSION).await.unwrap();
    let ticket = document(&Namespace::new("shop", "tickets"), "1", Version::default(), &["a"]);
    assert_eq!(index.upsert(&[&ticket]).await.unwrap(), Written::Durably);
    assert_eq!(server.connect().count().await.unwrap(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_points_are_kept_and_ignored() {
    let server = Server::any().await;
    let index = server.connect();
    index.prepare(DIMENSION).await.unwrap();
    let foreign = PointStruct::new(7, vec![0.5; DIMENSION], [("name", "foreign".into())]);
    let upsert = UpsertPointsBuilder::new(&server.collection, vec![foreign]).wait(true);
    server.client().upsert_points(upsert).await.unwrap();
    let ticket = document(&Namespace::new("shop", "tickets"), "1", Version::default(), &["a"]);
    assert_eq!(index.upsert(&[&ticket]).await.unwrap(), Written::Durably);
    // It is counted, but it has no UUID: pages, which are compared with the source, contain only points that could be
    // ours.
    assert_eq!(index.count().await.unwrap(), Some(2));
    let page = index.page(None, 10, &[]).await.unwrap();
    assert_eq!(page.iter().map(|point| point.id).collect::<Vec<_>>(), [ticket.points[0].id]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inspection_shows_server_and_collection() {
    let server = Server::any().await;
    let index = server.connect();
    let before = index.inspect().await.unwrap();
    assert!(!before.version.is_empty() && !before.title.is_empty());
    assert_eq!(before.collection, None);
    index.prepare(DIMENSION).await.unwrap();
    let ticket = document(&Namespace::new("shop", "tickets"), "1", Version::default(), &["a", "b"]);
    assert_eq!(index.upsert(&[&ticket]).await.unwrap(), Written::Durably);
    let facts = index.inspect().await.unwrap().collection.unwrap();
    assert_eq!((facts.dimension, facts.distance.as_deref(), facts.points), (Some(4), Some("Cosine"), 2));
    let indexes: Vec<_> = facts.payload_indexes.iter().map(|(field, kind)| (field.as_str(), kind.as_str())).collect();
    assert_eq!(indexes, [(DOCUMENT, "uuid"), (NAMESPACE, "keyword")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alias_switch_replaces_alias_and_rejects_a_collection_name() {
    let server = Server::any().await;
    let index = server.connect();
    let (first, alias) = (server.collection.clone(), format!("{}-current", server.collection));
    assert_eq!(index.resolve(&first).await.unwrap(), Named::Nothing);
    index.prepare(DIMENSION).await.unwrap();
    assert_eq!(index.resolve(&first).await.unwrap(), Named::Collection);
    assert_eq!(index.resolve(&alias).await.unwrap(), Named::Nothing);
    let second = format!("{first}-2");
    QdrantIndex::connect(QdrantOptions::new(&server.url, &second)).unwrap().prepare(DIMENSION).await.unwrap();
    for collection in [&first, &second, &second] {
        index.switch(&alias, collection).await.unwrap();
        assert_eq!(index.resolve(&alias).await.unwrap(), Named::Alias(collection.clone()));
    }
    let error = index.switch(&first, &second).await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.hint.unwrap().contains(&second));
}
