//! A proxy in front of Redis that reads commands, and rejects some as managed services and gateways do.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The treatment of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Redis answers.
    Pass,
    /// The proxy answers with this error.
    Error(String),
    /// The proxy closes the connection.
    Close,
}

/// Judges a command by its arguments.
pub type Judge = Arc<dyn Fn(&[Vec<u8>]) -> Verdict + Send + Sync>;

/// Forwards commands one at a time. Dropping it stops accepting connections.
pub struct RedisProxy {
    address: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl RedisProxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `server`, as `host:port`.
    pub async fn start(
        server: impl Into<String>,
        judge: impl Fn(&[Vec<u8>]) -> Verdict + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (server, judge): (String, Judge) = (server.into(), Arc::new(judge));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, judge) = (server.clone(), Arc::clone(&judge));
                tokio::spawn(async move { carry(client, TcpStream::connect(server).await?, judge).await });
            }
        });
        Ok(Self { address, acceptor })
    }

    /// The URL that clients connect to.
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }
}

impl Drop for RedisProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, judge: Judge) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let (mut from_client, mut from_server) = (BufReader::new(from_client), BufReader::new(from_server));
    loop {
        let mut command = Vec::new();
        value(&mut from_client, &mut command).await?;
        let answer = match judge(&arguments(&command)) {
            Verdict::Close => return Ok(()),
            Verdict::Error(text) => format!("-{text}\r\n").into_bytes(),
            Verdict::Pass => {
                to_server.write_all(&command).await?;
                let mut answer = Vec::new();
                value(&mut from_server, &mut answer).await?;
                answer
            }
        };
        to_client.write_all(&answer).await?;
    }
}

/// Reads one value of RESP 2, with its bytes appended to `bytes`.
fn value<'a>(
    from: &'a mut BufReader<OwnedReadHalf>,
    bytes: &'a mut Vec<u8>,
) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>> {
    Box::pin(async move {
        let start = bytes.len();
        if from.read_until(b'\n', bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let number = || std::str::from_utf8(&bytes[start + 1..]).ok()?.trim().parse::<i64>().ok();
        match bytes.get(start) {
            Some(b'$') => {
                if let Some(length) = number().and_then(|length| usize::try_from(length).ok()) {
                    let at = bytes.len();
                    bytes.resize(at + length + 2, 0);
                    from.read_exact(&mut bytes[at..]).await?;
                }
            }
            Some(b'*') => {
                for _ in 0..number().unwrap_or(0).max(0) {
                    value(from, bytes).await?;
                }
            }
            _ => {}
        }
        Ok(())
    })
}

/// The arguments of a command: an array of bulk strings.
fn arguments(command: &[u8]) -> Vec<Vec<u8>> {
    let mut arguments = Vec::new();
    let mut rest = command;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (head, tail) = rest.split_at(end + 1);
        rest = tail;
        let length = std::str::from_utf8(head).ok().and_then(|head| head.trim().strip_prefix('$')?.parse().ok());
        if let Some(length) = length.filter(|length: &usize| *length <= rest.len()) {
            arguments.push(rest[..length].to_vec());
            rest = rest.get(length + 2..).unwrap_or_default();
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_from_a_command() {
        let command = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\na\r\n$1\r\n";
        assert_eq!(arguments(command), [b"SET".to_vec(), b"k".to_vec(), b"a\r\n$1".to_vec()]);
    }
}
