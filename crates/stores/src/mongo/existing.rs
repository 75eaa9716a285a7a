//! Existence checks and fetches of documents by key.

use std::collections::HashSet;

use bson::{Document, Timestamp, doc};
use futures::StreamExt as _;
use mongodb::raw_batch_cursor::RawBatch;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Judged, PortResult, SourceFilter, SourceRow};
use tidewheel_core::version::ClusterTime;

use super::event::{id_of, row_of};
use super::extjson::Malformed;
use super::filters::{self, Filters};
use super::keys::{RawId, all_of, key_of, with_field};
use super::query::Query;
use super::reply::Reply;
use super::server::Server;

/// Maximum bytes of the `_id`s in one command, except the last one: MongoDB accepts 16 MB, and no `_id` exceeds 8.
const MAX_BYTES: usize = 4 << 20;

/// Returns which of these documents, given by key, exist with majority read concern at `at_least` or later, and match
/// the filter, which is evaluated here.
///
/// MongoDB matches numbers by value, so the key in its reply is compared with the requested one: a key in an older form
/// does not belong to any document.
pub(super) async fn existing(
    server: &Server,
    namespace: &Namespace,
    keys: &[String],
    at_least: ClusterTime,
    filter: Option<&SourceFilter>,
) -> PortResult<Vec<bool>> {
    let query = filter.map(Query::of).transpose()?;
    let projection = query.as_ref().map_or_else(|| doc! { "_id": 1 }, Query::projection);
    let mut there = HashSet::with_capacity(keys.len());
    let collect = |document: &[u8]| {
        if query.as_ref().is_none_or(|query| query.selects(document)) {
            there.insert(key_of(&id_of(document)?)?);
        }
        Ok(())
    };
    let lookup = Lookup { keys, at_least, projection: Some(projection), pushed: None };
    find(server, namespace, lookup, collect).await?;
    Ok(keys.iter().map(|key| there.contains(key)).collect())
}

/// Returns the existing documents among these. A pushed condition counts only without filters: what is read by key needs
/// no other saving.
pub(super) async fn fetch(
    server: &Server,
    namespace: &Namespace,
    keys: &[String],
    at_least: ClusterTime,
    judged: &Judged,
) -> PortResult<Vec<SourceRow>> {
    let filters = Filters::parse(&judged.filters)?;
    let pushed = judged.pushed.as_ref().map(filters::document).transpose()?.filter(|_| filters.is_empty());
    let wanted: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let mut rows = Vec::with_capacity(keys.len());
    let collect = |document: &[u8]| {
        let row = row_of(document, &filters)?;
        if wanted.contains(row.key.as_str()) {
            rows.push(row);
        }
        Ok(())
    };
    let lookup = Lookup { keys, at_least, projection: None, pushed };
    find(server, namespace, lookup, collect).await?;
    Ok(rows)
}

/// What is read by key.
struct Lookup<'a> {
    keys: &'a [String],
    at_least: ClusterTime,
    projection: Option<Document>,
    /// A condition that the server evaluates.
    pushed: Option<Document>,
}

async fn find(
    server: &Server,
    namespace: &Namespace,
    Lookup { keys, at_least, projection, pushed }: Lookup<'_>,
    mut collect: impl FnMut(&[u8]) -> Result<(), Malformed>,
) -> PortResult<()> {
    let doing = format!("find documents of {} in {}", namespace.collection(), namespace.database());
    let invalid = |error: bson::error::Error| PortError::fatal(format!("failed to {doing}: {error}"));
    let pushed = pushed.map(|pushed| pushed.to_vec()).transpose().map_err(invalid)?;
    let ids: Vec<RawId> = keys.iter().map(|key| RawId::parse(key)).collect::<PortResult<_>>()?;
    for ids in portions(&ids) {
        let mut command = doc! {
            "find": namespace.collection(),
            "batchSize": ids.len() as i64,
            "readConcern": {
                "level": "majority",
                "afterClusterTime": Timestamp { time: at_least.seconds, increment: at_least.increment },
            },
        };
        if let Some(projection) = &projection {
            command.insert("projection", projection.clone());
        }
        let filter = match &pushed {
            Some(pushed) => all_of(&[&RawId::any_of(ids), pushed]),
            None => RawId::any_of(ids),
        };
        let command = with_field(&command, "filter", &filter).map_err(invalid)?;
        let (database, criteria) = (server.database(namespace.database()), server.selection_criteria());
        let call = async move {
            let mut run = database.run_raw_cursor_command(command);
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
        let batches: Vec<RawBatch> = server.run(&format!("{doing} on"), call).await?;
        let mut read = || -> Result<(), Malformed> {
            for batch in &batches {
                let mut reply = Reply::read(batch)?;
                while let Some(document) = reply.next()? {
                    collect(document)?;
                }
            }
            Ok(())
        };
        read().map_err(|error| PortError::transient(format!("failed to {doing}: {error}")))?;
    }
    Ok(())
}

/// Splits the ids into portions of bounded size.
fn portions(ids: &[RawId]) -> impl Iterator<Item = &[RawId]> {
    let mut left = ids;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |id: &&RawId| {
            bytes += id.size();
            bytes <= MAX_BYTES
        };
        let count = left.iter().take_while(fits).count().max(1).min(left.len());
        let (portion, rest) = left.split_at(count);
        left = rest;
        (!portion.is_empty()).then_some(portion)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_bounded_in_bytes_and_complete() {
        let id = |length: usize| RawId::parse(&format!("\"{}\"", "x".repeat(length))).unwrap();
        let ids: Vec<RawId> = [1, 3 << 20, 3 << 20, 10, 6 << 20, 6 << 20, 1, 1].map(id).into();
        let sizes: Vec<usize> = portions(&ids).map(<[RawId]>::len).collect();
        assert_eq!(sizes, [2, 2, 1, 1, 2]);
        assert_eq!(portions(&[]).count(), 0);
        assert!(portions(&ids).flatten().eq(&ids));
    }
}
