//! The cost of observability: the pipeline with all monitoring, against one without metrics.
//!
//! ```text
//! cargo build --release -p tidewheel -p tidewheel-bench
//! target/release/tidewheel-bench observability
//! ```
//!
//! The monitored side has an operations port on every service, scraped every few seconds, a console with an open event
//! stream, which polls every second, and a monitor. All of that counts towards its CPU time. The unmonitored side,
//! `tidewheel-unmeasured`, has none of these, and neither recorder nor reporter.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use tidewheel_local::stack::Stack;
use tokio::task::JoinSet;

use crate::servers::Servers;
use crate::side::{Model, SERVICES, Side, free_port, tidewheel_as};
use crate::turns::Turns;
use crate::{Load, measure};

/// Pause before a scraper or the event stream retries.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Measures the cost of metrics, reports, the console and the monitor.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The tidewheel binary without measurements [default: `tidewheel-unmeasured` in the directory of the other one]
    #[arg(long, value_name = "PATH")]
    unmeasured: Option<PathBuf>,
    /// Documents per round; above 20,000 Qdrant builds its HNSW graph during some rounds
    #[arg(long, default_value_t = 20_000)]
    documents: usize,
    /// Vector dimension
    #[arg(long, default_value_t = 384)]
    dimension: usize,
    /// Seconds between two scrapes of each port
    #[arg(long, default_value_t = 5.0)]
    scrape: f64,
    /// Rounds per side
    #[arg(long, default_value_t = 15)]
    rounds: usize,
}

/// Measures both sides alternately.
pub async fn run(stack: &Stack, binary: &Path, dir: &Path, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    // Fails only if a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let servers = Servers::connect(stack, arguments.dimension).await?;
    let model = Model::None(arguments.dimension);
    let (monitored, endpoints) = monitored(binary, dir, &servers, &model)?;
    let unmeasured = arguments.unmeasured.clone().unwrap_or_else(|| binary.with_file_name("tidewheel-unmeasured"));
    if !unmeasured.is_file() {
        return Err(format!(
            "missing {}; build it with: cargo build --release -p tidewheel-bench",
            unmeasured.display()
        )
        .into());
    }
    let unmonitored = tidewheel_as("unmonitored", &unmeasured, dir, &servers, &model, &[])?;
    let load = Load { documents: arguments.documents, latency_documents: 100, rate: 50 };
    let mut turns = Turns::new([monitored.name, unmonitored.name]);
    for round in 0..arguments.rounds {
        for side in Turns::order(round) {
            if side == 0 {
                let scrapers = endpoints.scrape(&client, arguments.scrape);
                turns.record(side, measure(&monitored, &servers, stack, &load, dir).await?);
                if !scrapers.reached_all() {
                    return Err("failed to scrape a service or the console".into());
                }
            } else {
                turns.record(side, measure(&unmonitored, &servers, stack, &load, dir).await?);
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

/// The endpoints of the monitored side.
struct Endpoints {
    metrics: Vec<String>,
    events: String,
}

/// Creates the monitored side and its endpoints.
fn monitored(binary: &Path, dir: &Path, servers: &Servers, model: &Model) -> Result<(Side, Endpoints), Box<dyn Error>> {
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
    let side = tidewheel_as("monitored", binary, dir, servers, model, &commands)?;
    Ok((side, Endpoints { metrics, events: format!("http://{console}/api/events") }))
}

/// Scrapes until dropped.
struct Scrapers {
    _tasks: JoinSet<()>,
    /// Bytes read from each endpoint.
    read: Vec<Arc<AtomicU64>>,
}

impl Endpoints {
    /// Scrapes metrics, and reads the console's event stream as a browser does.
    fn scrape(&self, client: &reqwest::Client, interval: f64) -> Scrapers {
        let (mut tasks, mut counts) = (JoinSet::new(), Vec::new());
        for address in self.metrics.iter().chain([&self.events]) {
            let (client, address, bytes) = (client.clone(), address.clone(), Arc::new(AtomicU64::new(0)));
            counts.push(bytes.clone());
            tasks.spawn(async move {
                loop {
                    // The event stream ends only with the console; failures are retried soon.
                    let wait = match read(&client, &address, &bytes).await {
                        Ok(()) => Duration::from_secs_f64(interval),
                        Err(_) => RETRY_INTERVAL,
                    };
                    tokio::time::sleep(wait).await;
                }
            });
        }
        Scrapers { _tasks: tasks, read: counts }
    }
}

impl Scrapers {
    /// Whether every endpoint returned data.
    fn reached_all(&self) -> bool {
        self.read.iter().all(|bytes| bytes.load(Ordering::Relaxed) > 0)
    }
}

/// Reads a response to its end.
async fn read(client: &reqwest::Client, address: &str, bytes: &AtomicU64) -> Result<(), reqwest::Error> {
    let mut answer = client.get(address).send().await?.error_for_status()?;
    while let Some(chunk) = answer.chunk().await? {
        bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    }
    Ok(())
}
