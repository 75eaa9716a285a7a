//! Failures of the embedding service, with a real processor.
//!
//! A fake proxies the real embedder and injects faults on demand.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use mongodb::bson::doc;
use serde_json::Value;
use tidewheel_stores::redis::keys::{EMBEDDED_DEAD_LETTERS, RAW, RAW_DEAD_LETTERS, RAW_GROUP};
use tokio::net::TcpListener;

use super::world::{SERVICES, World, backlog, redis_command, ticket};

/// How the fake responds to a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behavior {
    /// As the real one, except that a batch with "REFUSED" in a text is rejected as a whole, and a text with "NAN" gets
    /// a vector of NaN.
    Normal,
    /// As the real one.
    Lenient,
    TooMany,
    Broken,
    Hanging,
    /// As the real one, with a delay.
    Slow,
    OneTooFew,
    AnotherDimension,
}

#[derive(Clone)]
pub(super) struct Fake {
    real: String,
    behavior: Arc<Mutex<Behavior>>,
    /// Batches with an injected fault.
    faults: Arc<AtomicU32>,
    http: reqwest::Client,
}

impl Fake {
    /// Listens on a free port in front of the embedder at this address.
    pub(super) async fn start(real: &str) -> (Self, String) {
        // Fails after the first call.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fake = Self {
            real: format!("http://{real}"),
            behavior: Arc::new(Mutex::new(Behavior::Normal)),
            faults: Arc::default(),
            http: super::clients::http(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (fake, url)
    }

    pub(super) fn set(&self, behavior: Behavior) {
        *self.behavior.lock().unwrap() = behavior;
        self.faults.store(0, Ordering::Relaxed);
    }

    fn faults(&self) -> u32 {
        self.faults.load(Ordering::Relaxed)
    }

    /// Forwards a request to the real embedder.
    async fn forward(&self, method: Method, uri: &Uri, accept: Option<HeaderValue>, body: Vec<u8>) -> Response<Body> {
        let mut request = self.http.request(method, format!("{}{}", self.real, uri.path())).body(body);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        let Ok(answer) = request.send().await else { return error(StatusCode::BAD_GATEWAY) };
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-")) {
            response = response.header(name, value);
        }
        response.body(answer.bytes().await.unwrap().into()).unwrap()
    }
}

fn error(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(r#"{"error": "a fault of the test"}"#.into()).unwrap()
}

async fn answer(State(fake): State<Fake>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let accept = parts.headers.get(header::ACCEPT).cloned();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let forward = |body: Vec<u8>| fake.forward(parts.method.clone(), &parts.uri, accept.clone(), body);
    if parts.uri.path() != "/encode_batch" {
        return forward(body.into()).await;
    }
    let behavior = *fake.behavior.lock().unwrap();
    let mut batch: Value = serde_json::from_slice(&body).unwrap();
    let texts = batch["texts"].as_array_mut().unwrap();
    let holds = |mark: &str| texts.iter().any(|text| text.as_str().unwrap().contains(mark));
    if behavior != Behavior::Normal || holds("REFUSED") {
        fake.faults.fetch_add(1, Ordering::Relaxed);
    }
    match behavior {
        Behavior::Lenient => forward(body.into()).await,
        Behavior::Normal if holds("REFUSED") => error(StatusCode::UNPROCESSABLE_ENTITY),
        Behavior::Normal => {
            let marked: Vec<bool> = texts.iter().map(|text| text.as_str().unwrap().contains("NAN")).collect();
            with_nan(forward(body.into()).await, &marked).await
        }
        Behavior::TooMany => {
            let mut answer = error(StatusCode::TOO_MANY_REQUESTS);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
        Behavior::Broken => error(StatusCode::INTERNAL_SERVER_ERROR),
        Behavior::Hanging => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            error(StatusCode::OK)
        }
        Behavior::Slow => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            forward(body.into()).await
        }
        Behavior::OneTooFew => {
            // The real embedder rejects an empty list.
            if texts.len() > 1 {
                texts.pop();
            }
            forward(batch.to_string().into_bytes()).await
        }
        Behavior::AnotherDimension => {
            let mut answer = forward(body.into()).await;
            answer.headers_mut().insert("x-dimension", HeaderValue::from_static("63"));
            answer
        }
    }
}

/// Replaces the marked vectors by NaN.
async fn with_nan(answer: Response<Body>, marked: &[bool]) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let mut bytes = Vec::from(axum::body::to_bytes(body, usize::MAX).await.unwrap());
    let size = bytes.len() / marked.len();
    for (vector, _) in bytes.chunks_exact_mut(size).zip(marked).filter(|(_, marked)| **marked) {
        vector[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    }
    Response::from_parts(parts, Bytes::from(bytes).into())
}

/// Starts a pipeline whose processor uses the fake.
pub(super) async fn world() -> (World, Fake) {
    let mut world = World::new().await;
    let (fake, url) = Fake::start(&world.embedder).await;
    world.detours.embedding_url = Some(url);
    world.write_settings(r#"embedding.timeout = "1s""#);
    for service in SERVICES {
        world.start(service);
    }
    (world, fake)
}

async fn dead_letters(world: &World) -> u64 {
    let mut letters = 0;
    for stream in [RAW_DEAD_LETTERS, EMBEDDED_DEAD_LETTERS] {
        letters += world.redis::<u64>(&["XLEN", stream]).await;
    }
    letters
}

#[tokio::test(flavor = "multi_thread")]
async fn transient_embedder_faults_leave_no_dead_letters() {
    let (mut world, fake) = world().await;
    // A second processor repeatedly claims entries meanwhile.
    world.start("processor");
    let tickets = world.collection("tickets");
    let faults =
        [Behavior::TooMany, Behavior::Hanging, Behavior::OneTooFew, Behavior::AnotherDimension, Behavior::Broken];
    for (round, fault) in (0..).zip(faults) {
        fake.set(fault);
        tickets.insert_many((round * 100..round * 100 + 20).map(ticket)).await.unwrap();
        let failing = fake.clone();
        world.until("repeated faults", || async { failing.faults() >= 2 }).await;
        if fault == Behavior::Broken {
            // A long outage: several times the time after which entries are claimed.
            tokio::time::sleep(Duration::from_secs(7)).await;
            assert!(fake.faults() >= 4, "retried repeatedly");
        }
        fake.set(Behavior::Normal);
        assert_eq!(world.equal().await.documents, (round as u64 + 1) * 20, "after {fault:?}");
    }
    assert_eq!(dead_letters(&world).await, 0);
    let url = world.stack.redis_url();
    world.until("stage 1 is drained", || async { backlog(&url, RAW, RAW_GROUP).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unembeddable_text_is_parked_and_rest_of_batch_is_indexed() {
    let (mut world, fake) = world().await;
    let tickets = world.collection("tickets");
    let mut documents: Vec<_> = (0..200).map(ticket).collect();
    documents[70].insert("content", "This one is always REFUSED.");
    documents[130].insert("content", "This one comes back as NAN.");
    tickets.insert_many(documents).await.unwrap();
    let url = world.stack.redis_url();
    world
        .until("both documents are parked", || async {
            redis_command::<u64>(&url, &["XLEN", RAW_DEAD_LETTERS]).await >= 2
        })
        .await;
    // A document in both the snapshot and the change stream is parked twice.
    world.until("stage 1 is drained", || async { backlog(&url, RAW, RAW_GROUP).await == 0 }).await;
    assert!(fake.faults() > 1, "the batch is bisected");
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("all other documents are in the index", || super::clients::count(&qdrant, 198)).await;
    let letters: Vec<(String, std::collections::HashMap<String, Vec<u8>>)> =
        world.redis(&["XRANGE", RAW_DEAD_LETTERS, "-", "+"]).await;
    let mut reasons: Vec<String> =
        letters.iter().map(|(_, fields)| String::from_utf8_lossy(&fields["reason"]).into_owned()).collect();
    reasons.sort();
    let parked: std::collections::BTreeSet<&[u8]> = letters.iter().map(|(_, fields)| fields["id"].as_slice()).collect();
    assert_eq!(parked.into_iter().collect::<Vec<_>>(), [b"130".as_slice(), b"70"]);
    assert!(reasons.iter().any(|reason| reason.contains("422")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("not finite")), "{reasons:?}");

    // The documents are corrected.
    let content = doc! {"$set": {"content": "It can be embedded now."}};
    tickets.update_many(doc! {"_id": {"$in": [70, 130]}}, content).await.unwrap();
    assert_eq!(world.equal().await.documents, 200);
    assert_eq!(dead_letters(&world).await, letters.len() as u64, "no further dead letters");
}
