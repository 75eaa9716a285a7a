//! The cost of many indexes while nothing changes: memory and CPU time of `tidewheel run` with one index and with many.
//!
//! ```text
//! cargo build --release -p tidewheel -p tidewheel-bench
//! target/release/tidewheel-bench indexes --count 50
//! ```
//!
//! Each round starts `run` on empty servers, waits until every index is filled, lets it settle, and measures. The sizes
//! alternate, and the ratio is the median of the ratios per round.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use mongodb::bson::Document;
use tidewheel_core::ports::CatalogStore as _;
use tidewheel_local::stack::Stack;
use tidewheel_stores::redis::{RedisOptions, RedisStore};

use crate::load::ticket;
use crate::process::Service;
use crate::report::median;
use crate::servers::{DATABASE, Servers};
use crate::side::free_port;
use crate::turns::Turns;

/// Dimension of the vectors; they are made without a model.
const DIMENSION: usize = 384;

/// Documents of each index.
const DOCUMENTS: i32 = 10;

/// Time in which what the snapshots leave behind ends.
const SETTLE: Duration = Duration::from_secs(15);

/// Upper bound of the time to fill all indexes.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Measures memory and CPU time of idle indexes.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Indexes of the larger installation; the smaller one has one
    #[arg(long, default_value_t = 50)]
    count: usize,
    /// Seconds of one measurement
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Rounds per installation
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What an idle process used.
#[derive(Clone, Copy, Debug)]
struct Idle {
    /// CPU seconds within the measurement.
    cpu: f64,
    /// Resident memory at its end, in MB.
    memory: f64,
}

/// Measures both sizes alternately.
pub async fn run(stack: &Stack, binary: &Path, dir: &Path, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let servers = Servers::connect(stack, DIMENSION).await?;
    let sizes = [1, arguments.count];
    let mut idle: [Vec<Idle>; 2] = [Vec::new(), Vec::new()];
    for round in 0..arguments.rounds {
        for side in Turns::order(round) {
            idle[side].push(measure(&servers, binary, dir, sizes[side], arguments.seconds).await?);
        }
        if let [Some(one), Some(many)] = idle.each_ref().map(|idle| idle.last()) {
            println!(
                "round {}: {:.2} s and {:.1} MB with 1 index, {:.2} s and {:.1} MB with {}",
                round + 1,
                one.cpu,
                one.memory,
                many.cpu,
                many.memory,
                arguments.count
            );
        }
    }
    clear(&servers).await?;
    let of = |side: usize, value: fn(&Idle) -> f64| median(idle[side].iter().map(value).collect());
    let ratio = |value: fn(&Idle) -> f64| {
        let [one, many] = &idle;
        median(one.iter().zip(many).map(|(one, many)| value(many) / value(one)).collect())
    };
    println!("\n`run` idle for {} s, {} rounds, medians", arguments.seconds, arguments.rounds);
    let many = format!("{} indexes", arguments.count);
    println!("{:24}{:>12}{many:>12}{:>10}", "", "1 index", "ratio");
    let line = |label: &str, value: fn(&Idle) -> f64| {
        println!("{label:24}{:>12.2}{:>12.2}{:>10.3}", of(0, value), of(1, value), ratio(value));
    };
    line("CPU seconds", |idle| idle.cpu);
    line("resident memory, MB", |idle| idle.memory);
    Ok(())
}

/// Fills this many indexes of a new installation, and measures it while nothing changes.
async fn measure(
    servers: &Servers,
    binary: &Path,
    dir: &Path,
    count: usize,
    seconds: u64,
) -> Result<Idle, Box<dyn Error>> {
    clear(servers).await?;
    let database = servers.tickets.client().database(DATABASE);
    for number in 0..count {
        let documents = (0..DOCUMENTS).map(ticket);
        database.collection::<Document>(&format!("c{number}")).insert_many(documents).await?;
    }
    let settings = dir.join(format!("{count}-indexes.toml"));
    std::fs::write(&settings, declare(servers, count)?)?;
    let mut command = Command::new(binary);
    command.arg("--config").arg(&settings).arg("run").env_remove("RUST_LOG");
    let service = Service::start("run", command, &dir.join(format!("{count}-indexes.log")))?;
    until_filled(servers, count).await?;
    tokio::time::sleep(SETTLE).await;
    let before = service.cpu_seconds();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    Ok(Idle { cpu: service.cpu_seconds() - before, memory: service.resident_megabytes() })
}

/// Settings that declare this many indexes, each of a collection of its own.
fn declare(servers: &Servers, count: usize) -> std::io::Result<String> {
    let listen = |_| free_port().map(|port| format!("127.0.0.1:{port}"));
    let [embedder, operations, console] = [(); 3].map(listen);
    let mut settings = format!(
        "mongodb.uri = \"{}\"\nredis.url = \"{}\"\nqdrant.url = \"{}\"\nembedder.model = \"hash:{DIMENSION}\"\n\
         embedder.listen = \"{}\"\nhttp.listen = \"{}\"\nconsole.listen = \"{}\"\n",
        servers.mongodb_uri, servers.redis_url, servers.qdrant_grpc_url, embedder?, operations?, console?,
    );
    for number in 0..count {
        settings += &format!("[[index]]\nname = \"i{number}\"\nsource = \"{DATABASE}.c{number}\"\n");
    }
    Ok(settings)
}

/// Waits until the first snapshot has filled every index.
async fn until_filled(servers: &Servers, count: usize) -> Result<(), Box<dyn Error>> {
    let store = RedisStore::connect(&RedisOptions::new(&servers.redis_url)).await?;
    let begun = Instant::now();
    loop {
        let (catalog, _) = store.load().await?;
        let filled = catalog.targets().filter(|(_, generation)| generation.filled > 0 && generation.is_filled());
        let filled = filled.count();
        if filled == count {
            return Ok(());
        }
        if begun.elapsed() > TIMEOUT {
            return Err(format!("only {filled} of {count} indexes are filled").into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Deletes all data, with the collections of every index.
async fn clear(servers: &Servers) -> Result<(), Box<dyn Error>> {
    servers.clear().await?;
    servers.tickets.client().database(DATABASE).drop().await?;
    for collection in servers.qdrant.list_collections().await?.collections {
        servers.qdrant.delete_collection(collection.name).await?;
    }
    Ok(())
}
