//! State of the source, for operators.

use bson::doc;
use futures::StreamExt as _;
use mongodb::Client;
use mongodb::options::ReadConcern;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{HistoryWindow, PortResult, Source as _, SourceHistory, SourceInspector as _};
use tidewheel_core::version::ClusterTime;

use super::MongoSource;
use super::pipeline;
use super::reduced::Level;
use super::selection::{Selection, Stream};
use super::server::Server;

/// The deployment's topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topology {
    /// A replica set of this name.
    ReplicaSet(String),
    /// A sharded cluster, accessed through a router.
    Sharded,
    /// A standalone server, without change streams.
    Standalone,
}

/// State of the source.
#[derive(Clone, Debug)]
pub struct MongoFacts {
    /// The server's version.
    pub version: String,
    /// The topology.
    pub topology: Topology,
    /// Whether the server is a writable primary.
    pub primary: bool,
    /// The oplog window; `None` without permission, or on a sharded cluster.
    pub oplog: Option<HistoryWindow>,
    /// Result of opening a change stream.
    pub watch: Result<(), PortError>,
    /// The selected collections with their estimated document counts.
    pub collections: Vec<(Namespace, u64)>,
    /// Unsupported options of the URI, which have no effect.
    pub ignored: Vec<&'static str>,
    /// The collections of the selected databases, if none is selected.
    pub passed_over: Vec<String>,
}

/// Reads the state. Fails if the server is unreachable or rejects the user.
pub(super) async fn inspect(source: &MongoSource) -> PortResult<MongoFacts> {
    let server = &source.server;
    let (version, _) = server.version().await?;
    let hello = server.admin("send hello to", doc! { "hello": 1 }).await?;
    let topology = if let Ok(name) = hello.get_str("setName") {
        Topology::ReplicaSet(name.to_owned())
    } else if hello.get_str("msg").is_ok_and(|message| message == "isdbgrid") {
        Topology::Sharded
    } else {
        Topology::Standalone
    };
    let mut collections = Vec::new();
    for namespace in source.covered().collections().await? {
        let count = source.estimate(&namespace).await?;
        collections.push((namespace, count));
    }
    Ok(MongoFacts {
        version,
        primary: hello.get_bool("isWritablePrimary").unwrap_or(false),
        oplog: match topology {
            Topology::ReplicaSet(_) => oplog(server.client()).await,
            Topology::Sharded | Topology::Standalone => None,
        },
        topology,
        watch: watch(server, &Selection::new(&source.coverage)?).await,
        passed_over: if collections.is_empty() { source.passed_over().await? } else { Vec::new() },
        collections,
        ignored: source.ignored.clone(),
    })
}

/// Opens a change stream as the feed does, and closes it at once.
pub(super) async fn watch(server: &Server, selection: &Selection) -> Result<(), PortError> {
    let pipeline = pipeline::stages(selection, Level::Whole);
    let opened = match selection.stream() {
        Stream::Database(name) => {
            let database = server.database(name);
            let open = async move { database.watch().pipeline(pipeline).await.map(drop) };
            server.run(&format!("open a change stream on {name} on"), open).await
        }
        Stream::Deployment => {
            let client = server.client().clone();
            let open = async move { client.watch().pipeline(pipeline).await.map(drop) };
            server.run("open a change stream on", open).await
        }
    };
    opened.map_err(|error| selection.stream().explain(error))
}

/// The oplog's window and size. Fails if the server is unreachable.
pub(super) async fn history(source: &MongoSource) -> PortResult<Option<SourceHistory>> {
    let server = &source.server;
    let hello = server.admin("send hello to", doc! { "hello": 1 }).await?;
    if hello.get_str("setName").is_err() {
        return Ok(None);
    }
    let Some(window) = oplog(server.client()).await else { return Ok(None) };
    Ok(Some(SourceHistory { window, bytes: oplog_bytes(server.client()).await }))
}

/// Bytes in the oplog and its limit; `None` without permission.
async fn oplog_bytes(client: &Client) -> Option<(u64, u64)> {
    let database = client.database("local");
    let read = tokio::spawn(async move { database.run_command(doc! { "collStats": "oplog.rs" }).await.ok() });
    let stats = read.await.ok()??;
    let number = |name| match stats.get(name)? {
        bson::Bson::Int32(number) => u64::try_from(*number).ok(),
        bson::Bson::Int64(number) => u64::try_from(*number).ok(),
        bson::Bson::Double(number) => Some(*number as u64),
        _ => None,
    };
    Some((number("size")?, number("maxSize")?))
}

/// First and last entry of the oplog; `None` without permission, which is not an error here.
async fn oplog(client: &Client) -> Option<HistoryWindow> {
    let oplog = client.database("local").collection::<bson::Document>("oplog.rs");
    let end = async move |direction: i32| {
        let oplog = oplog.clone();
        let read = tokio::spawn(async move {
            let mut cursor = oplog
                .find(doc! {})
                .sort(doc! { "$natural": direction })
                .projection(doc! { "ts": 1 })
                .limit(1)
                .read_concern(ReadConcern::local())
                .await
                .ok()?;
            cursor.next().await?.ok()
        });
        let entry = read.await.ok()??;
        let time = entry.get_timestamp("ts").ok()?;
        Some(ClusterTime { seconds: time.time, increment: time.increment })
    };
    Some(HistoryWindow { first: end(1).await?, last: end(-1).await? })
}
