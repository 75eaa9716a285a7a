//! Scheduling order, abandoned requests and metrics of the service. Each test has its own recorder, and waits for metrics
//! instead of sleeping.

mod support;

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use support::{Obedient, TIMEOUT, hash_options, until};
use tidewheel_embed::service::{Service, ServiceOptions, metric};
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, EngineInfo, Text, Workspace};
use tidewheel_serving::Server;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A service with its own metrics recorder, stopped at the end of the test.
struct Watched {
    url: String,
    http: Client,
    metrics: PrometheusHandle,
}

impl Watched {
    async fn start(engine: Arc<dyn Engine>, workers: usize) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let recorder = PrometheusBuilder::new().build_recorder();
        let options = ServiceOptions { workers, ..hash_options() };
        let service = metrics::with_local_recorder(&recorder, || Service::start(engine, options)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(service.run(Server::new(listener), std::future::pending()));
        Self { url, http: Client::new(), metrics: recorder.handle() }
    }

    /// Posts texts from a separate task.
    fn send(&self, texts: &[String]) -> JoinHandle<(StatusCode, Value)> {
        let request = self.http.post(format!("{}/encode_batch", self.url)).json(&json!({ "texts": texts }));
        tokio::spawn(async move { tokio::time::timeout(TIMEOUT, support::answer(request)).await.expect("response") })
    }

    fn meter(&self, name: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    async fn until(&self, name: &str, value: usize) {
        until(&format!("{name} is {value}"), async || (self.meter(name) - value as f64).abs() < 0.5).await;
    }

    /// Sends texts, and returns once they are queued behind `requests` others.
    async fn queue(&self, texts: &[String], requests: usize) -> JoinHandle<(StatusCode, Value)> {
        let answer = self.send(texts);
        self.until(metric::QUEUE_REQUESTS, requests + 1).await;
        answer
    }
}

fn one(letter: &str, tokens: usize) -> Vec<String> {
    vec![letter.repeat(tokens)]
}

/// Metric of requests that left the queue for a thread.
fn begun() -> String {
    format!("{}_count", metric::QUEUE_SECONDS)
}

/// A service with one thread that is computing the text `x`.
async fn occupied() -> (Watched, Arc<Obedient>, JoinHandle<(StatusCode, Value)>) {
    let engine = Obedient::closed();
    let service = Watched::start(engine.clone(), 1).await;
    let first = service.send(&one("x", 1));
    service.until(&begun(), 1).await;
    (service, engine, first)
}

async fn good(answer: JoinHandle<(StatusCode, Value)>) {
    let (status, body) = answer.await.unwrap();
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn idle_core_takes_work_immediately() {
    let engine = Obedient::closed();
    let service = Watched::start(engine.clone(), 3).await;
    // A tile holds hundreds of tokens; threads do not wait for it to fill up.
    let mut answers = Vec::new();
    for taken in 1..=3 {
        answers.push(service.send(&one("a", 2)));
        service.until(&begun(), taken).await;
        assert!(service.meter(metric::QUEUE_REQUESTS) < 0.5);
    }
    // All cores are busy: the request is queued.
    answers.push(service.queue(&one("b", 2), 0).await);
    engine.allow_all();
    for answer in answers {
        good(answer).await;
    }
}

#[tokio::test]
async fn disconnected_client_is_counted_and_not_computed() {
    let (service, engine, first) = occupied().await;
    let leaver = service.queue(&[one("l", 70), one("l", 70)].concat(), 0).await;
    let stayer = service.queue(&one("s", 7), 1).await;
    assert!((service.meter(metric::QUEUE_TOKENS) - 147.0).abs() < 0.5);
    leaver.abort();
    // The service notices the disconnect at its next read from the connection, which is not observable.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    engine.allow_all();
    good(first).await;
    good(stayer).await;
    service.until(metric::ABANDONED, 1).await;
    assert_eq!(engine.computed(), "xs");
    service.until(metric::TOKENS, 1 + 7).await;
    service.until(metric::TEXTS, 2).await;
    service.until(metric::QUEUE_TOKENS, 0).await;
}

#[tokio::test]
async fn texts_of_several_clients_share_a_tile() {
    let (service, engine, first) = occupied().await;
    let mut answers = Vec::new();
    for waiting in 0..5 {
        answers.push(service.queue(&one("c", 50), waiting).await);
    }
    // One tile for the request in progress, one for all five.
    engine.allow(2);
    good(first).await;
    for answer in answers {
        good(answer).await;
    }
    assert_eq!(engine.computed(), "xccccc");
    service.until(&format!("{}_count", metric::TILE_FILL), 2).await;
    assert!(service.meter(&format!("{}_count", metric::TOKENIZE_SECONDS)) > 5.5);
    assert!(service.meter(&format!("{}_count", metric::COMPUTE_SECONDS)) > 1.5);
}

#[tokio::test]
async fn single_text_waits_for_at_most_one_backfill_tile() {
    let (service, engine, first) = occupied().await;
    // A backfill: three lists of forty texts are always queued, and each text fills a tile.
    let list: Vec<String> = vec!["b".repeat(200); 40];
    let mut backfill = Vec::new();
    for waiting in 0..3 {
        backfill.push(service.queue(&list, waiting).await);
    }
    engine.allow(1);
    good(first).await;
    for search in 1..=5 {
        service.until(&format!("{}_count", metric::COMPUTE_SECONDS), 2 * search - 1).await;
        // The thread is computing a tile of the backfill.
        let before = engine.computed();
        let answer = service.queue(&one("s", 5), 3).await;
        engine.allow(2);
        good(answer).await;
        assert_eq!(engine.computed(), format!("{before}bs"), "one tile of the backfill, then the search");
    }
    engine.allow_all();
    for answer in backfill {
        good(answer).await;
    }
    assert_eq!(engine.computed().matches('b').count(), 120, "backfill completes");
}

/// An engine whose tokenizer blocks on texts that begin with `t` until released.
struct SlowTokens {
    inner: Arc<Obedient>,
    /// Whether it reached such a text, and whether it is released.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Engine for SlowTokens {
    fn info(&self) -> &EngineInfo {
        self.inner.info()
    }

    fn tokenize(&self, text: &str) -> Encoding {
        if text.starts_with('t') && text != "tidewheel" {
            let mut state = self.state.lock().unwrap();
            state.0 = true;
            drop(self.changed.wait_while(state, |state| !state.1).unwrap());
        }
        self.inner.tokenize(text)
    }

    fn token_spans(&self, text: &str) -> Vec<Range<usize>> {
        self.inner.token_spans(text)
    }

    fn embed_tile(&self, batch: &[Text<'_>], workspace: &mut Workspace, out: &mut [f32]) {
        self.inner.embed_tile(batch, workspace, out);
    }

    fn embed_one(&self, text: Text<'_>, out: &mut [f32]) {
        self.inner.embed_one(text, out);
    }
}

/// The runtime has one thread: tokenizing on it would block all other requests.
#[tokio::test]
async fn tokenizing_long_text_does_not_block_other_requests() {
    let (state, changed) = (Mutex::new((false, false)), Condvar::new());
    let engine = Arc::new(SlowTokens { inner: Obedient::open(), state, changed });
    let service = Watched::start(engine.clone(), 2).await;
    let long = service.send(&one("t", 100_000));
    until("tokenizer reached the long text", async || engine.state.lock().unwrap().0).await;
    for _ in 0..10 {
        good(service.send(&one("a", 3))).await;
    }
    let ready = service.http.get(format!("{}/ready", service.url)).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
    assert!(!long.is_finished());
    engine.state.lock().unwrap().1 = true;
    engine.changed.notify_all();
    good(long).await;
}
