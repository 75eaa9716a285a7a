//! The embedding service fails in every way that a service can, in front of a real processor.
//!
//! A fake stands between the processor and the real embedder and spoils its answers on demand.

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
use tidewheel_core::streams::{EMBEDDED_DEAD_LETTERS, RAW, RAW_DEAD_LETTERS, RAW_GROUP};
use tokio::net::TcpListener;

use super::world::{SERVICES, World, backlog, redis_command, ticket};

/// How the fake answers a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mood {
    /// As the real one does; but a batch with a text that has "REFUSED" in it is refused as a whole, and the vector of
    /// a text with "NAN" in it is not a number.
    Fair,
    /// Nothing is refused any more.
    Lenient,
    TooMany,
    Broken,
    Hanging,
    /// As the real one does, but only after a while.
    Slow,
    OneTooFew,
    AnotherDimension,
}

#[derive(Clone)]
pub(super) struct Fake {
    real: String,
    mood: Arc<Mutex<Mood>>,
    /// Batches that were not answered fairly.
    spoilt: Arc<AtomicU32>,
    http: reqwest::Client,
}

impl Fake {
    /// Listens on a free port in front of the embedder at this address.
    pub(super) async fn start(real: &str) -> (Self, String) {
        // Only the first call installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fake = Self {
            real: format!("http://{real}"),
            mood: Arc::new(Mutex::new(Mood::Fair)),
            spoilt: Arc::default(),
            http: super::clients::http(),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (fake, url)
    }

    pub(super) fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
        self.spoilt.store(0, Ordering::Relaxed);
    }

    fn spoilt(&self) -> u32 {
        self.spoilt.load(Ordering::Relaxed)
    }

    /// What the real embedder answers.
    async fn ask(&self, method: Method, uri: &Uri, accept: Option<HeaderValue>, body: Vec<u8>) -> Response<Body> {
        let mut request = self.http.request(method, format!("{}{}", self.real, uri.path())).body(body);
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(accept) = accept {
            request = request.header(header::ACCEPT, accept);
        }
        let Ok(answer) = request.send().await else { return refusal(StatusCode::BAD_GATEWAY) };
        let mut response = Response::builder().status(answer.status());
        for (name, value) in answer.headers().iter().filter(|(name, _)| name.as_str().starts_with("x-")) {
            response = response.header(name, value);
        }
        response.body(answer.bytes().await.unwrap().into()).unwrap()
    }
}

fn refusal(status: StatusCode) -> Response<Body> {
    Response::builder().status(status).body(r#"{"error": "a fault of the test"}"#.into()).unwrap()
}

async fn answer(State(fake): State<Fake>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let accept = parts.headers.get(header::ACCEPT).cloned();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let ask = |body: Vec<u8>| fake.ask(parts.method.clone(), &parts.uri, accept.clone(), body);
    if parts.uri.path() != "/encode_batch" {
        return ask(body.into()).await;
    }
    let mood = *fake.mood.lock().unwrap();
    let mut batch: Value = serde_json::from_slice(&body).unwrap();
    let texts = batch["texts"].as_array_mut().unwrap();
    let holds = |mark: &str| texts.iter().any(|text| text.as_str().unwrap().contains(mark));
    if mood != Mood::Fair || holds("REFUSED") {
        fake.spoilt.fetch_add(1, Ordering::Relaxed);
    }
    match mood {
        Mood::Lenient => ask(body.into()).await,
        Mood::Fair if holds("REFUSED") => refusal(StatusCode::UNPROCESSABLE_ENTITY),
        Mood::Fair => {
            let marked: Vec<bool> = texts.iter().map(|text| text.as_str().unwrap().contains("NAN")).collect();
            not_numbers(ask(body.into()).await, &marked).await
        }
        Mood::TooMany => {
            let mut answer = refusal(StatusCode::TOO_MANY_REQUESTS);
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            answer
        }
        Mood::Broken => refusal(StatusCode::INTERNAL_SERVER_ERROR),
        Mood::Hanging => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            refusal(StatusCode::OK)
        }
        Mood::Slow => {
            tokio::time::sleep(Duration::from_secs(2)).await;
            ask(body.into()).await
        }
        Mood::OneTooFew => {
            // One text has to be left, or the real one refuses an empty list.
            if texts.len() > 1 {
                texts.pop();
            }
            ask(batch.to_string().into_bytes()).await
        }
        Mood::AnotherDimension => {
            let mut answer = ask(body.into()).await;
            answer.headers_mut().insert("x-dimension", HeaderValue::from_static("63"));
            answer
        }
    }
}

/// The same answer with vectors that are not numbers in the marked places.
async fn not_numbers(answer: Response<Body>, marked: &[bool]) -> Response<Body> {
    let (parts, body) = answer.into_parts();
    let mut bytes = Vec::from(axum::body::to_bytes(body, usize::MAX).await.unwrap());
    let size = bytes.len() / marked.len();
    for (vector, _) in bytes.chunks_exact_mut(size).zip(marked).filter(|(_, marked)| **marked) {
        vector[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    }
    Response::from_parts(parts, Bytes::from(bytes).into())
}

/// A pipeline whose processor talks to the fake.
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
async fn whatever_passes_is_waited_out_without_a_dead_letter() {
    let (mut world, fake) = world().await;
    // Entries are also taken over by a second one meanwhile, again and again.
    world.start("processor");
    let tickets = world.collection("tickets");
    let moods = [Mood::TooMany, Mood::Hanging, Mood::OneTooFew, Mood::AnotherDimension, Mood::Broken];
    for (round, mood) in (0..).zip(moods) {
        fake.set(mood);
        tickets.insert_many((round * 100..round * 100 + 20).map(ticket)).await.unwrap();
        let spoilt = fake.clone();
        world.until("batches are spoilt again and again", || async { spoilt.spoilt() >= 2 }).await;
        if mood == Mood::Broken {
            // A long one: several times the time after which entries are taken over.
            tokio::time::sleep(Duration::from_secs(7)).await;
            assert!(fake.spoilt() >= 4, "it was tried again and again");
        }
        fake.set(Mood::Fair);
        assert_eq!(world.equal().await.documents, (round as u64 + 1) * 20, "after {mood:?}");
    }
    assert_eq!(dead_letters(&world).await, 0);
    let url = world.stack.redis_url();
    world.until("stage 1 is drained", || async { backlog(&url, RAW, RAW_GROUP).await == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_can_never_be_embedded_is_parked_and_its_neighbours_go_on() {
    let (mut world, fake) = world().await;
    let tickets = world.collection("tickets");
    let mut documents: Vec<_> = (0..200).map(ticket).collect();
    documents[70].insert("content", "This one is always REFUSED.");
    documents[130].insert("content", "This one comes back as NAN.");
    tickets.insert_many(documents).await.unwrap();
    let url = world.stack.redis_url();
    world
        .until("both are parked", || async { redis_command::<u64>(&url, &["XLEN", RAW_DEAD_LETTERS]).await >= 2 })
        .await;
    // A document that the snapshot and the feed have both seen is parked twice.
    world.until("stage 1 is drained", || async { backlog(&url, RAW, RAW_GROUP).await == 0 }).await;
    assert!(fake.spoilt() > 1, "the batch was halved until the text was found");
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("all neighbours are in the index", || super::clients::count(&qdrant, 198)).await;
    let letters: Vec<(String, std::collections::HashMap<String, Vec<u8>>)> =
        world.redis(&["XRANGE", RAW_DEAD_LETTERS, "-", "+"]).await;
    let mut reasons: Vec<String> =
        letters.iter().map(|(_, fields)| String::from_utf8_lossy(&fields["reason"]).into_owned()).collect();
    reasons.sort();
    let parked: std::collections::BTreeSet<&[u8]> = letters.iter().map(|(_, fields)| fields["id"].as_slice()).collect();
    assert_eq!(parked.into_iter().collect::<Vec<_>>(), [b"130".as_slice(), b"70"]);
    assert!(reasons.iter().any(|reason| reason.contains("422")), "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("not finite")), "{reasons:?}");

    // A person mends the documents.
    let content = doc! {"$set": {"content": "It can be embedded now."}};
    tickets.update_many(doc! {"_id": {"$in": [70, 130]}}, content).await.unwrap();
    assert_eq!(world.equal().await.documents, 200);
    assert_eq!(dead_letters(&world).await, letters.len() as u64, "no other one was parked");
}
