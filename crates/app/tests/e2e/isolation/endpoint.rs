//! A fake OpenAI endpoint that fails for some texts, or for all of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{Response, StatusCode, Uri};
use axum::response::IntoResponse;
use axum::{Json, Router};
use serde_json::{Value, json};
use tidewheel_testkit::fakes::embedder::vector_of;
use tokio::net::TcpListener;

/// Maximum texts per request.
pub const LIMIT: usize = 10;

/// Vector dimension.
pub const DIMENSION: usize = 8;

/// Markers of texts for which it fails, each with another fault.
pub const BAD: [&str; 11] =
    ["REJECTED", "NAN", "CRASH", "DROPPED", "FIREWALL", "HANGS", "EMPTY", "SHORTER", "LONGER", "NULL", "REDIRECTED"];

/// Response to every request during an outage.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    pub status: u16,
    pub body: &'static str,
}

#[derive(Clone, Default)]
pub struct Endpoint {
    state: Arc<Mutex<Asked>>,
}

#[derive(Default)]
struct Asked {
    lenient: Option<usize>,
    outage: Option<Outage>,
    /// The texts of every request.
    requests: Vec<Vec<String>>,
    too_many: usize,
    refused: usize,
}

impl Endpoint {
    /// Listens on a free port until the test ends.
    pub async fn start() -> (Self, String) {
        Self::default().listen().await
    }

    /// Starts one that fails for no text and returns vectors of this dimension.
    pub async fn lenient(dimension: usize) -> (Self, String) {
        let endpoint = Self::default();
        endpoint.state.lock().unwrap().lenient = Some(dimension);
        endpoint.listen().await
    }

    async fn listen(self) -> (Self, String) {
        let endpoint = self;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(answer).with_state(endpoint.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (endpoint, url)
    }

    /// Sets the outage, or ends it.
    pub fn fails(&self, outage: Option<Outage>) {
        let mut state = self.state.lock().unwrap();
        (state.outage, state.refused) = (outage, 0);
    }

    /// Returns the requests rejected since the outage began.
    pub fn refused(&self) -> usize {
        self.state.lock().unwrap().refused
    }

    /// Returns the number of all requests, and of those with too many texts.
    pub fn requests(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.requests.len(), state.too_many)
    }

    /// Returns the texts of all requests.
    pub fn texts(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.concat()
    }
}

async fn answer(State(endpoint): State<Endpoint>, uri: Uri, Json(body): Json<Value>) -> Response<Body> {
    assert_eq!(uri.path(), "/v1/embeddings");
    let texts: Vec<String> = serde_json::from_value(body["input"].clone()).unwrap();
    let (outage, too_many, lenient) = {
        let mut state = endpoint.state.lock().unwrap();
        state.requests.push(texts.clone());
        let too_many = state.outage.is_none() && texts.len() > LIMIT;
        state.too_many += usize::from(too_many);
        state.refused += usize::from(state.outage.is_some());
        (state.outage, too_many, state.lenient)
    };
    if let Some(Outage { status, body }) = outage {
        return (StatusCode::from_u16(status).unwrap(), body).into_response();
    }
    if too_many {
        // Does not mention the limit.
        return (StatusCode::BAD_REQUEST, r#"{"error": {"message": "invalid input"}}"#).into_response();
    }
    let holds = |mark: &str| lenient.is_none() && texts.iter().any(|text| text.contains(mark));
    if holds("REJECTED") {
        return (StatusCode::UNPROCESSABLE_ENTITY, r#"{"error": {"message": "input rejected"}}"#).into_response();
    }
    if holds("NAN") {
        let ollama = r#"{"error": "failed to encode response: json: unsupported value: NaN"}"#;
        return (StatusCode::INTERNAL_SERVER_ERROR, ollama).into_response();
    }
    if holds("FIREWALL") {
        return (StatusCode::FORBIDDEN, "<html>Request blocked</html>").into_response();
    }
    if holds("REDIRECTED") {
        return (StatusCode::FOUND, [("location", "/blocked.html")], "").into_response();
    }
    if holds("HANGS") {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    if holds("CRASH") {
        // The connection breaks within the response.
        let broken = futures::stream::iter([Ok("{"), Err(std::io::Error::other("reset"))]);
        return Body::from_stream(broken).into_response();
    }
    let answered = texts.iter().filter(|text| !text.contains("DROPPED"));
    let embedding = |text: &String| match lenient {
        Some(dimension) => json!(vector_of(text, dimension)),
        None if text.contains("EMPTY") => json!([]),
        None if text.contains("SHORTER") => json!(vector_of(text, DIMENSION - 1)),
        None if text.contains("LONGER") => json!(vector_of(text, 2 * DIMENSION)),
        None if text.contains("NULL") => Value::Null,
        None => json!(vector_of(text, DIMENSION)),
    };
    let data: Vec<Value> = answered.map(|text| json!({"embedding": embedding(text)})).collect();
    Json(json!({"data": data, "model": "fake"})).into_response()
}
