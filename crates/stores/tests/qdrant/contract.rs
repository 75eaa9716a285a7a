//! The contracts of the index's ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use qdrant_client::qdrant::{
    CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, Distance, FieldType, VectorParamsBuilder,
};
use tidewheel_core::catalog::{IndexName, PayloadKind};
use tidewheel_core::payload::RESERVED;
use tidewheel_core::ports::{Aliases, Collections, Ownable};
use tidewheel_stores::qdrant::{QdrantCollections, QdrantIndex, QdrantOptions};
use tidewheel_testkit::contracts::collections::CollectionsHarness;
use tidewheel_testkit::contracts::index::DIMENSION;
use tidewheel_testkit::contracts::ownership::{collection_mark_is_kept_until_replaced, installation};

use super::server::Server;

#[tokio::test]
async fn collection_mark_is_shared_by_name_and_alias() {
    let server = Server::any().await;
    collection_mark_is_kept_until_replaced(&server, &server.connect()).await;
    let alias = format!("{}-alias", server.collection);
    let index = server.connect();
    index.switch(&alias, &server.collection).await.unwrap();
    let aliased = QdrantIndex::connect(QdrantOptions { collection: alias.clone(), ..server.options() }).unwrap();
    aliased.set_mark(&installation("shop")).await.unwrap();
    assert_eq!(aliased.mark().await.unwrap(), index.mark().await.unwrap());
    server.client().delete_alias(&alias).await.unwrap();
}

#[async_trait]
impl CollectionsHarness for Server {
    fn collections(&self) -> Arc<dyn Collections> {
        Arc::new(QdrantCollections::from(&self.connect()))
    }

    fn index_name(&self) -> IndexName {
        IndexName::new(&self.collection).unwrap()
    }

    async fn create_foreign(&self, name: &str) {
        let vectors = VectorParamsBuilder::new(DIMENSION as u64, Distance::Cosine);
        let request = CreateCollectionBuilder::new(name).vectors_config(vectors);
        self.client().create_collection(request).await.unwrap();
    }

    async fn index_field(&self, collection: &str, field: &str, kind: PayloadKind) {
        let kind = match kind {
            PayloadKind::Keyword => FieldType::Keyword,
            other => panic!("no test has an index of type {}", other.name()),
        };
        let request = CreateFieldIndexCollectionBuilder::new(collection, field, kind).wait(true);
        self.client().create_field_index(request).await.unwrap();
    }

    async fn indexed_fields(&self, collection: &str) -> BTreeMap<String, String> {
        let index = QdrantCollections::from(&self.connect()).index(collection);
        let mut indexes = index.inspect().await.unwrap().collection.unwrap().payload_indexes;
        indexes.retain(|field, _| !field.starts_with(RESERVED));
        indexes
    }
}

tidewheel_testkit::index_contract!(Server::any().await);
tidewheel_testkit::collections_contract_tests!(Server::any().await);
