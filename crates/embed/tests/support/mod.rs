//! Shared test support for service and clients: running services, and a controllable engine.

#![allow(dead_code, reason = "each test file uses a part")]

use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use tidewheel_embed::service::{Models, Service, ServiceError, ServiceOptions, serve};
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, EngineInfo, ModelSource, ModelSpec, Text, Workspace, load};
use tidewheel_serving::Server;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Timeout for expected events.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// A service on a free port. Shut down on drop, without waiting.
pub(crate) struct Running {
    pub(crate) url: String,
    pub(crate) http: Client,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServiceError>>,
}

impl Running {
    pub(crate) async fn start(engine: Arc<dyn Engine>, options: ServiceOptions) -> Self {
        // A provider installed by another test works too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(serve(listener, engine, options, async {
            let _ = stopped.await;
        }));
        Self { url, http: Client::new(), stop: Some(stop), task }
    }

    /// Starts a service of several models.
    pub(crate) async fn models(models: Models, options: ServiceOptions) -> Self {
        Self::of(Service::with_models(models, options).unwrap()).await
    }

    /// Runs a started service.
    pub(crate) async fn of(service: Service) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = service.run(Server::new(listener), async {
            let _ = stopped.await;
        });
        let task = tokio::spawn(async move {
            running.await;
            Ok(())
        });
        Self { url, http: Client::new(), stop: Some(stop), task }
    }

    /// Starts a service with `hash:dimension`.
    pub(crate) async fn hash(dimension: usize) -> Self {
        Self::start(hash(dimension), hash_options()).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url))
    }

    /// Posts JSON. Returns the status and the response's JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        answer(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(self.request(Method::GET, path)).await
    }

    /// Begins the shutdown.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until the shutdown completes.
    pub(crate) async fn stopped(self) -> Result<(), ServiceError> {
        self.task.await.unwrap()
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = request.send().await.unwrap();
    let status = response.status();
    let body = response.bytes().await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

pub(crate) fn hash(dimension: usize) -> Arc<dyn Engine> {
    load(&ModelSpec::new(ModelSource::Hash(dimension))).unwrap()
}

pub(crate) fn hash_options() -> ServiceOptions {
    ServiceOptions::default()
}

/// Returns the engine's own vectors as reference.
pub(crate) fn expected(engine: &dyn Engine, texts: &[&str]) -> Vec<Vec<f32>> {
    texts
        .iter()
        .map(|text| {
            let mut vector = vec![0.0; engine.info().dimension];
            engine.embed_one(engine.tokenize(text).text(), &mut vector);
            vector
        })
        .collect()
}

/// Parses an array of numbers as `f32`.
pub(crate) fn floats(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let held = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, held).await.unwrap_or_else(|_| panic!("timed out waiting until {what}"));
}

#[derive(Default)]
struct Gate {
    /// Tiles that may be computed; `None` for any number.
    permits: Option<usize>,
    /// First letter of each computed text, in order.
    computed: Vec<u32>,
}

/// An engine with one token per letter that computes only when permitted. The vector of a text is the code of its first
/// letter and its length. Panics on a text that begins with `!`, and returns NaN for one with `?`.
pub(crate) struct Obedient {
    info: EngineInfo,
    gate: Mutex<Gate>,
    opened: Condvar,
}

impl Obedient {
    /// Returns an engine that is blocked until [`Obedient::allow`].
    pub(crate) fn closed() -> Arc<Self> {
        let engine = Self::open();
        engine.gate.lock().unwrap().permits = Some(0);
        engine
    }

    /// Returns an engine that computes immediately.
    pub(crate) fn open() -> Arc<Self> {
        let info = EngineInfo { model: "obedient".to_owned(), dimension: 2, ..hash(2).info().clone() };
        Arc::new(Self { info, gate: Mutex::default(), opened: Condvar::new() })
    }

    /// Permits this many more tiles.
    pub(crate) fn allow(&self, tiles: usize) {
        if let Some(permits) = &mut self.gate.lock().unwrap().permits {
            *permits += tiles;
        }
        self.opened.notify_all();
    }

    /// Permits all tiles from now on.
    pub(crate) fn allow_all(&self) {
        self.gate.lock().unwrap().permits = None;
        self.opened.notify_all();
    }

    /// Returns the first letters of the computed texts, in order.
    pub(crate) fn computed(&self) -> String {
        self.gate.lock().unwrap().computed.iter().filter_map(|code| char::from_u32(*code)).collect()
    }

    fn pass(&self, batch: &[Text<'_>]) {
        let gate = self.gate.lock().unwrap();
        let mut gate = self.opened.wait_while(gate, |gate| gate.permits == Some(0)).unwrap();
        if let Some(permits) = &mut gate.permits {
            *permits -= 1;
        }
        gate.computed.extend(batch.iter().map(|text| text.ids.first().copied().unwrap_or(u32::from(b'_'))));
    }

    fn fill(ids: &[u32], out: &mut [f32]) {
        let first = ids.first().copied().unwrap_or(u32::from(b'_'));
        assert_ne!(first, u32::from(b'!'), "requested by the test");
        out[0] = if first == u32::from(b'?') { f32::NAN } else { first as f32 };
        out[1] = ids.len() as f32;
    }
}

impl Engine for Obedient {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn tokenize(&self, text: &str) -> Encoding {
        Encoding::new(text.chars().take(self.info.max_tokens).map(u32::from).collect())
    }

    fn token_spans(&self, text: &str) -> Vec<Range<usize>> {
        text.char_indices().map(|(at, sign)| at..at + sign.len_utf8()).collect()
    }

    fn embed_tile(&self, batch: &[Text<'_>], _workspace: &mut Workspace, out: &mut [f32]) {
        self.pass(batch);
        for (text, out) in batch.iter().zip(out.chunks_exact_mut(2)) {
            Self::fill(text.ids, out);
        }
    }

    fn embed_one(&self, text: Text<'_>, out: &mut [f32]) {
        // The service's self-test is not blocked.
        if !text.ids.iter().copied().eq("tidewheel".chars().map(u32::from)) {
            self.pass(&[text]);
        }
        Self::fill(text.ids, out);
    }
}
