//! The HTTP server shared by the embedder, the operations endpoint, the console and the local Qdrant (REST and gRPC).
//!
//! Guarantees:
//! - a client that sends nothing, sends slowly, or does not read its response is disconnected ([`Limits`]);
//! - connections are bounded; at the limit, the longest-waiting connection without a request in progress is evicted,
//!   so that idle clients cannot lock out others;
//! - a web page of another origin can neither read nor write, DNS rebinding included ([`Guard`]);
//! - tokens are compared in constant time, and failed attempts are logged and throttled per address ([`Gate`]);
//! - TLS certificates are reloaded when their files change ([`Tls`]).
//!
//! ```text
//!  accept ──limit──▶ TLS ──timeouts──▶ guard ──▶ gate ──▶ router
//! ```

mod connection;
mod connections;
mod gate;
mod guard;
mod limits;
mod peer;
mod protocol;
mod routes;
mod throttle;
mod tls;
mod watched;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use connections::Connections;
use protocol::Protocol;

pub use gate::{Access, Gate, SHORTEST_TOKEN};
pub use guard::{Guard, Rejection};
pub use limits::Limits;
pub use peer::{Network, Peer};
pub use routes::Routes;
pub use tidewheel_core::secret::Secret;
pub use tls::{Tls, TlsError, TlsFiles};

/// Pause after a failed `accept`, usually caused by file descriptor exhaustion.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Interval between checks for changed certificate files.
const RELOAD: Duration = Duration::from_secs(2);

/// The response to a connection beyond the limit when none can be evicted.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n";

/// A listener with limits and optional TLS.
pub struct Server {
    listener: TcpListener,
    limits: Limits,
    tls: Option<Tls>,
    protocol: Protocol,
}

impl Server {
    /// Creates a server without TLS and with default limits.
    #[must_use]
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, limits: Limits::default(), tls: None, protocol: Protocol::Http1 }
    }

    /// Sets the limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// Serves HTTP/2 instead of HTTP/1, for gRPC. `window` is the flow-control window of a stream, and of a connection.
    #[must_use]
    pub fn with_http2(mut self, window: u32) -> Self {
        self.protocol = Protocol::Http2 { window };
        self
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The bound address.
    ///
    /// # Errors
    /// The address of the socket cannot be read.
    pub fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.listener.local_addr()
    }

    /// Whether the server listens on loopback only.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.local_addr().is_ok_and(|address| address.ip().is_loopback())
    }

    /// Serves until `shutdown`, then finishes the requests in progress. Dropping the future closes every connection.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let Self { listener, limits, tls, protocol } = self;
        let tls = tls.map(Arc::new);
        let connections = Connections::new(limits, protocol);
        let closing = CancellationToken::new();
        // Connections run in their own tasks and end with this future.
        let _abandon = connections.close_on_drop();
        let mut check = tokio::time::interval(limits.check_interval());
        let mut reload = tokio::time::interval(RELOAD);
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                _ = check.tick() => connections.expire(Instant::now()),
                _ = reload.tick() => if let Some(tls) = &tls { tls.reload_if_changed() },
                accepted = listener.accept() => match accepted {
                    Ok((socket, address)) => {
                        let Some(slot) = connections.admit(Instant::now()) else {
                            refuse(&socket, tls.is_none() && matches!(protocol, Protocol::Http1));
                            continue;
                        };
                        // Responses are written in one piece: Nagle's algorithm gains nothing.
                        let _ = socket.set_nodelay(true);
                        let peer = Peer::new(address);
                        let (tls, router, closing) = (tls.clone(), router.clone(), closing.clone());
                        tokio::spawn(connection::run(socket, peer, slot, tls, protocol, router, closing));
                    }
                    Err(error) if is_of_one_connection(&error) => {}
                    Err(error) => {
                        tracing::warn!("failed to accept a connection: {error}; closing the longest idle connection");
                        connections.evict(Instant::now());
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        closing.cancel();
        connections.ended().await;
    }
}

/// Rejects a connection beyond the limit. Best effort: the socket is closed either way.
fn refuse(socket: &TcpStream, plain: bool) {
    if plain {
        let _ = socket.try_write(BUSY);
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionRefused | ConnectionAborted | ConnectionReset)
}
