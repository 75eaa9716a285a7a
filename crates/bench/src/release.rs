//! The pipeline of this build against that of another build of tidewheel, on the same servers.
//!
//! ```text
//! cargo build --release -p tidewheel -p tidewheel-bench
//! target/release/tidewheel-bench release --before PATH
//! ```

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use tidewheel_local::stack::Stack;

use crate::servers::Servers;
use crate::side::{Model, tidewheel_as};
use crate::turns::Turns;
use crate::{Load, measure};

/// Compares this build with another build of tidewheel.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The other tidewheel binary
    #[arg(long, value_name = "PATH")]
    before: PathBuf,
    /// Documents per round; above 20,000 Qdrant builds its HNSW graph during some rounds
    #[arg(long, default_value_t = 20_000)]
    documents: usize,
    /// Vector dimension
    #[arg(long, default_value_t = 384)]
    dimension: usize,
    /// Rounds per side
    #[arg(long, default_value_t = 9)]
    rounds: usize,
}

/// Measures both builds in alternating rounds.
pub async fn run(stack: &Stack, binary: &Path, dir: &Path, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let servers = Servers::connect(stack, arguments.dimension).await?;
    let model = Model::None(arguments.dimension);
    let sides = [
        tidewheel_as("now", binary, dir, &servers, &model, &[])?,
        tidewheel_as("before", &arguments.before, dir, &servers, &model, &[])?,
    ];
    let load = Load { documents: arguments.documents, latency_documents: 200, rate: 50 };
    let mut turns = Turns::new(["now", "before"]);
    for round in 0..arguments.rounds {
        for side in Turns::order(round) {
            turns.record(side, measure(&sides[side], &servers, stack, &load, dir).await?);
        }
        turns.report_round();
    }
    println!(
        "\n{} documents, {} dimensions, no model, {} rounds per build",
        arguments.documents, arguments.dimension, arguments.rounds
    );
    turns.report();
    Ok(())
}
