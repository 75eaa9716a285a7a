//! What it costs to be watched: the same pipeline, seen by everybody who may look, beside one that measures nothing.
//!
//! ```text
//! cargo build --release -p tidewheel -p tidewheel-bench --features tidewheel/unmeasured
//! cp target/release/tidewheel target/release/tidewheel-unmeasured
//! cargo build --release -p tidewheel -p tidewheel-bench
//! target/release/tidewheel-bench observability
//! ```
//!
//! The watched side has an operations port on every service and on the embedder, all of them scraped every few seconds, a console
//! with a browser's connection open, which makes it look every second, and a monitor. All of that counts as its CPU time. The
//! unwatched side is built without recorder and reporter and has none of the rest.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tidewheel_local::stack::Stack;
use tokio::task::JoinSet;

use crate::load::Servers;
use crate::side::{Model, SERVICES, Side, free_port, tidewheel_as};
use crate::turns::Turns;
use crate::{Load, measure};

/// How long a browser or a scraper waits before it tries again.
const AGAIN: Duration = Duration::from_millis(500);

/// Measures what metrics, reports, the console and the monitor cost.
#[derive(Debug, Args)]
pub struct Arguments {
    /// A tidewheel binary built with the feature `unmeasured` [default: `tidewheel-unmeasured` beside the other]
    #[arg(long, value_name = "PATH")]
    unmeasured: Option<PathBuf>,
    /// Documents of a round; above 20,000 Qdrant builds its graph meanwhile, now in one side's round, now in the other's
    #[arg(long, default_value_t = 20_000)]
    documents: usize,
    /// Numbers in a vector
    #[arg(long, default_value_t = 384)]
    dimension: usize,
    /// Seconds between two scrapes of each port
    #[arg(long, default_value_t = 5.0)]
    scrape: f64,
    /// Rounds of each side
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

/// Measures both sides in turn.
pub async fn run(stack: &Stack, binary: &Path, dir: &Path, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let servers = Servers::connect(stack, arguments.dimension).await?;
    let model = Model::None(arguments.dimension);
    let (watched, addresses) = watched(binary, dir, &servers, &model)?;
    let unmeasured = arguments.unmeasured.clone().unwrap_or_else(|| binary.with_file_name("tidewheel-unmeasured"));
    if !unmeasured.is_file() {
        return Err(format!(
            "there is no {}; build it with: cargo build --release -p tidewheel -p tidewheel-bench --features \
             tidewheel/unmeasured, and copy target/release/tidewheel there",
            unmeasured.display()
        )
        .into());
    }
    let unwatched = tidewheel_as("unwatched", &unmeasured, dir, &servers, &model, &[])?;
    let load = Load { documents: arguments.documents, latency_documents: 100, rate: 50 };
    let mut turns = Turns::new([watched.name, unwatched.name]);
    for round in 0..arguments.rounds {
        for side in Turns::order(round) {
            if side == 0 {
                let watchers = addresses.watch(&client, arguments.scrape);
                turns.record(side, measure(&watched, &servers, stack, &load, dir).await?);
                if !watchers.saw_everything() {
                    return Err("a service or the console could not be watched".into());
                }
            } else {
                turns.record(side, measure(&unwatched, &servers, stack, &load, dir).await?);
            }
        }
        turns.report_round();
    }
    println!(
        "\n{} documents, {} dimensions, no model, {} rounds, scraped every {} s",
        arguments.documents, arguments.dimension, arguments.rounds, arguments.scrape
    );
    turns.report();
    Ok(())
}

/// Where the watched side can be watched.
struct Addresses {
    metrics: Vec<String>,
    events: String,
}

/// The side that is watched, and where.
fn watched(binary: &Path, dir: &Path, servers: &Servers, model: &Model) -> Result<(Side, Addresses), Box<dyn Error>> {
    let mut metrics = Vec::new();
    let mut commands = Vec::new();
    for service in SERVICES {
        let address = format!("127.0.0.1:{}", free_port()?);
        commands.push((service, vec!["--set".to_owned(), format!("http.listen={address}"), service.to_owned()]));
        metrics.push(format!("http://{address}/metrics"));
    }
    let console = format!("127.0.0.1:{}", free_port()?);
    let listen = format!("console.listen={console}");
    commands.push(("console", ["--set".to_owned(), listen, "console".to_owned()].into()));
    commands.push(("monitor", vec!["monitor".to_owned()]));
    let side = tidewheel_as("watched", binary, dir, servers, model, &commands)?;
    Ok((side, Addresses { metrics, events: format!("http://{console}/api/events") }))
}

/// Reads until it is dropped.
struct Watchers {
    _tasks: JoinSet<()>,
    /// Bytes that were read from each address.
    read: Vec<Arc<AtomicU64>>,
}

impl Addresses {
    /// Scrapes, and reads the console's events as a browser does.
    fn watch(&self, client: &reqwest::Client, scrape: f64) -> Watchers {
        let (mut tasks, mut counts) = (JoinSet::new(), Vec::new());
        for address in self.metrics.iter().chain([&self.events]) {
            let (client, address, bytes) = (client.clone(), address.clone(), Arc::new(AtomicU64::new(0)));
            counts.push(bytes.clone());
            tasks.spawn(async move {
                loop {
                    // The events end only when the console does; what cannot be read yet is tried again soon.
                    let wait = match read(&client, &address, &bytes).await {
                        Ok(()) => Duration::from_secs_f64(scrape),
                        Err(_) => AGAIN,
                    };
                    tokio::time::sleep(wait).await;
                }
            });
        }
        Watchers { _tasks: tasks, read: counts }
    }
}

impl Watchers {
    /// Whether everything that can be watched was.
    fn saw_everything(&self) -> bool {
        self.read.iter().all(|bytes| bytes.load(Ordering::Relaxed) > 0)
    }
}

/// Reads an answer to its end.
async fn read(client: &reqwest::Client, address: &str, bytes: &AtomicU64) -> Result<(), reqwest::Error> {
    let mut answer = client.get(address).send().await?.error_for_status()?;
    while let Some(chunk) = answer.chunk().await? {
        bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}
