//! Connection limits and timeouts on real sockets.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures::StreamExt;
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

struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(limits: Limits, router: Router) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = Server::new(listener).with_limits(limits).serve(router, async { _ = stopped.await });
    Running { address, stop: Some(stop), task: tokio::spawn(serving) }
}

fn echo() -> Router {
    Router::new().route("/", get(async || "here")).route("/", post(async |body: Bytes| body.len().to_string()))
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

/// Sends a complete request and reads the response to the end of its body.
async fn ask(socket: &mut TcpStream, path: &str) -> io::Result<String> {
    socket.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await?;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !(text.ends_with("here") || text.ends_with("done")) {
        let count = tokio::time::timeout(TIMEOUT, socket.read(&mut buffer)).await??;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        text += &String::from_utf8_lossy(&buffer[..count]);
    }
    Ok(text)
}

/// Waits until the server has closed the connection.
async fn closed(mut socket: TcpStream) {
    let mut all = Vec::new();
    // A reset counts as closed.
    let _ = tokio::time::timeout(TIMEOUT, socket.read_to_end(&mut all)).await.expect("server closes connection");
}

#[tokio::test]
async fn idle_connections_beyond_limit_are_evicted_for_active_clients() {
    let server = start(Limits { connections: 20, ..UNLIMITED }, echo()).await;
    let mut used = connect(server.address).await;
    ask(&mut used, "/").await.unwrap();
    let mut idle = Vec::new();
    for number in 0..100 {
        let mut socket = connect(server.address).await;
        if number % 2 == 0 {
            socket.write_all(b"GET / HTTP/1.1\r\nhost: lo").await.unwrap();
        }
        idle.push(socket);
    }
    for _ in 0..5 {
        ask(&mut connect(server.address).await, "/").await.unwrap();
    }
    ask(&mut used, "/").await.expect("used connection is evicted last");
    drop(idle);
}

#[tokio::test]
async fn request_in_progress_is_never_evicted() {
    let (release, mut wait) = mpsc::channel::<()>(1);
    let (started, mut begun) = mpsc::channel::<()>(10);
    let (answer, hold) = oneshot::channel::<()>();
    let hold = std::sync::Arc::new(tokio::sync::Mutex::new(Some(hold)));
    let slow = move || {
        let (hold, started) = (hold.clone(), started.clone());
        async move {
            let hold = hold.lock().await.take();
            started.send(()).await.unwrap();
            if let Some(hold) = hold {
                let _ = hold.await;
            }
            "done"
        }
    };
    let server = start(Limits { connections: 1, ..UNLIMITED }, echo().route("/slow", get(slow))).await;
    let address = server.address;
    let asking = tokio::spawn(async move {
        let answer = ask(&mut connect(address).await, "/slow").await;
        release.send(()).await.unwrap();
        answer
    });
    begun.recv().await.unwrap();
    for _ in 0..10 {
        let mut refused = connect(address).await;
        let mut text = String::new();
        let _ = tokio::time::timeout(TIMEOUT, refused.read_to_string(&mut text)).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 503"), "{text:?}");
    }
    answer.send(()).unwrap();
    wait.recv().await.unwrap();
    asking.await.unwrap().expect("request in progress gets its response");
}

#[tokio::test]
async fn silent_slow_and_incomplete_clients_are_disconnected() {
    let headers = start(Limits { headers: SHORT, ..UNLIMITED }, echo()).await;
    closed(connect(headers.address).await).await;
    let mut slow = connect(headers.address).await;
    // Partial progress does not extend the deadline.
    while slow.write_all(b"a").await.is_ok() {
        tokio::time::sleep(SHORT / 10).await;
    }
    let mut half = connect(headers.address).await;
    half.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    closed(half).await;

    let body = start(Limits { body: SHORT, ..UNLIMITED }, echo()).await;
    let mut half = connect(body.address).await;
    half.write_all(b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nabc").await.unwrap();
    closed(half).await;
    let mut chunked = connect(body.address).await;
    chunked.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    while chunked.write_all(b"1\r\na\r\n").await.is_ok() {
        tokio::time::sleep(SHORT / 10).await;
    }

    let idle = start(Limits { idle: SHORT, ..UNLIMITED }, echo()).await;
    let mut answered = connect(idle.address).await;
    ask(&mut answered, "/").await.unwrap();
    closed(answered).await;
}

#[tokio::test]
async fn oversized_headers_are_rejected() {
    let server = start(UNLIMITED, echo()).await;
    let mut socket = connect(server.address).await;
    let _ = socket.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: ").await;
    while socket.write_all(&[b'a'; 4096]).await.is_ok() {
        tokio::task::yield_now().await;
    }
    ask(&mut connect(server.address).await, "/").await.unwrap();
}

#[tokio::test]
async fn client_that_does_not_read_its_response_is_disconnected() {
    /// Reports that the server dropped the response.
    struct DropSignal(mpsc::UnboundedSender<()>);
    impl Drop for DropSignal {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (dropped, mut ended) = mpsc::unbounded_channel();
    let endless = move || {
        let guard = DropSignal(dropped.clone());
        let pieces = futures::stream::repeat_with(move || {
            let _ = &guard;
            Ok::<_, io::Error>(Bytes::from_static(&[b'x'; 64 << 10]))
        });
        async { Body::from_stream(pieces.boxed()) }
    };
    let server = start(Limits { write: SHORT, ..UNLIMITED }, Router::new().route("/", get(endless))).await;
    let mut socket = connect(server.address).await;
    socket.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    tokio::time::timeout(TIMEOUT, ended.recv()).await.expect("server drops the response").unwrap();
    drop(socket);
}

#[tokio::test]
async fn shutdown_closes_idle_connections_and_finishes_requests() {
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
    let mut server = start(UNLIMITED, echo().route("/slow", get(slow))).await;
    let (address, mut idle) = (server.address, connect(server.address).await);
    ask(&mut idle, "/").await.unwrap();
    let asking = tokio::spawn(async move { ask(&mut connect(address).await, "/slow").await });
    begun.recv().await.unwrap();
    server.stop.take().unwrap().send(()).unwrap();
    closed(idle).await;
    assert!(!server.task.is_finished());
    answer.send(()).unwrap();
    asking.await.unwrap().unwrap();
    tokio::time::timeout(TIMEOUT, server.task).await.expect("server stops").unwrap();
}
