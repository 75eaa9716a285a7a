//! The service's endpoints over real HTTP.

mod support;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Obedient, Running, answer, expected, floats, hash, hash_options};
use tidewheel_core::secret::Secret;
use tidewheel_embed::service::{ServiceOptions, metric};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn encode_and_encode_batch_return_engine_vectors() {
    let service = Running::hash(384).await;
    let texts = ["the tide turns", "", "日本語 🙂 naïve", "the tide turns"];
    let expected = expected(&*hash(384), &texts);

    for (text, vector) in texts.iter().zip(&expected) {
        let (status, body) = service.post("/encode", &json!({"text": text})).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["embedding"]);
        assert_eq!(&floats(&body["embedding"]), vector);
    }
    let (status, body) = service.post("/encode_batch", &json!({"texts": texts, "purpose": "query"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["embeddings"]);
    let vectors: Vec<Vec<f32>> = body["embeddings"].as_array().unwrap().iter().map(floats).collect();
    assert_eq!(vectors, expected);

    let (status, body) = service.post("/encode_batch", &json!({"texts": []})).await;
    assert_eq!((status, body), (StatusCode::OK, json!({"embeddings": []})));
}

#[tokio::test]
async fn json_response_uses_short_numbers() {
    let service = Running::hash(64).await;
    let body = service.request(Method::POST, "/encode").json(&json!({"text": "x"})).send().await.unwrap();
    let text = body.text().await.unwrap();
    let longest = text.trim_start_matches("{\"embedding\":[").trim_end_matches("]}").split(',').map(str::len).max();
    assert!(longest < Some(16), "{text}");
}

#[tokio::test]
async fn binary_response_has_same_values() {
    let service = Running::hash(96).await;
    let texts: Vec<String> = (0..300).map(|n| format!("text {n}")).collect();
    let request = service.request(Method::POST, "/encode_batch").json(&json!({"texts": texts}));
    let response = request.header(ACCEPT, "application/octet-stream").send().await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "application/octet-stream");
    assert_eq!(response.headers()["x-dimension"], "96");
    assert_eq!(response.headers()["x-count"], "300");
    assert!(response.headers()["x-model"].to_str().unwrap().starts_with("hash:96@"));
    let bytes = response.bytes().await.unwrap();
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(values, expected(&*hash(96), &texts).concat());
}

#[tokio::test]
async fn invalid_input_error_names_cause() {
    let service = Running::hash(8).await;
    let cases = [
        ("/encode", "", "EOF"),
        ("/encode", "{", "EOF"),
        ("/encode", "not json", "expected"),
        ("/encode", "{}", "missing field `text`"),
        ("/encode", r#"{"text": 1}"#, "expected a string"),
        ("/encode", r#"{"text": "a", "txet": "b"}"#, "unknown field `txet`"),
        ("/encode", r#"{"text": "a", "purpose": "fun"}"#, "`fun`"),
        ("/encode_batch", r#"{"text": "a"}"#, "unknown field `text`"),
        ("/encode_batch", r#"{"texts": "a"}"#, "expected a sequence"),
        ("/encode_batch", r#"{"texts": ["a", null]}"#, "null"),
        ("/encode_batch", "{\"texts\": [\"\u{1}\"]}", "control character"),
    ];
    for (path, body, part) in cases {
        let (status, answer) =
            answer(service.request(Method::POST, path).header(CONTENT_TYPE, "application/json").body(body)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let message = answer["error"].as_str().unwrap();
        assert!(message.contains(part), "{body}: {message}");
    }
    let (status, body) = service.get("/nothing").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert!(body["error"].as_str().unwrap().contains("/encode_batch"));
    let (status, body) = service.get("/encode").await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(body["error"], "/encode does not support GET");
    let not_utf8 = service.request(Method::POST, "/encode").header(CONTENT_TYPE, "application/json");
    let (status, body) = answer(not_utf8.body(vec![b'"', 0xff, b'"'])).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
}

#[tokio::test]
async fn oversized_request_is_rejected_with_413() {
    let options = ServiceOptions { max_body_bytes: 100_000, max_texts: 10, ..hash_options() };
    let service = Running::start(hash(8), options).await;
    let (status, body) = service.post("/encode_batch", &json!({"texts": vec!["a"; 11]})).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(body["error"], "11 texts in one request, limit 10; split the list");

    let (status, body) = service.post("/encode", &json!({"text": "a".repeat(200_000)})).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(body["error"].as_str().unwrap().contains("100000 bytes"), "{body}");

    // A body without Content-Length is counted while it is received.
    let mut socket = TcpStream::connect(service.url.trim_start_matches("http://")).await.unwrap();
    socket.write_all(b"POST /encode HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    for _ in 0..20 {
        socket.write_all(format!("{:x}\r\n{}\r\n", 10_000, "a".repeat(10_000)).as_bytes()).await.unwrap();
    }
    socket.write_all(b"0\r\n\r\n").await.unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 413");

    let (status, _) = service.post("/encode", &json!({"text": "a ".repeat(40_000)})).await;
    assert_eq!(status, StatusCode::OK, "request within the limits");
}

#[tokio::test]
async fn incomplete_body_times_out_with_408() {
    let options = ServiceOptions { read_timeout: Duration::from_millis(50), ..hash_options() };
    let service = Running::start(hash(8), options).await;
    let mut socket = TcpStream::connect(service.url.trim_start_matches("http://")).await.unwrap();
    socket.write_all(b"POST /encode HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
    let mut head = [0; 12];
    socket.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 408");
}

#[tokio::test]
async fn total_memory_of_bodies_is_bounded() {
    let limits = ServiceOptions { max_body_bytes: 1000, max_pending_bytes: 1500, ..hash_options() };
    let service = Running::start(hash(8), limits).await;
    let mut socket = TcpStream::connect(service.url.trim_start_matches("http://")).await.unwrap();
    socket.write_all(b"POST /encode HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{").await.unwrap();
    let busy = async || {
        let (status, _) = service.post("/encode", &json!({"text": "a".repeat(800)})).await;
        status == StatusCode::TOO_MANY_REQUESTS
    };
    support::until("second body is rejected", busy).await;
    drop(socket);
    support::until("memory budget is released", async || !busy().await).await;
}

#[tokio::test]
async fn openai_request_gets_openai_response() {
    let service = Running::hash(16).await;
    let vectors = expected(&*hash(16), &["tide", "wheel"]);
    let (status, body) = service.post("/v1/embeddings", &json!({"input": "tide", "model": "hash:16"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&body["object"], &body["model"]), (&json!("list"), &json!("hash:16")));
    assert_eq!(body["usage"], json!({"prompt_tokens": 1, "total_tokens": 1}));
    assert_eq!((&body["data"][0]["object"], &body["data"][0]["index"]), (&json!("embedding"), &json!(0)));
    assert_eq!(floats(&body["data"][0]["embedding"]), vectors[0]);

    let request = json!({"input": ["tide", "wheel"], "dimensions": 16, "encoding_format": "base64", "user": "me"});
    let (_, body) = service.post("/v1/embeddings", &request).await;
    for (index, vector) in vectors.iter().enumerate() {
        let bytes = STANDARD.decode(body["data"][index]["embedding"].as_str().unwrap()).unwrap();
        let values: Vec<f32> = bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        assert_eq!((&body["data"][index]["index"], &values), (&json!(index), vector));
    }

    let ids = hash(16).tokenize("tide wheel").ids;
    for input in [json!(ids), json!([ids])] {
        let (status, body) = service.post("/v1/embeddings", &json!({"input": input})).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        assert_eq!(floats(&body["data"][0]["embedding"]), expected(&*hash(16), &["tide wheel"])[0]);
        assert_eq!(body["usage"]["total_tokens"], 2);
    }
}

#[tokio::test]
async fn openai_error_names_cause() {
    let service = Running::hash(16).await;
    let cases = [
        (json!({"input": "a", "model": "other"}), 404, "model_not_found", "\"other\""),
        (json!({"input": "a", "dimensions": 8}), 400, "invalid_request", "16 dimensions, not 8"),
        (json!({"input": []}), 400, "invalid_request", "empty array"),
        (json!({"input": [[]]}), 400, "invalid_request", "empty token array"),
        (json!({"input": {"a": 1}}), 400, "invalid_request", "input must be a string"),
        (json!({"inputs": "a"}), 400, "invalid_request", "unknown field `inputs`"),
        (json!({"model": "hash:16"}), 400, "invalid_request", "missing field `input`"),
        (json!({"input": "a", "encoding_format": "int8"}), 400, "invalid_request", "`int8`"),
        (json!({"input": vec!["a"; 1025]}), 413, "request_too_large", "1025 texts"),
    ];
    for (request, status, code, part) in cases {
        let (found, body) = service.post("/v1/embeddings", &request).await;
        assert_eq!(found.as_u16(), status, "{body}");
        let error = &body["error"];
        assert_eq!((&error["code"], &error["type"]), (&json!(code), &json!("invalid_request_error")));
        assert!(error["message"].as_str().unwrap().contains(part), "{error}");
    }
}

#[tokio::test]
async fn token_is_required_for_all_endpoints_except_probes() {
    let options = ServiceOptions { token: Some(Secret::new("open sesame")), ..hash_options() };
    let service = Running::start(hash(8), options).await;
    for path in ["/health", "/ready"] {
        assert_eq!(service.get(path).await.0, StatusCode::OK, "{path}");
    }
    for path in ["/info", "/metrics", "/tokenizer"] {
        assert_eq!(service.get(path).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    for path in ["/encode", "/encode_batch", "/v1/embeddings"] {
        let response = service
            .request(Method::POST, path)
            .header(CONTENT_TYPE, "application/json")
            .body("{}")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
        let body: Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
        assert_eq!(body["error"].is_object(), path.starts_with("/v1"), "{body}");
    }
    let request = service.request(Method::POST, "/encode").json(&json!({"text": "a"}));
    let (status, _) = answer(request.header(AUTHORIZATION, "Bearer open sesame")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn service_exposes_info_health_and_metrics() {
    // The only test that records metrics: the recorder is process-wide.
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let render = std::sync::Arc::new(move || recorder.render());
    let options = ServiceOptions { workers: 3, metrics: Some(render), ..hash_options() };
    let service = Running::start(hash(8), options).await;
    let (_, info) = service.get("/info").await;
    assert_eq!((&info["model"], &info["dimension"]), (&json!("hash:8"), &json!(8)));
    assert_eq!((&info["precision"], &info["workers"]), (&json!("f32"), &json!(3)));
    assert_eq!((&info["max_tokens"], &info["max_text_tokens"]), (&json!(256), &json!(256)));
    assert_eq!(info["limits"]["texts"], 1024);
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(info["load"], json!({"tokens": 0, "queued_tokens": 0}));
    assert_eq!(service.get("/health").await, (StatusCode::OK, json!({"status": "ok"})));
    assert_eq!(service.get("/ready").await, (StatusCode::OK, json!({"status": "ready"})));
    let (status, body) = service.get("/tokenizer").await;
    assert_eq!((status, &body["tokenizer"]), (StatusCode::NOT_FOUND, &json!("words")));

    service.post("/encode_batch", &json!({"texts": ["one two three", "four"]})).await;
    service.post("/encode_batch", &json!({"texts": 1})).await;
    let (_, info) = service.get("/info").await;
    assert!(info["load"]["tokens"].as_u64().unwrap() >= 4, "{info}");
    let text = service.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let names = [
        metric::REQUESTS,
        metric::TEXTS,
        metric::TOKENS,
        metric::ABANDONED,
        metric::REFUSED,
        metric::QUEUE_TOKENS,
        metric::QUEUE_REQUESTS,
        metric::TOKENIZE_SECONDS,
        metric::QUEUE_SECONDS,
        metric::COMPUTE_SECONDS,
        metric::TILE_FILL,
    ];
    for name in names {
        assert!(text.lines().any(|line| line.starts_with(name)), "missing {name} in\n{text}");
    }
    // Other tests in this process are counted too.
    let value = |line: &str| {
        let found = text.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_else(|| panic!("{line}\n{text}"));
        found.trim().parse::<f64>().unwrap()
    };
    assert!(value("tidewheel_embedder_texts_total ") >= 2.0);
    assert!(value("tidewheel_embedder_requests_total{class=\"4xx\"} ") >= 1.0);
}

#[tokio::test]
async fn engine_failure_on_one_text_fails_only_its_request() {
    let service = Running::start(Obedient::open(), hash_options()).await;
    for (bad, cause) in [("!", "engine failure"), ("?", "vector is not finite")] {
        let (status, body) = service.post("/encode_batch", &json!({"texts": ["a", "b", bad]})).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(body["error"], format!("failed to embed text at index 2: {cause}"));
    }
    let mixed = (0..40).map(|n| {
        let service = &service;
        async move {
            let text = if n % 4 == 0 { "!" } else { "abc" };
            (n % 4 == 0, service.post("/encode", &json!({"text": text})).await)
        }
    });
    for (bad, (status, body)) in futures::future::join_all(mixed).await {
        if bad {
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        } else {
            assert_eq!((status, body), (StatusCode::OK, json!({"embedding": [97.0, 3.0]})));
        }
    }
}
