//! Authentication, and the lock on the data directory.

use qdrant_client::Qdrant;
use tidewheel_local_qdrant::{QdrantError, QdrantOptions, serve, serve_on};
use tokio::net::TcpListener;
use tonic::Code;

use super::server::{DOCS, TestServer, create, http_client, numbered, refused, upsert};

#[tokio::test]
async fn requests_without_the_api_key_are_unauthorized() {
    let server = TestServer::start_with_key("s3cret").await;
    assert_eq!(refused(server.client().list_collections().await).0, Code::Unauthenticated);
    let with_key = Qdrant::from_url(&format!("http://{}", server.grpc))
        .api_key("s3cret")
        .skip_compatibility_check()
        .build()
        .unwrap();
    create(&with_key, DOCS, 4).await;
    upsert(&with_key, vec![numbered(1, 1)]).await;

    let http = http_client();
    let url = format!("http://{}/collections", server.http);
    let status = async |request: reqwest::RequestBuilder| request.send().await.unwrap().status().as_u16();
    assert_eq!(status(http.get(&url)).await, 401);
    assert_eq!(status(http.get(&url).header("api-key", "wrong")).await, 401);
    assert_eq!(status(http.get(&url).header("api-key", "s3cret")).await, 200);
    assert_eq!(status(http.get(&url).bearer_auth("s3cret")).await, 200);
    assert_eq!(status(http.get(format!("http://{}/readyz", server.http))).await, 200, "probes require no key");
}

#[tokio::test]
async fn second_server_on_same_directory_fails() {
    let server = TestServer::start().await;
    // A response means that the directory is locked.
    server.client().list_collections().await.unwrap();
    let (http, grpc) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let second = serve_on(http, grpc, server.data().to_owned(), None, std::future::pending()).await;
    let Err(QdrantError::Data { reason, .. }) = second else { panic!("{second:?}") };
    assert!(reason.contains("another process"), "{reason}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn port_in_use_error_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = QdrantOptions {
        data: dir.path().to_owned(),
        http: "127.0.0.1:0".parse().unwrap(),
        grpc: taken.local_addr().unwrap(),
        api_key: Some("s3cret".to_owned()),
    };
    assert!(!format!("{options:?}").contains("s3cret"), "a key is never printed");
    let error = serve(options, std::future::pending()).await.unwrap_err();
    assert!(error.to_string().contains(&taken.local_addr().unwrap().to_string()), "{error}");
}
