//! The lifecycle of one connection, from handshake to close.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::connections::{Exchange, Slot};
use crate::peer::Peer;
use crate::protocol::Protocol;
use crate::tls::Tls;
use crate::watched::{Received, Sent, Watched};

/// Maximum size of request headers, and read size for bodies.
const BUFFER: usize = 64 << 10;

/// Time until a ping to a silent HTTP/2 client, and from there to its response. A client that is gone without a word is
/// closed after both.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves a connection until it ends, exceeds a limit, or is evicted.
pub(crate) async fn run(
    socket: TcpStream,
    peer: Peer,
    slot: Slot,
    tls: Option<Arc<Tls>>,
    protocol: Protocol,
    router: Router,
    closing: CancellationToken,
) {
    let served = async {
        match &tls {
            None => drive(socket, peer, &slot, protocol, router, closing).await,
            Some(tls) => match tls.acceptor().accept(socket).await {
                Ok(stream) => drive(stream, peer, &slot, protocol, router, closing).await,
                Err(cause) => tracing::debug!(%peer, "TLS handshake failed: {cause}"),
            },
        }
    };
    tokio::select! {
        () = slot.closed() => {}
        () = served => {}
    }
}

async fn drive<S>(stream: S, peer: Peer, slot: &Slot, protocol: Protocol, router: Router, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let state = slot.state().clone();
    let io = TokioIo::new(Watched { stream, state: state.clone() });
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let mut router = router.clone();
        let exchange = Exchange::begin(&state, !request.body().is_end_stream());
        let received = |body| Body::new(Received { body, exchange: exchange.clone() });
        let mut request: Request = request.map(received);
        request.extensions_mut().insert(peer);
        async move {
            let response = router.call(request).await?;
            Ok::<_, Infallible>(response.map(|body| Sent::new(body, exchange)))
        }
    });
    match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                // The connection state enforces timeouts: hyper's own timeout covers only headers and also closes idle
                // connections.
                .header_read_timeout(None)
                .max_buf_size(BUFFER)
                .serve_connection(io, service);
            finish(connection, http1::Connection::graceful_shutdown, peer, slot, closing).await;
        }
        Protocol::Http2 { window } => {
            let connection = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(KEEP_ALIVE)
                .initial_stream_window_size(window)
                .initial_connection_window_size(window)
                .serve_connection(io, service);
            finish(connection, http2::Connection::graceful_shutdown, peer, slot, closing).await;
        }
    }
}

/// Waits for the end of a connection. `leave` lets it finish the requests in progress.
async fn finish<C>(connection: C, leave: impl Fn(Pin<&mut C>), peer: Peer, slot: &Slot, closing: CancellationToken)
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = std::pin::pin!(connection);
    let mut leaving = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(cause) = ended {
                    tracing::debug!(%peer, "connection ended: {cause}");
                }
                return;
            }
            () = closing.cancelled(), if !leaving => {
                if slot.state().is_idle() {
                    return;
                }
                leaving = true;
                leave(connection.as_mut());
            }
        }
    }
}
