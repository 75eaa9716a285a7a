//! The service under load: order, limits, disconnecting clients, shutdown.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use reqwest::header::RETRY_AFTER;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Obedient, Running, TIMEOUT, expected, floats, hash, hash_options};
use tidewheel_embed::service::ServiceOptions;
use tokio::task::JoinHandle;

/// Posts from a separate task.
fn spawn(service: &Running, path: &str, body: &Value) -> JoinHandle<(StatusCode, Value)> {
    let request = service.request(Method::POST, path).json(body);
    tokio::spawn(async move { tokio::time::timeout(TIMEOUT, support::answer(request)).await.expect("response") })
}

/// A service with one thread, so that the order is fixed, and a blocked engine.
async fn held() -> (Running, Arc<Obedient>) {
    let engine = Obedient::closed();
    let options = ServiceOptions { workers: 1, ..hash_options() };
    (Running::start(engine.clone(), options).await, engine)
}

/// Sends a request that occupies the only thread.
async fn occupy(service: &Running, engine: &Obedient) -> JoinHandle<(StatusCode, Value)> {
    let first = spawn(service, "/encode", &json!({"text": "x"}));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(engine.computed(), "", "request is blocked inside the engine");
    first
}

#[tokio::test]
async fn concurrent_clients_get_their_own_vectors() {
    let service = Running::hash(32).await;
    let engine = hash(32);
    let requests = (0..200).map(|n| {
        let (service, engine) = (&service, &engine);
        async move {
            let texts: Vec<String> =
                (0..n % 7 + 1).map(|m| format!("text {m} of caller {n} {}", "w ".repeat(n))).collect();
            let (status, body) = service.post("/encode_batch", &json!({"texts": texts})).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            let vectors: Vec<Vec<f32>> = body["embeddings"].as_array().unwrap().iter().map(floats).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            assert_eq!(vectors, expected(&**engine, &texts));
        }
    });
    join_all(requests).await;
}

#[tokio::test]
async fn search_does_not_wait_behind_backfill() {
    let (service, engine) = held().await;
    let first = occupy(&service, &engine).await;
    let backfill = spawn(&service, "/encode_batch", &json!({"texts": vec!["b".repeat(200); 20]}));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let search = spawn(&service, "/encode", &json!({"text": "search"}));
    tokio::time::sleep(Duration::from_millis(50)).await;
    // One tile for the request in progress, one for the search.
    engine.allow(2);
    assert_eq!(first.await.unwrap().0, StatusCode::OK);
    assert_eq!(search.await.unwrap().0, StatusCode::OK);
    assert_eq!(engine.computed(), "xs");
    assert!(!backfill.is_finished());
    engine.allow_all();
    assert_eq!(backfill.await.unwrap().0, StatusCode::OK);
    assert_eq!(engine.computed(), format!("xs{}", "b".repeat(20)));
}

#[tokio::test]
async fn request_of_disconnected_client_is_not_computed() {
    let (service, engine) = held().await;
    let first = occupy(&service, &engine).await;
    let leaver = spawn(&service, "/encode", &json!({"text": "leaver"}));
    let stayer = spawn(&service, "/encode", &json!({"text": "stayer"}));
    tokio::time::sleep(Duration::from_millis(100)).await;
    leaver.abort();
    tokio::time::sleep(Duration::from_millis(200)).await;
    engine.allow_all();
    assert_eq!(first.await.unwrap().0, StatusCode::OK);
    assert_eq!(stayer.await.unwrap().0, StatusCode::OK);
    assert_eq!(engine.computed(), "xs");
}

#[tokio::test]
async fn full_queue_rejects_with_retry_after() {
    let engine = Obedient::closed();
    let options = ServiceOptions { workers: 1, queue_tokens: 100, queue_requests: 3, ..hash_options() };
    let service = Running::start(engine.clone(), options).await;
    let first = occupy(&service, &engine).await;
    let waiting = spawn(&service, "/encode", &json!({"text": "w".repeat(60)}));
    tokio::time::sleep(Duration::from_millis(50)).await;

    let request = service.request(Method::POST, "/encode").json(&json!({"text": "t".repeat(60)}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&seconds));
    let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(body["error"], "embedder is overloaded: 60 tokens in 1 requests queued");

    // Requests that fit are still accepted, up to the request limit.
    let fitting =
        [spawn(&service, "/encode", &json!({"text": "f"})), spawn(&service, "/encode", &json!({"text": "f"}))];
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (status, body) = service.post("/v1/embeddings", &json!({"input": "f"})).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");

    engine.allow_all();
    for taken in [first, waiting].into_iter().chain(fitting) {
        assert_eq!(taken.await.unwrap().0, StatusCode::OK);
    }
    // A request larger than the whole queue is accepted while the queue is empty.
    let (status, _) = service.post("/encode", &json!({"text": "l".repeat(200)})).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn shutdown_finishes_queued_requests() {
    let (mut service, engine) = held().await;
    let first = occupy(&service, &engine).await;
    let waiting: Vec<_> = (0..5).map(|_| spawn(&service, "/encode", &json!({"text": "w"}))).collect();
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    engine.allow_all();
    assert_eq!(first.await.unwrap().0, StatusCode::OK);
    for answer in waiting {
        assert_eq!(answer.await.unwrap().0, StatusCode::OK);
    }
    tokio::time::timeout(TIMEOUT, service.stopped()).await.expect("service stops").unwrap();
}

#[tokio::test]
async fn shutdown_aborts_queued_requests_after_drain() {
    let engine = Obedient::closed();
    let options = ServiceOptions { workers: 1, drain: Duration::from_millis(200), ..hash_options() };
    let mut service = Running::start(engine.clone(), options).await;
    let _first = occupy(&service, &engine).await;
    let waiting = spawn(&service, "/encode", &json!({"text": "w"}));
    tokio::time::sleep(Duration::from_millis(100)).await;
    service.stop();
    let (status, body) = waiting.await.unwrap();
    assert_eq!(
        (status, body),
        (StatusCode::SERVICE_UNAVAILABLE, json!({"error": "embedder is shutting down; retry later"}))
    );
    tokio::time::timeout(TIMEOUT, service.stopped()).await.expect("service stops").unwrap();
    engine.allow_all();
}

#[tokio::test]
async fn closing_service_is_not_ready_and_rejects_requests() {
    let options = hash_options();
    let service = tidewheel_embed::service::Service::start(hash(8), options).unwrap();
    assert_eq!(service.readiness(), Ok(()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // The router is mounted by another server, and the service is closed manually.
    let router = service.router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    service.close();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::new();
    let ready = http.get(format!("{url}/ready")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let refused = http.post(format!("{url}/encode")).body(r#"{"text": "a"}"#).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()[RETRY_AFTER], "1");
    server.abort();
}

#[tokio::test]
async fn broken_engine_fails_at_start() {
    let options = hash_options();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = tidewheel_embed::service::serve(listener, Arc::new(Broken(hash(8))), options, std::future::pending())
        .await
        .unwrap_err();
    assert!(error.to_string().starts_with("model hash:8 failed its self-test"), "{error}");
}

/// An engine whose vectors are all zero.
struct Broken(Arc<dyn tidewheel_engine::Engine>);

impl tidewheel_engine::Engine for Broken {
    fn info(&self) -> &tidewheel_engine::EngineInfo {
        self.0.info()
    }

    fn tokenize(&self, text: &str) -> tidewheel_engine::tokens::Encoding {
        self.0.tokenize(text)
    }

    fn token_spans(&self, text: &str) -> Vec<std::ops::Range<usize>> {
        self.0.token_spans(text)
    }

    fn embed_tile(&self, _: &[tidewheel_engine::Text<'_>], _: &mut tidewheel_engine::Workspace, out: &mut [f32]) {
        out.fill(0.0);
    }

    fn embed_one(&self, _: tidewheel_engine::Text<'_>, out: &mut [f32]) {
        out.fill(0.0);
    }
}
