//! Checks whether the index equals the source after healing.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::documents::{COLLECTIONS, DATABASE, POISON, UNDECODABLE, expected_reasons};
use super::redis::{self, Backlog, SoakLetter};
use super::tally::Tally;
use super::world::World;
use super::{SoakError, SoakOptions};
use crate::oracle::text_of;
use crate::oracle::{Oracle, OracleOptions, Report};

/// Interval of checks.
const EVERY: Duration = Duration::from_millis(200);

/// The final result.
pub(super) struct Verdict {
    /// Time from healing to the first comparison without differences.
    pub(super) took: Option<Duration>,
    pub(super) report: Report,
    pub(super) stages: Vec<Backlog>,
    /// Number of dead letters by explanation.
    pub(super) explained: BTreeMap<&'static str, u64>,
    /// Reasons of dead letters of indexable documents, and unexpected reasons of others.
    pub(super) unexplained: Vec<String>,
    /// Documents that cannot be indexed but have no dead letter.
    pub(super) forgotten: Vec<String>,
}

/// Waits until both streams are drained and the index equals the source, or until the timeout.
pub(super) async fn wait(
    world: &World,
    options: &SoakOptions,
    tally: &Tally,
    healed: Instant,
) -> Result<Verdict, SoakError> {
    let oracle = oracle(world, options).await?;
    let url = world.stack.redis_url();
    let deadline = healed + options.patience;
    let mut reported = Instant::now();
    loop {
        for service in &world.services {
            world.revive(service, tally).await?;
        }
        let last = Instant::now() >= deadline;
        let stages = redis::look(&url).await.unwrap_or_default();
        let drained = !stages.is_empty() && stages.iter().all(|stage| stage.drained);
        // A full read slows the services down, so it runs only when it can be the last one.
        let report = if drained || last { Some(oracle.compare().await) } else { None };
        match report {
            Some(Ok(report)) if last || report.is_equal() => {
                let took = (drained && report.is_equal()).then(|| healed.elapsed());
                let letters = redis::parked(&url).await.map_err(|error| SoakError::DeadLetters(error.to_string()))?;
                let Explained { explained, unexplained, forgotten } = explain(&letters, &report.parked);
                return Ok(Verdict { took, report, stages, explained, unexplained, forgotten });
            }
            Some(Err(error)) if last => return Err(error.into()),
            _ => {}
        }
        if reported.elapsed() > Duration::from_secs(5) {
            reported = Instant::now();
            let (seed, seconds, backlog) = (options.seed, healed.elapsed().as_secs(), redis::show(&stages));
            (options.progress)(&format!("seed {seed}: healed {seconds} s ago, {backlog}"));
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[derive(Debug, Default, PartialEq)]
struct Explained {
    explained: BTreeMap<&'static str, u64>,
    unexplained: Vec<String>,
    forgotten: Vec<String>,
}

/// Explains each dead letter by its document and reason. A poisonous document may have several: faults make the
/// producer append it again.
fn explain(letters: &[SoakLetter], parked: &[String]) -> Explained {
    let mut found = Explained::default();
    for letter in letters {
        match expected_reasons(&letter.document) {
            Some((explanation, reasons)) if reasons.iter().any(|reason| letter.reason.contains(reason)) => {
                *found.explained.entry(explanation).or_default() += 1;
            }
            _ => found.unexplained.push(letter.reason.clone()),
        }
    }
    let known: HashSet<&str> = letters.iter().map(|letter| letter.document.as_str()).collect();
    found.forgotten = parked.iter().filter(|document| !known.contains(document.as_str())).cloned().collect();
    found
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
    let oracle = oracle.await?.with_text(text_of).with_parked(|document| document.contains_key(POISON));
    let oracle = oracle.with_undecodable(UNDECODABLE);
    Ok(match options.embed.clone() {
        Some(embed) => oracle.with_vectors(move |text| embed(text)),
        None => oracle,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_are_matched_with_poisonous_documents() {
        let letter =
            |document: &str, reason: &str| SoakLetter { document: document.to_owned(), reason: reason.to_owned() };
        let (deep, text) = ("150 levels of nested objects and arrays", "the embedder returned 500: injected");
        let letters = [
            letter("soak.tickets \"poison/deep/1\"", deep),
            letter("soak.notes 7", "timeout"),
            letter("soak.tickets \"poison/deep/1\"", deep),
            letter("soak.tickets \"poison/text/2\"", text),
            letter("soak.tickets \"poison/text/3\"", deep),
        ];
        let parked = ["soak.tickets \"poison/deep/1\"", "soak.tickets \"poison/deep/2\""].map(str::to_owned);
        let found = explain(&letters, &parked);
        assert_eq!(found.explained, BTreeMap::from([("nested too deep", 2), ("unembeddable text", 1)]));
        assert_eq!(found.unexplained, ["timeout", deep]);
        assert_eq!(found.forgotten, ["soak.tickets \"poison/deep/2\""]);
    }
}
