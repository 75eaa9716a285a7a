//! A TCP proxy that injects network faults, without touching the server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The network condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// Traffic passes.
    #[default]
    Fair,
    /// Traffic is delayed by this much, in both directions.
    Slow(Duration),
    /// Requests pass, responses are discarded; connections stay open.
    SwallowAnswers,
    /// Requests pass; the connection breaks instead of delivering a response. After this many times the weather is fair
    /// again.
    CutInsteadOfAnswer(u32),
    /// Nothing passes; connections stay open, and held traffic passes when the weather changes.
    Frozen,
    /// Connections break, and new ones are closed immediately.
    Refuse,
}

/// A proxy between a client and a server. Dropping it breaks all connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

struct Shared {
    weather: watch::Sender<Weather>,
    /// Incremented to break all open connections.
    cuts: watch::Sender<u64>,
    accepted: AtomicU64,
    cut: AtomicU64,
    answered: AtomicU64,
    swallowed: AtomicU64,
    delayed: AtomicU64,
    held: AtomicU64,
    /// Serialises the countdown of [`Weather::CutInsteadOfAnswer`].
    countdown: Mutex<()>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `server`, as `host:port` or an address, with a new
    /// connection for each client connection.
    pub async fn start(server: impl Into<String>) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            weather: watch::Sender::default(),
            cuts: watch::Sender::new(0),
            accepted: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            swallowed: AtomicU64::new(0),
            delayed: AtomicU64::new(0),
            held: AtomicU64::new(0),
            countdown: Mutex::new(()),
        });
        let acceptor = tokio::spawn(accept(listener, server.into(), Arc::clone(&shared)));
        Ok(Self { address, shared, acceptor })
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Sets the weather. Bytes in flight are not affected.
    pub fn set(&self, weather: Weather) {
        if weather == Weather::Refuse {
            self.cut();
        }
        self.shared.weather.send_replace(weather);
    }

    /// Breaks all open connections; new ones follow the weather.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Connections accepted so far, without refused ones.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Connections broken by the proxy so far, refused ones included.
    pub fn broken(&self) -> u64 {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Response bytes forwarded so far.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::SeqCst)
    }

    /// Response bytes discarded so far.
    pub fn swallowed(&self) -> u64 {
        self.shared.swallowed.load(Ordering::SeqCst)
    }

    /// Bytes delayed so far by slow weather.
    pub fn delayed(&self) -> u64 {
        self.shared.delayed.load(Ordering::SeqCst)
    }

    /// Bytes held so far by frozen weather.
    pub fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
        self.cut();
    }
}

impl Shared {
    /// Whether the current response is to be cut.
    fn cuts_this_answer(&self) -> bool {
        let _guard = self.countdown.lock().expect("no holder panics");
        let Weather::CutInsteadOfAnswer(times) = *self.weather.borrow() else { return false };
        self.weather.send_replace(if times > 1 { Weather::CutInsteadOfAnswer(times - 1) } else { Weather::Fair });
        times > 0
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        if *shared.weather.borrow() == Weather::Refuse {
            shared.cut.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        let cuts = shared.cuts.subscribe();
        tokio::spawn(carry(client, server.clone(), Arc::clone(&shared), cuts));
    }
}

/// Forwards one connection until one side closes it or it is cut.
async fn carry(client: TcpStream, server: String, shared: Arc<Shared>, mut cuts: watch::Receiver<u64>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    // The proxy must not add delays.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cut = tokio::select! {
        _ = cuts.changed() => true,
        cut = pump(from_client, to_server, Direction::Requests, &shared) => cut,
        cut = pump(from_server, to_client, Direction::Answers, &shared) => cut,
    };
    if cut {
        shared.cut.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Requests,
    Answers,
}

/// Forwards bytes in one direction until the connection ends; returns whether the proxy broke it.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, direction: Direction, shared: &Shared) -> bool {
    let mut weather = shared.weather.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return false };
        let now = *weather.borrow();
        if let Weather::Slow(delay) = now {
            tokio::time::sleep(delay).await;
            shared.delayed.fetch_add(length as u64, Ordering::SeqCst);
        }
        if *weather.borrow() == Weather::Frozen {
            shared.held.fetch_add(length as u64, Ordering::SeqCst);
        }
        if weather.wait_for(|weather| *weather != Weather::Frozen).await.is_err() {
            return false;
        }
        if direction == Direction::Answers {
            if *weather.borrow() == Weather::SwallowAnswers {
                shared.swallowed.fetch_add(length as u64, Ordering::SeqCst);
                continue;
            }
            if shared.cuts_this_answer() {
                shared.swallowed.fetch_add(length as u64, Ordering::SeqCst);
                return true;
            }
            shared.answered.fetch_add(length as u64, Ordering::SeqCst);
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that responds to each byte with the next one.
    async fn successor() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    while let Ok(byte) = stream.read_u8().await {
                        stream.write_u8(byte + 1).await.unwrap();
                    }
                });
            }
        });
        address
    }

    async fn ask(client: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        client.write_u8(byte).await?;
        client.read_u8().await
    }

    async fn setup() -> (Proxy, TcpStream) {
        let proxy = Proxy::start(successor().await.to_string()).await.unwrap();
        let client = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, client)
    }

    #[tokio::test]
    async fn fair_weather_passes_everything() {
        let (proxy, mut client) = setup().await;
        assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
        assert_eq!((proxy.accepted(), proxy.broken(), proxy.swallowed(), proxy.answered()), (1, 0, 0, 1));
    }

    #[tokio::test]
    async fn cut_breaks_only_open_connections() {
        let (proxy, mut client) = setup().await;
        assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
        proxy.cut();
        assert!(client.read_u8().await.is_err());
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
        assert_eq!((proxy.accepted(), proxy.broken()), (2, 1));
    }

    #[tokio::test]
    async fn responses_are_cut_the_requested_number_of_times() {
        let (proxy, mut client) = setup().await;
        proxy.set(Weather::CutInsteadOfAnswer(2));
        for _ in 0..2 {
            assert!(ask(&mut client, 1).await.is_err());
            client = TcpStream::connect(proxy.address()).await.unwrap();
        }
        assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
        assert_eq!((proxy.broken(), proxy.swallowed()), (2, 2));
    }

    #[tokio::test]
    async fn swallowed_responses_are_lost_and_frozen_ones_are_late() {
        let (proxy, mut client) = setup().await;
        proxy.set(Weather::SwallowAnswers);
        client.write_u8(1).await.unwrap();
        while proxy.swallowed() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.set(Weather::Frozen);
        client.write_u8(10).await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(50), client.read_u8()).await;
        assert!(quiet.is_err());
        assert_eq!(proxy.held(), 1);
        proxy.set(Weather::Fair);
        assert_eq!(client.read_u8().await.unwrap(), 11);
    }

    #[tokio::test]
    async fn refused_connections_close_until_the_weather_changes() {
        let (proxy, mut client) = setup().await;
        assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
        proxy.set(Weather::Refuse);
        assert!(client.read_u8().await.is_err());
        let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(ask(&mut refused, 1).await.is_err());
        proxy.set(Weather::Slow(Duration::from_millis(1)));
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut client, 1).await.unwrap(), 2);
        assert_eq!((proxy.broken(), proxy.delayed()), (2, 2));
    }
}
