//! Several models in one process: selection, order, metrics.

mod support;

use std::sync::Arc;

use futures::future::join_all;
use metrics_exporter_prometheus::PrometheusBuilder;
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Obedient, Running, TIMEOUT, expected, floats, hash, hash_options, until};
use tidewheel_embed::service::{DEFAULT, Models, Service, ServiceOptions};
use tidewheel_engine::Kernel;
use tokio::task::JoinHandle;

/// Posts to `/encode_batch` from a separate task.
fn spawn(service: &Running, body: &Value) -> JoinHandle<(StatusCode, Value)> {
    let request = service.request(Method::POST, "/encode_batch").json(body);
    tokio::spawn(async move { tokio::time::timeout(TIMEOUT, support::answer(request)).await.expect("response") })
}

async fn good(answer: JoinHandle<(StatusCode, Value)>) {
    let (status, body) = answer.await.unwrap();
    assert_eq!(status, StatusCode::OK, "{body}");
}

/// Waits until this many requests are queued.
async fn queued(service: &Running, tokens: u64) {
    until(&format!("{tokens} tokens are queued"), async || {
        service.get("/info").await.1["load"]["queued_tokens"].as_u64() == Some(tokens)
    })
    .await;
}

/// A service of `hash:16` by default, of `hash:32` as `large` and of `hash:8` as `small`.
async fn three() -> Running {
    let models = Models::new(DEFAULT, hash(16)).with("large", hash(32)).with("small", hash(8));
    Running::models(models, hash_options()).await
}

#[tokio::test]
async fn vectors_equal_those_of_single_model_services() {
    let service = three().await;
    let models = [(None, 16), (Some(DEFAULT), 16), (Some("large"), 32), (Some("small"), 8), (Some("hash:32"), 32)];
    let single: Vec<Running> = join_all(models.map(|(_, dimension)| Running::hash(dimension))).await;
    let requests = (0..100).map(|n| {
        let (service, single) = (&service, &single);
        async move {
            let (model, dimension) = models[n % models.len()];
            let texts: Vec<String> = (0..n % 7 + 1).map(|m| format!("text {m} of {n} {}", "w ".repeat(n))).collect();
            let body = json!({"texts": texts});
            let mut named = body.clone();
            if let Some(model) = model {
                named["model"] = json!(model);
            }
            let (status, answer) = service.post("/encode_batch", &named).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
            assert_eq!(answer, single[n % models.len()].post("/encode_batch", &body).await.1);
            let vectors: Vec<Vec<f32>> = answer["embeddings"].as_array().unwrap().iter().map(floats).collect();
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            assert_eq!(vectors, expected(&*hash(dimension), &texts));
        }
    });
    join_all(requests).await;
}

#[tokio::test]
async fn every_endpoint_uses_the_requested_model() {
    let service = three().await;
    let vector = expected(&*hash(8), &["tide"]).remove(0);
    let (status, body) = service.post("/encode", &json!({"text": "tide", "model": "small"})).await;
    assert_eq!((status, floats(&body["embedding"])), (StatusCode::OK, vector.clone()));
    let (status, body) = service.post("/v1/embeddings", &json!({"input": "tide", "model": "small"})).await;
    assert_eq!((status, floats(&body["data"][0]["embedding"])), (StatusCode::OK, vector));
    assert_eq!(body["model"], "hash:8");
    let ids = hash(8).tokenize("tide").ids;
    let (_, tokens) = service.post("/v1/embeddings", &json!({"input": ids, "model": "small", "dimensions": 8})).await;
    assert_eq!(tokens["data"], body["data"]);

    let request = service.request(Method::POST, "/encode").json(&json!({"text": "tide", "model": "large"}));
    let response = request.header(ACCEPT, "application/octet-stream").send().await.unwrap();
    assert_eq!(response.headers()["x-dimension"], "32");
    assert_eq!(response.headers()["x-model"], "hash:32@1");

    let (_, info) = service.get("/info").await;
    assert_eq!((&info["model"], &info["dimension"]), (&json!("hash:16"), &json!(16)));
    let int8 = Kernel::computes_int8().then_some("int8");
    let features: Vec<_> = ["truncate", "models"].into_iter().chain(int8).collect();
    assert_eq!(info["features"], json!(features));
    let listed = |name: &str, dimension: usize| {
        json!({
            "name": name, "model": format!("hash:{dimension}"), "revision": "1", "dimension": dimension,
            "precision": "f32", "query_prefix": "", "passage_prefix": "",
        })
    };
    let models = json!([listed(DEFAULT, 16), listed("large", 32), listed("small", 8)]);
    assert_eq!(info["models"], models);
    let (_, small) = service.get("/info?model=small").await;
    assert_eq!((&small["model"], &small["dimension"], &small["models"]), (&json!("hash:8"), &json!(8), &models));
    let (status, body) = service.get("/tokenizer?model=small").await;
    assert_eq!((status, &body["tokenizer"]), (StatusCode::NOT_FOUND, &json!("words")));
}

#[tokio::test]
async fn unknown_model_is_404_and_lists_the_served_ones() {
    let service = three().await;
    let message = "unknown model \"other\": this embedder serves \
         \"default\" (hash:16), \"large\" (hash:32), \"small\" (hash:8)";
    for (path, body) in [
        ("/encode", json!({"text": "a", "model": "other"})),
        ("/encode_batch", json!({"texts": ["a"], "model": "other"})),
    ] {
        assert_eq!(service.post(path, &body).await, (StatusCode::NOT_FOUND, json!({"error": message})), "{path}");
    }
    for path in ["/info?model=other", "/tokenizer?model=other"] {
        assert_eq!(service.get(path).await, (StatusCode::NOT_FOUND, json!({"error": message})), "{path}");
    }
    let (status, body) = service.post("/v1/embeddings", &json!({"input": "a", "model": "other"})).await;
    assert_eq!((status, &body["error"]["message"]), (StatusCode::NOT_FOUND, &json!(message)));
    assert_eq!(body["error"]["code"], "model_not_found");
    let (status, body) = service.post("/encode", &json!({"text": "a", "model": 1})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    let (status, body) = service.get("/info?model=a&model=b").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

/// A service with one thread, blocked default model `obedient`, and another one as `other`, which is not blocked. The
/// thread computes the text `x` of the default model.
async fn occupied() -> (Running, [Arc<Obedient>; 2], JoinHandle<(StatusCode, Value)>) {
    let engines = [Obedient::closed(), Obedient::open()];
    let models = Models::new(DEFAULT, engines[0].clone()).with("other", engines[1].clone());
    let service = Running::models(models, ServiceOptions { workers: 1, ..hash_options() }).await;
    let first = spawn(&service, &json!({"texts": ["x"]}));
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    queued(&service, 0).await;
    (service, engines, first)
}

#[tokio::test]
async fn tile_never_mixes_models() {
    let (service, [blocked, open], first) = occupied().await;
    let mut answers = vec![first];
    for n in 1..=8 {
        answers.push(spawn(&service, &json!({"texts": ["a", "a"]})));
        queued(&service, 4 * n - 2).await;
        answers.push(spawn(&service, &json!({"texts": ["b", "b"], "model": "other"})));
        queued(&service, 4 * n).await;
    }
    // One tile for `x`, one for all texts of the same model.
    blocked.allow(2);
    for answer in answers {
        good(answer).await;
    }
    assert_eq!(blocked.computed(), format!("x{}", "a".repeat(16)));
    assert_eq!(open.computed(), "b".repeat(16));
}

#[tokio::test]
async fn small_request_precedes_backfill_of_another_model() {
    let (service, [blocked, open], first) = occupied().await;
    let backfill = spawn(&service, &json!({"texts": vec!["b".repeat(200); 20]}));
    queued(&service, 4_000).await;
    let search = spawn(&service, &json!({"texts": ["search"], "model": "other"}));
    queued(&service, 4_006).await;
    // For the text in progress only.
    blocked.allow(1);
    good(first).await;
    good(search).await;
    assert_eq!((blocked.computed().as_str(), open.computed().as_str()), ("x", "s"));
    assert!(!backfill.is_finished());
    blocked.allow_all();
    good(backfill).await;
}

#[tokio::test]
async fn failure_of_one_model_leaves_the_other_alone() {
    let models = Models::new(DEFAULT, Obedient::open()).with("hash", hash(8));
    let service = Running::models(models, hash_options()).await;
    let (status, _) = service.post("/encode", &json!({"text": "!"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, body) = service.post("/encode", &json!({"text": "!", "model": "hash"})).await;
    assert_eq!((status, floats(&body["embedding"])), (StatusCode::OK, expected(&*hash(8), &["!"]).remove(0)));
}

#[tokio::test]
async fn model_is_added_while_the_service_runs() {
    let started = Service::start(hash(8), hash_options()).unwrap();
    let service = Running::of(started.clone()).await;
    let request = json!({"text": "tide", "model": "late"});
    assert_eq!(service.post("/encode", &request).await.0, StatusCode::NOT_FOUND);
    started.add("late", hash(24)).unwrap();
    let (status, body) = service.post("/encode", &request).await;
    assert_eq!((status, floats(&body["embedding"])), (StatusCode::OK, expected(&*hash(24), &["tide"]).remove(0)));
    assert!(started.add("late", hash(8)).is_err());
}

#[tokio::test]
async fn texts_and_tokens_are_counted_by_model() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let models = Models::new(DEFAULT, hash(8)).with("small", hash(4));
    let started = metrics::with_local_recorder(&recorder, || Service::with_models(models, hash_options())).unwrap();
    let service = Running::of(started).await;
    service.post("/encode_batch", &json!({"texts": ["one two three"]})).await;
    service.post("/encode_batch", &json!({"texts": ["one", "two"], "model": "small"})).await;
    let text = recorder.handle().render();
    for line in [
        "tidewheel_embedder_texts_total 1",
        "tidewheel_embedder_texts_total{model=\"small\"} 2",
        "tidewheel_embedder_tokens_total 3",
        "tidewheel_embedder_tokens_total{model=\"small\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "missing {line} in\n{text}");
    }
    let (_, info) = service.get("/info").await;
    assert_eq!(info["load"]["tokens"], 5);
}
