//! Applies writes to MongoDB.

use bson::{RawDocumentBuf, doc};
use futures::FutureExt as _;
use mongodb::error::{Error, Result};
use mongodb::{ClientSession, Collection, Database};

use super::documents::{UNDECODABLE, undecodable};
use super::operations::{Step, Write};

/// Applies all steps; returns the number of changed documents.
pub(super) async fn apply(database: &Database, write: &Write) -> Result<u64> {
    let mut session = database.client().start_session().await?;
    if !write.transaction {
        return steps(database, &mut session, &write.steps).await;
    }
    session.start_transaction().await?;
    match steps(database, &mut session, &write.steps).await {
        Ok(changed) => session.commit_transaction().await.map(|()| changed),
        Err(error) => {
            // The server aborts an unfinished transaction automatically if this call fails.
            let _ = session.abort_transaction().await;
            Err(error)
        }
    }
}

async fn steps(database: &Database, session: &mut ClientSession, steps: &[Step]) -> Result<u64> {
    let mut changed = 0;
    for step in steps {
        // Boxed: the driver's futures are large.
        changed += apply_step(database, session, step).boxed().await?;
    }
    Ok(changed)
}

async fn apply_step(database: &Database, session: &mut ClientSession, step: &Step) -> Result<u64> {
    let of = |collection: &str| -> Collection<bson::Document> { database.collection(collection) };
    Ok(match step {
        Step::Insert { collection, documents } => {
            of(collection).insert_many(documents).session(session).await?.inserted_ids.len() as u64
        }
        Step::Set { collection, id, fields, upsert } => {
            let set = doc! { "$set": fields.clone() };
            let result = of(collection).update_one(doc! { "_id": id }, set).upsert(*upsert).session(session).await?;
            result.modified_count + u64::from(result.upserted_id.is_some())
        }
        Step::Replace { collection, id, document } => {
            of(collection).replace_one(doc! { "_id": id }, document).session(session).await?.modified_count
        }
        Step::Delete { collection, ids } => {
            of(collection).delete_many(doc! { "_id": { "$in": ids } }).session(session).await?.deleted_count
        }
        Step::Drop { collection } => {
            of(collection).drop().session(session).await?;
            1
        }
        Step::InsertUndecodable { serial } => {
            let command = RawDocumentBuf::from_bytes(undecodable(*serial)).map_err(Error::custom)?;
            let answer = database.run_raw_command(command).session(session).await?;
            u64::try_from(answer.get_i32("n").unwrap_or_default()).unwrap_or_default()
        }
        Step::DeleteUndecodable { serial } => {
            let filter = doc! { "serial": serial };
            of(UNDECODABLE).delete_many(filter).session(session).await?.deleted_count
        }
    })
}
