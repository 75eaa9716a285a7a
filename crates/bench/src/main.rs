//! Benchmarks tidewheel against a baseline pipeline, on the same servers in one run.
//!
//! ```text
//! cargo build --release -p tidewheel -p tidewheel-bench
//! target/release/tidewheel-bench --baseline DIR
//! ```
//!
//! The baseline is a folder with `embedding_service.py`, `mongo_producer.py`, `embedding_processor.py` and
//! `qdrant_consumer.py`, which read URLs from the environment. Without `--model` both sides embed without a model, in
//! 384 dimensions, so that the run measures the pipelines and not the model; with `--model` both use that model. Each
//! side starts with an empty Redis and an empty collection; the sides' rounds alternate, and the median round is
//! reported.
//!
//! `tidewheel-bench fence` measures the cost of the version fence, `tidewheel-bench verify` the duration of an audit,
//! `tidewheel-bench observability` the cost of metrics, console and monitor, `tidewheel-bench indexes` that of many idle
//! indexes, and `tidewheel-bench release` compares two builds of tidewheel.
#![allow(clippy::print_stdout, reason = "a command-line tool")]

mod fence;
mod indexes;
mod load;
mod observability;
mod process;
mod release;
mod report;
mod servers;
mod side;
mod turns;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidewheel_local::provision::Provisioner;
use tidewheel_local::silent;
use tidewheel_local::stack::{Stack, StackOptions};

use report::Run;
use servers::Servers;
use side::{Model, Side, baseline, tidewheel};

/// Measures tidewheel against a baseline pipeline.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(flatten)]
    pipeline: Arguments,
    #[command(subcommand)]
    part: Option<Part>,
    /// The tidewheel binary [default: in the directory of this binary]
    #[arg(long, value_name = "PATH", global = true)]
    tidewheel: Option<PathBuf>,
}

/// Benchmarks of single parts.
#[derive(Debug, Subcommand)]
enum Part {
    Fence(fence::Arguments),
    Verify(verify::Arguments),
    Observability(observability::Arguments),
    Indexes(indexes::Arguments),
    Release(release::Arguments),
}

/// Arguments of the whole pipeline against a baseline.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// Folder with the baseline's scripts; without it only tidewheel is measured
    #[arg(long, value_name = "DIR")]
    baseline: Option<PathBuf>,
    /// Directory of a sentence-transformers model for both sides; requires that library in the baseline's Python
    /// [default: vectors without a model]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A Python with the baseline's packages [default: one created in the cache directory]
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,
    /// Documents of the throughput run [default: 20000, or 1000 with a model]
    #[arg(long)]
    documents: Option<usize>,
    /// Vector dimension; must be the model's
    #[arg(long, default_value_t = 384)]
    dimension: usize,
    /// Documents per second in the latency run
    #[arg(long, default_value_t = 20)]
    rate: usize,
    /// Documents of the latency run
    #[arg(long, default_value_t = 400)]
    latency_documents: usize,
    /// Rounds per side
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

impl Arguments {
    fn documents(&self) -> usize {
        // About a hundred vectors per second with a model, thousands without.
        self.documents.unwrap_or(if self.model.is_some() { 1_000 } else { 20_000 })
    }

    fn load(&self) -> Load {
        Load { documents: self.documents(), latency_documents: self.latency_documents, rate: self.rate }
    }

    fn title(&self) -> String {
        let model = self.model.as_ref().map_or("no model".to_owned(), |model| model.display().to_string());
        format!(
            "\n{} documents, {} dimensions, {model}; latency of {} documents at {}/s",
            self.documents(),
            self.dimension,
            self.latency_documents,
            self.rate
        )
    }

    fn model(&self) -> Model {
        self.model.clone().map_or(Model::None(self.dimension), Model::Directory)
    }
}

/// The writes of a round.
struct Load {
    /// Documents of the throughput run.
    documents: usize,
    /// Documents of the latency run.
    latency_documents: usize,
    /// Documents per second of the latency run.
    rate: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(CommandLine::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("failed to run the benchmark: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(line: CommandLine) -> Result<(), Box<dyn std::error::Error>> {
    let binary = match line.tidewheel {
        Some(binary) => binary,
        None => std::env::current_exe()?.with_file_name("tidewheel"),
    };
    if !binary.is_file() {
        return Err(format!("missing {}; build it with: cargo build --release -p tidewheel", binary.display()).into());
    }
    let dir = tempfile::tempdir()?;
    let options = StackOptions::new(dir.path().join("data")).with_free_ports();
    let stack = Stack::start(options, &Provisioner::new(silent())?, silent()).await?;
    match &line.part {
        Some(Part::Fence(arguments)) => {
            let servers = Servers::connect(&stack, arguments.dimension).await?;
            let pipeline = tidewheel(&binary, dir.path(), &servers, &Model::None(arguments.dimension))?;
            fence::run(&stack, &servers, &pipeline, dir.path(), arguments).await?;
        }
        Some(Part::Verify(arguments)) => {
            let servers = Servers::connect(&stack, arguments.dimension).await?;
            let pipeline = tidewheel(&binary, dir.path(), &servers, &Model::None(arguments.dimension))?;
            verify::run(&servers, &pipeline, dir.path(), arguments).await?;
        }
        Some(Part::Observability(arguments)) => {
            observability::run(&stack, &binary, dir.path(), arguments).await?;
        }
        Some(Part::Indexes(arguments)) => indexes::run(&stack, &binary, dir.path(), arguments).await?,
        Some(Part::Release(arguments)) => release::run(&stack, &binary, dir.path(), arguments).await?,
        None => compare(&line.pipeline, &binary, &stack, dir.path()).await?,
    }
    stack.stop().await;
    Ok(())
}

/// Measures the whole pipeline against the baseline, if there is one.
async fn compare(
    arguments: &Arguments,
    binary: &Path,
    stack: &Stack,
    dir: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let servers = Servers::connect(stack, arguments.dimension).await?;
    let mut sides: Vec<Side> = vec![tidewheel(binary, dir, &servers, &arguments.model())?];
    if let Some(folder) = &arguments.baseline {
        let python = match arguments.python.clone() {
            Some(python) => python,
            None => side::python()?,
        };
        sides.push(baseline(&python, folder, &servers, &arguments.model()));
    }
    if let Some(model) = arguments.model.as_ref().filter(|model| !model.join("config.json").is_file()) {
        return Err(format!("invalid model {}: missing config.json", model.display()).into());
    }
    let mut runs: Vec<Vec<Run>> = sides.iter().map(|_| Vec::new()).collect();
    for round in 1..=arguments.rounds {
        for (side, runs) in sides.iter().zip(&mut runs) {
            println!("round {round}: {}", side.name);
            runs.push(measure(side, &servers, stack, &arguments.load(), dir).await?);
        }
    }
    let bare = load::bare(&servers, arguments.documents()).await?;
    let medians: Vec<(&str, Run)> =
        sides.iter().map(|side| side.name).zip(runs.into_iter().map(report::middle)).collect();
    println!("{}", arguments.title());
    report::print(&medians);
    println!("bare loader into the same Qdrant: {bare:.0} points/s");
    Ok(())
}

/// Runs one round of one side: start, latency, throughput, stop.
async fn measure(
    side: &Side,
    servers: &Servers,
    stack: &Stack,
    load: &Load,
    dir: &Path,
) -> Result<Run, Box<dyn std::error::Error>> {
    servers.clear().await?;
    let services = side.start(dir, |_| true)?;
    load::warm_up(servers, side).await?;
    let latency = load::latency(servers, side, load.latency_documents, load.rate).await?;
    let before: Vec<f64> = services.iter().map(process::Service::cpu_seconds).collect();
    let server_pids = [("mongod", stack.mongod.pid()), ("redis-server", stack.redis.pid())]
        .into_iter()
        .chain(stack.qdrant.iter().map(|qdrant| ("qdrant", qdrant.pid())))
        .filter_map(|(name, pid)| Some((name, pid?)))
        .collect::<Vec<_>>();
    let servers_before: Vec<f64> = server_pids.iter().map(|(_, pid)| process::cpu_seconds(*pid)).collect();
    let seconds = load::throughput(servers, load.documents).await?;
    let per_thousand = 1_000.0 / load.documents as f64;
    let cpu = services
        .iter()
        .zip(before)
        .map(|(service, before)| (service.name.to_owned(), (service.cpu_seconds() - before) * per_thousand));
    let server_cpu = server_pids
        .iter()
        .zip(servers_before)
        .map(|((name, pid), before)| ((*name).to_owned(), (process::cpu_seconds(*pid) - before) * per_thousand));
    Ok(Run {
        documents_per_second: load.documents as f64 / seconds,
        cpu: cpu.collect(),
        server_cpu: server_cpu.collect(),
        memory: services.iter().map(|service| (service.name.to_owned(), service.peak_megabytes())).collect(),
        latency,
    })
}
