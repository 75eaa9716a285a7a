//! The clients of an installation with several models: the pool, and which model of a server a specification selects.

mod support;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde_json::{Value, json};
use support::{Running, expected, hash, hash_options};
use tidewheel_core::catalog::{EmbeddingSpec, Rounding};
use tidewheel_core::error::{Cause, ErrorClass, PortError};
use tidewheel_core::ports::{Embedder, Embedders, Purpose};
use tidewheel_embed::client::{ClientOptions, TidewheelClient};
use tidewheel_embed::pool::{EmbedderPool, Transport};
use tidewheel_embed::service::{DEFAULT, Models, Service};
use tokio::net::TcpListener;

fn spec(name: &str, model: &str) -> EmbeddingSpec {
    EmbeddingSpec::new(name, "tidewheel", model)
}

fn client(url: &str, spec: EmbeddingSpec) -> TidewheelClient {
    TidewheelClient::new(ClientOptions { spec: Some(spec), ..ClientOptions::new(url) }).unwrap()
}

/// A pool of the embeddings `default`, `large` and `small` of one server.
fn pool(url: &str) -> EmbedderPool {
    EmbedderPool::new([DEFAULT, "large", "small"].map(|name| (name.to_owned(), Transport::new(url))).into())
}

async fn embed(embedder: &dyn Embedder, text: &str) -> Result<Vec<f32>, PortError> {
    embedder.embed(&[text.to_owned()], Purpose::Passage).await.map(|vectors| vectors.values().to_vec())
}

#[tokio::test]
async fn pool_embeds_with_the_model_of_each_specification() {
    let models = Models::new(DEFAULT, hash(16)).with("large", hash(32)).with("small", hash(8));
    let service = Running::models(models, hash_options()).await;
    let pool = pool(&service.url);
    for (name, model, dimension) in [
        (DEFAULT, "hash:16", 16),
        ("large", "hash:32", 32),
        ("small", "hash:8", 8),
        // Another definition of the same name, which the server serves under another one.
        (DEFAULT, "hash:32", 32),
        (DEFAULT, "", 16),
    ] {
        let embedder = pool.of(&spec(name, model)).unwrap();
        let info = embedder.info().await.unwrap();
        assert_eq!((info.model, info.dimension), (format!("hash:{dimension}"), dimension), "{name} {model}");
        assert_eq!(embed(&*embedder, "tide").await.unwrap(), expected(&*hash(dimension), &["tide"])[0]);
        assert_eq!(embedder.tokens().await.unwrap().spans("a wheel, turning").len(), 5);
    }
}

#[tokio::test]
async fn client_waits_for_a_model_that_the_server_does_not_serve_yet() {
    let started = Service::start(hash(16), hash_options()).unwrap();
    let service = Running::of(started.clone()).await;
    let client = client(&service.url, spec("small", "hash:8"));
    let error = client.info().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.message.ends_with("serves hash:16 (f32), not hash:8"), "{}", error.message);
    assert_eq!(embed(&client, "tide").await.unwrap_err().class, ErrorClass::Transient);
    assert_eq!(client.tokens().await.err().unwrap().class, ErrorClass::Transient);
    started.add("small", hash(8)).unwrap();
    assert_eq!(embed(&client, "tide").await.unwrap(), expected(&*hash(8), &["tide"])[0]);
    assert_eq!(client.info().await.unwrap().dimension, 8);
}

#[tokio::test]
async fn rounding_that_the_server_never_computes_is_refused_with_the_fix() {
    let service = Running::hash(16).await;
    let rounded = |model: &str| EmbeddingSpec { rounding: Rounding::Int8, ..spec("small", model) };
    let error = client(&service.url, rounded("hash:16")).info().await.unwrap_err();
    assert_eq!((error.class, error.cause), (ErrorClass::Transient, Cause::Refused));
    assert!(error.message.contains("computes hash:16 in f32, not in int8"), "{}", error.message);
    assert!(error.hint.is_some_and(|hint| hint.contains("precision of embedding \"small\" to \"auto\"")));

    for (features, cause) in [
        (Some(json!(["truncate", "models"])), Cause::Refused),
        // It may be loading the model.
        (Some(json!(["truncate", "models", "int8"])), Cause::Other),
        // An embedder of an earlier release does not state what it computes.
        (None, Cause::Other),
    ] {
        let (url, _) = stub(features.map(|features| (json!([listed(DEFAULT, "stub")]), features))).await;
        let error = client(&url, rounded("stub")).info().await.unwrap_err();
        assert_eq!((error.class, error.cause), (ErrorClass::Transient, cause), "{}", error.message);
        let waits = error.message.ends_with("serves stub (f32), not stub (int8)");
        assert_eq!(waits, cause == Cause::Other, "{}", error.message);
    }
}

/// What a client requested of a stub.
type Requests = Arc<Mutex<Vec<Value>>>;

/// Starts a stub of an embedder that lists these models and features; `None` for an embedder of an earlier release. It
/// answers no request for vectors, as if it had been restarted without its models.
async fn stub(models: Option<(Value, Value)>) -> (String, Requests) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let requests = Requests::default();
    let (infos, texts) = (requests.clone(), requests.clone());
    let info = async move |uri: Uri| {
        infos.lock().unwrap().push(json!(uri.to_string()));
        let mut info = json!({
            "model": "stub", "revision": "1", "precision": "f32", "passage_prefix": "", "dimension": 2,
            "max_text_tokens": 254, "limits": {"body_bytes": 1_000_000, "texts": 100},
        });
        if let Some((models, features)) = models {
            info["models"] = models;
            info["features"] = features;
        }
        axum::Json(info)
    };
    let encode = async move |body: Bytes| {
        texts.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
        (StatusCode::NOT_FOUND, axum::Json(json!({"error": "unknown model"}))).into_response()
    };
    let router = Router::new().route("/info", get(info)).route("/encode_batch", post(encode));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, requests)
}

fn listed(name: &str, model: &str) -> Value {
    json!({
        "name": name, "model": model, "revision": "1", "dimension": 2, "precision": "f32", "query_prefix": "",
        "passage_prefix": "",
    })
}

#[tokio::test]
async fn model_is_sent_only_to_servers_that_list_it_and_only_if_it_is_not_their_default() {
    let two = json!([listed(DEFAULT, "stub"), listed("a name", "other")]);
    let plain = json!({"texts": ["a"], "purpose": "passage"});
    let whole = json!({"texts": ["a"], "purpose": "passage", "truncate": false});
    let named = json!({"texts": ["a"], "model": "a name", "purpose": "passage", "truncate": false});
    for (models, model, expected) in [
        (None, "stub", vec![json!("/info"), plain.clone()]),
        (None, "", vec![json!("/info"), plain]),
        (Some(two.clone()), "stub", vec![json!("/info"), whole.clone()]),
        (Some(two.clone()), "", vec![json!("/info"), whole]),
        (Some(two.clone()), "other", vec![json!("/info"), json!("/info?model=a+name"), named]),
        (Some(two), "unknown", vec![json!("/info")]),
        (None, "other", vec![json!("/info")]),
    ] {
        let (url, requests) = stub(models.map(|models| (models, json!(["truncate", "models"])))).await;
        let error = embed(&client(&url, spec(DEFAULT, model)), "a").await.unwrap_err();
        assert_eq!(*requests.lock().unwrap(), expected, "{model:?}");
        // A model that is not there may come; the address of the default model is wrong.
        let waits = !["stub", ""].contains(&model);
        assert_eq!(error.class, if waits { ErrorClass::Transient } else { ErrorClass::Fatal }, "{model:?}");
    }
}
