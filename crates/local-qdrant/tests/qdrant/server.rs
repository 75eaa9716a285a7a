//! A test server on free ports, and its clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use qdrant_client::Qdrant;
use qdrant_client::qdrant::{
    CreateCollectionBuilder, Distance, PointId, PointStruct, ScrollPointsBuilder, UpsertPointsBuilder,
    VectorParamsBuilder, point_id::PointIdOptions,
};
use serde_json::{Value, json};
use tidewheel_local_qdrant::{QdrantError, serve_on};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// The collection of most tests.
pub(crate) const DOCS: &str = "docs";

pub(crate) struct TestServer {
    pub(crate) http: SocketAddr,
    pub(crate) grpc: SocketAddr,
    data: PathBuf,
    _dir: Option<tempfile::TempDir>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), QdrantError>>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().to_owned();
        Self { _dir: Some(dir), ..Self::launch(&path, None).await }
    }

    pub(crate) async fn start_in(data: &Path) -> Self {
        Self::launch(data, None).await
    }

    pub(crate) async fn start_with_key(key: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().to_owned();
        Self { _dir: Some(dir), ..Self::launch(&path, Some(key.to_owned())).await }
    }

    async fn launch(data: &Path, key: Option<String>) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let grpc = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (http_address, grpc_address) = (http.local_addr().unwrap(), grpc.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            // A dropped sender means the test is over.
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve_on(http, grpc, data.to_owned(), key, shutdown));
        Self { http: http_address, grpc: grpc_address, data: data.to_owned(), _dir: None, stop, task }
    }

    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    pub(crate) fn client(&self) -> Qdrant {
        client(self.grpc)
    }

    pub(crate) fn rest(&self) -> Rest {
        Rest { http: http_client(), base: format!("http://{}", self.http) }
    }

    /// Stops the server as SIGTERM would, and returns its result.
    pub(crate) async fn stop(self) -> Result<(), QdrantError> {
        self.stop.send(()).expect("the server still runs");
        self.task.await.expect("no panic")
    }
}

/// Returns an HTTP client, which requires a TLS provider even for plain HTTP.
pub(crate) fn http_client() -> reqwest::Client {
    // Another test of this process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

pub(crate) fn client(grpc: SocketAddr) -> Qdrant {
    Qdrant::from_url(&format!("http://{grpc}")).skip_compatibility_check().build().expect("a client")
}

/// REST with plain JSON.
pub(crate) struct Rest {
    http: reqwest::Client,
    pub(crate) base: String,
}

impl Rest {
    pub(crate) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let method = method.parse().expect("a method");
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        let text = response.text().await.expect("a body");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        self.ok("GET", path, None).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Value {
        self.ok("PUT", path, Some(body)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.ok("POST", path, Some(body)).await
    }

    /// Returns the `result` of a successful response.
    pub(crate) async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, mut answer) = self.call(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        assert_eq!(answer["status"], "ok", "{answer}");
        assert!(answer["time"].is_number(), "{answer}");
        answer["result"].take()
    }
}

/// Creates the collection of most tests.
pub(crate) async fn create(client: &Qdrant, name: &str, size: u64) {
    let request = CreateCollectionBuilder::new(name).vectors_config(VectorParamsBuilder::new(size, Distance::Cosine));
    client.create_collection(request).await.expect("a new collection");
}

pub(crate) fn point(id: impl Into<PointId>, vector: &[f32], payload: Value) -> PointStruct {
    let payload: qdrant_client::Payload = payload.try_into().expect("an object");
    PointStruct::new(id, vector.to_vec(), payload)
}

/// A point whose payload is a number under `n`.
pub(crate) fn numbered(id: u64, n: i64) -> PointStruct {
    point(id, &[1.0, id as f32, 0.5, 0.25], json!({"n": n}))
}

pub(crate) async fn upsert(client: &Qdrant, points: Vec<PointStruct>) {
    client.upsert_points(UpsertPointsBuilder::new(DOCS, points).wait(true)).await.expect("confirmed");
}

/// Returns id and payload of all points, sorted by id.
pub(crate) async fn all(client: &Qdrant, name: &str) -> Vec<(String, Value)> {
    let mut points = Vec::new();
    let mut offset = None;
    loop {
        let mut request = ScrollPointsBuilder::new(name).limit(1000).with_payload(true);
        if let Some(offset) = offset.take() {
            request = request.offset::<PointId>(offset);
        }
        let page = client.scroll(request).await.expect("a page");
        for point in page.result {
            let payload = point.payload.into_iter().map(|(key, value)| (key, value.into())).collect();
            points.push((id_text(point.id.expect("an id")), Value::Object(payload)));
        }
        offset = page.next_page_offset;
        if offset.is_none() {
            return points;
        }
    }
}

pub(crate) fn id_text(id: PointId) -> String {
    match id.point_id_options.expect("an id") {
        PointIdOptions::Num(number) => number.to_string(),
        PointIdOptions::Uuid(uuid) => uuid,
    }
}

/// Returns the gRPC status of a rejected call.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, qdrant_client::QdrantError>) -> (tonic::Code, String) {
    match result.expect_err("should be rejected") {
        qdrant_client::QdrantError::ResponseError { status } => (status.code(), status.message().to_owned()),
        other => panic!("not a status: {other}"),
    }
}
