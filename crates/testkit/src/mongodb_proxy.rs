//! A proxy in front of mongod that rewrites the database name of change events, as Atlas does.

use std::io;
use std::net::SocketAddr;

use bson::{Bson, Document};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Opcode of a message.
const OP_MSG: i32 = 2013;
/// Bytes before the sections of a message: length, two ids, opcode, flags.
const HEADER: usize = 20;
/// Flag of a trailing checksum.
const CHECKSUM: u32 = 1;

/// Rewrites replies. Clients need `directConnection=true` and no compression. Dropping it stops accepting connections.
pub struct MongodbProxy {
    address: SocketAddr,
    acceptor: JoinHandle<()>,
}

impl MongodbProxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `server`, as `host:port`. Change events in replies get
    /// `database` as `ns.db` and `to.db`.
    pub async fn start(server: impl Into<String>, database: impl Into<String>) -> io::Result<Self> {
        let (server, database) = (server.into(), database.into());
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let acceptor = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (server, database) = (server.clone(), database.clone());
                tokio::spawn(async move { carry(client, TcpStream::connect(server).await?, &database).await });
            }
        });
        Ok(Self { address, acceptor })
    }

    /// The URI that clients connect to.
    pub fn uri(&self) -> String {
        format!("mongodb://{}/?directConnection=true", self.address)
    }
}

impl Drop for MongodbProxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn carry(client: TcpStream, server: TcpStream, database: &str) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    tokio::select! {
        copied = tokio::io::copy(&mut from_client, &mut to_server) => copied.map(drop),
        carried = replies(from_server, to_client, database) => carried,
    }
}

async fn replies(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, database: &str) -> io::Result<()> {
    loop {
        let length = from.read_i32_le().await?;
        let mut message = length.to_le_bytes().to_vec();
        message.resize(usize::try_from(length).map_err(io::Error::other)?.max(4), 0);
        from.read_exact(&mut message[4..]).await?;
        to.write_all(&rewritten(&message, database).unwrap_or(message)).await?;
    }
}

/// The message with rewritten change events; `None` if it has none.
fn rewritten(message: &[u8], database: &str) -> Option<Vec<u8>> {
    let word = |at: usize| Some(i32::from_le_bytes(message.get(at..at + 4)?.try_into().ok()?));
    if word(12)? != OP_MSG || *message.get(HEADER)? != 0 {
        return None;
    }
    let flags = word(16)?.cast_unsigned();
    let size = usize::try_from(word(HEADER + 1)?).ok()?;
    let mut body = Document::from_reader(message.get(HEADER + 1..HEADER + 1 + size)?).ok()?;
    let cursor = body.get_document_mut("cursor").ok()?;
    let mut count = 0;
    for batch in ["firstBatch", "nextBatch"] {
        for event in cursor.get_array_mut(batch).into_iter().flatten() {
            let Bson::Document(event) = event else { continue };
            if !event.contains_key("operationType") {
                continue;
            }
            for field in ["ns", "to"] {
                if let Ok(namespace) = event.get_document_mut(field) {
                    namespace.insert("db", database);
                    count += 1;
                }
            }
        }
    }
    if count == 0 {
        return None;
    }
    let mut bytes = message[..HEADER + 1].to_vec();
    bytes[16..20].copy_from_slice(&(flags & !CHECKSUM).to_le_bytes());
    bytes.extend(body.to_vec().ok()?);
    let length = i32::try_from(bytes.len()).ok()?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    Some(bytes)
}
