//! A server per test.

use std::net::SocketAddr;
use std::path::PathBuf;

use async_trait::async_trait;
use qdrant_client::Qdrant;
use tempfile::TempDir;
use tidewheel_core::ports::{Index, IndexInspector, KnownVectors, Searcher};
use tidewheel_core::secret::Secret;
use tidewheel_local_qdrant::serve_on;
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
use tidewheel_testkit::contracts::index::IndexHarness;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// The gRPC address of a server to test against instead of the local one.
const URL: &str = "TIDEWHEEL_TEST_QDRANT_URL";

/// A server, and the name of a collection that does not exist yet.
pub(crate) struct Server {
    pub(crate) url: String,
    pub(crate) collection: String,
    pub(crate) local: Option<Local>,
}

/// The local stack's server in this process.
pub(crate) struct Local {
    data: TempDir,
    grpc: SocketAddr,
    key: Option<String>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Server {
    /// The configured server, or a local one.
    pub(crate) async fn any() -> Self {
        match std::env::var(URL) {
            Ok(url) => Self { url, collection: unused(), local: None },
            Err(_) => Self::local(None).await,
        }
    }

    /// A local server on free ports.
    pub(crate) async fn local(key: Option<&str>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let local = Local::start(data, any, key.map(str::to_owned)).await;
        Self { url: format!("http://{}", local.grpc), collection: unused(), local: Some(local) }
    }

    pub(crate) fn options(&self) -> QdrantOptions {
        QdrantOptions::new(&self.url, &self.collection)
    }

    pub(crate) fn connect(&self) -> QdrantIndex {
        QdrantIndex::connect(self.options()).unwrap()
    }

    pub(crate) fn connect_with_key(&self, key: &str) -> QdrantIndex {
        QdrantIndex::connect(QdrantOptions { api_key: Some(Secret::new(key)), ..self.options() }).unwrap()
    }

    /// The bare client, for an operator's actions.
    pub(crate) fn client(&self) -> Qdrant {
        Qdrant::from_url(&self.url).skip_compatibility_check().build().unwrap()
    }

    /// Stops the local server and returns what [`Local::start`] needs to restart it.
    pub(crate) async fn stop(&mut self) -> (TempDir, SocketAddr, Option<String>) {
        self.local.take().expect("a local server").stop().await
    }
}

impl Local {
    /// Serves `data` on the address, or on a free port if its port is 0.
    pub(crate) async fn start(data: TempDir, grpc: SocketAddr, key: Option<String>) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = TcpListener::bind(grpc).await.unwrap();
        let address = grpc.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (path, served_key): (PathBuf, _) = (data.path().to_owned(), key.clone());
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            serve_on(http, grpc, path, served_key, stopped).await.unwrap();
        });
        Self { data, grpc: address, key, stop, served }
    }

    async fn stop(self) -> (TempDir, SocketAddr, Option<String>) {
        let _ = self.stop.send(());
        self.served.await.unwrap();
        (self.data, self.grpc, self.key)
    }
}

/// Tests may share a server, but not a collection.
fn unused() -> String {
    format!("test-{}", Uuid::new_v4())
}

#[async_trait]
impl IndexHarness for Server {
    fn index(&self) -> Box<dyn Index> {
        Box::new(self.connect())
    }

    fn searcher(&self) -> Box<dyn Searcher> {
        Box::new(self.connect())
    }

    fn known(&self) -> Box<dyn KnownVectors> {
        Box::new(self.connect())
    }

    fn inspector(&self) -> Box<dyn IndexInspector> {
        Box::new(self.connect())
    }

    async fn drop_collection(&self) {
        self.client().delete_collection(&self.collection).await.unwrap();
    }
}
