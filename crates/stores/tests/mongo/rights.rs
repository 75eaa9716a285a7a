//! A user with exactly the permissions in the hint.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Source, StartAt};
use tidewheel_core::secret::Secret;
use tidewheel_stores::mongo::{MongoOptions, MongoSource};

use super::server::program;

/// Killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A single-node replica set with authentication.
async fn guarded(data: &Path) -> (Process, u16) {
    let program = program().await;
    let key = data.join("key");
    std::fs::write(&key, "c2VjcmV0LWZvci10ZXN0cw==").unwrap();
    #[cfg(unix)]
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(&program.path);
    command.args(["--auth", "--replSet", "rs0", "--bind_ip", "127.0.0.1", "--nounixsocket"]);
    command.args(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "990"]).arg("--keyFile").arg(&key);
    command.arg("--dbpath").arg(data).arg("--port").arg(port.to_string()).stdout(Stdio::null());
    if let Some(path) = &program.library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    (Process(command.spawn().unwrap()), port)
}

/// Retries a command until it succeeds: the server starts, and elects itself.
async fn run(client: &Client, database: &str, command: Document) {
    let work = async {
        while let Err(error) = client.database(database).run_command(command.clone()).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if error.to_string().contains("already") {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("the command timed out");
}

#[tokio::test]
async fn user_with_permissions_of_hint_can_scan_and_watch() {
    let data = tempfile::tempdir().unwrap();
    let (_process, port) = guarded(data.path()).await;
    let address =
        |user: &str| format!("mongodb://{user}127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=60000");
    let first = Client::with_uri_str(address("")).await.unwrap();
    let members = vec![doc! {"_id": 0, "host": format!("127.0.0.1:{port}")}];
    run(&first, "admin", doc! {"replSetInitiate": {"_id": "rs0", "members": members}}).await;
    run(&first, "admin", doc! {"createUser": "root", "pwd": "root", "roles": ["root"]}).await;
    let root = Client::with_uri_str(address("root:root@")).await.unwrap();
    let resource = doc! {"db": "shop", "collection": ""};
    let privileges = vec![doc! {"resource": resource, "actions": ["find", "changeStream"]}];
    run(&root, "shop", doc! {"createRole": "follower", "privileges": privileges, "roles": []}).await;
    for (user, role) in [("exact", "follower"), ("reader", "read")] {
        let roles = vec![doc! {"role": role, "db": "shop"}];
        run(&root, "shop", doc! {"createUser": user, "pwd": "secret", "roles": roles}).await;
    }
    run(&root, "shop", doc! {"createUser": "nobody", "pwd": "secret", "roles": []}).await;
    let tickets = root.database("shop").collection::<Document>("tickets");
    tickets.insert_one(doc! {"_id": 1}).await.unwrap();

    let connect = async |user: &str| {
        let uri = address(&format!("{user}:secret@")).replace("/?", "/?authSource=shop&");
        let options = MongoOptions { uri: Secret::new(uri), database: "shop".into(), collections: Vec::new() };
        MongoSource::connect(options).await.unwrap()
    };
    let namespace = Namespace::new("shop", "tickets");
    for (number, user) in [(2, "exact"), (3, "reader")] {
        let source = connect(user).await;
        let facts = source.inspect().await.unwrap_or_else(|error| panic!("{user}: {error:?}"));
        assert_eq!(facts.watch, Ok(()), "{user}");
        assert_eq!(facts.collections, [(namespace.clone(), number - 1)], "{user}");
        assert_eq!(facts.oplog, None, "{user} may not read it");
        let now = source.now().await.unwrap();
        let mut feed = source.open(StartAt::Time(now)).await.unwrap();
        tickets.insert_one(doc! {"_id": number as i32}).await.unwrap();
        let event = loop {
            let events = feed.next().await.unwrap().events;
            if let Some(event) = events.into_iter().find(|event| event.id == number.to_string()) {
                break event;
            }
        };
        let mut scan = source.scan(&namespace, None, now, None).await.unwrap();
        assert!(!scan.next().await.unwrap().is_empty(), "{user}");
        assert_eq!(source.existing(&namespace, &[event.key], event.time).await.unwrap(), [true], "{user}");
    }
    let error = connect("nobody").await.inspect().await.map(|facts| facts.watch).unwrap_or_else(Err).unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    let hint = error.hint.unwrap();
    assert!(hint.contains("find") && hint.contains("changeStream"), "{hint}");
}
