//! Two installations on one Redis, or on one collection.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use mongodb::bson::Document;
use serde_json::{Value, json};
use tidewheel_local::provision::Provisioner;
use tidewheel_local::silent;
use tidewheel_local::stack::Redis;
use tidewheel_stores::redis::keys::INSTALLATION;

use super::clients::{count, http};
use super::world::{AUDIT_LOG, BINARY, SERVICES, World, audit_log, recorded, redis_command, ticket};

/// Timeout for asynchronous changes.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Services of a second installation.
struct Other {
    dir: tempfile::TempDir,
    running: Vec<(&'static str, Child)>,
}

impl Other {
    /// Configures an installation with this Redis and collection on the world's other servers.
    fn new(world: &World, database: &str, redis: &str, collection: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = format!(
            r#"
            mongodb.uri = "{}"
            mongodb.database = "{database}"
            redis.url = "{redis}"
            qdrant.url = "{}"
            qdrant.collection = "{collection}"
            embedding.url = "http://{}"
            processor.claim_after = "2s"
            upserter.claim_after = "2s"
            "#,
            world.stack.mongodb_uri(),
            world.stack.qdrant_grpc_url().unwrap(),
            world.embedder,
        );
        std::fs::write(dir.path().join("tidewheel.toml"), settings).unwrap();
        Self { dir, running: Vec::new() }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.arg("--config").arg(self.dir.path().join("tidewheel.toml")).args(arguments).stdin(Stdio::null());
        command.env_remove("RUST_LOG").env("NO_COLOR", "1");
        command
    }

    fn log(&self, service: &str) -> PathBuf {
        self.dir.path().join(format!("{service}.log"))
    }

    fn start(&mut self, service: &'static str) {
        let log = File::create(self.log(service)).unwrap();
        let mut command = self.command(&["--log-format", "text", service]);
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.running.push((service, child));
    }

    /// Waits until a service has exited with an error, and returns its log.
    async fn ends(&mut self, service: &'static str) -> String {
        let begun = Instant::now();
        let at = self.running.iter().position(|(name, _)| *name == service).expect("a running service");
        let log = self.log(service);
        let output = || std::fs::read_to_string(&log).unwrap();
        loop {
            if let Some(status) = self.running[at].1.try_wait().unwrap() {
                assert_eq!(status.code(), Some(2), "{}", output());
                self.running.remove(at);
                return output();
            }
            assert!(begun.elapsed() < TIMEOUT, "{service} still runs: {}", output());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        for (_, child) in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

async fn insert(world: &World, database: &str, numbers: std::ops::Range<i32>) {
    let tickets = world.database.client().database(database).collection::<Document>("tickets");
    tickets.insert_many(numbers.map(ticket)).await.unwrap();
}

/// Returns the owner in a collection's metadata.
async fn owner(world: &World, collection: &str) -> Value {
    let url = format!("{}/collections/{collection}", world.stack.qdrant_http_url().unwrap());
    let text = http().get(url).send().await.unwrap().text().await.unwrap();
    let info: Value = serde_json::from_str(&text).unwrap();
    info["result"]["config"]["metadata"]["tidewheel"].clone()
}

/// Waits until a collection has an owner, and returns it: a new collection is marked at the next check.
async fn marked(world: &mut World, collection: &str) -> Value {
    let begun = Instant::now();
    loop {
        let owner = owner(world, collection).await;
        if owner != Value::Null {
            return owner;
        }
        if begun.elapsed() > TIMEOUT {
            world.fail(&format!("{collection} has no owner"));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until producer, processor and upserter of the world have stopped because of another owner.
async fn stops_for_another_owner(world: &mut World) {
    for service in ["producer", "processor", "upserter"] {
        let stopped = |world: &World| world.log(service).contains("belongs to installation");
        world.wait(stopped, &format!("the {service} has stopped for another owner")).await;
        assert!(world.log(service).contains("tidewheel installation adopt"), "{}", world.log(service));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_database_on_same_redis_is_rejected_until_it_adopts() {
    let mut world = World::running().await;
    insert(&world, "shop", 0..20).await;
    insert(&world, "crm", 0..30).await;
    assert_eq!(world.equal().await.documents, 20);
    marked(&mut world, "documents").await;

    let redis = world.stack.redis_url();
    let mut other = Other::new(&world, "crm", &redis, "crm_documents");
    for service in ["producer", "processor", "upserter"] {
        other.start(service);
        let log = other.ends(service).await;
        for part in ["\"shop\"", "\"crm\"", "tidewheel installation adopt"] {
            assert!(log.contains(part), "{service}: {log}");
        }
    }
    for arguments in [&["replay", "source", "--yes"][..], &["verify", "--repair"]] {
        let output = other.command(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        assert!(text(&output).contains("belongs to installation"), "{}", text(&output));
    }
    let check = other.command(&["check", "--output", "json"]).output().unwrap();
    assert_eq!(check.status.code(), Some(1));
    assert!(text(&check).contains("belongs to installation"), "{}", text(&check));
    let check = text(&world.command(&["check"]).output().unwrap());
    assert!(check.contains("redis     owned by") && check.contains("collection owned by installation"), "{check}");
    insert(&world, "shop", 20..40).await;
    assert_eq!(world.equal().await.documents, 40, "the first installation is not affected");

    // The plan changes nothing; adoption stops the former owner.
    let plan = json_of(&other.command(&["installation", "adopt", "--output", "json"]).output().unwrap());
    assert_eq!((&plan["changes_redis"], &plan["done"]), (&json!(true), &json!(false)), "{plan}");
    let adoptions = || {
        let log = audit_log(other.command(&AUDIT_LOG));
        log.into_iter().filter(|entry| entry["action"] == "installation adopt").collect::<Vec<_>>()
    };
    assert_eq!(adoptions(), [Value::Null; 0]);
    let before: String = world.redis(&["HGET", INSTALLATION, "id"]).await;
    let adopted = other.command(&["installation", "adopt", "--yes"]).output().unwrap();
    assert!(adopted.status.success(), "{}", text(&adopted));
    recorded(&adoptions(), "installation adopt", "crm_documents");
    assert_ne!(world.redis::<String>(&["HGET", INSTALLATION, "id"]).await, before);
    assert_eq!(world.redis::<String>(&["HGET", INSTALLATION, "database"]).await, "crm");
    stops_for_another_owner(&mut world).await;
    for service in ["producer", "processor", "upserter"] {
        other.start(service);
    }
    let url = world.stack.qdrant_http_url().unwrap();
    world.until("the other database is indexed", || async { points(&url, "crm_documents").await == 30 }).await;
    assert!(count(&url, 40).await, "the former owner's collection is unchanged");
    marked(&mut world, "crm_documents").await;
    let again = json_of(&other.command(&["installation", "adopt", "--yes", "--output", "json"]).output().unwrap());
    assert_eq!((&again["changes_redis"], &again["changes_qdrant"]), (&json!(false), &json!(false)), "{again}");
    let adoptions = audit_log(other.command(&AUDIT_LOG));
    assert_eq!(adoptions.iter().filter(|entry| entry["action"] == "installation adopt").count(), 1, "{adoptions:?}");
}

async fn points(qdrant: &str, collection: &str) -> u64 {
    let url = format!("{qdrant}/collections/{collection}");
    let Ok(answer) = http().get(url).send().await else { return 0 };
    let info: Value = serde_json::from_str(&answer.text().await.unwrap_or_default()).unwrap_or_default();
    info["result"]["points_count"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn second_installation_on_same_collection_is_rejected_or_takes_over_permanently() {
    let mut world = World::running().await;
    insert(&world, "shop", 0..20).await;
    insert(&world, "crm", 0..30).await;
    assert_eq!(world.equal().await.documents, 20);
    let first = marked(&mut world, "documents").await;
    assert_eq!(first["database"], "shop");

    // Another database.
    let program = Provisioner::new(silent()).unwrap().redis_server().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let redis = Redis::new(program, dir.path()).start(silent()).await.unwrap();
    let mut foreign = Other::new(&world, "crm", &redis.url(), "documents");
    for service in ["producer", "upserter"] {
        foreign.start(service);
    }
    for service in ["producer", "upserter"] {
        let log = foreign.ends(service).await;
        assert!(log.contains("\"documents\" belongs to installation") && log.contains("adopt"), "{log}");
    }
    assert_eq!(world.equal().await.documents, 20);
    redis_command::<()>(&redis.url(), &["FLUSHALL"]).await;

    // The same database with an empty Redis, as after a loss: it takes over, and the other installation stops.
    let mut successor = Other::new(&world, "shop", &redis.url(), "documents");
    for service in ["producer", "processor", "upserter"] {
        successor.start(service);
    }
    for service in ["producer", "upserter"] {
        let stopped = |world: &World| world.log(service).contains("belongs to installation");
        world.wait(stopped, &format!("the {service} has stopped for another owner")).await;
    }
    assert_ne!(owner(&world, "documents").await["id"], first["id"]);
    insert(&world, "shop", 20..40).await;
    assert_eq!(world.equal().await.documents, 40);
    // After a restart it does not take the collection back.
    let rejections = world.log("upserter").matches("belongs to installation").count();
    world.start("upserter");
    let rejected = |world: &World| world.log("upserter").matches("belongs to installation").count() > rejections;
    world.wait(rejected, "the former owner is rejected").await;

    // Until it is adopted explicitly.
    let adopted = world.command(&["installation", "adopt", "--yes"]).output().unwrap();
    assert!(adopted.status.success(), "{}", text(&adopted));
    assert_eq!(owner(&world, "documents").await["id"], first["id"]);
    successor.ends("upserter").await;
    world.kill("processor");
    for service in ["producer", "processor", "upserter"] {
        world.start(service);
    }
    insert(&world, "shop", 40..50).await;
    assert_eq!(world.equal().await.documents, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn wiped_redis_new_collection_and_upgrade_are_marked_automatically() {
    let mut world = World::running().await;
    insert(&world, "shop", 0..20).await;
    assert_eq!(world.equal().await.documents, 20);
    let first = marked(&mut world, "documents").await;
    assert_eq!(world.redis::<String>(&["HGET", INSTALLATION, "id"]).await, first["id"].as_str().unwrap());

    // Wiped while services run: they register again.
    world.redis::<()>(&["FLUSHALL"]).await;
    let url = world.stack.redis_url();
    let id = || async { redis_command::<Option<String>>(&url, &["HGET", INSTALLATION, "id"]).await };
    world.until("the installation is registered again", || async { id().await.is_some() }).await;
    assert_eq!(id().await.unwrap(), first["id"].as_str().unwrap());
    insert(&world, "shop", 20..25).await;
    assert_eq!(world.equal().await.documents, 25);

    // Wiped while no service runs: a new installation takes over the collection.
    for service in SERVICES {
        world.kill(service);
    }
    world.redis::<()>(&["FLUSHALL"]).await;
    insert(&world, "shop", 25..30).await;
    for service in SERVICES {
        world.start(service);
    }
    assert_eq!(world.equal().await.documents, 30);
    let second = owner(&world, "documents").await;
    assert_ne!(second["id"], first["id"]);

    // The collection is deleted and recreated.
    let collection = format!("{}/collections/documents", world.stack.qdrant_http_url().unwrap());
    http().delete(&collection).send().await.unwrap().error_for_status().unwrap();
    assert_eq!(world.equal().await.documents, 30);
    assert_eq!(marked(&mut world, "documents").await["id"], second["id"]);

    // Redis and collection of an older release have no owner.
    for service in SERVICES {
        world.kill(service);
    }
    world.redis::<u64>(&["DEL", INSTALLATION]).await;
    let unmark = http().patch(&collection).header("content-type", "application/json");
    unmark.body(r#"{"metadata": {"tidewheel": null}}"#).send().await.unwrap().error_for_status().unwrap();
    assert_eq!(owner(&world, "documents").await, Value::Null);
    insert(&world, "shop", 30..35).await;
    for service in SERVICES {
        world.start(service);
    }
    assert_eq!(world.equal().await.documents, 35);
    marked(&mut world, "documents").await;
    let repaired = world.log("producer").matches("comparing all documents with the index").count();
    assert_eq!(repaired, 0, "an upgrade causes no comparing snapshot");

    // A replay marks its new collection before the alias is switched.
    let replay = world.command(&["replay", "source", "--into", "documents_2", "--yes"]).output().unwrap();
    assert!(replay.status.success(), "{}", text(&replay));
    let id = world.redis::<String>(&["HGET", INSTALLATION, "id"]).await;
    assert_eq!(owner(&world, "documents_2").await["id"], id);
}
