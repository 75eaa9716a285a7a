//! Whether the index equals the source after everything was healed.

use std::time::{Duration, Instant};

use super::documents::{COLLECTIONS, DATABASE};
use super::redis::{self, Backlog};
use super::tally::Tally;
use super::world::World;
use super::{SoakError, SoakOptions};
use crate::oracle::text_of;
use crate::oracle::{Oracle, OracleOptions, Report};

/// Between two looks.
const EVERY: Duration = Duration::from_millis(200);

/// What was found at last.
pub(super) struct Verdict {
    /// From the moment when everything was healed to the first comparison that found no difference.
    pub(super) took: Option<Duration>,
    pub(super) report: Report,
    pub(super) stages: Vec<Backlog>,
    /// Why the first dead letters were given up.
    pub(super) reasons: Vec<String>,
}

/// Waits until both streams are drained and the index equals the source, or until the patience ends.
pub(super) async fn wait(
    world: &World,
    options: &SoakOptions,
    tally: &Tally,
    healed: Instant,
) -> Result<Verdict, SoakError> {
    let oracle = oracle(world, options).await?;
    let url = world.stack.redis_url();
    let deadline = healed + options.patience;
    let mut said = Instant::now();
    loop {
        for service in &world.services {
            world.revive(service, tally).await?;
        }
        let last = Instant::now() >= deadline;
        let stages = redis::look(&url).await.unwrap_or_default();
        let drained = !stages.is_empty() && stages.iter().all(|stage| stage.drained);
        // Reading everything takes time from the services, so it is done when it can be the last time.
        let report = if drained || last { Some(oracle.compare().await) } else { None };
        match report {
            Some(Ok(report)) if last || report.is_equal() => {
                let took = (drained && report.is_equal()).then(|| healed.elapsed());
                let reasons = redis::reasons(&url).await.unwrap_or_default();
                return Ok(Verdict { took, report, stages, reasons });
            }
            Some(Err(error)) if last => return Err(error.into()),
            _ => {}
        }
        if said.elapsed() > Duration::from_secs(5) {
            said = Instant::now();
            let (seed, seconds, backlog) = (options.seed, healed.elapsed().as_secs(), redis::show(&stages));
            (options.progress)(&format!("seed {seed}: healed {seconds} s ago, {backlog}"));
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn oracle(world: &World, options: &SoakOptions) -> Result<Oracle, SoakError> {
    let oracle = Oracle::connect(OracleOptions {
        mongodb_uri: world.stack.mongodb_uri(),
        database: DATABASE.into(),
        collections: COLLECTIONS.map(str::to_owned).into(),
        qdrant_url: world.stack.qdrant_grpc_url().unwrap_or_default(),
        qdrant_api_key: None,
        collection: "documents".into(),
    });
    let oracle = oracle.await?.with_text(text_of);
    Ok(match options.embed.clone() {
        Some(embed) => oracle.with_vectors(move |text| embed(text)),
        None => oracle,
    })
}
