//! Applies writes to MongoDB.

use bson::{Document, RawDocumentBuf, doc};
use futures::FutureExt as _;
use mongodb::error::{Error, Result};
use mongodb::{Client, ClientSession, Collection, Database};

use super::documents::{COLLECTIONS, DATABASE, MOVED, SECOND_DATABASE, UNDECODABLE, undecodable};
use super::operations::{Step, Write};

/// The databases that the writes go to.
pub(super) struct Databases {
    first: Database,
    /// That of the collection at [`MOVED`]; `None` if it is in the first one.
    second: Option<Database>,
}

impl Databases {
    /// The databases, one or two of them.
    pub(super) fn new(client: &Client, has_second: bool) -> Self {
        let second = has_second.then(|| client.database(SECOND_DATABASE));
        Self { first: client.database(DATABASE), second }
    }

    fn collection(&self, name: &str) -> Collection<Document> {
        let second = self.second.as_ref().filter(|_| name == COLLECTIONS[MOVED]);
        second.unwrap_or(&self.first).collection(name)
    }
}

/// Applies all steps; returns the number of changed documents.
pub(super) async fn apply(databases: &Databases, write: &Write) -> Result<u64> {
    let mut session = databases.first.client().start_session().await?;
    if !write.transaction {
        return steps(databases, &mut session, &write.steps).await;
    }
    session.start_transaction().await?;
    match steps(databases, &mut session, &write.steps).await {
        Ok(changed) => session.commit_transaction().await.map(|()| changed),
        Err(error) => {
            // The server aborts an unfinished transaction automatically if this call fails.
            let _ = session.abort_transaction().await;
            Err(error)
        }
    }
}

async fn steps(databases: &Databases, session: &mut ClientSession, steps: &[Step]) -> Result<u64> {
    let mut changed = 0;
    for step in steps {
        // Boxed: the driver's futures are large.
        changed += apply_step(databases, session, step).boxed().await?;
    }
    Ok(changed)
}

async fn apply_step(databases: &Databases, session: &mut ClientSession, step: &Step) -> Result<u64> {
    let of = |collection: &str| databases.collection(collection);
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
            let answer = databases.first.run_raw_command(command).session(session).await?;
            u64::try_from(answer.get_i32("n").unwrap_or_default()).unwrap_or_default()
        }
        Step::DeleteUndecodable { serial } => {
            let filter = doc! { "serial": serial };
            of(UNDECODABLE).delete_many(filter).session(session).await?.deleted_count
        }
    })
}
