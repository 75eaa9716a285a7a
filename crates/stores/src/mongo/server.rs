//! The connection to a deployment: single-reply commands, each run to completion.

use std::future::Future;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;
use mongodb::error::Error;
use mongodb::options::SelectionCriteria;
use mongodb::{Client, Database};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::PortResult;
use tidewheel_core::version::ClusterTime;
use tokio::sync::mpsc;

use super::failure::{is_unauthorized, not_a_replica_set, port_error};

/// Timeout of a trivial command. The driver itself waits forever for a server that keeps its connections open and does
/// not reply.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Time without a cursor batch after which the server is pinged. A slow batch is not a fault: the server may scan a
/// long stretch of its oplog without a match.
const PING_AFTER: Duration = Duration::from_secs(15);

/// The type of a collection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Collection,
    View,
    TimeSeries,
}

/// A listed collection.
#[derive(Clone, Debug)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// A MongoDB deployment. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Server {
    client: Client,
    /// Its hosts, without credentials.
    name: String,
}

impl Server {
    pub(super) fn new(client: Client, hosts: &str) -> Self {
        Self { client, name: hosts.to_owned() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn database(&self, name: &str) -> Database {
        self.client.database(name)
    }

    /// The read preference of the URI, which the driver does not apply to bare commands.
    pub(super) fn selection_criteria(&self) -> Option<SelectionCriteria> {
        self.client.selection_criteria().cloned()
    }

    /// Runs a driver future to completion, as the driver requires, even if the caller is dropped or times out. `doing`
    /// completes "failed to …", up to the name of the deployment.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        doing: &str,
        call: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> PortResult<T> {
        let doing = format!("{doing} {}", self.name);
        match tokio::time::timeout(REPLY_TIMEOUT, tokio::spawn(call)).await {
            Ok(Ok(result)) => result.map_err(|error| port_error(&doing, &error)),
            Ok(Err(_)) => Err(PortError::transient(format!("failed to {doing}: the call was cancelled"))),
            Err(_) => {
                Err(PortError::transient(format!("failed to {doing}: no reply within {} s", REPLY_TIMEOUT.as_secs())))
            }
        }
    }

    /// The next batch of a cursor's task, for as long as the server responds; `None` if the task has ended.
    pub(super) async fn batch<T: Send>(&self, batches: &mut mpsc::Receiver<T>) -> PortResult<Option<T>> {
        loop {
            match tokio::time::timeout(PING_AFTER, batches.recv()).await {
                Ok(batch) => return Ok(batch),
                Err(_) => self.ping().await?,
            }
        }
    }

    /// Runs a command on the `admin` database.
    pub(super) async fn admin(&self, doing: &str, command: Document) -> PortResult<Document> {
        let database = self.client.database("admin");
        self.run(doing, async move { database.run_command(command).await }).await
    }

    /// Pings the server.
    async fn ping(&self) -> PortResult<()> {
        self.admin("ping", doc! { "ping": 1 }).await.map(drop)
    }

    /// The time of the last operation that the primary has applied.
    pub(super) async fn now(&self) -> PortResult<ClusterTime> {
        const DOING: &str = "read the cluster time of";
        let reply = self.admin(DOING, doc! { "ping": 1 }).await?;
        let time =
            reply.get_timestamp("operationTime").map_err(|_| not_a_replica_set(&format!("{DOING} {}", self.name)))?;
        Ok(ClusterTime { seconds: time.time, increment: time.increment })
    }

    /// Lists the databases that the user may read, which requires no extra permission.
    pub(super) async fn databases(&self) -> PortResult<Vec<String>> {
        let command = doc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": true };
        let reply = self.admin("list the databases of", command).await?;
        let found = reply.get_array("databases").map(Vec::as_slice).unwrap_or_default();
        let named = |database: &Bson| Some(database.as_document()?.get_str("name").ok()?.to_owned());
        Ok(found.iter().filter_map(named).collect())
    }

    /// Lists the collections of a database that the user may read, which requires no extra permission.
    pub(super) async fn collections(&self, database: &str) -> PortResult<Vec<Listed>> {
        let doing = format!("list the collections of {database} on");
        let database = self.database(database);
        let command = doc! { "listCollections": 1, "nameOnly": true, "authorizedCollections": true };
        let list = async move { database.run_cursor_command(command).await?.try_collect::<Vec<Document>>().await };
        let found = self.run(&doing, list).await?;
        let listed = found.into_iter().filter_map(|found| {
            let kind = match found.get_str("type") {
                Ok("view") => Kind::View,
                Ok("timeseries") => Kind::TimeSeries,
                _ => Kind::Collection,
            };
            Some(Listed { name: found.get_str("name").ok()?.to_owned(), kind })
        });
        Ok(listed.collect())
    }

    /// Whether `find` compares strings of a collection by their bytes: it has no default collation. False without the
    /// permission to list collections with their options.
    pub(super) async fn compares_bytes(&self, namespace: &Namespace) -> PortResult<bool> {
        let database = self.database(namespace.database());
        let command = doc! { "listCollections": 1, "filter": { "name": namespace.collection() } };
        let list = async move {
            let read = async { database.run_cursor_command(command).await?.try_collect::<Vec<Document>>().await };
            match read.await {
                Err(error) if is_unauthorized(&error) => Ok(None),
                found => found.map(Some),
            }
        };
        let found = self.run(&format!("read the options of {namespace} on"), list).await?;
        let has_collation = |listed: &Document| {
            let collation = listed.get_document("options").and_then(|options| options.get_document("collation"));
            collation.is_ok_and(|collation| !collation.get_str("locale").is_ok_and(|locale| locale == "simple"))
        };
        Ok(found.is_some_and(|found| !found.iter().any(has_collation)))
    }

    /// The server's version, as text and as numbers.
    pub(super) async fn version(&self) -> PortResult<(String, [i32; 3])> {
        let reply = self.admin("read the version of", doc! { "buildInfo": 1 }).await?;
        let text = reply.get_str("version").unwrap_or("unknown").to_owned();
        Ok((text.clone(), version_numbers(&text)))
    }

    /// Whether the server can split an event that is larger than a reply.
    pub(super) async fn splits_large_events(&self) -> PortResult<bool> {
        self.version().await.map(|(_, version)| splits(version))
    }

    /// Whether it is a router of a sharded cluster.
    pub(super) async fn is_router(&self) -> PortResult<bool> {
        let reply = self.admin("send hello to", doc! { "hello": 1 }).await?;
        Ok(reply.get_str("msg").is_ok_and(|message| message == "isdbgrid"))
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }
}

/// `6.0.5-rc1` → 6, 0, 5; missing parts are 0.
fn version_numbers(text: &str) -> [i32; 3] {
    let mut numbers = text.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

/// `$changeStreamSplitLargeEvent` came with 7.0, and with 6.0.9, but not with the releases between.
fn splits(version: [i32; 3]) -> bool {
    version >= [7, 0, 0] || (version[..2] == [6, 0] && version[2] >= 9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_event_split_depends_on_server_version() {
        let table = [
            ("5.0.31", false),
            ("6.0.5", false),
            ("6.0.9", true),
            ("6.0.19", true),
            ("6.3.2", false),
            ("7.0.0-rc3", true),
            ("8.0.4", true),
            ("unknown", false),
        ];
        for (text, wanted) in table {
            assert_eq!(splits(version_numbers(text)), wanted, "{text}");
        }
    }
}
