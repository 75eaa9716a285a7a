//! Asks which documents are there.

use std::collections::HashSet;

use bson::{Bson, Timestamp, doc};
use futures::StreamExt as _;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::PortResult;
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
    let ids: Vec<Bson> = keys.iter().map(|key| parse_key(key)).collect::<PortResult<_>>()?;
    let command = doc! {
        "find": namespace.collection(),
        "filter": { "_id": { "$in": ids } },
        "projection": { "_id": 1 },
        "batchSize": keys.len() as i64,
        "readConcern": {
            "level": "majority",
            "afterClusterTime": Timestamp { time: at_least.seconds, increment: at_least.increment },
        },
    };
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
    let batches = server.run(&doing, call).await?;
    let mut there = HashSet::with_capacity(keys.len());
    let mut read = || -> Result<(), Malformed> {
        for batch in &batches {
            let mut reply = Reply::read(batch)?;
            while let Some(document) = reply.next()? {
                there.insert(extjson::value(&id_of(document)?, Form::Canonical)?);
            }
        }
        Ok(())
    };
    read().map_err(|error| PortError::transient(format!("{doing}: {error}")))?;
    Ok(keys.iter().map(|key| there.contains(key) || key.contains(char::REPLACEMENT_CHARACTER)).collect())
}
