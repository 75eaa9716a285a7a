//! Endpoints with a token limit, with a real pipeline.
//!
//! The endpoint has a byte-level vocabulary, like ByT5: one token per byte. Every estimate is lower, so that every kind
//! of text is rejected at first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use mongodb::bson::{Document, doc};
use serde_json::{Value, json};
use tidewheel_stores::redis::keys::{
    EMBEDDED, EMBEDDED_DEAD_LETTERS, EMBEDDED_GROUP, RAW, RAW_DEAD_LETTERS, RAW_GROUP,
};
use tokio::net::TcpListener;

use super::world::{World, backlog};

/// Maximum tokens of a text, including two special tokens.
const LIMIT: usize = 514;

#[derive(Clone, Default)]
struct Endpoint {
    /// The embedded texts.
    embedded: Arc<Mutex<Vec<String>>>,
    /// The number of rejected requests.
    rejected: Arc<AtomicUsize>,
    /// The number of requests that allow the endpoint to truncate.
    truncating: Arc<AtomicUsize>,
}

impl Endpoint {
    async fn start() -> (Self, String) {
        let endpoint = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(endpoint.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (endpoint, url)
    }

    fn embedded(&self) -> usize {
        self.embedded.lock().unwrap().len()
    }

    /// Embeds the texts, or returns the token count of one that is too long.
    fn embed(&self, body: &Value, field: &str) -> Result<Vec<Vec<f32>>, usize> {
        let texts: Vec<&str> = body[field].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        if body["truncate"] == true {
            self.truncating.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(long) = texts.iter().map(|text| text.len() + 2).find(|tokens| *tokens > LIMIT) {
            self.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(long);
        }
        self.embedded.lock().unwrap().extend(texts.iter().map(|text| (*text).to_owned()));
        let vector = |text: &&str| {
            let mut vector = vec![0.1; 8];
            text.bytes().for_each(|byte| vector[usize::from(byte % 8)] += 1.0);
            vector
        };
        Ok(texts.iter().map(vector).collect())
    }
}

async fn answer(State(endpoint): State<Endpoint>, uri: Uri, body: Bytes) -> Response {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let reject = |status: StatusCode, body: Value| (status, axum::Json(body)).into_response();
    match uri.path() {
        // As started with --auto-truncate.
        "/info" => axum::Json(json!({
            "model_id": "bytes", "model_type": {"embedding": {"pooling": "mean"}}, "max_input_length": LIMIT,
            "max_client_batch_size": 32, "auto_truncate": true,
        }))
        .into_response(),
        "/embed" => match endpoint.embed(&body, "inputs") {
            Ok(vectors) => axum::Json(vectors).into_response(),
            Err(given) => {
                let error =
                    format!("Input validation error: `inputs` must have less than {LIMIT} tokens. Given: {given}");
                reject(StatusCode::PAYLOAD_TOO_LARGE, json!({"error": error, "error_type": "Validation"}))
            }
        },
        "/api/show" => axum::Json(json!({"model_info": {"bytes.context_length": LIMIT}})).into_response(),
        "/api/embed" => match endpoint.embed(&body, "input") {
            Ok(vectors) => axum::Json(json!({"embeddings": vectors})).into_response(),
            Err(_) => reject(StatusCode::BAD_REQUEST, json!({"error": "the input length exceeds the context length"})),
        },
        "/v1/embeddings" => match endpoint.embed(&body, "input") {
            Ok(vectors) => {
                let item = |(index, vector): (usize, Vec<f32>)| json!({"index": index, "embedding": vector});
                axum::Json(json!({"data": vectors.into_iter().enumerate().map(item).collect::<Vec<_>>()}))
                    .into_response()
            }
            Err(given) => {
                let message = format!(
                    "This model's maximum context length is {LIMIT} tokens, however you requested {given} tokens ({given} in your prompt; 0 for the completion). Please reduce your prompt; or completion length."
                );
                let error = json!({"message": message, "type": "invalid_request_error", "param": null, "code": null});
                reject(StatusCode::BAD_REQUEST, json!({"error": error}))
            }
        },
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Texts of every kind for which estimates may be wrong.
fn texts() -> Vec<String> {
    let mut state = 7_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let chinese: String = (0..7_500).map(|_| char::from_u32(0x4E00 + (random() % 0x5000) as u32).unwrap()).collect();
    let uuid = |random: &mut dyn FnMut() -> u64| {
        uuid::Uuid::from_u128(u128::from(random()) << 96 | u128::from(random()) << 64 | u128::from(random()))
            .to_string()
    };
    let log: String = (0..100)
        .map(|line| format!("2026-11-30T10:15:{:02} INFO request {} done\n", line % 60, uuid(&mut random)))
        .collect();
    let thai: String = (0..3_000).map(|_| char::from_u32(0x0E01 + (random() % 46) as u32).unwrap()).collect();
    vec![
        chinese,
        log,
        format!("before{}after{}end", "\n \t".repeat(1_000), " ".repeat(3_000)),
        "The parcel has not arrived, and nobody answers the telephone. ".repeat(60),
        "Посылка ещё не пришла, и никто не отвечает на звонки. ".repeat(60),
        thai,
        "😀👩‍👩‍👧‍👦🇨🇭".repeat(200),
        "0123456789abcdef".repeat(300),
        "x".repeat(5_000),
        // A short text that is split too.
        "短".repeat(300),
    ]
}

async fn drained(world: &mut World) {
    let redis = world.stack.redis_url();
    for (stream, group) in [(RAW, RAW_GROUP), (EMBEDDED, EMBEDDED_GROUP)] {
        world.until("both stages are drained", || async { backlog(&redis, stream, group).await == 0 }).await;
    }
}

async fn assert_no_dead_letters(world: &World) {
    for stream in [RAW_DEAD_LETTERS, EMBEDDED_DEAD_LETTERS] {
        assert_eq!(world.redis::<u64>(&["XLEN", stream]).await, 0, "{stream}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_rejected_as_too_long_are_split_and_embedded_completely() {
    let mut world = World::new().await;
    let notes = world.collection("notes");
    for service in ["producer", "upserter"] {
        world.start(service);
    }
    let (count, document) = (texts().len(), |number: usize, text: String| -> Document {
        doc! {"_id": number as i32, "content": text}
    });
    for (round, provider) in ["tei", "ollama", "openai"].into_iter().enumerate() {
        let (endpoint, url) = Endpoint::start().await;
        world.detours.embedding_url = Some(url);
        // OpenAI's API does not report the model's limit.
        world.write_settings(&format!(
            "embedding.provider = \"{provider}\"\nembedding.model = \"bytes\"\nembedding.max_tokens = 600"
        ));
        world.start("processor");
        let numbered = texts().into_iter().enumerate();
        notes.insert_many(numbered.map(|(number, text)| document(round * count + number, text))).await.unwrap();
        // The comparison verifies that the chunks of each document omit nothing but white space.
        assert_eq!(world.equal().await.documents as usize, (round + 1) * count, "{provider}");
        assert_no_dead_letters(&world).await;
        assert!(endpoint.rejected.load(Ordering::Relaxed) > 0, "{provider}: no rejections");
        assert_eq!(endpoint.truncating.load(Ordering::Relaxed), 0, "{provider}: truncation was allowed");
        assert!(world.log("processor").contains("are split at"), "{provider}: no limit was learned");

        // The learned limit is applied when other fields change, without further rejections.
        drained(&mut world).await;
        let rejected = endpoint.rejected.load(Ordering::Relaxed);
        let these = doc! {"_id": {"$gte": (round * count) as i32, "$lt": ((round + 1) * count) as i32}};
        notes.update_many(these, doc! {"$set": {"state": provider}}).await.unwrap();
        world.equal().await;
        drained(&mut world).await;

        // The learned limit is applied to new documents.
        let (again, before) = ((round + 1) * 1_000, endpoint.embedded());
        notes.insert_one(document(again, texts()[3].replace("parcel", "letter"))).await.unwrap();
        world.until("the document is embedded", || async { endpoint.embedded() > before }).await;
        notes.delete_one(doc! {"_id": again as i32}).await.unwrap();
        world.equal().await;
        assert_eq!(
            endpoint.rejected.load(Ordering::Relaxed),
            rejected,
            "{provider}: the learned limit was not applied"
        );
        world.kill("processor");
    }
}
