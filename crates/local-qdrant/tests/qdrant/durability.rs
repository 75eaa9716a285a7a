//! Every confirmed write survives a kill at any moment and a restart on the same directory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use qdrant_client::qdrant::{
    Condition, CreateAliasBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, DeletePointsBuilder,
    Distance, FieldType, Filter, OptimizersConfigDiffBuilder, PointStruct, PointsIdsList, Range,
    SetPayloadPointsBuilder, UpsertPointsBuilder, VectorParamsBuilder,
};
use qdrant_client::{Payload, Qdrant};
use serde_json::{Value, json};
use tidewheel_local_qdrant::{QdrantOptions, serve};

use super::server::{DOCS, TestServer, all, client, create, numbered, point, upsert};

/// Signal: file size limit exceeded.
const SIGXFSZ: i32 = 25;

const CHILD_DATA: &str = "TIDEWHEEL_TEST_QDRANT_DATA";
const CHILD_GRPC: &str = "TIDEWHEEL_TEST_QDRANT_GRPC";

/// The server as a separate process: this test binary, configured through the environment.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by the tests below as the process that they kill"]
async fn child() {
    let data = std::env::var_os(CHILD_DATA).expect("the data directory");
    let grpc: SocketAddr = std::env::var(CHILD_GRPC).expect("the address").parse().expect("an address");
    // A write beyond the file size limit fails instead of killing the process.
    let _limit = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ)).unwrap();
    let options = QdrantOptions { data: data.into(), http: "127.0.0.1:0".parse().unwrap(), grpc, api_key: None };
    serve(options, std::future::pending()).await.expect("serves until it is killed");
}

pub(crate) struct Killable {
    process: Child,
    pub(crate) client: Arc<Qdrant>,
}

impl Killable {
    pub(crate) async fn start(data: &Path) -> Self {
        let grpc = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "durability::child", "--nocapture"])
            .env(CHILD_DATA, data)
            .env(CHILD_GRPC, grpc.to_string())
            .stdout(Stdio::null())
            .spawn()
            .expect("the test binary starts");
        let started = Self { process, client: Arc::new(client(grpc)) };
        let deadline = Instant::now() + Duration::from_secs(90);
        while started.client.health_check().await.is_err() {
            assert!(Instant::now() < deadline, "the server does not respond");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        started
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL: no chance to flush anything.
    pub(crate) fn kill(mut self) {
        self.process.kill().expect("running");
        self.process.wait().expect("own child");
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        // Only matters if a test failed before the kill.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The allowed states of a point: the last confirmed one, and the one in flight when the server was killed.
#[derive(Debug, Default, Clone)]
struct Expected {
    confirmed: Option<i64>,
    in_flight: Option<Option<i64>>,
}

/// A small seeded generator, so that failures are reproducible.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Points per writer: few, so that they are constantly replaced, deleted and inserted again.
const POINTS_PER_WRITER: u64 = 40;

/// Large enough that these few points exceed the indexing threshold, so that index builds run during the test.
const DIM: usize = 64;

fn wide(id: u64, n: i64) -> PointStruct {
    let vector: Vec<f32> = (0..DIM).map(|i| ((id as usize * 31 + i * 7) % 13) as f32 - 6.0).collect();
    point(id, &vector, json!({"n": n}))
}

/// Performs random writes until one fails, because the server was killed.
async fn write_until_killed(
    client: Arc<Qdrant>,
    writer: u64,
    seed: u64,
    model: Arc<Mutex<HashMap<u64, Expected>>>,
) -> u64 {
    let mut dice = Dice(seed);
    let mut confirmed = 0;
    loop {
        let value = i64::try_from(dice.roll(1 << 40)).unwrap();
        let first = writer * POINTS_PER_WRITER + dice.roll(POINTS_PER_WRITER - 8);
        let ids: Vec<u64> = (first..first + 1 + dice.roll(8)).collect();
        let current = |id: &u64| model.lock().unwrap().get(id).and_then(|expected| expected.confirmed);
        let kind = dice.roll(10);
        // The state of each point after this write.
        let becomes: Vec<(u64, Option<i64>)> = match kind {
            0..=3 => ids.iter().map(|id| (*id, Some(value))).collect(),
            // Conditional: replaces smaller values, inserts missing points.
            4..=6 => ids.iter().map(|id| (*id, Some(current(id).map_or(value, |now| now.max(value))))).collect(),
            7 => ids.iter().map(|id| (*id, None)).collect(),
            // By filter: deletes smaller values.
            8 => ids.iter().map(|id| (*id, current(id).filter(|now| *now >= value))).collect(),
            _ => ids.iter().filter(|id| current(id).is_some()).map(|id| (*id, Some(value))).collect(),
        };
        for (id, next) in &becomes {
            model.lock().unwrap().entry(*id).or_default().in_flight = Some(*next);
        }
        let points = || ids.iter().map(|id| wide(*id, value)).collect::<Vec<_>>();
        let smaller = Condition::range("n", Range { lt: Some(value as f64), ..Range::default() });
        let result = match kind {
            0..=3 => client.upsert_points(UpsertPointsBuilder::new(DOCS, points()).wait(true)).await.map(|_| ()),
            4..=6 => {
                let guard = Filter::must([smaller]);
                let request = UpsertPointsBuilder::new(DOCS, points()).update_filter(guard).wait(true);
                client.upsert_points(request).await.map(|_| ())
            }
            7 => {
                let list = PointsIdsList { ids: ids.iter().map(|id| (*id).into()).collect() };
                client.delete_points(DeletePointsBuilder::new(DOCS).points(list).wait(true)).await.map(|_| ())
            }
            8 => {
                let these = Condition::has_id(ids.iter().copied());
                let filter = Filter::must([these, smaller]);
                client.delete_points(DeletePointsBuilder::new(DOCS).points(filter).wait(true)).await.map(|_| ())
            }
            _ if becomes.is_empty() => Ok(()),
            _ => {
                let list = PointsIdsList { ids: becomes.iter().map(|(id, _)| (*id).into()).collect() };
                let payload = Payload::try_from(json!({"n": value})).unwrap();
                let request = SetPayloadPointsBuilder::new(DOCS, payload).points_selector(list).wait(true);
                client.set_payload(request).await.map(|_| ())
            }
        };
        if result.is_err() {
            return confirmed;
        }
        confirmed += 1;
        for (id, next) in becomes {
            model.lock().unwrap().insert(id, Expected { confirmed: next, in_flight: None });
        }
    }
}

/// Compares every point with the model. A write in flight may have been applied or not; records the outcome.
async fn settle(client: &Qdrant, model: &Mutex<HashMap<u64, Expected>>, round: u64) {
    let found: HashMap<u64, i64> = all(client, DOCS)
        .await
        .into_iter()
        .map(|(id, payload)| (id.parse().unwrap(), payload["n"].as_i64().expect("every point has its number")))
        .collect();
    let mut model = model.lock().unwrap();
    for (id, expected) in model.iter_mut() {
        let now = found.get(id).copied();
        let allowed = now == expected.confirmed || expected.in_flight == Some(now);
        assert!(allowed, "round {round}: point {id} is {now:?}, expected {expected:?}");
        *expected = Expected { confirmed: now, in_flight: None };
    }
    for id in found.keys() {
        assert!(model.contains_key(id), "round {round}: point {id} was never written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn confirmed_writes_survive_kills() {
    const ROUNDS: u64 = 12;
    const WRITERS: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let model = Arc::new(Mutex::new(HashMap::new()));
    let (mut confirmed, mut indexed) = (0, 0);
    for round in 0..ROUNDS {
        let server = Killable::start(dir.path()).await;
        if round == 0 {
            // A tiny threshold, so that index builds are killed as well.
            let request = CreateCollectionBuilder::new(DOCS)
                .vectors_config(VectorParamsBuilder::new(DIM as u64, Distance::Cosine))
                .optimizers_config(OptimizersConfigDiffBuilder::default().indexing_threshold(1));
            server.client.create_collection(request).await.unwrap();
            let index = CreateFieldIndexCollectionBuilder::new(DOCS, "n", FieldType::Integer).wait(true);
            server.client.create_field_index(index).await.unwrap();
        } else {
            settle(&server.client, &model, round).await;
        }
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let seed = (round * WRITERS + writer + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let (client, model) = (Arc::clone(&server.client), Arc::clone(&model));
            writers.spawn(write_until_killed(client, writer, seed, model));
        }
        // Different durations, so that some kills come before and some after a flush.
        tokio::time::sleep(Duration::from_millis(150 + round * 370 % 2500)).await;
        let info = server.client.collection_info(DOCS).await.unwrap().result.unwrap();
        indexed = indexed.max(info.indexed_vectors_count.unwrap_or(0));
        server.kill();
        while let Some(writer) = writers.join_next().await {
            confirmed += writer.unwrap();
        }
    }
    let server = Killable::start(dir.path()).await;
    settle(&server.client, &model, ROUNDS).await;
    assert!(confirmed > ROUNDS * WRITERS, "kills during writes: {confirmed} confirmed");
    assert!(indexed > 0, "index builds during the test");
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_changes_survive_kills() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected: Vec<String> = Vec::new();
    for round in 0..4 {
        let server = Killable::start(dir.path()).await;
        let mut names: Vec<_> =
            server.client.list_collections().await.unwrap().collections.into_iter().map(|c| c.name).collect();
        names.sort();
        for name in &expected {
            assert!(names.contains(name), "round {round}: `{name}` was confirmed, found {names:?}");
            let found = all(&server.client, name).await;
            assert_eq!(found.len(), 1, "round {round}: `{name}`");
            let aliased = all(&server.client, &format!("{name}-alias")).await;
            assert_eq!(aliased, found, "round {round}: the alias of `{name}`");
        }
        // An interrupted change is applied completely or not at all.
        for name in names {
            server.client.collection_info(&name).await.unwrap();
            if !expected.contains(&name) {
                server.client.delete_collection(&name).await.unwrap();
            }
        }
        let kept = format!("kept-{round}");
        create(&server.client, &kept, 4).await;
        let request = UpsertPointsBuilder::new(&kept, vec![numbered(1, round)]).wait(true);
        server.client.upsert_points(request).await.unwrap();
        server.client.create_alias(CreateAliasBuilder::new(&kept, format!("{kept}-alias"))).await.unwrap();
        expected.push(kept);
        let turns = Arc::new(AtomicU64::new(0));
        let (churn, turned) = (Arc::clone(&server.client), Arc::clone(&turns));
        let task = tokio::spawn(async move {
            loop {
                let name = format!("churn-{}", turned.load(Ordering::Relaxed) % 3);
                let request =
                    CreateCollectionBuilder::new(&name).vectors_config(VectorParamsBuilder::new(4, Distance::Cosine));
                if churn.create_collection(request).await.is_err() || churn.delete_collection(&name).await.is_err() {
                    return;
                }
                turned.fetch_add(1, Ordering::Relaxed);
            }
        });
        while turns.load(Ordering::Relaxed) < 2 {
            assert!(!task.is_finished(), "round {round}: the server exited unexpectedly");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(u64::try_from(round).unwrap() * 37)).await;
        server.kill();
        task.await.unwrap();
    }
}

#[tokio::test]
async fn writes_without_wait_survive_graceful_shutdown() {
    let dir = tempfile::tempdir().unwrap();
    let server = TestServer::start_in(dir.path()).await;
    let client = server.client();
    create(&client, DOCS, 4).await;
    upsert(&client, vec![numbered(1, 1)]).await;
    for id in 2..50 {
        client.upsert_points(UpsertPointsBuilder::new(DOCS, vec![numbered(id, 1)]).wait(false)).await.unwrap();
    }
    server.stop().await.unwrap();
    let server = TestServer::start_in(dir.path()).await;
    assert_eq!(all(&server.client(), DOCS).await.len(), 49);
}

/// Payloads and vectors are identical after a replay of the log.
#[tokio::test(flavor = "multi_thread")]
async fn replayed_log_restores_identical_points() {
    let dir = tempfile::tempdir().unwrap();
    let server = Killable::start(dir.path()).await;
    create(&server.client, DOCS, 3).await;
    let payload = json!({"f": 0.1, "i": i64::MIN, "u": "\u{1f30a}", "n": null, "deep": [{"a": [1.5, {}]}]});
    let uuid = "00000000-0000-4000-8000-000000000001";
    upsert(&server.client, vec![point(1, &[0.1, 0.2, 0.3], payload.clone()), point(uuid, &[9.0, 0.0, 0.1], json!({}))])
        .await;
    let vectors = async |client: &Qdrant| {
        use qdrant_client::qdrant::GetPointsBuilder;
        let ids = vec![1.into(), uuid.into()];
        let mut points = client.get_points(GetPointsBuilder::new(DOCS, ids).with_vectors(true)).await.unwrap().result;
        points.iter_mut().map(|point| point.vectors.take()).collect::<Vec<_>>()
    };
    let before = (all(&server.client, DOCS).await, vectors(&server.client).await);
    server.kill();
    let server = Killable::start(dir.path()).await;
    assert_eq!((all(&server.client, DOCS).await, vectors(&server.client).await), before);
    assert_eq!(before.0[0].1, payload);
    assert_eq!(before.0[1].1, Value::Object(serde_json::Map::new()));
    server.kill();
}
