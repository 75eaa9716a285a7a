//! Chaos soak: the whole pipeline under random writes and random faults, and a verdict at the end.
//!
//! What a run guarantees to whoever believes its verdict:
//!
//! - **Real parts.** mongod, redis-server and Qdrant's engine from the local stack, and the real binary as processes: two
//!   producers, three processors, three upserters and an embedder. The services reach the servers through fault proxies;
//!   the writer and the oracle reach them directly.
//! - **From a seed.** The seed alone decides the row of writes and the row of faults: what, on what, for how long. How many
//!   of each fit into the time and when they fall into the work of the processes is up to the machine; a fault on
//!   something that another fault still hits is passed over.
//! - **Nothing counted that did not happen.** A write counts when MongoDB acknowledged it and it changed something; a
//!   fault when the process was seen dead or stopped, or when the proxy has broken, held, delayed or swallowed something.
//! - **The verdict is the oracle's.** After all faults are healed, index and source are read whole, every document and
//!   every point, until they are equal and both streams are drained, or the patience ends. Services that gave up by
//!   themselves or did not stop when told to are failures too.
//! - **Every dead letter is explained.** Some documents are deep, huge or strange, and have to arrive. Some are poison: nested
//!   deeper than Qdrant stores. Each of those has to be a dead letter, and no other document may be one.
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
//! Redis forces every write to disk (`appendfsync always`): a Redis that is killed must have everything it acknowledged,
//! so that whatever is lost was lost by tidewheel.
//!
//! A [`run`] that is dropped stops the writes and kills every process that it has started; so does the end of its process.

mod apply;
mod documents;
mod faults;
mod inject;
mod operations;
mod options;
mod redis;
mod report;
mod service;
mod storm;
mod tally;
mod verdict;
mod world;
mod writer;

use std::time::Instant;

use tokio::sync::watch;

pub use self::options::{Embed, Progress, SoakOptions};
pub use self::redis::Backlog;
pub use self::report::SoakReport;
use self::tally::Tally;
use self::world::World;

/// The soak itself could not be run; nothing is known about the pipeline.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// A server.
    #[error(transparent)]
    Stack(#[from] tidewheel_local::stack::StackError),
    /// What the servers are made of.
    #[error(transparent)]
    Provision(#[from] tidewheel_local::provision::ProvisionError),
    /// A service, a file, a port.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was attempted, on what.
        action: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The writer's connection.
    #[error("cannot write to MongoDB: {0}")]
    Source(String),
    /// The dead letters at the end.
    #[error("failed to read the dead letters: {0}")]
    DeadLetters(String),
    /// The oracle.
    #[error(transparent)]
    Oracle(#[from] crate::oracle::OracleError),
}

impl SoakError {
    fn io(action: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}

/// Runs one seed: writes and faults for the given time, then heals everything and says whether the index converged.
///
/// # Errors
/// When the soak could not be run. That the pipeline did not converge is no error: the report says so.
pub async fn run(options: SoakOptions) -> Result<SoakReport, SoakError> {
    let tally = Tally::default();
    let world = World::start(&options).await?;
    let mut writer = writer::Writer::connect(&world, options.seed).await?;
    // What is there before the first service starts is read as a snapshot, which the faults hit too.
    writer.prepare(&tally).await?;
    world.start_services().await?;

    let (over, end) = watch::channel(false);
    let time_is_up = async {
        tokio::time::sleep(options.duration).await;
        over.send_replace(true);
        Ok(())
    };
    tokio::try_join!(
        time_is_up,
        writer.write(&tally, options.operations_per_second, end.clone()),
        storm::storm(&world, &options, &tally, end.clone()),
        progress(&world, &options, &tally, end),
    )?;

    (options.progress)(&format!("seed {}: healed, waiting until the index equals the source", options.seed));
    world.heal().await?;
    let verdict = verdict::wait(&world, &options, &tally, Instant::now()).await?;
    Ok(SoakReport::new(&options, &tally, verdict, &world))
}

/// Says every few seconds how far it is, until it is over.
async fn progress(
    world: &World,
    options: &SoakOptions,
    tally: &Tally,
    mut end: watch::Receiver<bool>,
) -> Result<(), SoakError> {
    /// Often enough to see that it lives, seldom enough to read.
    const EVERY: std::time::Duration = std::time::Duration::from_secs(5);
    let begun = Instant::now();
    loop {
        tokio::select! {
            _ = end.wait_for(|over| *over) => return Ok(()),
            () = tokio::time::sleep(EVERY) => {}
        }
        let stages = redis::look(&world.stack.redis_url()).await;
        let backlog = stages.map_or_else(|_| "Redis is away".to_owned(), |stages| redis::show(&stages));
        let (seed, seconds, all) = (options.seed, begun.elapsed().as_secs(), options.duration.as_secs());
        (options.progress)(&format!("seed {seed}: {seconds}/{all} s, {}, {backlog}", tally.line()));
    }
}
