//! A Qdrant with red collections. A real one has them when its optimiser fails, which cannot be triggered on demand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The start of a `CollectionInfo` in gRPC: `status: Green`, `optimizer_status: { ok: true }`.
const GREEN: [u8; 6] = [0x08, 0x01, 0x12, 0x02, 0x08, 0x01];

/// A proxy in front of Qdrant's gRPC port that changes green to red while enabled.
#[derive(Clone)]
pub struct Red {
    pub url: String,
    on: Arc<AtomicBool>,
}

impl Red {
    /// Starts the proxy in front of this server.
    pub async fn start(qdrant: &str) -> Self {
        let qdrant = qdrant.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let red = Self { url: format!("http://{}", listener.local_addr().unwrap()), on: Arc::default() };
        let on = red.on.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, qdrant.clone(), on.clone()));
            }
        });
        red
    }

    pub fn set(&self, on: bool) {
        self.on.store(on, Ordering::Relaxed);
    }
}

async fn carry(client: TcpStream, qdrant: String, on: Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(qdrant).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
            let bytes = &mut buffer[..length];
            let at = bytes.windows(GREEN.len()).position(|window| window == GREEN);
            if let Some(at) = at.filter(|_| on.load(Ordering::Relaxed)) {
                bytes[at + 1] = 3;
            }
            if to_client.write_all(bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = answers => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}
