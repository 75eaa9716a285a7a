//! Asks which documents are there, and for those that are.

use std::collections::HashSet;

use bson::{Bson, Document, Timestamp, doc};
use futures::StreamExt as _;
use mongodb::raw_batch_cursor::RawBatch;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{PortResult, SourceRow};
use tidewheel_core::version::ClusterTime;

use super::event::id_of;
use super::extjson::{self, Form, Malformed};
use super::keys::parse_key;
use super::reply::Reply;
use super::server::Server;

/// Which of these documents exist, given by their canonical keys, as a majority knows it at `at_least` or later.
///
/// MongoDB takes the integer 1 and the double 1.0 for the same `_id`: the key in its answer tells which one it is. A key with
/// bytes that are no text cannot be asked for; such a document counts as there.
pub(super) async fn existing(
    server: &Server,
    namespace: &Namespace,
    keys: &[String],
    at_least: ClusterTime,
) -> PortResult<Vec<bool>> {
    let mut there = HashSet::with_capacity(keys.len());
    let collect = |document: &[u8]| {
        there.insert(extjson::value(&id_of(document)?, Form::Canonical)?);
        Ok(())
    };
    find(server, namespace, keys, at_least, Some(doc! { "_id": 1 }), collect).await?;
    Ok(keys.iter().map(|key| there.contains(key) || key.contains(char::REPLACEMENT_CHARACTER)).collect())
}

/// Those of these documents that exist.
pub(super) async fn fetch(
    server: &Server,
    namespace: &Namespace,
    keys: &[String],
    at_least: ClusterTime,
) -> PortResult<Vec<SourceRow>> {
    let wanted: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let mut rows = Vec::with_capacity(keys.len());
    let collect = |document: &[u8]| {
        let id = id_of(document)?;
        let key = extjson::value(&id, Form::Canonical)?;
        if wanted.contains(key.as_str()) {
            let (id, document) = (extjson::value(&id, Form::Relaxed)?, extjson::document(document, Form::Relaxed)?);
            rows.push(SourceRow { key, id, document });
        }
        Ok(())
    };
    find(server, namespace, keys, at_least, None, collect).await?;
    Ok(rows)
}

async fn find(
    server: &Server,
    namespace: &Namespace,
    keys: &[String],
    at_least: ClusterTime,
    projection: Option<Document>,
    mut collect: impl FnMut(&[u8]) -> Result<(), Malformed>,
) -> PortResult<()> {
    let ids: Vec<Bson> = keys.iter().map(|key| parse_key(key)).collect::<PortResult<_>>()?;
    let mut command = doc! {
        "find": namespace.collection(),
        "filter": { "_id": { "$in": ids } },
        "batchSize": keys.len() as i64,
        "readConcern": {
            "level": "majority",
            "afterClusterTime": Timestamp { time: at_least.seconds, increment: at_least.increment },
        },
    };
    if let Some(projection) = projection {
        command.insert("projection", projection);
    }
    let doing = format!("looking for documents of {} in", namespace.collection());
    let (database, criteria) = (server.database().clone(), server.selection_criteria());
    let call = async move {
        let mut run = database.run_cursor_command(command);
        if let Some(criteria) = criteria {
            run = run.selection_criteria(criteria);
        }
        let mut cursor = run.batch().await?;
        let mut batches = Vec::new();
        while let Some(batch) = cursor.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    };
    let batches: Vec<RawBatch> = server.run(&doing, call).await?;
    let mut read = || -> Result<(), Malformed> {
        for batch in &batches {
            let mut reply = Reply::read(batch)?;
            while let Some(document) = reply.next()? {
                collect(document)?;
            }
        }
        Ok(())
    };
    read().map_err(|error| PortError::transient(format!("{doing}: {error}")))
}
