//! The clients: one contract for both against the real service, and both against misbehaving servers.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use support::{Obedient, Running, expected, hash, hash_options};
use tidewheel_core::error::{Cause, ErrorClass, PortError};
use tidewheel_core::ports::{Embedder, Purpose};
use tidewheel_core::secret::Secret;
use tidewheel_embed::client::{Api, ClientOptions, RemoteClient, RemoteOptions, TidewheelClient};
use tidewheel_embed::service::ServiceOptions;
use tokio::net::TcpListener;

fn tidewheel(url: &str) -> TidewheelClient {
    TidewheelClient::new(ClientOptions::new(url)).unwrap()
}

fn openai(url: &str, model: &str) -> RemoteClient {
    RemoteClient::new(RemoteOptions::new(Api::OpenAi, url, model)).unwrap()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

// ------------------------------------------------------------------------------------------------------- contract

/// The contract of every embedder, with `hash:DIM` behind it.
async fn contract(embedder: &dyn Embedder, dimension: usize, max_tokens: usize) {
    let info = embedder.info().await.unwrap();
    assert_eq!((info.model.as_str(), info.dimension), (format!("hash:{dimension}").as_str(), dimension));
    assert_eq!(info.max_tokens, max_tokens);
    let tokens = embedder.tokens().await.unwrap();
    // Exact or estimated.
    assert!((5..=6).contains(&tokens.spans("a wheel, turning").len()));

    // No text, one text, and texts that are hard to encode in HTTP and JSON.
    assert!(embedder.embed(&[], Purpose::Passage).await.unwrap().is_empty());
    let hard = ["tide", "\" \\ \n \t \u{1} \u{7f}", "日本語 🙂 e\u{301}", "tide"];
    let vectors = embedder.embed(&texts(&hard), Purpose::Passage).await.unwrap();
    assert_eq!(vectors.dimension(), dimension);
    let engine = hash(dimension);
    assert_eq!(vectors.iter().collect::<Vec<_>>(), expected(&*engine, &hard));

    // An empty text has a vector too.
    let empty = embedder.embed(&texts(&[""]), Purpose::Passage).await.unwrap();
    assert_eq!(empty.len(), 1);
    assert!(empty.values().iter().all(|value| value.is_finite()));

    // More texts than fit into one request: in order, and equal to single requests.
    let many: Vec<String> = (0..2_500).map(|n| format!("text number {n}")).collect();
    let vectors = embedder.embed(&many, Purpose::Passage).await.unwrap();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(vectors.values(), expected(&*engine, &many).concat());

    // A query far beyond the limit is truncated, not rejected.
    let long = "wheel ".repeat(20_000);
    let vectors = embedder.embed(std::slice::from_ref(&long), Purpose::Query).await.unwrap();
    assert_eq!(vectors.values(), expected(&*engine, &[&long]).concat());
}

#[tokio::test]
async fn tidewheel_client_meets_contract() {
    let service = Running::hash(48).await;
    contract(&tidewheel(&service.url), 48, 256).await;
    // URLs that include an endpoint are accepted.
    contract(&tidewheel(&format!("{}/encode_batch", service.url)), 48, 256).await;
}

#[tokio::test]
async fn openai_client_meets_contract() {
    let service = Running::hash(48).await;
    contract(&openai(&service.url, "hash:48"), 48, 2048).await;
    let options = RemoteOptions {
        dimensions: Some(48),
        batch: 7,
        ..RemoteOptions::new(Api::OpenAi, service.url.clone(), "hash:48")
    };
    contract(&RemoteClient::new(options).unwrap(), 48, 2048).await;
}

#[tokio::test]
async fn both_clients_send_their_token() {
    let token = Some(Secret::new("open sesame"));
    let options = ServiceOptions { token: token.clone(), ..hash_options() };
    let service = Running::start(hash(8), options).await;
    let with = ClientOptions { token: token.clone(), ..ClientOptions::new(service.url.clone()) };
    contract(&TidewheelClient::new(with).unwrap(), 8, 256).await;
    let with = RemoteOptions { key: token, ..RemoteOptions::new(Api::OpenAi, service.url.clone(), "hash:8") };
    contract(&RemoteClient::new(with).unwrap(), 8, 2048).await;
    let without: [Box<dyn Embedder>; 2] = [Box::new(tidewheel(&service.url)), Box::new(openai(&service.url, "hash:8"))];
    for embedder in without {
        let error = embedder.embed(&texts(&["a"]), Purpose::Passage).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal);
        assert!(error.hint.unwrap().contains("embedding.token"));
    }
}

#[tokio::test]
async fn error_names_failing_text_so_that_others_can_be_embedded() {
    let service = Running::start(Obedient::open(), hash_options()).await;
    // The remote client retries with fewer texts, because a rejection may be caused by their number.
    let embedders: [(Box<dyn Embedder>, &str); 2] =
        [(Box::new(tidewheel(&service.url)), "index 2"), (Box::new(openai(&service.url, "obedient")), "index 0")];
    for (embedder, place) in embedders {
        for bad in ["!", "?"] {
            let error = embedder.embed(&texts(&["a", "b", bad]), Purpose::Passage).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Poison);
            assert!(error.message.contains(place), "{}", error.message);
            assert_eq!(embedder.embed(&texts(&["a", "b"]), Purpose::Passage).await.unwrap().len(), 2);
        }
    }
}

#[tokio::test]
async fn service_rejects_overlong_document_and_truncates_overlong_query() {
    let service = Running::hash(8).await;
    let client = tidewheel(&service.url);
    let fits = "wheel ".repeat(256);
    assert_eq!(client.embed(&texts(&[&fits]), Purpose::Passage).await.unwrap().len(), 1);
    for long in ["wheel ".repeat(257), "日本語の文章".repeat(300), "7f3a9c1e-5b2d ".repeat(200)] {
        let error = client.embed(&texts(&["short", &long]), Purpose::Passage).await.unwrap_err();
        assert_eq!((error.class, error.cause), (ErrorClass::Poison, Cause::TooLong), "{}", error.message);
        assert!(error.message.contains("256"), "{}", error.message);
        assert_eq!(client.embed(&texts(&[&long]), Purpose::Query).await.unwrap().len(), 1);
    }
    // An embedder of an earlier release rejects the unknown request field.
    let asked = Arc::new(std::sync::Mutex::new(Value::Null));
    let seen = asked.clone();
    let info = json!({
        "model": "stub", "revision": "1", "precision": "f32", "passage_prefix": "", "dimension": 2, "max_text_tokens": 254,
        "limits": {"body_bytes": 1_000_000, "texts": 100},
    });
    let encode = async move |body: Bytes| {
        *seen.lock().unwrap() = serde_json::from_slice(&body).unwrap();
        StatusCode::SERVICE_UNAVAILABLE
    };
    let old = Router::new().route("/info", get(async || axum::Json(info))).route("/encode_batch", post(encode));
    let _ = tidewheel(&serve(old).await).embed(&texts(&["a"]), Purpose::Passage).await;
    assert_eq!(*asked.lock().unwrap(), json!({"texts": ["a"], "purpose": "passage"}));
}

#[tokio::test]
async fn overload_response_is_transient_with_retry_delay() {
    let options = ServiceOptions { workers: 1, queue_requests: 1, queue_tokens: 4, ..hash_options() };
    let engine = Obedient::closed();
    let service = Running::start(engine.clone(), options).await;
    let client = Arc::new(tidewheel(&service.url));
    client.info().await.unwrap();
    let embed = |text: &str| {
        let (client, list) = (Arc::clone(&client), texts(&[text]));
        tokio::spawn(async move { client.embed(&list, Purpose::Passage).await })
    };
    let working = embed("x");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let waiting = embed("four");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let error = embed("refused").await.unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Transient);
    assert!(error.retry_after >= Some(Duration::from_secs(1)), "{error:?}");
    engine.allow_all();
    for taken in [working, waiting] {
        assert_eq!(taken.await.unwrap().unwrap().len(), 1);
    }
}

// -------------------------------------------------------------------------------------------------- faulty servers

/// Serves a router on a free port until the test ends.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

type Script = Arc<dyn Fn(usize) -> Response + Send + Sync>;

/// Starts a tidewheel embedder stub with two dimensions and scripted responses.
async fn our_stub(script: impl Fn(usize) -> Response + Send + Sync + 'static) -> TidewheelClient {
    let script: Script = Arc::new(script);
    let info = json!({
        "model": "stub", "revision": "1", "precision": "f32", "passage_prefix": "", "dimension": 2, "max_text_tokens": 254,
        "limits": {"body_bytes": 1_000_000, "texts": 100},
    });
    let encode = async move |body: Bytes| {
        let body: Value = serde_json::from_slice(&body).unwrap();
        script(body["texts"].as_array().unwrap().len())
    };
    let router = Router::new().route("/info", get(async || axum::Json(info))).route("/encode_batch", post(encode));
    let url = serve(router).await;
    let options = ClientOptions { timeout: Duration::from_millis(500), ..ClientOptions::new(url) };
    TidewheelClient::new(options).unwrap()
}

/// Starts an OpenAI-compatible stub that answers the first request correctly, and then as scripted.
async fn openai_stub(script: impl Fn(usize) -> Response + Send + Sync + 'static) -> RemoteClient {
    let script: Script = Arc::new(script);
    let calls = AtomicUsize::new(0);
    let calls = Arc::new(calls);
    let embeddings = async move |body: Bytes| {
        let body: Value = serde_json::from_slice(&body).unwrap();
        match calls.fetch_add(1, Ordering::Relaxed) {
            0 => axum::Json(json!({"data": [{"index": 0, "embedding": [1.0, 0.0]}]})).into_response(),
            _ => script(body["input"].as_array().unwrap().len()),
        }
    };
    let url = serve(Router::new().route("/v1/embeddings", post(embeddings))).await;
    let options = RemoteOptions { timeout: Duration::from_millis(500), ..RemoteOptions::new(Api::OpenAi, url, "stub") };
    RemoteClient::new(options).unwrap()
}

fn refusal(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Response {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
        .collect();
    (StatusCode::from_u16(status).unwrap(), headers, body).into_response()
}

/// Returns a response in the binary format.
fn binary(model: &str, count: usize, dimension: usize, values: &[f32]) -> Response {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let headers =
        [("x-model", model.to_owned()), ("x-count", count.to_string()), ("x-dimension", dimension.to_string())];
    (headers, bytes).into_response()
}

fn openai_body(vectors: &str) -> Response {
    let items: Vec<String> = vectors.split(';').map(|vector| format!(r#"{{"embedding": [{vector}]}}"#)).collect();
    ([(header::CONTENT_TYPE, "application/json")], format!(r#"{{"data": [{}]}}"#, items.join(","))).into_response()
}

async fn failure(embedder: &dyn Embedder) -> PortError {
    embedder.embed(&texts(&["one", "two"]), Purpose::Passage).await.unwrap_err()
}

#[tokio::test]
async fn status_codes_map_to_same_error_class_in_both_clients() {
    use ErrorClass::{Fatal, Poison, Transient};
    type Case = (u16, &'static [(&'static str, &'static str)], &'static str, ErrorClass, Option<u64>);
    let cases: [Case; 9] = [
        (429, &[("retry-after", "7")], r#"{"error": "full"}"#, Transient, Some(7)),
        (429, &[], r#"{"error": {"message": "pay", "code": "insufficient_quota"}}"#, Transient, Some(60)),
        (503, &[("retry-after", "1")], "", Transient, Some(1)),
        (500, &[], "<html>", Transient, None),
        (400, &[], r#"{"error": "bad"}"#, Poison, None),
        (413, &[], "", Poison, None),
        (422, &[], "", Poison, None),
        (401, &[], "", Fatal, None),
        (404, &[], "", Fatal, None),
    ];
    for (status, headers, body, class, seconds) in cases {
        let ours = our_stub(move |_| refusal(status, headers, body)).await;
        let theirs = openai_stub(move |_| refusal(status, headers, body)).await;
        for embedder in [&ours as &dyn Embedder, &theirs] {
            let error = failure(embedder).await;
            assert_eq!((error.class, error.retry_after.map(|wait| wait.as_secs())), (class, seconds), "{error:?}");
            assert!(error.message.contains(&format!("returned {status}")), "{}", error.message);
        }
    }
}

#[tokio::test]
async fn invalid_response_never_becomes_a_vector() {
    use ErrorClass::{Fatal, Poison, Transient};
    type Case = (fn() -> Response, ErrorClass, &'static str);
    let ours: [Case; 9] = [
        (|| binary("stub@1", 1, 2, &[1.0, 0.0]), Transient, "1 vectors of dimension 2 for 2 texts"),
        (|| binary("stub@1", 2, 3, &[1.0; 6]), Transient, "2 vectors of dimension 3"),
        (|| binary("stub@1", 2, 2, &[1.0; 3]), Transient, "12 bytes for 2 vectors"),
        (|| binary("stub@1", 2, 2, &[1.0, 0.0, f32::NAN, 0.0]), Poison, "index 1 is not finite"),
        (|| binary("stub@1", 2, 2, &[f32::INFINITY, 0.0, 1.0, 0.0]), Poison, "index 0"),
        (|| binary("stub@1", 2, 2, &[1.0, 0.0, 0.0, 0.0]), Poison, "index 1 is zero"),
        (|| binary("stub@2", 2, 2, &[1.0; 4]), Fatal, "now serves stub@2 instead of stub@1"),
        (|| "garbage".into_response(), Transient, "not in the binary format"),
        (|| axum::Json(json!({"embeddings": [[1.0, 0.0]]})).into_response(), Transient, "not in the binary format"),
    ];
    for (answer, class, part) in ours {
        let error = failure(&our_stub(move |_| answer()).await).await;
        assert_eq!(error.class, class, "{error:?}");
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
    let theirs: [Case; 4] = [
        (|| openai_body("1,0;1,0;1,0"), Poison, "returned 3 vectors for 1 texts"),
        // The probe and the texts alone get two vectors too.
        (|| openai_body("1,0;1,0,0"), Poison, "returned 2 vectors for 1 texts"),
        (|| openai_body(""), Poison, "an empty vector for the text at index 0"),
        (|| "garbage".into_response(), Transient, "invalid response"),
    ];
    for (answer, class, part) in theirs {
        let error = failure(&openai_stub(move |_| answer()).await).await;
        assert_eq!(error.class, class, "{part}: {error:?}");
        assert!(error.message.contains(part), "{part}: {}", error.message);
    }
    // After a rejection the client retries with fewer texts, down to one.
    for (bad, part) in [("null,0", "not finite"), ("NaN,0", "not finite"), ("1e39,0", "not finite"), ("0,0", "is zero")]
    {
        let answer = move |texts| openai_body(&if texts == 1 { bad.to_owned() } else { format!("1,0;{bad}") });
        let error = failure(&openai_stub(answer).await).await;
        assert_eq!(error.class, Poison, "{bad}: {error:?}");
        assert!(error.message.contains(part), "{bad}: {}", error.message);
    }
    // The probe has another dimension too.
    let answer = |texts| openai_body(&vec!["1,0,0"; texts].join(";"));
    let error = failure(&openai_stub(answer).await).await;
    assert_eq!(error.class, Fatal, "{error:?}");
    assert!(error.message.contains("vector dimension changed from 2 to 3"), "{}", error.message);
    // Lists fail, and single texts do not: one vector too few or too many, an empty one, one of another dimension.
    for bad in ["1,0", "1,0;1,0;1,0", "1,0;", "1,0;1,0,0", "1,0,0;1,0,0"] {
        let answer = move |texts| openai_body(if texts == 1 { "0,1" } else { bad });
        let vectors = openai_stub(answer).await.embed(&texts(&["one", "two"]), Purpose::Passage).await.unwrap();
        assert_eq!(vectors.iter().collect::<Vec<_>>(), [[0.0, 1.0]; 2], "{bad}");
    }
}

#[tokio::test]
async fn hanging_or_unreachable_server_is_transient() {
    // Accepts connections but never responds.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hanging = format!("http://{}", silent.local_addr().unwrap());
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    for url in [hanging, gone] {
        let timeout = Duration::from_millis(300);
        let ours = TidewheelClient::new(ClientOptions { timeout, ..ClientOptions::new(url.clone()) }).unwrap();
        let theirs =
            RemoteClient::new(RemoteOptions { timeout, ..RemoteOptions::new(Api::OpenAi, url.clone(), "m") }).unwrap();
        for embedder in [&ours as &dyn Embedder, &theirs] {
            let error = embedder.info().await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Transient);
            assert!(
                error.message.starts_with(&format!("no response from the embedder at {url}/")),
                "{}",
                error.message
            );
        }
    }
}

#[tokio::test]
async fn client_recovers_from_outage_at_start() {
    let calls = Arc::new(AtomicUsize::new(0));
    let info = json!({
        "model": "stub", "revision": "1", "precision": "f32", "passage_prefix": "", "dimension": 2, "max_text_tokens": 254,
        "limits": {"body_bytes": 1_000_000, "texts": 100},
    });
    let answer = async move || match calls.fetch_add(1, Ordering::Relaxed) {
        0 => StatusCode::BAD_GATEWAY.into_response(),
        _ => axum::Json(info).into_response(),
    };
    let client = tidewheel(&serve(Router::new().route("/info", get(answer))).await);
    assert_eq!(client.info().await.unwrap_err().class, ErrorClass::Transient);
    assert_eq!(client.info().await.unwrap().dimension, 2);
}

#[tokio::test]
async fn invalid_url_or_setting_is_fatal() {
    assert_eq!(TidewheelClient::new(ClientOptions::new("localhost:8080")).err().unwrap().class, ErrorClass::Fatal);
    assert_eq!(
        RemoteClient::new(RemoteOptions::new(Api::OpenAi, "http://host", "")).err().unwrap().class,
        ErrorClass::Fatal
    );

    let other = serve(Router::new().route("/", get(async || "hello"))).await;
    let error = tidewheel(&other).info().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.hint.unwrap().contains("not a tidewheel embedder"));

    // The probe text is rejected: the settings are at fault, not the documents.
    let service = Running::hash(8).await;
    let options =
        RemoteOptions { dimensions: Some(9), ..RemoteOptions::new(Api::OpenAi, service.url.clone(), "hash:8") };
    let error = RemoteClient::new(options).unwrap().info().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal);
    assert!(error.message.contains("8 dimensions, not 9"), "{}", error.message);
    assert_eq!(openai(&service.url, "other").info().await.unwrap_err().class, ErrorClass::Fatal);
}

#[tokio::test]
async fn rate_limits_are_enforced_by_waiting() {
    let service = Running::hash(8).await;
    let options = RemoteOptions {
        requests_per_minute: Some(1_000),
        tokens_per_minute: Some(1_000_000),
        batch: 1,
        ..RemoteOptions::new(Api::OpenAi, service.url.clone(), "hash:8")
    };
    let client = RemoteClient::new(options).unwrap();
    let list: Vec<String> = (0..90).map(|n| n.to_string()).collect();
    let started = Instant::now();
    assert_eq!(client.embed(&list, Purpose::Passage).await.unwrap().len(), 90);
    // A twelfth of the per-minute limit is available as burst: 83 of the 91 requests. Sleeps are never shorter than
    // requested.
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
}

#[tokio::test]
async fn remote_prefix_depends_on_purpose() {
    let service = Running::hash(8).await;
    let options = RemoteOptions {
        query_prefix: "query: ".to_owned(),
        passage_prefix: "passage: ".to_owned(),
        ..RemoteOptions::new(Api::OpenAi, service.url.clone(), "hash:8")
    };
    let client = RemoteClient::new(options).unwrap();
    for (purpose, text) in [(Purpose::Query, "query: tide"), (Purpose::Passage, "passage: tide")] {
        let vectors = client.embed(&texts(&["tide"]), purpose).await.unwrap();
        assert_eq!(vectors.values(), expected(&*hash(8), &[text]).concat());
    }
}
