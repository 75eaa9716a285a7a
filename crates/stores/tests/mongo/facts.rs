//! Inspection of a server, and rejection of unusable servers.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{FeedError, Source, StartAt};
use tidewheel_core::secret::Secret;
use tidewheel_core::version::ClusterTime;
use tidewheel_stores::mongo::{MongoOptions, MongoSource, Topology};
use tidewheel_testkit::contracts::source::{SourceHarness, SourceWrite};

use super::server::{TestMongo, program};

#[tokio::test]
async fn inspect_reports_replica_set_state() {
    let mongo = TestMongo::start().await;
    for id in 0..3 {
        let document = json!({"_id": id});
        mongo.commit(vec![SourceWrite::Insert { collection: "tickets".into(), document }]).await;
    }
    let facts = mongo.mongo_source(&["tick*", "missing"]).await.inspect().await.unwrap();
    assert_eq!(facts.topology, Topology::ReplicaSet("rs0".into()));
    assert!(facts.version.starts_with(|digit: char| digit.is_ascii_digit()), "{}", facts.version);
    assert!(facts.primary);
    assert_eq!(facts.watch, Ok(()));
    let oplog = facts.oplog.expect("a window");
    assert!(oplog.first < oplog.last);
    assert!(oplog.seconds() < 24 * 3_600);
    let counts: Vec<_> = facts.collections.iter().map(|(name, count)| (name.collection(), *count)).collect();
    assert_eq!(counts, [("tickets", 3)]);
}

#[tokio::test]
async fn invalid_credentials_are_fatal_and_redacted() {
    let mongo = TestMongo::start().await;
    let uri = mongo.uri.replace("mongodb://", "mongodb://anna:hunter2@");
    let options = MongoOptions::of_database(Secret::new(uri), &mongo.database, &[]);
    let source = MongoSource::connect(options).await.unwrap();
    let error = source.now().await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    assert!(error.hint.is_some());
    assert!(!error.to_string().contains("hunter2"));
    let Err(FeedError::Port(error)) = source.covered().open(StartAt::Time(ClusterTime::default())).await else {
        panic!("a feed without valid credentials");
    };
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    assert_eq!(source.inspect().await.unwrap_err().class, ErrorClass::Fatal);
}

/// Killed when the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn standalone_server_is_rejected_with_a_hint() {
    let program = program().await;
    let data = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(&program.path);
    command.args(["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25"]);
    command.arg("--dbpath").arg(data.path()).arg("--port").arg(port.to_string()).stdout(Stdio::null());
    if let Some(path) = &program.library_path {
        command.env("LD_LIBRARY_PATH", path);
    }
    let _process = Process(command.spawn().unwrap());
    let uri = format!("mongodb://127.0.0.1:{port}/?serverSelectionTimeoutMS=30000");
    let options = MongoOptions::of_database(Secret::new(uri), "shop", &[]);
    let source = MongoSource::connect(options).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(60), source.now()).await.unwrap().unwrap_err();
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("rs.initiate()")), "{error:?}");
    let Err(FeedError::Port(error)) =
        source.covered().open(StartAt::Time(ClusterTime { seconds: 1, increment: 1 })).await
    else {
        panic!("a feed without a replica set");
    };
    assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("rs.initiate()")), "{error:?}");
    let facts = source.inspect().await.unwrap();
    assert_eq!(facts.topology, Topology::Standalone);
    assert!(facts.watch.is_err_and(|error| error.class == ErrorClass::Fatal));
    assert_eq!(facts.oplog, None);
}
