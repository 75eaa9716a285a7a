//! Chaos soak: the whole pipeline under random writes and faults, with a verdict at the end.
//!
//! Guarantees behind a verdict:
//!
//! - **Real parts.** mongod, redis-server and Qdrant's engine from the local stack, and the real binary as processes: two
//!   producers, three processors, three upserters and an embedder. The services reach the servers through fault proxies;
//!   the writer and the oracle reach them directly.
//! - **From a seed.** The seed alone determines the sequence of writes and of faults: kind, target, duration. Their
//!   number within the run and their timing relative to the processes depend on the machine; a fault on a target with
//!   an active fault is skipped.
//! - **Only real events count.** A write counts if MongoDB acknowledged it and it changed something; a fault if the
//!   process was observed dead or stopped, or if the proxy has broken, held, delayed or swallowed traffic.
//! - **The verdict is the oracle's.** After all faults are healed, index and source are read completely, every document
//!   and every point, until they are equal and both streams are drained, or the timeout expires. Services that exited
//!   on their own or did not stop on SIGTERM are failures too.
//! - **Declared indexes, on request.** Three indexes over two databases, of which one has a filter, replace the single one.
//!   Their declarations change meanwhile, by commands that are killed too, and each index has an oracle: see `indexes`.
//! - **Every dead letter is explained.** Some documents are deep, huge or strange, or have an `_id` of invalid UTF-8, and
//!   have to be indexed. Some are poison: nested deeper than Qdrant stores, or with a text for which the embedder
//!   answers 500. Each of those has to become a dead letter with that reason, and no other document may.
//!
//! ```text
//!  writer ─────────────▶ mongod        redis-server        Qdrant ◀──── oracle
//!                           ▲            ▲       ▲            ▲
//!  kill, stop, pause ──▶    │            │       │            │      ◀── kill, stop, pause
//!                         proxy        proxy   proxy        proxy    ◀── cut, slow, freeze, swallow, refuse
//!                           │            │       │            │
//!                      2 producers    3 processors ─ proxy ─ embedder
//!                                     3 upserters
//! ```
//!
//! Redis syncs every write to disk (`appendfsync always`): a killed Redis must have everything it acknowledged, so that
//! any loss is tidewheel's.
//!
//! Dropping a [`run`] stops the writes and kills every process that it has started; so does the end of its own process.

mod apply;
mod documents;
mod endpoint;
mod faults;
mod indexes;
mod inject;
mod operations;
mod options;
mod redis;
mod report;
mod service;
mod settings;
mod storm;
mod tally;
mod verdict;
mod world;
mod writer;

use std::time::Instant;

use tokio::sync::{mpsc, watch};

use self::indexes::{Declarations, Operator};
pub use self::options::{Embed, Progress, SoakOptions};
pub use self::redis::Backlog;
pub use self::report::SoakReport;
use self::tally::Tally;
use self::world::World;

/// Faults that may be asked for before they are injected.
const ASKED: usize = 8;

/// The soak itself failed; the state of the pipeline is unknown.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// A server failed.
    #[error(transparent)]
    Stack(#[from] tidewheel_local::stack::StackError),
    /// Provisioning a server failed.
    #[error(transparent)]
    Provision(#[from] tidewheel_local::provision::ProvisionError),
    /// A service, a file or a port failed.
    #[error("failed to {action}: {source}")]
    Io {
        /// The attempted action.
        action: String,
        /// The system's error.
        source: std::io::Error,
    },
    /// The writer's connection failed.
    #[error("failed to write to MongoDB: {0}")]
    Source(String),
    /// Reading the dead letters failed.
    #[error("failed to read the dead letters: {0}")]
    DeadLetters(String),
    /// The oracle failed.
    #[error(transparent)]
    Oracle(#[from] crate::oracle::OracleError),
}

impl SoakError {
    fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// Runs one seed: writes and faults for the given time, then heals everything and reports whether the index converged.
///
/// # Errors
/// If the soak itself failed. A pipeline that did not converge is not an error, but a result in the report.
pub async fn run(options: SoakOptions) -> Result<SoakReport, SoakError> {
    let tally = Tally::default();
    let world = World::start(&options).await?;
    let mut writer = writer::Writer::connect(&world, &options).await?;
    // Documents written before the first service starts become the initial snapshot, which the faults hit too.
    writer.prepare(&tally).await?;
    world.start_services().await?;

    let (faults, asked) = mpsc::channel(ASKED);
    let operator = options.indexes.then(|| Operator::new(&world, options.seed, faults));
    let (over, end) = watch::channel(false);
    let time_is_up = async {
        tokio::time::sleep(options.duration).await;
        over.send_replace(true);
        Ok(())
    };
    let ((), (), (), declared, ()) = tokio::try_join!(
        time_is_up,
        writer.write(&tally, options.operations_per_second, end.clone()),
        storm::storm(&world, &options, &tally, asked, end.clone()),
        operate(operator, &tally, end.clone()),
        progress(&world, &options, &tally, end),
    )?;

    (options.progress)(&format!("seed {}: healed, waiting until the index equals the source", options.seed));
    world.heal().await?;
    let verdict = verdict::wait(&world, &options, &tally, declared, Instant::now()).await?;
    Ok(SoakReport::new(&options, &tally, verdict, &world))
}

/// Changes the declarations until the end; returns the last ones.
async fn operate(
    operator: Option<Operator<'_>>,
    tally: &Tally,
    end: watch::Receiver<bool>,
) -> Result<Option<Declarations>, SoakError> {
    match operator {
        Some(operator) => operator.operate(tally, end).await.map(Some),
        None => Ok(None),
    }
}

/// Reports progress every few seconds until the end.
async fn progress(
    world: &World,
    options: &SoakOptions,
    tally: &Tally,
    mut end: watch::Receiver<bool>,
) -> Result<(), SoakError> {
    /// Frequent enough to show liveness, rare enough to read.
    const EVERY: std::time::Duration = std::time::Duration::from_secs(5);
    let begun = Instant::now();
    loop {
        tokio::select! {
            _ = end.wait_for(|over| *over) => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        let stages = redis::look(&world.stack.redis_url()).await;
        let backlog = stages.map_or_else(|_| "Redis is unreachable".to_owned(), |stages| redis::show(&stages));
        let (seed, seconds, all) = (options.seed, begun.elapsed().as_secs(), options.duration.as_secs());
        (options.progress)(&format!("seed {seed}: {seconds}/{all} s, {}, {backlog}", tally.line()));
    }
}
