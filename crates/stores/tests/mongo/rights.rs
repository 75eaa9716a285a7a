//! Users with exactly the permissions in the hints.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bson::{Document, doc};
use mongodb::Client;
use tidewheel_core::catalog::Selector;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Coverage, Covered, Judged, SourceFilter, StartAt};
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

fn address(user: &str, port: u16) -> String {
    format!("mongodb://{user}127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=60000")
}

/// Users of the database `shop`: `exact` with the actions of the hint on it, `reader` with the role `read`, `everywhere`
/// with the actions on all databases, `everyone` with the role `readAnyDatabase`, and `nobody`. Returns the client of an
/// administrator.
async fn users(port: u16) -> Client {
    let first = Client::with_uri_str(address("", port)).await.unwrap();
    let members = vec![doc! {"_id": 0, "host": format!("127.0.0.1:{port}")}];
    run(&first, "admin", doc! {"replSetInitiate": {"_id": "rs0", "members": members}}).await;
    run(&first, "admin", doc! {"createUser": "root", "pwd": "root", "roles": ["root"]}).await;
    let root = Client::with_uri_str(address("root:root@", port)).await.unwrap();
    // A role on all databases belongs to `admin`.
    for (role, of, resource) in [("follower", "shop", "shop"), ("follower_of_all", "admin", "")] {
        let resource = doc! {"db": resource, "collection": ""};
        let privileges = vec![doc! {"resource": resource, "actions": ["find", "changeStream"]}];
        run(&root, of, doc! {"createRole": role, "privileges": privileges, "roles": []}).await;
    }
    for (user, role, of) in [
        ("exact", "follower", "shop"),
        ("reader", "read", "shop"),
        ("everywhere", "follower_of_all", "admin"),
        ("everyone", "readAnyDatabase", "admin"),
    ] {
        let roles = vec![doc! {"role": role, "db": of}];
        run(&root, "shop", doc! {"createUser": user, "pwd": "secret", "roles": roles}).await;
    }
    run(&root, "shop", doc! {"createUser": "nobody", "pwd": "secret", "roles": []}).await;
    root
}

async fn connect(user: &str, port: u16) -> MongoSource {
    let uri = address(&format!("{user}:secret@"), port).replace("/?", "/?authSource=shop&");
    MongoSource::connect(MongoOptions::of_database(Secret::new(uri), "shop", &[])).await.unwrap()
}

#[tokio::test]
async fn user_with_permissions_of_hint_can_scan_and_watch() {
    let data = tempfile::tempdir().unwrap();
    let (_process, port) = guarded(data.path()).await;
    let root = users(port).await;
    let tickets = root.database("shop").collection::<Document>("tickets");
    tickets.insert_one(doc! {"_id": 1}).await.unwrap();
    let namespace = Namespace::new("shop", "tickets");
    for (number, user) in [(2, "exact"), (3, "reader")] {
        let inspected = connect(user, port).await;
        let source = inspected.covered();
        let facts = inspected.inspect().await.unwrap_or_else(|error| panic!("{user}: {error:?}"));
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
    let error = connect("nobody", port).await.inspect().await.map(|facts| facts.watch).unwrap_or_else(Err).unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    let hint = error.hint.unwrap();
    assert!(hint.contains("find") && hint.contains("changeStream"), "{hint}");
}

/// The narrowest change stream asks for the fewest permissions.
#[tokio::test]
async fn several_databases_need_permissions_on_all() {
    let data = tempfile::tempdir().unwrap();
    let (_process, port) = guarded(data.path()).await;
    let root = users(port).await;
    let coverage = |patterns: &[&[&str]]| {
        let selectors = patterns.iter().map(|&patterns| Selector::parse(patterns, None).unwrap()).collect();
        Coverage { selectors, filters: vec![SourceFilter(r#"{"open": true}"#.into())] }
    };
    let one = coverage(&[&["shop.tickets"], &["shop.*", "!shop.tmp_*", "!crm.*"]]);
    let several = coverage(&[&["shop.tickets"], &["crm.notes"]]);
    for (user, reaches_all) in [("exact", false), ("reader", false), ("everywhere", true), ("everyone", true)] {
        let source = connect(user, port).await.covered().source;
        source.check(&one).await.unwrap_or_else(|error| panic!("{user}: {error:?}"));
        let checked = source.check(&several).await;
        if reaches_all {
            checked.unwrap_or_else(|error| panic!("{user}: {error:?}"));
            let covered = Covered::new(source, several.clone());
            let mut feed = covered.open(StartAt::Time(covered.now().await.unwrap())).await.unwrap();
            root.database("crm").collection::<Document>("notes").insert_one(doc! {"by": user}).await.unwrap();
            let namespace = loop {
                if let Some(event) = feed.next().await.unwrap().events.pop() {
                    break event.namespace;
                }
            };
            assert_eq!(namespace, Namespace::new("crm", "notes"), "{user}");
            let patterns = Selector::parse(&["cr*.*"], None).unwrap();
            assert_eq!(covered.source.collections(&patterns).await.unwrap(), [namespace], "{user}");
        } else {
            let error = checked.unwrap_err();
            assert_eq!(error.class, ErrorClass::Fatal, "{user}: {error}");
            assert!(error.hint.is_some_and(|hint| hint.contains("readAnyDatabase")), "{user}");
        }
    }
}

/// Without the permission to read a collation, everything is read and judged here.
#[tokio::test]
async fn filter_is_pushed_down_only_with_a_known_collation() {
    let data = tempfile::tempdir().unwrap();
    let (_process, port) = guarded(data.path()).await;
    let tickets = users(port).await.database("shop").collection::<Document>("tickets");
    tickets.insert_many([doc! {"_id": 1, "open": true}, doc! {"_id": 2, "open": false}]).await.unwrap();
    let filter = SourceFilter(r#"{"open": true}"#.into());
    let judged = Judged { filters: vec![filter.clone()], pushed: Some(filter) };
    for (user, wanted) in [("exact", &["1", "2"][..]), ("reader", &["1"][..])] {
        let source = connect(user, port).await.covered().source;
        let (namespace, now) = (Namespace::new("shop", "tickets"), source.now().await.unwrap());
        let rows = source.scan(&namespace, None, now, &judged).await.unwrap().next().await.unwrap();
        assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), wanted, "{user}");
        assert!(rows.iter().all(|row| row.verdicts.get(0) == Some(row.id == "1")), "{user}");
    }
}
