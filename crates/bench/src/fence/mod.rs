//! The cost of the version fence: the upserter against one that relies on changes arriving in order.
//!
//! ```text
//! target/release/tidewheel-bench fence
//! ```
//!
//! Both sides are the same upserter in this process, with the same Redis and Qdrant. One has the real index and
//! tombstones. The other upserts without a condition, deletes without a version, does not read back after a write, and
//! keeps no tombstones. Each round gives each side an empty Redis and an empty collection; the sides alternate in going
//! first. Time is measured from the start of the upserter until stage 2 is drained; in the last run, with all services,
//! from the first insert until all documents are searchable. Medians are printed; the ratio is the median of the ratios
//! per round, because other load on the machine changes from round to round. CPU time is that of this process, Redis
//! and Qdrant together.

mod records;
mod unfenced;

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use tidewheel_core::catalog::{Declaration, EmbeddingSpec, IndexName, Provider, Selector};
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{Handover, Index, Retention, StageInspector as _, Tombstones};
use tidewheel_core::stage::Stage;
use tidewheel_local::stack::{Server, Stack};
use tidewheel_pipeline::consumer::ConsumerOptions;
use tidewheel_pipeline::targets::{LocalTarget, TargetPorts, Targets};
use tidewheel_pipeline::upserter::{Upserter, UpserterOptions};
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
use tidewheel_stores::redis::{RedisOptions, RedisStore};
use tokio_util::sync::CancellationToken;

use crate::load::{throughput, warm_up};
use crate::process;
use crate::report::median;
use crate::servers::{INDEX, Servers};
use crate::side::Side;
use unfenced::{NoTombstones, Unfenced};

/// Records per append to stage 2.
const APPEND: usize = 500;

/// Minimum ratio of fenced to unfenced throughput.
const TARGET: f64 = 0.80;

/// Upper bound of a run; longer means that it hangs.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Measures the upserter with and without the version fence.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Records per run
    #[arg(long, default_value_t = 20_000)]
    records: usize,
    /// Vector dimension
    #[arg(long, default_value_t = 384)]
    pub dimension: usize,
    /// Rounds per side
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Records per batch, as `upserter.batch`
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// Concurrent batches, as `upserter.concurrency`
    #[arg(long, default_value_t = 4)]
    concurrency: usize,
}

/// The two sides, in column order.
const SIDES: [&str; 2] = ["fenced", "unfenced"];

/// The runs, in line order: two of the upserter alone, and one of the whole pipeline.
const RUNS: [&str; 3] = ["inserts", "5 inserts : 3 updates : 2 deletes", "the whole pipeline"];

/// Measures both sides and prints the results. `pipeline` is tidewheel with all its services.
pub async fn run(
    stack: &Stack,
    servers: &Servers,
    pipeline: &Side,
    dir: &Path,
    arguments: &Arguments,
) -> Result<(), Box<dyn Error>> {
    let Arguments { records: count, dimension, rounds, batch, concurrency } = *arguments;
    let runs =
        [(records::inserts(count, dimension)?, count), (records::mixed(count, dimension)?, records::left(count))];
    let store = RedisStore::connect(&RedisOptions::new(&servers.redis_url)).await?;
    let real = QdrantIndex::connect(QdrantOptions::new(&servers.qdrant_grpc_url, INDEX))?;
    let unfenced = Unfenced::connect(real.clone(), servers.qdrant_grpc_url.clone(), INDEX).await?;
    let sides: [(Arc<dyn Index>, Arc<dyn Tombstones>); 2] =
        [(Arc::new(real), Arc::new(store.clone())), (Arc::new(unfenced), Arc::new(NoTombstones))];

    let pids: Vec<u32> = [stack.redis.pid(), stack.qdrant.as_ref().and_then(Server::pid), Some(std::process::id())]
        .into_iter()
        .flatten()
        .collect();
    let cpu_seconds = || pids.iter().map(|pid| process::cpu_seconds(*pid)).sum::<f64>();

    // measured[run][side][round]
    let mut measured = [const { [const { Vec::<Measured>::new() }; 2] }; 3];
    for round in 0..rounds {
        for side in [round % 2, (round + 1) % 2] {
            let (index, tombstones) = &sides[side];
            servers.clear().await?;
            index.prepare(dimension).await?;
            for (run, (records, left)) in runs.iter().enumerate() {
                fill(&store, records).await?;
                let upserter = upserter(&store, index.clone(), tombstones.clone(), arguments);
                let before = cpu_seconds();
                let seconds = drain(upserter, &store).await?;
                let cpu = cpu_seconds() - before;
                let found = index.count().await?.unwrap_or(0);
                if found != *left as u64 {
                    return Err(format!("{}: expected {left} documents in Qdrant, found {found}", SIDES[side]).into());
                }
                let measure = Measured { rate: count as f64 / seconds, cpu: cpu * 1e6 / count as f64 };
                println!("round {}, {}: {:.0} documents/s {}", round + 1, RUNS[run], measure.rate, SIDES[side]);
                measured[run][side].push(measure);
            }
            servers.clear().await?;
            index.prepare(dimension).await?;
            let upserter = upserter(&store, index.clone(), tombstones.clone(), arguments);
            let before = cpu_seconds();
            let rate = whole(servers, pipeline, dir, upserter, count).await?;
            let cpu = cpu_seconds() - before;
            println!("round {}, {}: {rate:.0} documents/s {}", round + 1, RUNS[2], SIDES[side]);
            measured[2][side].push(Measured { rate, cpu: cpu * 1e6 / count as f64 });
        }
    }

    println!("\n{count} records, {dimension} dimensions, batch {batch}, concurrency {concurrency}, {rounds} rounds");
    println!("{:52}{:>12}{:>12}{:>10}", "", SIDES[0], SIDES[1], "ratio");
    for (name, sides) in RUNS.iter().zip(&measured) {
        line(&format!("{name}, documents/s"), sides, 0, |measured| measured.rate);
        line(&format!("{name}, CPU ms per 1,000"), sides, 1, |measured| measured.cpu);
    }
    println!("target ratio of documents/s: {TARGET:.2} or more");
    Ok(())
}

/// Result of one run of one side.
struct Measured {
    /// Documents per second.
    rate: f64,
    /// CPU milliseconds per 1,000 documents.
    cpu: f64,
}

fn line(label: &str, sides: &[Vec<Measured>; 2], digits: usize, value: impl Fn(&Measured) -> f64) {
    let [fenced, unfenced] = sides.each_ref().map(|rounds| rounds.iter().map(&value).collect::<Vec<f64>>());
    let ratios = fenced.iter().zip(&unfenced).map(|(fenced, unfenced)| fenced / unfenced).collect();
    let (fenced, unfenced, ratio) = (median(fenced), median(unfenced), median(ratios));
    println!("{label:52}{fenced:>12.digits$}{unfenced:>12.digits$}{ratio:>10.3}");
}

async fn fill(store: &RedisStore, records: &[Embedded]) -> Result<(), Box<dyn Error>> {
    for records in records.chunks(APPEND) {
        store.hand_over(records, &[]).await?;
    }
    Ok(())
}

fn upserter(
    store: &RedisStore,
    index: Arc<dyn Index>,
    tombstones: Arc<dyn Tombstones>,
    arguments: &Arguments,
) -> Upserter {
    let consumer = ConsumerOptions {
        batch: arguments.batch,
        concurrency: arguments.concurrency,
        claim_after: Duration::from_secs(15),
        retention: Retention { age: Duration::from_secs(3_600), entries: 10_000, bytes: u64::MAX },
    };
    let model = EmbeddingSpec::new("default", Provider::own(), "");
    let declaration = Declaration::new(IndexName::of_collection(INDEX), Selector::default(), model);
    let ports = TargetPorts { registry: Some(Arc::new(store.clone())), ..TargetPorts::new(index, tombstones) };
    let targets = Targets::fixed(&LocalTarget { declaration: Arc::new(declaration), ports });
    let queue = Arc::new(store.queue(Stage::Embedded, "bench"));
    Upserter::new(UpserterOptions { consumer }, queue, Arc::new(targets))
}

/// Returns documents per second from MongoDB to Qdrant, with this upserter and the other services as processes.
async fn whole(
    servers: &Servers,
    pipeline: &Side,
    dir: &Path,
    upserter: Upserter,
    documents: usize,
) -> Result<f64, Box<dyn Error>> {
    let services = pipeline.start(dir, |name| name != "upserter")?;
    let shutdown = CancellationToken::new();
    let mut service = tokio::spawn(upserter.run(shutdown.clone()));
    let measure = async {
        warm_up(servers, pipeline).await?;
        throughput(servers, documents).await
    };
    let seconds = tokio::select! {
        seconds = measure => seconds?,
        ended = &mut service => {
            ended??;
            return Err("the upserter stopped unexpectedly".into());
        }
    };
    shutdown.cancel();
    service.await??;
    drop(services);
    Ok(documents as f64 / seconds)
}

/// Runs the upserter until stage 2 is drained; returns the duration in seconds.
async fn drain(upserter: Upserter, store: &RedisStore) -> Result<f64, Box<dyn Error>> {
    let shutdown = CancellationToken::new();
    let begun = Instant::now();
    let mut service = tokio::spawn(upserter.run(shutdown.clone()));
    loop {
        let status = store.status(Stage::Embedded).await?;
        if status.lag == Some(0) && status.pending == 0 {
            break;
        }
        if service.is_finished() {
            (&mut service).await??;
            return Err("the upserter stopped unexpectedly".into());
        }
        if begun.elapsed() > TIMEOUT {
            return Err(format!("stage 2 does not drain: {status:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    shutdown.cancel();
    service.await??;
    Ok(seconds)
}
