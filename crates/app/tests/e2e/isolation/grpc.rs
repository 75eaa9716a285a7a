//! A gRPC proxy in front of Qdrant that fails for some points, or for all writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tonic::codegen::Service as _;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};

/// Markers of documents for which it fails, each with another fault.
pub const BAD: [&str; 5] = ["DEEP", "UNKNOWN", "EXHAUSTED", "GATEWAY", "HANGS"];

#[derive(Clone)]
pub struct Proxy {
    server: Channel,
    down: Arc<AtomicBool>,
    refused: Arc<AtomicUsize>,
}

impl Proxy {
    /// Listens on a free port until the test ends.
    pub async fn start(qdrant: &str) -> (Self, String) {
        let server = Endpoint::from_shared(qdrant.to_owned()).unwrap().connect_lazy();
        let proxy = Self { server, down: Arc::default(), refused: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = Routes::from(Router::new().fallback(answer).with_state(proxy.clone()));
        let serving = Server::builder().add_routes(routes).serve_with_incoming(TcpIncoming::from(listener));
        tokio::spawn(async move { serving.await.unwrap() });
        (proxy, url)
    }

    /// Rejects all writes of points, or none.
    pub fn fails(&self, down: bool) {
        self.refused.store(0, Ordering::Relaxed);
        self.down.store(down, Ordering::Relaxed);
    }

    /// Returns the writes rejected since the outage began.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }
}

async fn answer(State(proxy): State<Proxy>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let path = parts.uri.path().to_owned();
    let writes = ["/Upsert", "/UpdateBatch", "/Delete"].iter().any(|name| path.ends_with(&format!("Points{name}")));
    if writes && proxy.down.load(Ordering::Relaxed) {
        proxy.refused.fetch_add(1, Ordering::Relaxed);
        return status(13, "Service internal error: task panicked");
    }
    let holds = |mark: &str| writes && body.windows(mark.len()).any(|window| window == mark.as_bytes());
    if holds("DEEP") {
        return status(13, "failed to decode Protobuf message: recursion limit reached");
    }
    if holds("UNKNOWN") {
        return status(2, "h2 protocol error");
    }
    if holds("EXHAUSTED") {
        return status(8, "grpc: received message larger than max");
    }
    if holds("GATEWAY") {
        return (StatusCode::BAD_GATEWAY, "<html>bad gateway</html>").into_response();
    }
    if holds("HANGS") {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let request = Request::from_parts(parts, tonic::body::Body::new(Body::from(body)));
    let mut server = proxy.server.clone();
    let ready = std::future::poll_fn(|context| server.poll_ready(context)).await;
    match (ready, server.call(request)) {
        (Ok(()), answer) => match answer.await {
            Ok(answer) => answer.map(Body::new),
            Err(error) => status(14, &error.to_string()),
        },
        (Err(error), _) => status(14, &error.to_string()),
    }
}

fn status(code: u8, message: &str) -> Response<Body> {
    let answer = Response::builder().header("content-type", "application/grpc").header("grpc-status", code.to_string());
    answer.header("grpc-message", message.replace(' ', "%20")).body(Body::empty()).unwrap()
}
