//! The chaos soak as a command: seeded random writes and faults, then a comparison of index and source. See
//! `tidewheel_testkit::soak`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Parser, ValueEnum};
use tempfile::TempDir;
use tidewheel_engine::hash::HashEngine;
use tidewheel_engine::{Engine as _, Text};
use tidewheel_testkit::soak::{self, SoakOptions, SoakReport};

/// Runs the whole pipeline under random writes and faults, ends all faults, and compares index and source.
#[derive(Debug, Parser)]
#[command(
    name = "tidewheel-soak",
    max_term_width = 110,
    after_help = "\
Examples:
  tidewheel-soak                                     a random seed, ten minutes
  tidewheel-soak --seed 7 --duration 1m              seed 7 for one minute
  tidewheel-soak --seeds 1..5 --duration 3m          five seeds, one after another
  tidewheel-soak --indexes                           with declared indexes, and changes of them
  tidewheel-soak --output json | jq '.[].converged'

Exit codes: 0 every seed converged, 1 a seed did not converge, 2 the soak failed to run.
When a seed fails, its logs are kept and their ends are printed. The same seed produces the same
sequence of writes and faults; their timing relative to the processes depends on the machine, so
that a rare failure may take several runs to reproduce."
)]
struct Arguments {
    /// Seed of writes and faults; repeatable [default: a random one]
    #[arg(long = "seed", value_name = "N")]
    seed: Vec<u64>,
    /// A range of seeds, inclusive
    #[arg(long, value_name = "FIRST..LAST", value_parser = range)]
    seeds: Option<(u64, u64)>,
    /// Duration of writes and faults per seed, as 90s, 10m or 2h
    #[arg(long, default_value = "10m", value_parser = duration)]
    duration: Duration,
    /// Faults started per minute
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    faults_per_minute: u32,
    /// Writes started per second
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    operations_per_second: u32,
    /// Time for the pipeline to converge after all faults have ended [default: 2m, with --indexes 6m]
    #[arg(long, value_parser = duration)]
    patience: Option<Duration>,
    /// Declare three indexes over two databases instead of a single one, and change, roll back, drop and create them
    /// meanwhile
    #[arg(long)]
    indexes: bool,
    /// The tidewheel binary [default: in the directory of this binary]
    #[arg(long, value_name = "PATH")]
    tidewheel: Option<PathBuf>,
    /// Keep the logs, settings and server data of every seed
    #[arg(long)]
    keep: bool,
    /// Output format of the reports
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table per seed
    Text,
    /// A list with one object per seed
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Dropping the run kills every process that it started.
    let outcome = tokio::select! {
        outcome = run(&arguments) => outcome,
        _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("failed to run the soak: {error}");
            ExitCode::from(2)
        }
    }
}

async fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let binary = match arguments.tidewheel.clone() {
        Some(binary) => std::path::absolute(binary)?,
        None => std::env::current_exe()?.with_file_name("tidewheel"),
    };
    if !binary.is_file() {
        return Err(format!("missing {}; build it with: cargo build --release -p tidewheel", binary.display()).into());
    }
    let mut reports = Vec::new();
    for seed in seeds(arguments) {
        let report = one(arguments, &binary, seed).await?;
        if arguments.output == Output::Text {
            println!("{report}");
        }
        reports.push(report);
    }
    if arguments.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&reports)?);
    }
    Ok(reports.iter().all(|report| report.converged))
}

/// Runs one seed in a separate directory.
async fn one(arguments: &Arguments, binary: &Path, seed: u64) -> Result<SoakReport, Box<dyn std::error::Error>> {
    let folder = TempDir::with_prefix(format!("tidewheel-soak-{seed}-"))?;
    let defaults = SoakOptions::new(seed, binary, folder.path());
    let patience = if arguments.indexes { SoakOptions::PATIENCE_WITH_INDEXES } else { defaults.patience };
    let options = SoakOptions {
        duration: arguments.duration,
        faults_per_minute: arguments.faults_per_minute,
        operations_per_second: arguments.operations_per_second,
        patience: arguments.patience.unwrap_or(patience),
        indexes: arguments.indexes,
        embed: Some(Arc::new(|dimension, text| {
            let engine = HashEngine::new(dimension);
            let mut vector = vec![0.0; dimension];
            engine.embed_one(Text::plain(&engine.tokenize(text).ids), &mut vector);
            vector
        })),
        progress: Arc::new(|line| eprintln!("{line}")),
        ..defaults
    };
    let report = match soak::run(options).await {
        Ok(report) => report,
        Err(error) => {
            eprintln!("seed {seed}: the logs are kept in {}", folder.keep().display());
            return Err(error.into());
        }
    };
    if arguments.keep {
        eprintln!("seed {seed}: logs, settings and data are kept in {}", folder.keep().display());
    } else if !report.converged {
        let folder = folder.keep();
        // The servers have exited; their data is large and rarely useful.
        let _ = std::fs::remove_dir_all(folder.join("data/mongodb"));
        eprintln!("seed {seed}: the logs are kept in {0}/logs and {0}/data/logs", folder.display());
    }
    Ok(report)
}

fn seeds(arguments: &Arguments) -> Vec<u64> {
    let mut seeds = arguments.seed.clone();
    if let Some((first, last)) = arguments.seeds {
        seeds.extend(first..=last);
    }
    if seeds.is_empty() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // Short enough to retype.
        seeds.push(u64::from(now.subsec_nanos()) ^ (now.as_secs() & 0xffff));
    }
    seeds
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (first, last) = text.split_once("..").ok_or("expected a range such as 1..5")?;
    let number = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    let (first, last) = (number(first)?, number(last.trim_start_matches('='))?);
    if first > last { Err("the first seed is greater than the last".into()) } else { Ok((first, last)) }
}

fn duration(text: &str) -> Result<Duration, String> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("expected the unit s, m or h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "expected a whole number and a unit")?;
    Ok(Duration::from_secs(number * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_ranges_are_parsed() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert!(duration("10").is_err() && duration("m").is_err());
        assert_eq!(range("1..5"), Ok((1, 5)));
        assert!(range("5..1").is_err() && range("5").is_err());
    }
}
