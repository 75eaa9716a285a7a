//! A shared mongod for all tests of this binary, with a database per test.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use mongodb::error::{Result as MongoResult, TRANSIENT_TRANSACTION_ERROR};
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, ClientSession, Database};
use serde_json::Value;
use tidewheel_core::ports::{Covered, SourceInspector};
use tidewheel_core::secret::Secret;
use tidewheel_local::provision::{Program, Provisioner};
use tidewheel_local::silent;
use tidewheel_local::stack::{Mongod, Server};
use tidewheel_stores::mongo::{MongoOptions, MongoSource};
use tidewheel_testkit::contracts::source::{SourceHarness, SourceWrite};
use tokio::sync::OnceCell;

/// The mongod binary, provisioned once.
pub(crate) async fn program() -> Program {
    Provisioner::new(silent()).expect("a cache").mongod().await.expect("a mongod")
}

/// A single-node replica set for one test.
pub(crate) async fn own_server(data: &Path) -> Server {
    let mut mongod = Mongod::new(program().await, data);
    // Updates of 16 MB, which take several times that, have to fit beside the work of other tests.
    mongod.cache_gb = 1.0;
    mongod.start(silent()).await.expect("mongod starts")
}

/// The shared server. It ends with this process; the next run removes its data, since nothing runs after this one.
async fn shared_server() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| async {
            let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("mongo");
            for old in std::fs::read_dir(&root).into_iter().flatten().flatten() {
                let process = Path::new("/proc").join(old.file_name());
                if Path::new("/proc/self").exists() && !process.exists() {
                    let _ = std::fs::remove_dir_all(old.path());
                }
            }
            own_server(&root.join(std::process::id().to_string())).await
        })
        .await
}

/// An empty database on a real server.
pub(crate) struct TestMongo {
    pub(crate) client: Client,
    pub(crate) uri: String,
    pub(crate) database: String,
}

impl TestMongo {
    /// Creates a database on the shared server.
    pub(crate) async fn start() -> Self {
        Self::on(shared_server().await).await
    }

    /// Creates a database on this server.
    pub(crate) async fn on(server: &Server) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let uri = server.url();
        let mut options = ClientOptions::parse(&uri).await.expect("an address");
        // A write is in the stream only once a majority has it.
        options.write_concern = Some(WriteConcern::builder().w(Acknowledgment::Majority).build());
        let client = Client::with_options(options).expect("a client");
        Self { client, uri, database: format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed)) }
    }

    /// The adapter under test.
    pub(crate) async fn mongo_source(&self, collections: &[&str]) -> MongoSource {
        let collections: Vec<String> = collections.iter().map(ToString::to_string).collect();
        let options = MongoOptions::of_database(Secret::new(&self.uri), &self.database, &collections);
        MongoSource::connect(options).await.expect("a source")
    }

    /// The adapter under test, restricted to these collections.
    pub(crate) async fn covered(&self, collections: &[&str]) -> Covered {
        self.mongo_source(collections).await.covered()
    }

    pub(crate) fn collection(&self, name: &str) -> mongodb::Collection<Document> {
        self.client.database(&self.database).collection(name)
    }
}

async fn in_transaction(database: &Database, session: &mut ClientSession, writes: &[SourceWrite]) -> MongoResult<()> {
    session.start_transaction().await?;
    let documents = |collection: &str| database.collection::<Document>(collection);
    for write in writes {
        match write {
            SourceWrite::Insert { collection, document } => {
                documents(collection).insert_one(document_of(document)).session(&mut *session).await?;
            }
            SourceWrite::Set { collection, id, field, value } => {
                let change = doc! {"$set": {field: bson_of(value)}};
                documents(collection).update_one(by_id(id), change).session(&mut *session).await?;
            }
            SourceWrite::Delete { collection, id } => {
                documents(collection).delete_one(by_id(id)).session(&mut *session).await?;
            }
            other => panic!("{other:?} is not allowed in a transaction"),
        }
    }
    session.commit_transaction().await
}

async fn alone(database: &Database, write: SourceWrite) -> MongoResult<()> {
    let documents = |collection: &str| database.collection::<Document>(collection);
    match write {
        SourceWrite::Insert { collection, document } => {
            documents(&collection).insert_one(document_of(&document)).await.map(drop)
        }
        SourceWrite::Replace { collection, document } => {
            let document = document_of(&document);
            let id = doc! {"_id": document.get("_id").expect("an _id")};
            documents(&collection).replace_one(id, document).await.map(drop)
        }
        SourceWrite::Set { collection, id, field, value } => {
            let change = doc! {"$set": {field: bson_of(&value)}};
            documents(&collection).update_one(by_id(&id), change).await.map(drop)
        }
        SourceWrite::Unset { collection, id, field } => {
            documents(&collection).update_one(by_id(&id), doc! {"$unset": {field: ""}}).await.map(drop)
        }
        SourceWrite::Delete { collection, id } => documents(&collection).delete_one(by_id(&id)).await.map(drop),
        SourceWrite::Drop { collection } => documents(&collection).drop().await,
        SourceWrite::Rename { from, to } => {
            let name = |collection| format!("{}.{collection}", database.name());
            let command = doc! {"renameCollection": name(from), "to": name(to), "dropTarget": true};
            database.client().database("admin").run_command(command).await.map(drop)
        }
        SourceWrite::DropDatabase => database.drop().await,
    }
}

#[async_trait]
impl SourceHarness for TestMongo {
    fn database(&self) -> &str {
        &self.database
    }

    async fn source(&self, collections: &[&str]) -> Covered {
        self.covered(collections).await
    }

    async fn inspector(&self, collections: &[&str]) -> Arc<dyn SourceInspector> {
        Arc::new(self.mongo_source(collections).await)
    }

    async fn commit_in(&self, database: &str, mut writes: Vec<SourceWrite>) {
        let database = self.client.database(database);
        if writes.len() == 1 {
            return alone(&database, writes.remove(0)).await.expect("a write");
        }
        let mut session = self.client.start_session().await.expect("a session");
        loop {
            match in_transaction(&database, &mut session, &writes).await {
                // A recently created or dropped collection makes a transaction restart.
                Err(error) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => {}
                result => return result.expect("a transaction"),
            }
        }
    }
}

fn bson_of(value: &Value) -> Bson {
    Bson::try_from(value.clone()).expect("extended JSON")
}

fn document_of(value: &Value) -> Document {
    match bson_of(value) {
        Bson::Document(document) => document,
        other => panic!("{other} is not a document"),
    }
}

fn by_id(id: &Value) -> Document {
    doc! {"_id": bson_of(id)}
}
