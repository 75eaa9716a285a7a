//! The contract of the index port.

use tidewheel_core::ports::{Aliases, Ownable};
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
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

tidewheel_testkit::index_contract!(Server::any().await);
