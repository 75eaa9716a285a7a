//! A server that is down, comes back, or denies access.

use std::time::Duration;

use tidewheel_core::error::ErrorClass;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{IndexReader, IndexWriter, Written};
use tidewheel_core::version::Version;
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
use tidewheel_testkit::contracts::index::{DIMENSION, document};
use tokio::net::TcpListener;

use super::server::{Local, Server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn index_handle_survives_a_server_restart() {
    let mut server = Server::local(None).await;
    let index = server.connect();
    let ticket = document(&Namespace::new("shop", "tickets"), "1", Version::default(), &["a"]);
    index.prepare(DIMENSION).await.unwrap();
    assert_eq!(index.upsert(&[&ticket]).await.unwrap(), Written::Durably);

    let (data, address, key) = server.stop().await;
    let error = index.upsert(&[&ticket]).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.contains("write 1 points") && error.message.contains(&server.collection), "{error}");
    assert_eq!(index.count().await.unwrap_err().class, ErrorClass::Transient);

    server.local = Some(Local::start(data, address, key).await);
    // The connection may take a moment to reopen.
    let mut attempts = 0;
    let count = loop {
        match index.count().await {
            Ok(count) => break count,
            Err(error) if attempts < 50 => {
                assert_eq!(error.class, ErrorClass::Transient);
                attempts += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(count, Some(1));
}

#[tokio::test]
async fn unresponsive_server_is_a_transient_error() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let options = QdrantOptions { timeout: Duration::from_millis(200), ..QdrantOptions::new(url, "documents") };
    let error = QdrantIndex::connect(options).unwrap().count().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_api_key_is_fatal_and_redacted() {
    let server = Server::local(Some("right")).await;
    server.connect_with_key("right").prepare(DIMENSION).await.unwrap();
    let index = server.connect_with_key("hunter2");
    let error = index.prepare(DIMENSION).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("qdrant.api_key")));
    assert!(!format!("{error:?} {index:?} {:?}", server.options()).contains("hunter2"));
    assert_eq!(server.connect().count().await.unwrap_err().class, ErrorClass::Fatal);
}
