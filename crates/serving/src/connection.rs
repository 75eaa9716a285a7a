//! The lifecycle of one connection, from handshake to close.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::connections::Slot;
use crate::peer::Peer;
use crate::tls::Tls;
use crate::watched::{Received, Sent, Watched};

/// Maximum size of request headers, and read size for bodies.
const BUFFER: usize = 64 << 10;

/// Serves a connection until it ends, exceeds a limit, or is evicted.
pub(crate) async fn run(
    socket: TcpStream,
    peer: Peer,
    slot: Slot,
    tls: Option<Arc<Tls>>,
    router: Router,
    closing: CancellationToken,
) {
    let served = async {
        match &tls {
            None => drive(socket, peer, &slot, router, closing).await,
            Some(tls) => match tls.acceptor().accept(socket).await {
                Ok(stream) => drive(stream, peer, &slot, router, closing).await,
                Err(cause) => tracing::debug!(%peer, "TLS handshake failed: {cause}"),
            },
        }
    };
    tokio::select! {
        () = slot.closed() => {}
        () = served => {}
    }
}

async fn drive<S>(stream: S, peer: Peer, slot: &Slot, router: Router, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(Watched { stream, state: slot.state().clone() });
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (state, mut router) = (slot.state().clone(), router.clone());
        let mut request: Request = request.map(|body| Body::new(Received::new(body, state.clone())));
        request.extensions_mut().insert(peer);
        async move {
            let response = router.call(request).await?;
            Ok::<_, Infallible>(response.map(|body| Sent { body, state }))
        }
    });
    let connection = http1::Builder::new()
        // The connection state enforces timeouts: hyper's own timeout covers only headers and also closes idle connections.
        .header_read_timeout(None)
        .max_buf_size(BUFFER)
        .serve_connection(io, service);
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
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}
