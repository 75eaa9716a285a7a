//! Write throughput of the local Qdrant: `cargo run --release -p tidewheel-local --example qdrant_bench [DIRECTORY]`.
//!
//! Starts the server on free ports, loads 20,000 points of 384 dimensions in conditional upserts with `wait`, with
//! several batch sizes and writers, and then measures the latency of single points. Server and client share the process
//! and the cores.

#![allow(clippy::print_stdout, reason = "prints a report")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use qdrant_client::Qdrant;
use qdrant_client::qdrant::{
    Condition, CountPointsBuilder, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder, Distance, FieldType,
    Filter, HasIdCondition, PointStruct, QueryPointsBuilder, Range, UpsertPointsBuilder, VectorParamsBuilder,
};
use serde_json::json;
use tidewheel_local_qdrant::serve_on;
use tokio::net::TcpListener;

const POINTS: u64 = 20_000;
const DIM: usize = 384;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let dir = match std::env::args().nth(1) {
        Some(parent) => tempfile::tempdir_in(parent)?,
        None => tempfile::tempdir()?,
    };
    sync_latency(dir.path())?;
    let (http, grpc) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
    let url = format!("http://{}", grpc.local_addr()?);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(serve_on(http, grpc, dir.path().join("data"), None, async {
        let _ = stopped.await;
    }));
    let client = Arc::new(Qdrant::from_url(&url).skip_compatibility_check().build()?);
    for (batch, writers) in [(64, 1), (256, 1), (64, 4), (128, 2), (256, 4)] {
        load(&client, batch, writers).await?;
    }
    single(&client).await?;
    reads(&client).await?;
    println!("resident memory: {} MiB", resident_kib()? / 1024);
    let _ = stop.send(());
    server.await??;
    Ok(())
}

/// Measures the disk's latency for a synced append.
fn sync_latency(dir: &std::path::Path) -> Outcome<()> {
    use std::io::Write;
    let mut file = std::fs::File::create(dir.join("sync"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let started = Instant::now();
        file.write_all(&[1; 2048])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    report("append 2 KiB and fdatasync", &mut times);
    Ok(())
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |percentile: usize| times[(times.len() - 1) * percentile / 100].as_secs_f64() * 1000.0;
    println!("{name}: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
}

async fn fresh(client: &Qdrant, name: &str) -> Outcome<()> {
    client.delete_collection(name).await?;
    let vectors = VectorParamsBuilder::new(DIM as u64, Distance::Cosine);
    client.create_collection(CreateCollectionBuilder::new(name).vectors_config(vectors)).await?;
    for (field, kind) in [("key", FieldType::Keyword), ("hi", FieldType::Integer), ("lo", FieldType::Integer)] {
        client.create_field_index(CreateFieldIndexCollectionBuilder::new(name, field, kind).wait(true)).await?;
    }
    Ok(())
}

fn point(id: u64) -> PointStruct {
    let vector: Vec<f32> = (0..DIM as u64).map(|i| ((id * 7919 + i * 104_729) % 1000) as f32 / 500.0 - 1.0).collect();
    let payload = json!({
        "key": format!("{{\"$oid\":\"{id:024x}\"}}"), "hi": 1_700_000_000, "lo": id,
        "text": "A text of a hundred bytes or so, which is what a chunk of a small document carries with it here.",
        "customer": "Contoso", "product": "Widget", "subject": "It does not turn", "date": "2024-01-01T00:00:00Z",
    });
    PointStruct::new(id, vector, qdrant_client::Payload::try_from(payload).unwrap_or_default())
}

/// One clause per point: matches its id if the stored version is older than the new one.
fn guard(ids: &[u64]) -> Filter {
    Filter::should(ids.iter().map(|id| {
        let below = |key: &str, bound: f64| Condition::range(key, Range { lt: Some(bound), ..Range::default() });
        let same = Range { gte: Some(1.7e9), lte: Some(1.7e9), ..Range::default() };
        let same = Filter::must([Condition::range("hi", same), below("lo", *id as f64)]);
        let older = Filter::should([below("hi", 1.7e9), same.into(), Condition::is_empty("hi")]);
        let has_id = HasIdCondition { has_id: vec![(*id).into()] };
        Condition::from(Filter::must([Condition::from(has_id), older.into()]))
    }))
}

async fn load(client: &Arc<Qdrant>, batch: usize, writers: u64) -> Outcome<()> {
    fresh(client, "bench").await?;
    for pass in ["insert", "repeat, skipped by the condition"] {
        let batches: Vec<_> = (0..POINTS).collect::<Vec<_>>().chunks(batch).map(<[u64]>::to_vec).collect();
        let requests: Vec<_> = batches
            .iter()
            .map(|ids| {
                let points = ids.iter().map(|id| point(*id)).collect::<Vec<_>>();
                UpsertPointsBuilder::new("bench", points).update_filter(guard(ids)).wait(true).build()
            })
            .collect();
        let queue = Arc::new(std::sync::Mutex::new(requests));
        let cpu = cpu_seconds()?;
        let started = Instant::now();
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..writers {
            let (client, queue) = (Arc::clone(client), Arc::clone(&queue));
            tasks.spawn(async move {
                let mut times = Vec::new();
                loop {
                    let next = queue.lock().map_err(|_| "poisoned")?.pop();
                    let Some(request) = next else { return Outcome::Ok(times) };
                    let started = Instant::now();
                    client.upsert_points(request).await?;
                    times.push(started.elapsed());
                }
            });
        }
        let mut times = Vec::new();
        while let Some(done) = tasks.join_next().await {
            times.extend(done??);
        }
        let rate = POINTS as f64 / started.elapsed().as_secs_f64();
        let cpu = (cpu_seconds()? - cpu) / (POINTS as f64 / 1000.0);
        report(
            &format!("{pass}: batches of {batch}, {writers} writers: {rate:.0} points/s, {cpu:.3} CPU s/1000; a batch"),
            &mut times,
        );
    }
    let count = client.count(CountPointsBuilder::new("bench")).await?.result.map_or(0, |result| result.count);
    assert_eq!(count, POINTS, "point count");
    Ok(())
}

async fn single(client: &Qdrant) -> Outcome<()> {
    for phase in ["busy", "after a pause"] {
        let mut times = Vec::new();
        for id in 0..300 {
            let request = UpsertPointsBuilder::new("bench", vec![point(POINTS + id)]).wait(true);
            let request = request.update_filter(guard(&[POINTS + id]));
            let started = Instant::now();
            client.upsert_points(request).await?;
            times.push(started.elapsed());
        }
        report(&format!("one point, {phase}"), &mut times);
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
    let info = client.collection_info("bench").await?.result.ok_or("no info")?;
    println!("indexed {:?} of {:?}, {} segments", info.indexed_vectors_count, info.points_count, info.segments_count);
    Ok(())
}

async fn reads(client: &Qdrant) -> Outcome<()> {
    let mut times = Vec::new();
    for id in 0..300 {
        let started = Instant::now();
        let vector: Vec<f32> = (0..DIM).map(|i| ((id * 31 + i) % 100) as f32 - 50.0).collect();
        client.query(QueryPointsBuilder::new("bench").query(vector).limit(10).with_payload(true)).await?;
        times.push(started.elapsed());
    }
    report("query, 10 nearest with payload", &mut times);
    Ok(())
}

fn cpu_seconds() -> Outcome<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // User and system time, in ticks of a hundredth of a second.
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn resident_kib() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).ok_or("no value")?.parse()?)
}
