//! Third-party embedding APIs, each simulated by a small server that follows its documentation, errors included.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use support::{expected, hash};
use tidewheel_core::error::{Cause, ErrorClass, PortError};
use tidewheel_core::ports::{Embedder, Purpose};
use tidewheel_core::secret::Secret;
use tidewheel_embed::client::{Api, RemoteClient, RemoteOptions};
use tokio::net::TcpListener;

const DIMENSION: usize = 12;

/// The number of texts of each request a server received, in order.
type Log = Arc<Mutex<Vec<usize>>>;

/// An error response sent instead of vectors.
#[derive(Clone)]
struct Fault {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

/// A server for `api` that embeds with `hash:DIM`.
#[derive(Clone)]
struct Server {
    api: Api,
    /// Maximum texts per request.
    batch: usize,
    /// Maximum bytes of a text. A real server counts tokens.
    longest: usize,
    /// The required API key.
    key: Option<&'static str>,
    /// The response to all requests after the first.
    fault: Option<Fault>,
    /// The vector of texts that contain "odd".
    odd: Option<Vec<f32>>,
    model: &'static str,
    kind: &'static str,
    log: Log,
    calls: Arc<AtomicUsize>,
}

impl Server {
    fn new(api: Api) -> Self {
        let (log, calls) = (Log::default(), Arc::default());
        let (fault, odd) = (None, None);
        Self { api, batch: 32, longest: 2_000, key: None, fault, odd, model: "hash", kind: "embedding", log, calls }
    }

    /// Listens on a free port until the test ends.
    async fn start(self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = async move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            self.answer(uri.path(), &headers, &body)
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        url
    }

    fn answer(&self, path: &str, headers: &HeaderMap, body: &Value) -> Response {
        let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if self.key.is_some_and(|key| shown != Some(&format!("Bearer {key}"))) {
            return match self.api {
                // Empty body.
                Api::TextEmbeddingsInference => StatusCode::UNAUTHORIZED.into_response(),
                _ => self.error(401, "Incorrect API key provided", "invalid_api_key"),
            };
        }
        match (self.api, path) {
            (Api::OpenAi, "/v1/embeddings") => self.embed(&body["input"], body),
            (Api::TextEmbeddingsInference, "/embed") => self.embed(&body["inputs"], body),
            (Api::Ollama, "/api/embed") => self.embed(&body["input"], body),
            (Api::TextEmbeddingsInference, "/info") => axum::Json(json!({
                "model_id": self.model, "model_sha": "abc", "model_dtype": "float32",
                "model_type": {self.kind: {"pooling": "mean"}}, "max_concurrent_requests": 512,
                "max_input_length": 512, "max_batch_tokens": 16384, "max_client_batch_size": self.batch,
                "auto_truncate": false, "version": "1.8.2",
            }))
            .into_response(),
            (Api::Ollama, "/api/show") if body["model"] == self.model => axum::Json(json!({
                "details": {"family": "bert"}, "capabilities": ["embedding"],
                "model_info": {"general.architecture": "bert", "bert.context_length": 512},
            }))
            .into_response(),
            (Api::Ollama, "/api/show") => {
                self.error(404, &format!("model '{}' not found", body["model"].as_str().unwrap_or("")), "")
            }
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn embed(&self, input: &Value, body: &Value) -> Response {
        let texts: Vec<&str> = input.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        self.log.lock().unwrap().push(texts.len());
        if self.calls.fetch_add(1, Ordering::Relaxed) > 0
            && let Some(fault) = &self.fault
        {
            let headers: HeaderMap = fault
                .headers
                .iter()
                .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
                .collect();
            return (StatusCode::from_u16(fault.status).unwrap(), headers, fault.body.clone()).into_response();
        }
        if self.api != Api::TextEmbeddingsInference && body["model"] != self.model {
            return self.error(404, &format!("model '{}' not found", body["model"]), "model_not_found");
        }
        if self.api != Api::Ollama && texts.len() > self.batch {
            let message = format!("batch size {} > maximum allowed batch size {}", texts.len(), self.batch);
            return self.error(if self.api == Api::OpenAi { 400 } else { 413 }, &message, "Validation");
        }
        let cut = body["truncate"] == true;
        if texts.iter().any(|text| text.len() > self.longest) && !cut {
            return self.error(if self.api == Api::OpenAi { 400 } else { 413 }, "the input is too long", "Validation");
        }
        let mut vectors = expected(&*hash(DIMENSION), &texts);
        if let Some(odd) = &self.odd {
            let those = texts.iter().zip(&mut vectors).filter(|(text, _)| text.contains("odd"));
            those.for_each(|(_, vector)| vector.clone_from(odd));
        }
        axum::Json(match self.api {
            Api::TextEmbeddingsInference => json!(vectors),
            Api::Ollama => json!({"model": self.model, "embeddings": vectors, "prompt_eval_count": 8}),
            Api::OpenAi => {
                let item = |(index, vector): (usize, &Vec<f32>)| {
                    json!({"object": "embedding", "index": index, "embedding": vector})
                };
                // Out of order, which the API allows.
                json!({"object": "list", "data": vectors.iter().enumerate().rev().map(item).collect::<Vec<_>>()})
            }
        })
        .into_response()
    }

    /// Returns an error in this API's format.
    fn error(&self, status: u16, message: &str, code: &str) -> Response {
        (StatusCode::from_u16(status).unwrap(), axum::Json(self.explained(message, code))).into_response()
    }

    fn explained(&self, message: &str, code: &str) -> Value {
        match self.api {
            Api::OpenAi => json!({"error": {"message": message, "type": "invalid_request_error", "code": code}}),
            Api::TextEmbeddingsInference => json!({"error": message, "error_type": code}),
            Api::Ollama => json!({"error": message}),
        }
    }
}

fn options(api: Api, url: &str) -> RemoteOptions {
    RemoteOptions { timeout: Duration::from_secs(5), ..RemoteOptions::new(api, url, "hash") }
}

fn client(api: Api, url: &str) -> RemoteClient {
    RemoteClient::new(options(api, url)).unwrap()
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("text number {number}")).collect()
}

const ALL: [Api; 3] = [Api::OpenAi, Api::TextEmbeddingsInference, Api::Ollama];

#[tokio::test]
async fn every_api_returns_vectors_in_order() {
    for api in ALL {
        let server = Server { batch: 128, ..Server::new(api) };
        let log = server.log.clone();
        let client = client(api, &server.start().await);
        assert_eq!(client.info().await.unwrap().dimension, DIMENSION, "{api:?}");
        let mut many = texts(300);
        many[7] = "\" \\ \n 日本語 🙂".to_owned();
        let vectors = client.embed(&many, Purpose::Passage).await.unwrap();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(vectors.values(), expected(&*hash(DIMENSION), &many).concat(), "{api:?}");
        assert_eq!(log.lock().unwrap().iter().sum::<usize>(), 1 + 300, "{api:?}: every text is sent once");
        assert!(client.embed(&[], Purpose::Passage).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn reported_server_limits_are_respected() {
    let server = Server::new(Api::TextEmbeddingsInference);
    let log = server.log.clone();
    let url = server.start().await;
    let options =
        RemoteOptions { passage_prefix: "passage: ".to_owned(), ..options(Api::TextEmbeddingsInference, &url) };
    let client = RemoteClient::new(options).unwrap();
    let info = client.info().await.unwrap();
    // 512, minus two special tokens and an estimated three of the prefix.
    assert_eq!((info.model.as_str(), info.max_tokens), ("hash", 507));
    assert!(info.revision.contains("abc") && info.revision.contains("passage: "), "{}", info.revision);
    assert_eq!(client.embed(&texts(100), Purpose::Passage).await.unwrap().len(), 100);
    let mut sizes = log.lock().unwrap().clone();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 4, 32, 32, 32], "probe, then requests within the reported limit");

    let ollama = RemoteClient::new(self::options(Api::Ollama, &Server::new(Api::Ollama).start().await)).unwrap();
    assert_eq!(ollama.info().await.unwrap().max_tokens, 510);
}

#[tokio::test]
async fn batch_limit_named_in_rejection_is_applied() {
    let server = Server { batch: 10, ..Server::new(Api::OpenAi) };
    let log = server.log.clone();
    let options = RemoteOptions { concurrency: 1, ..options(Api::OpenAi, &server.start().await) };
    let client = RemoteClient::new(options).unwrap();
    assert_eq!(client.embed(&texts(35), Purpose::Passage).await.unwrap().len(), 35);
    assert_eq!(*log.lock().unwrap(), [1, 35, 10, 10, 10, 5]);
    log.lock().unwrap().clear();
    assert_eq!(client.embed(&texts(25), Purpose::Passage).await.unwrap().len(), 25);
    assert_eq!(*log.lock().unwrap(), [10, 10, 5]);
}

#[tokio::test]
async fn overlong_passage_is_rejected_and_never_truncated() {
    let long = "wheel ".repeat(1_000);
    for api in ALL {
        let client = client(api, &Server::new(api).start().await);
        let error = client.embed(&["short".to_owned(), long.clone()], Purpose::Passage).await.unwrap_err();
        assert_eq!((error.class, error.cause), (ErrorClass::Poison, Cause::TooLong), "{api:?}");
        assert!(error.message.contains("the input is too long"), "{}", error.message);
    }
    // A query is truncated where the server supports it.
    for api in [Api::TextEmbeddingsInference, Api::Ollama] {
        let client = client(api, &Server::new(api).start().await);
        assert_eq!(client.embed(std::slice::from_ref(&long), Purpose::Query).await.unwrap().len(), 1, "{api:?}");
    }
}

async fn failure(api: Api, status: u16, headers: Vec<(&'static str, String)>, body: Value) -> PortError {
    let fault = Fault { status, headers, body: body.to_string() };
    let client = client(api, &Server { fault: Some(fault), ..Server::new(api) }.start().await);
    client.info().await.unwrap();
    client.embed(&texts(2), Purpose::Passage).await.unwrap_err()
}

#[tokio::test]
async fn third_party_errors_keep_class_and_message() {
    use ErrorClass::{Poison, Transient};
    let (tei, ollama, openai) = (Api::TextEmbeddingsInference, Api::Ollama, Api::OpenAi);
    let kind = |message: &str, kind: &str| json!({"error": message, "error_type": kind});
    let plain = |message: &str| json!({"error": message});
    let theirs = |message: &str| json!({"error": {"message": message, "type": "server_error", "code": null}});
    for (api, status, body, class, message) in [
        (tei, 429, kind("Model is overloaded", "overloaded"), Transient, "Model is overloaded"),
        (tei, 424, kind("Inference failed", "backend"), Transient, "Inference failed"),
        (tei, 422, kind("Tokenization error", "tokenizer"), Poison, "Tokenization error"),
        (tei, 413, kind("Batch size error", "validation"), Poison, "Batch size error"),
        (tei, 503, kind("unhealthy", "unhealthy"), Transient, "unhealthy"),
        (ollama, 400, plain("the input length exceeds the context length"), Poison, "exceeds the context length"),
        (ollama, 500, plain("llama runner process has terminated"), Transient, "llama runner"),
        (ollama, 503, plain("server busy, please try again.  maximum pending requests exceeded"), Transient, "busy"),
        (openai, 400, theirs("maximum context length is 8192 tokens"), Poison, "8192 tokens"),
        (openai, 503, theirs("The engine is currently overloaded"), Transient, "currently overloaded"),
        // text-embeddings-inference's OpenAI endpoint returns an unwrapped message.
        (openai, 413, json!({"message": "batch size 33 > 32", "code": 413, "type": "validation"}), Poison, "33 > 32"),
    ] {
        let error = failure(api, status, Vec::new(), body).await;
        assert_eq!(error.class, class, "{api:?} {status}");
        assert!(error.message.contains(message), "{api:?} {status}: {}", error.message);
        assert_eq!(error.retry_after, None, "{api:?} {status}: no Retry-After");
    }
}

#[tokio::test]
async fn vector_of_another_dimension_is_poison_unless_the_probe_has_it_too() {
    for api in ALL {
        for (odd, what) in [
            (Vec::new(), "an empty vector"),
            (vec![0.5; 11], "dimension 11 instead of 12"),
            (vec![0.5; 24], "dimension 24 instead of 12"),
        ] {
            let client = client(api, &Server { odd: Some(odd), ..Server::new(api) }.start().await);
            for list in [vec!["odd"], vec!["fine", "odd", "fine"]] {
                let list: Vec<String> = list.into_iter().map(str::to_owned).collect();
                let error = client.embed(&list, Purpose::Passage).await.unwrap_err();
                assert_eq!((error.class, error.cause), (ErrorClass::Poison, Cause::Refused), "{api:?} {what}");
                assert!(error.message.contains(what), "{api:?}: {}", error.message);
            }
            assert_eq!(client.embed(&texts(40), Purpose::Passage).await.unwrap().len(), 40, "{api:?} {what}");
        }
        // The model was replaced.
        let body = match api {
            Api::OpenAi => json!({"data": [{"embedding": [1, 2, 3]}]}),
            Api::TextEmbeddingsInference => json!([[1, 2, 3]]),
            Api::Ollama => json!({"embeddings": [[1, 2, 3]]}),
        };
        let fault = Fault { status: 200, headers: Vec::new(), body: body.to_string() };
        for dimensions in [None, Some(DIMENSION)] {
            let url = Server { fault: Some(fault.clone()), ..Server::new(api) }.start().await;
            let client = RemoteClient::new(RemoteOptions { dimensions, ..options(api, &url) }).unwrap();
            client.info().await.unwrap();
            let error = client.embed(&texts(1), Purpose::Passage).await.unwrap_err();
            assert_eq!((error.class, error.cause), (ErrorClass::Fatal, Cause::Other), "{api:?}: {}", error.message);
            assert!(error.message.contains("dimension"), "{api:?}: {}", error.message);
        }
    }
}

#[tokio::test]
async fn retry_after_is_passed_on() {
    let limit = || json!({"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}});
    for api in ALL {
        let error = failure(api, 429, vec![("retry-after", "7".to_owned())], limit()).await;
        assert_eq!((error.class, error.retry_after), (ErrorClass::Transient, Some(Duration::from_secs(7))), "{api:?}");
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(100));
        let error = failure(api, 429, vec![("retry-after", date)], limit()).await;
        let wait = error.retry_after.unwrap();
        assert!((50..=100).contains(&wait.as_secs()), "{api:?}: {wait:?}");
    }
}

#[tokio::test]
async fn api_key_is_sent_with_every_request() {
    for api in ALL {
        let url = Server { key: Some("open sesame"), ..Server::new(api) }.start().await;
        let with = RemoteOptions { key: Some(Secret::new("open sesame")), ..options(api, &url) };
        assert_eq!(RemoteClient::new(with).unwrap().embed(&texts(2), Purpose::Query).await.unwrap().len(), 2);
        let error = client(api, &url).info().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal, "{api:?}");
        assert!(error.message.contains("returned 401"), "{api:?}: {}", error.message);
    }
}

#[tokio::test]
async fn misconfiguration_is_fatal_at_start() {
    // Missing model.
    let ollama = Server::new(Api::Ollama).start().await;
    let other = RemoteOptions { model: "mxbai".to_owned(), ..options(Api::Ollama, &ollama) };
    let error = RemoteClient::new(other).unwrap().info().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("model 'mxbai' not found"), "{}", error.message);
    assert!(error.hint.unwrap().contains("ollama pull mxbai"));

    // Model mismatch.
    let tei = Server { model: "BAAI/bge", ..Server::new(Api::TextEmbeddingsInference) }.start().await;
    let error = client(Api::TextEmbeddingsInference, &tei).info().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("serves model BAAI/bge, not hash"), "{}", error.message);
    let any = RemoteOptions { model: String::new(), ..options(Api::TextEmbeddingsInference, &tei) };
    assert_eq!(RemoteClient::new(any).unwrap().info().await.unwrap().model, "BAAI/bge");

    // Not an embedding model.
    let reranker = Server { kind: "reranker", ..Server::new(Api::TextEmbeddingsInference) }.start().await;
    let error = client(Api::TextEmbeddingsInference, &reranker).info().await.unwrap_err();
    assert!(error.class == ErrorClass::Fatal && error.message.contains("a reranker"), "{}", error.message);

    // Wrong service at the address.
    for (api, there) in [(Api::TextEmbeddingsInference, &ollama), (Api::Ollama, &tei), (Api::OpenAi, &tei)] {
        let error = client(api, there).info().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal, "{api:?}: {}", error.message);
        assert!(error.hint.unwrap().contains("embedding."), "{api:?}");
    }
}
