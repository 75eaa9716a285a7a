//! The local stack with real servers: durability across SIGKILL, error messages, and cleanup.
//!
//! Some tests need a separate process to kill. They start this test binary again and run one of the `child_…` tests,
//! which do nothing unless enabled through the environment.

use std::{
    env,
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use mongodb::bson::{Document, doc};
use tidewheel_local::{
    Event, Report, ServerKind,
    provision::{Program, Provisioner},
    silent,
    stack::{Fsync, Mongod, Qdrant, QdrantProgram, QdrantSource, Redis, Server, Stack, StackError, StackOptions},
};

fn provisioner() -> Provisioner {
    Provisioner::new(silent()).expect("a cache")
}

async fn mongod() -> Program {
    provisioner().mongod().await.expect("mongod")
}

async fn redis_server() -> Program {
    provisioner().redis_server().await.expect("redis-server")
}

fn recorder() -> (Report, Arc<Mutex<Vec<Event>>>) {
    let events = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&events);
    (Arc::new(move |event| sink.lock().expect("events").push(event)), events)
}

/// Waits until a condition holds; panics after a minute.
async fn eventually(condition: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1200 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("timed out waiting for: {condition}");
}

fn exists(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // A zombie has exited but was not reaped yet.
    !status.is_empty() && !status.rsplit(')').next().unwrap_or_default().trim_start().starts_with('Z')
}

async fn redis(server: &Server) -> redis::aio::MultiplexedConnection {
    let client = redis::Client::open(server.url()).expect("a url");
    client.get_multiplexed_async_connection().await.expect("a connection")
}

async fn redis_get(server: &Server, key: &str) -> Option<String> {
    redis::cmd("GET").arg(key).query_async(&mut redis(server).await).await.expect("GET")
}

async fn redis_set(server: &Server, key: &str, value: &str) {
    redis::cmd("SET").arg(key).arg(value).query_async::<()>(&mut redis(server).await).await.expect("SET");
}

async fn documents(uri: &str) -> mongodb::Collection<Document> {
    mongodb::Client::with_uri_str(uri).await.expect("a client").database("test").collection("documents")
}

#[tokio::test]
async fn redis_keeps_data_across_kill_and_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let redis_options =
        Redis { fsync: Fsync::Always, maxmemory: Some(64 << 20), ..Redis::new(redis_server().await, dir.path()) };
    let server = redis_options.start(silent()).await.expect("redis-server");
    let (port, pid) = (server.port(), server.pid().expect("a process"));
    let setting = async |name: &str| {
        let mut connection = redis(&server).await;
        let reply: Vec<String> =
            redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await.expect("CONFIG GET");
        reply[1].clone()
    };
    for (name, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "always"),
        ("maxmemory-policy", "noeviction"),
        ("maxmemory", "67108864"),
        ("save", ""),
        ("bind", "127.0.0.1"),
    ] {
        assert_eq!(setting(name).await, value, "{name}");
    }
    redis_set(&server, "key", "value").await;
    server.kill().await;
    assert!(!exists(pid));
    assert_eq!(server.pid(), None);
    assert!(matches!(server.ready().await, Err(StackError::NotRunning { server: ServerKind::Redis })));

    server.start().await.expect("again");
    assert_eq!(server.port(), port);
    assert_eq!(redis_get(&server, "key").await.as_deref(), Some("value"));
    server.restart().await.expect("once more");
    assert_eq!(redis_get(&server, "key").await.as_deref(), Some("value"));
    server.stop().await;
}

#[tokio::test]
async fn mongod_keeps_data_across_kill_and_port_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = mongod().await;
    let server = Mongod::new(program.clone(), dir.path()).start(silent()).await.expect("mongod");
    // With this URI the driver verifies the member's address in the replica set configuration.
    let uri = server.url();
    assert!(uri.contains("replicaSet=rs0"), "{uri}");
    documents(&uri).await.insert_one(doc! { "_id": 1 }).await.expect("insert");
    server.kill().await;
    server.start().await.expect("again");
    assert_eq!(server.url(), uri);
    assert_eq!(documents(&uri).await.count_documents(doc! {}).await.expect("count"), 1);
    // Change streams, which require the replica set.
    documents(&uri).await.watch().await.expect("a change stream");
    let old_port = server.port();
    server.stop().await;

    let port = {
        let _taken = TcpListener::bind(("127.0.0.1", old_port)).expect("the old port");
        TcpListener::bind("127.0.0.1:0").expect("another port").local_addr().expect("an address").port()
    };
    let server = Mongod { port, ..Mongod::new(program, dir.path()) }.start(silent()).await.expect("on another port");
    assert_ne!(server.port(), old_port);
    let collection = documents(&server.url()).await;
    collection.insert_one(doc! { "_id": 2 }).await.expect("insert");
    assert_eq!(collection.count_documents(doc! {}).await.expect("count"), 2);
    server.stop().await;
}

#[tokio::test]
async fn paused_server_does_not_respond_until_resumed() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Redis::new(redis_server().await, dir.path()).start(silent()).await.expect("redis-server");
    let mut connection = redis(&server).await;
    server.pause();
    let ping = redis::cmd("PING");
    let answer = ping.query_async::<String>(&mut connection);
    let answer = tokio::time::timeout(Duration::from_millis(300), answer).await;
    assert!(answer.is_err(), "a paused server does not respond");
    server.resume();
    eventually("the server responds again", async || server.ready().await.is_ok()).await;
    // A paused server can be stopped.
    server.pause();
    server.stop().await;
    assert_eq!(server.pid(), None);
}

#[tokio::test]
async fn supervised_server_is_restarted_after_crash_but_not_after_stop() {
    let dir = tempfile::tempdir().expect("a directory");
    let (report, events) = recorder();
    let redis_options = Redis { supervise: true, ..Redis::new(redis_server().await, dir.path()) };
    let server = redis_options.start(report).await.expect("redis-server");
    redis_set(&server, "key", "value").await;
    // A process killed during startup counts as a failed start, not as a crash.
    let started = || {
        let events = events.lock().expect("events");
        events.iter().filter(|event| matches!(event, Event::Ready { .. })).count()
    };
    let kill = || {
        let pid = server.pid().expect("a process").to_string();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill").success());
    };
    kill();
    eventually("first restart", async || started() == 2).await;
    assert_eq!(redis_get(&server, "key").await.as_deref(), Some("value"));
    // A restarted process has a watcher, too.
    kill();
    eventually("second restart", async || started() == 3).await;
    assert!(server.ready().await.is_ok());
    {
        let events = events.lock().expect("events");
        let died = |event: &&Event| matches!(event, Event::Died { server: ServerKind::Redis, status } if status.contains("SIGKILL"));
        assert_eq!(events.iter().filter(died).count(), 2, "{events:?}");
        assert!(events.iter().any(|event| matches!(event, Event::Restarting { .. })), "{events:?}");
    }

    server.kill().await;
    let restarts = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Starting { .. })).count();
    let before = restarts(&events.lock().expect("events"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.pid(), None);
    assert_eq!(restarts(&events.lock().expect("events")), before);
}

#[tokio::test]
async fn dropping_last_handle_kills_process() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Redis::new(redis_server().await, dir.path()).start(silent()).await.expect("redis-server");
    let pid = server.pid().expect("a process");
    let clone = server.clone();
    drop(server);
    clone.ready().await.expect("a clone is the same server");
    drop(clone);
    eventually("the process has exited", async || !exists(pid)).await;
}

#[tokio::test]
async fn port_in_use_error_names_the_holder() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let redis_options = Redis { port, ..Redis::new(redis_server().await, dir.path()) };
    let Err(error) = redis_options.start(silent()).await else { panic!("the port is in use") };
    let message = error.to_string();
    assert!(
        message.starts_with(&format!("redis-server cannot listen on 127.0.0.1:{port}: port in use by ")),
        "{message}"
    );
    assert!(message.ends_with(&format!("(pid {})", std::process::id())), "{message}");
    assert!(error.hint().contains("another port"), "{}", error.hint());
}

#[tokio::test]
async fn failed_start_error_quotes_the_log() {
    let dir = tempfile::tempdir().expect("a directory");
    // An invalid append-only file.
    fs::create_dir_all(dir.path().join("redis/appendonlydir")).expect("a directory");
    let manifest = dir.path().join("redis/appendonlydir/appendonly.aof.manifest");
    fs::write(manifest, "nonsense\n").expect("write");
    let Err(error) = Redis::new(redis_server().await, dir.path()).start(silent()).await else {
        panic!("it cannot start");
    };
    let message = error.to_string();
    assert!(message.starts_with("redis-server exited during startup (exit status: 1): "), "{message}");
    assert!(message.contains("AOF manifest"), "{message}");
    assert!(error.hint().ends_with("logs/redis.log"), "{}", error.hint());
}

#[tokio::test]
async fn stop_aborts_a_start_in_progress() {
    let dir = tempfile::tempdir().expect("a directory");
    let flag = dir.path().join("get-ready");
    // Serves at first; after a kill it starts but never becomes ready.
    let script = format!("test -e {0} && exec sleep 600; touch {0}; exec \"$@\"", flag.display());
    let QdrantProgram::Command(real) = stand_in() else { panic!("a command") };
    let mut line: Vec<OsString> = ["sh", "-c", &script, "sh"].map(OsString::from).to_vec();
    line.extend(real);
    let (report, events) = recorder();
    let qdrant = Qdrant { supervise: true, ..Qdrant::new(QdrantProgram::Command(line), dir.path()) };
    let server = qdrant.start(report).await.expect("the first start");
    let pid = server.pid().expect("a process").to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("kill").success());
    let starts = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Starting { .. })).count();
    eventually("the second start has begun", async || starts(&events.lock().expect("events")) == 2).await;

    server.stop().await;
    assert_eq!(server.pid(), None);
    let failed = |event: &Event| matches!(event, Event::RestartFailed { reason, .. } if reason.contains("was stopped"));
    assert!(!events.lock().expect("events").iter().any(failed), "a requested stop is not reported as a failure");
    let ready = server.ready().await;
    assert!(matches!(ready, Err(StackError::NotRunning { server: ServerKind::Qdrant })), "{ready:?}");
}

/// A fake Qdrant: this test binary, which only serves `/readyz`.
fn stand_in() -> QdrantProgram {
    let mut line: Vec<OsString> = vec!["env".into(), "TIDEWHEEL_TEST_CHILD=qdrant".into()];
    line.push(env::current_exe().expect("this binary").into());
    line.extend(["--exact", "child_qdrant", "--nocapture", "--"].map(OsString::from));
    QdrantProgram::Command(line)
}

#[tokio::test]
async fn child_qdrant() {
    if env::var_os("TIDEWHEEL_TEST_CHILD").is_none_or(|role| role != "qdrant") {
        return;
    }
    let arguments: Vec<String> = env::args().collect();
    let value = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag).expect(flag);
        arguments[at + 1].clone()
    };
    assert!(Path::new(&value("--data")).is_dir());
    let _grpc = tokio::net::TcpListener::bind(value("--grpc")).await.expect("grpc");
    let http = tokio::net::TcpListener::bind(value("--http")).await.expect("http");
    let app = axum::Router::new().route("/readyz", axum::routing::get(|| async { "all shards are ready" }));
    axum::serve(http, app).await.expect("serve");
}

fn options(data: &Path) -> StackOptions {
    let mut options = StackOptions::new(data).with_free_ports();
    options.qdrant = QdrantSource::Only(stand_in());
    options
}

#[tokio::test]
async fn stack_starts_keeps_data_and_locks_its_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let (report, events) = recorder();
    let stack = Stack::start(options(dir.path()), &provisioner(), report).await.expect("a stack");
    let ready = |events: &[Event]| events.iter().filter(|event| matches!(event, Event::Ready { .. })).count();
    assert_eq!(ready(&events.lock().expect("events")), 3);
    documents(&stack.mongodb_uri()).await.insert_one(doc! { "_id": 1 }).await.expect("insert");
    redis_set(&stack.redis, "key", "value").await;
    let http = stack.qdrant_http_url().expect("a qdrant");
    assert!(http_get(&format!("{http}/readyz")).await.contains("200 OK"));
    assert_ne!(stack.qdrant_grpc_url(), stack.qdrant_http_url());
    for log in ["mongod.log", "redis.log", "qdrant.log"] {
        assert!(fs::metadata(dir.path().join("logs").join(log)).expect(log).len() > 0, "{log}");
    }

    let Err(error) = Stack::start(options(dir.path()), &provisioner(), silent()).await else {
        panic!("the directory is locked");
    };
    let message = error.to_string();
    assert!(matches!(error, StackError::Locked { .. }), "{message}");
    assert!(message.ends_with(&format!("is locked by another stack (pid {})", std::process::id())), "{message}");

    let pids: Vec<u32> = [&stack.mongod, &stack.redis, stack.qdrant.as_ref().expect("a qdrant")]
        .iter()
        .map(|server| server.pid().expect("a process"))
        .collect();
    stack.stop().await;
    assert!(pids.into_iter().all(|pid| !exists(pid)));
    let stopped: Vec<ServerKind> = events
        .lock()
        .expect("events")
        .iter()
        .filter_map(|event| if let Event::Stopped { server } = event { Some(*server) } else { None })
        .collect();
    assert_eq!(stopped, [ServerKind::Qdrant, ServerKind::Redis, ServerKind::Mongod]);

    let mut without_qdrant = options(dir.path());
    without_qdrant.qdrant = QdrantSource::Elsewhere;
    let stack = Stack::start(without_qdrant, &provisioner(), silent()).await.expect("a second stack");
    assert!(stack.qdrant.is_none());
    assert_eq!(redis_get(&stack.redis, "key").await.as_deref(), Some("value"));
    assert_eq!(documents(&stack.mongodb_uri()).await.count_documents(doc! {}).await.expect("count"), 1);
    stack.stop().await;
}

/// Returns the response to a GET, with status line.
async fn http_get(url: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let (host, path) = rest.split_once('/').expect("a path");
    let mut stream = tokio::net::TcpStream::connect(host).await.expect("a connection");
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

/// The parent to be killed: starts two servers, prints their process ids, and waits.
#[tokio::test]
async fn child_parent() {
    if env::var_os("TIDEWHEEL_TEST_CHILD").is_none_or(|role| role != "parent") {
        return;
    }
    let data = env::var_os("TIDEWHEEL_TEST_DATA").expect("a directory");
    let redis = Redis::new(redis_server().await, &data).start(silent()).await.expect("redis-server");
    let qdrant = Qdrant::new(stand_in(), &data).start(silent()).await.expect("qdrant");
    // Read by the test; the library itself never prints.
    #[allow(clippy::print_stdout)]
    {
        println!("\npids {} {}", redis.pid().expect("a pid"), qdrant.pid().expect("a pid"));
    }
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn servers_exit_when_parent_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut parent = Command::new(env::current_exe().expect("this binary"))
        .args(["--exact", "child_parent", "--nocapture"])
        .env("TIDEWHEEL_TEST_CHILD", "parent")
        .env("TIDEWHEEL_TEST_DATA", dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a parent");
    let lines = BufReader::new(parent.stdout.take().expect("its output")).lines();
    let pids: Vec<u32> = lines
        .map_while(Result::ok)
        .find_map(|line| {
            let numbers = line.strip_prefix("pids ")?.to_owned();
            Some(numbers.split(' ').map(|pid| pid.parse().expect("a number")).collect())
        })
        .expect("process ids");
    assert!(pids.iter().all(|pid| exists(*pid)));
    parent.kill().expect("SIGKILL");
    parent.wait().expect("its end");
    eventually("the servers have exited", async || pids.iter().all(|pid| !exists(*pid))).await;
}
