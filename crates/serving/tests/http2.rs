//! Limits and timeouts of HTTP/2 connections on real sockets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::routing::{get, post};
use tidewheel_serving::{Limits, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};

/// Long enough for a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

const SHORT: Duration = Duration::from_millis(200);

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(600);

const UNLIMITED: Limits = Limits { connections: 1000, headers: LONG, body: LONG, idle: LONG, write: LONG };

/// The first bytes of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A SETTINGS frame with a flow-control window of 0 bytes.
const CLOSED_WINDOW: &[u8] = &[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];

/// A HEADERS frame: `GET http /`, complete.
const GET: &[u8] = &[0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84];

/// A HEADERS frame: `POST http /`, with a body to follow.
const POST: &[u8] = &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84];

struct Running {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(limits: Limits, router: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server::new(listener).with_http2(1 << 20).with_limits(limits);
    Running { address, stop, task: tokio::spawn(server.serve(router, async { _ = stopped.await })) }
}

fn echo() -> Router {
    Router::new().route("/", get(async || "here")).route("/", post(async |body: Bytes| body.len().to_string()))
}

fn client() -> reqwest::Client {
    // Fails after the first call.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().http2_prior_knowledge().build().unwrap()
}

/// Asks over a new connection.
async fn ask(address: SocketAddr) -> reqwest::Result<String> {
    let answer = tokio::time::timeout(TIMEOUT, client().get(format!("http://{address}/")).send());
    answer.await.expect("server responds")?.text().await
}

async fn connect(address: SocketAddr, parts: &[&[u8]]) -> TcpStream {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(&parts.concat()).await.unwrap();
    socket
}

/// Waits until the server has closed the connection.
async fn closed(mut socket: TcpStream) {
    let mut all = Vec::new();
    // A reset counts as closed.
    let _ = tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut all)).await.expect("server closes connection");
}

#[tokio::test]
async fn http2_server_answers_concurrent_requests_with_bodies() {
    let server = start(UNLIMITED, echo()).await;
    let (client, url) = (client(), format!("http://{}/", server.address));
    let asking = (1..20).map(|number| {
        let request = client.post(&url).body(vec![b'x'; number * 100_000]);
        async move { (number, request.send().await.unwrap().text().await.unwrap()) }
    });
    for (number, answer) in futures::future::join_all(asking).await {
        assert_eq!(answer, (number * 100_000).to_string());
    }
}

#[tokio::test]
async fn http2_clients_without_preface_request_or_body_are_disconnected() {
    let headers = start(Limits { headers: SHORT, ..UNLIMITED }, echo()).await;
    closed(connect(headers.address, &[]).await).await;
    closed(connect(headers.address, &[&PREFACE[..9]]).await).await;
    closed(connect(headers.address, &[b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"]).await).await;
    let idle = start(Limits { idle: SHORT, ..UNLIMITED }, echo()).await;
    closed(connect(idle.address, &[PREFACE, SETTINGS]).await).await;
    closed(connect(idle.address, &[PREFACE, SETTINGS, GET]).await).await;
    let body = start(Limits { body: SHORT, ..UNLIMITED }, echo()).await;
    closed(connect(body.address, &[PREFACE, SETTINGS, POST]).await).await;
    let write = start(Limits { write: SHORT, ..UNLIMITED }, echo()).await;
    closed(connect(write.address, &[PREFACE, CLOSED_WINDOW, GET]).await).await;
}

#[tokio::test]
async fn idle_http2_connections_beyond_limit_are_evicted_for_active_clients() {
    let server = start(Limits { connections: 20, ..UNLIMITED }, echo()).await;
    let starts: [&[&[u8]]; 4] = [&[], &[&PREFACE[..9]], &[PREFACE, SETTINGS], &[PREFACE, SETTINGS, POST]];
    let mut held = Vec::new();
    for number in 0..100 {
        held.push(connect(server.address, starts[number % starts.len()]).await);
        if number % 10 == 9 {
            assert_eq!(ask(server.address).await.unwrap(), "here", "behind {number} connections");
        }
    }
}

#[tokio::test]
async fn http2_connections_with_closed_windows_make_room() {
    let server = start(Limits { connections: 5, ..UNLIMITED }, echo()).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(connect(server.address, &[PREFACE, CLOSED_WINDOW, GET]).await);
    }
    let begun = Instant::now();
    while ask(server.address).await.is_err() {
        assert!(begun.elapsed() < TIMEOUT, "no connection makes room");
        tokio::time::sleep(SHORT).await;
    }
}

#[tokio::test]
async fn http2_shutdown_finishes_requests_in_progress() {
    let (started, mut begun) = mpsc::channel::<()>(1);
    let (answer, hold) = oneshot::channel::<()>();
    let hold = std::sync::Arc::new(tokio::sync::Mutex::new(Some(hold)));
    let slow = move || {
        let (hold, started) = (hold.clone(), started.clone());
        async move {
            started.send(()).await.unwrap();
            let _ = hold.lock().await.take().unwrap().await;
            "done"
        }
    };
    let Running { address, stop, task } = start(UNLIMITED, Router::new().route("/", get(slow))).await;
    let asking = tokio::spawn(ask(address));
    begun.recv().await.unwrap();
    stop.send(()).unwrap();
    tokio::time::sleep(SHORT).await;
    assert!(!task.is_finished());
    answer.send(()).unwrap();
    assert_eq!(asking.await.unwrap().unwrap(), "done");
    tokio::time::timeout(TIMEOUT, task).await.expect("server stops").unwrap();
}
