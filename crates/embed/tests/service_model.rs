//! The real model over HTTP: vectors equal those of sentence-transformers, and remote clients tokenize as the model does.

#[path = "../../engine/tests/support/model.rs"]
mod model;
mod support;

use std::sync::Arc;

use reqwest::StatusCode;
use serde_json::json;
use support::Running;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Embedder, Purpose};
use tidewheel_embed::client::{Api, ClientOptions, RemoteClient, RemoteOptions, TidewheelClient};
use tidewheel_embed::service::ServiceOptions;
use tidewheel_engine::{Engine, ModelSource, ModelSpec, load};

const NAME: &str = "sentence-transformers/all-MiniLM-L6-v2";

async fn start() -> (Running, Arc<dyn Engine>) {
    let directory = tokio::task::spawn_blocking(model::model_directory).await.unwrap();
    let source = ModelSource::Directory(directory);
    let spec = ModelSpec { name: NAME.to_owned(), ..ModelSpec::new(source.clone()) };
    let engine = tokio::task::spawn_blocking(move || load(&spec).unwrap()).await.unwrap();
    (Running::start(Arc::clone(&engine), ServiceOptions::default()).await, engine)
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clients_match_reference_vectors() {
    let (service, _) = start().await;
    let texts: Vec<String> =
        serde_json::from_str(include_str!("../../engine/tests/data/reference_texts.json")).unwrap();
    let bytes = include_bytes!("../../engine/tests/data/reference_embeddings.f32");
    let reference: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let ours = TidewheelClient::new(ClientOptions::new(service.url.clone())).unwrap();
    let theirs = RemoteClient::new(RemoteOptions::new(Api::OpenAi, service.url.clone(), "all-MiniLM-L6-v2")).unwrap();
    for embedder in [&ours as &dyn Embedder, &theirs] {
        // As queries: an overlong passage is rejected, not truncated.
        let vectors = embedder.embed(&texts[..50], Purpose::Query).await.unwrap();
        for (index, (vector, reference)) in vectors.iter().zip(reference.chunks(384)).enumerate() {
            let cosine = cosine(vector, reference);
            assert!(cosine >= 0.9999, "text {index}: {cosine}");
        }
    }
    // A single text takes another path through the engine, and long ones are truncated as in the model's own library.
    for (text, reference) in texts.iter().zip(reference.chunks(384)).take(10) {
        let (_, body) = service.post("/encode", &json!({"text": text})).await;
        assert!(cosine(&support::floats(&body["embedding"]), reference) >= 0.9999);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_client_tokenizes_like_the_model() {
    let (service, engine) = start().await;
    let client = TidewheelClient::new(ClientOptions::new(service.url.clone())).unwrap();
    let info = client.info().await.unwrap();
    // 256, less the two special tokens.
    assert_eq!((info.model.as_str(), info.dimension, info.max_tokens), (NAME, 384, 254));
    let tokens = client.tokens().await.unwrap();
    let long = "The tide turns the wheel; das Rad dreht sich. 日本語 🙂 ".repeat(500);
    for text in ["", "tidewheel", "Ünïcödé — naïve\u{0} e\u{301}", &long] {
        assert_eq!(tokens.spans(text), engine.token_spans(text), "{text:.20}");
    }
    assert!(tokens.spans(&long).len() > 5_000, "neither truncated nor padded");
}

#[tokio::test(flavor = "multi_thread")]
async fn token_ids_are_accepted_like_openai() {
    let (service, engine) = start().await;
    let ids = engine.tokenize("the tide turns").ids;
    // Without the leading and trailing special tokens.
    let plain = &ids[1..ids.len() - 1];
    let (_, text) = service.post("/v1/embeddings", &json!({"input": "the tide turns", "model": NAME})).await;
    let (status, tokens) = service.post("/v1/embeddings", &json!({"input": plain, "model": "all-MiniLM-L6-v2"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(text, tokens);

    // An id outside the vocabulary fails only its own request.
    let (status, body) = service.post("/v1/embeddings", &json!({"input": [[plain[0]], [4_000_000_000_u32]]})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert!(body["error"]["message"].as_str().unwrap().contains("index 1"), "{body}");
    assert_eq!(service.post("/encode", &json!({"text": "still alive"})).await.0, StatusCode::OK);
    assert_eq!(service.get("/ready").await.0, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn megabyte_query_is_truncated_not_rejected() {
    let (service, engine) = start().await;
    let client = TidewheelClient::new(ClientOptions::new(service.url.clone())).unwrap();
    let long = "wheel ".repeat(500_000);
    let mut expected = vec![0.0; 384];
    engine.embed_one(engine.tokenize(&"wheel ".repeat(300)).text(), &mut expected);
    let vectors = client.embed(&[long], Purpose::Query).await.unwrap();
    assert!(cosine(vectors.values(), &expected) > 0.999_99);
    let hopeless = "wheel ".repeat(2_000_000);
    let error = client.embed(&[hopeless], Purpose::Query).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Poison);
    assert!(error.message.contains("limit of 8388608 bytes"), "{}", error.message);
}
