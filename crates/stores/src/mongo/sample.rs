//! Random samples of a collection.

use bson::{RawDocumentBuf, doc};
use futures::StreamExt as _;
use mongodb::raw_batch_cursor::RawBatch;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{PortResult, SourceRow};

use super::event::row_of;
use super::extjson::Malformed;
use super::filters::Filters;
use super::reply::Reply;
use super::server::Server;

/// Maximum bytes of documents in a sample, except its last reply.
const MAX_BYTES: usize = 32 << 20;

/// Returns at most `most` random documents, each judged by the filters. MongoDB reads them through a random cursor if they
/// are less than 5% of the collection, and else reads the collection once.
pub(super) async fn sample(
    server: &Server,
    namespace: &Namespace,
    most: usize,
    filters: &Filters,
) -> PortResult<Vec<SourceRow>> {
    // MongoDB rejects a sample of nothing.
    if most == 0 {
        return Ok(Vec::new());
    }
    let doing = format!("sample documents of {} in {}", namespace.collection(), namespace.database());
    let command = doc! {
        "aggregate": namespace.collection(),
        "pipeline": [{ "$sample": { "size": i64::try_from(most).unwrap_or(i64::MAX) } }],
        "cursor": {},
    };
    let command =
        RawDocumentBuf::try_from(&command).map_err(|error| PortError::fatal(format!("failed to {doing}: {error}")))?;
    let (database, criteria) = (server.database(namespace.database()), server.selection_criteria());
    let call = async move {
        let mut run = database.run_raw_cursor_command(command);
        if let Some(criteria) = criteria {
            run = run.selection_criteria(criteria);
        }
        let mut cursor = run.batch().await?;
        let (mut batches, mut bytes) = (Vec::new(), 0);
        while bytes < MAX_BYTES {
            let Some(batch) = cursor.next().await else { break };
            let batch = batch?;
            bytes += batch.as_raw_document().as_bytes().len();
            batches.push(batch);
        }
        Ok(batches)
    };
    let batches: Vec<RawBatch> = server.run(&format!("{doing} on"), call).await?;
    let read = || -> Result<Vec<SourceRow>, Malformed> {
        let mut rows = Vec::new();
        for batch in &batches {
            let mut reply = Reply::read(batch)?;
            while let Some(document) = reply.next()? {
                rows.push(row_of(document, filters)?);
            }
        }
        Ok(rows)
    };
    read().map_err(|error| PortError::transient(format!("failed to {doing}: {error}")))
}
