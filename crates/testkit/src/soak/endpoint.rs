//! A proxy in front of the embedder that fails for texts with a marker, as models fail for single texts.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A text with this marker cannot be embedded.
pub(super) const MARKER: &str = "unembeddable-marker";

/// Maximum bytes of a request's head.
const MOST_HEAD: usize = 64 * 1024;

/// The proxy. Each connection carries one request. Dropping it stops accepting connections.
pub(super) struct Endpoint {
    address: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl Endpoint {
    pub(super) async fn start(embedder: String) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let embedder = embedder.clone();
                tokio::spawn(async move { carry(client, embedder).await });
            }
        });
        Ok(Self { address, acceptor })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn carry(mut client: TcpStream, embedder: String) -> io::Result<()> {
    let mut request = Vec::new();
    let head = loop {
        if let Some(at) = find(&request, b"\r\n\r\n") {
            break at + 4;
        }
        if request.len() > MOST_HEAD || client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    };
    let (mut lines, mut length) = (Vec::new(), 0);
    for line in String::from_utf8_lossy(&request[..head - 4]).split("\r\n") {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if !name.eq_ignore_ascii_case("connection") {
            lines.push(line.to_owned());
        }
    }
    while request.len() < head + length {
        if client.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let body = &request[head..];
    if find(body, MARKER.as_bytes()).is_some() {
        let text = "injected: unsupported value: NaN";
        let head = "HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\nconnection: close";
        let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
        return client.write_all(answer.as_bytes()).await;
    }
    let mut server = TcpStream::connect(embedder).await?;
    server.write_all(format!("{}\r\nconnection: close\r\n\r\n", lines.join("\r\n")).as_bytes()).await?;
    server.write_all(body).await?;
    tokio::io::copy(&mut server, &mut client).await.map(drop)
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, body: &str) -> String {
        let mut client = TcpStream::connect(address).await.unwrap();
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn marked_texts_fail_and_others_reach_the_embedder() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let endpoint = Endpoint::start(listener.local_addr().unwrap().to_string()).await.unwrap();
        tokio::spawn(async move {
            let (mut server, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = server.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"POST / "));
            server.write_all(b"HTTP/1.1 200 OK\r\n\r\nvector").await.unwrap();
        });
        assert!(ask(endpoint.address(), &format!("a {MARKER}")).await.starts_with("HTTP/1.1 500"));
        assert!(ask(endpoint.address(), "a text").await.ends_with("vector"));
    }
}
