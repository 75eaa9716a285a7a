//! Identity of the source and its deployment, for ownership checks.

use bson::{Bson, Document, doc};
use tidewheel_core::installation::SourceIdentity;
use tidewheel_core::ports::PortResult;

use super::MongoSource;

pub(super) async fn identity(source: &MongoSource) -> PortResult<SourceIdentity> {
    let server = &source.server;
    let hello = server.admin("send hello to", doc! { "hello": 1 }).await?;
    let replica_set = hello.get_str("setName").unwrap_or_default().to_owned();
    let text = |value: &Bson| value.as_str().map(str::to_owned);
    let mut hosts: Vec<String> =
        hello.get_array("hosts").map(|hosts| hosts.iter().filter_map(text).collect()).unwrap_or_default();
    if hosts.is_empty() {
        // A router does not list its cluster's hosts.
        hosts = source.hosts.clone();
    }
    hosts.sort_unstable();
    // Few users may read it. Without it the hosts identify the deployment.
    let cluster = if replica_set.is_empty() { of_cluster(source).await } else { of_replica_set(source).await };
    let database = source.database.clone();
    Ok(SourceIdentity { database, replica_set, hosts, cluster: cluster.unwrap_or_default() })
}

async fn of_replica_set(source: &MongoSource) -> Option<String> {
    let reply =
        source.server.admin("read the replica set configuration of", doc! { "replSetGetConfig": 1 }).await.ok()?;
    let settings = reply.get_document("config").ok()?.get_document("settings").ok()?;
    settings.get_object_id("replicaSetId").ok().map(bson::oid::ObjectId::to_hex)
}

async fn of_cluster(source: &MongoSource) -> Option<String> {
    let config = source.server.client().database("config").collection::<Document>("version");
    let read = async move { config.find_one(doc! {}).await };
    let version = source.server.run("read the cluster id of", read).await.ok()??;
    version.get_object_id("clusterId").ok().map(bson::oid::ObjectId::to_hex)
}
