//! Checks whether the index, or each declared one, equals the source after healing.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use super::documents::{COLLECTIONS, DATABASE, POISON, UNDECODABLE, expected_reasons};
use super::indexes::{Declarations, EVERYTHING, NAMES, Settling};
use super::redis::{self, Backlog, SoakLetter};
use super::tally::Tally;
use super::world::World;
use super::{SoakError, SoakOptions};
use crate::oracle::{Declared, Difference, Oracle, OracleError, OracleOptions, Report, text_of};

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
    declared: Option<Declarations>,
    healed: Instant,
) -> Result<Verdict, SoakError> {
    let mut comparison = Comparison::new(world, options, declared).await?;
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
        let settled = comparison.is_settled().await? && drained;
        // A full read slows the services down, so it runs only when it can be the last one.
        let report = if settled || last { Some(comparison.compare().await) } else { None };
        match report {
            Some(Ok(report)) if last || report.is_equal() => {
                let took = (settled && report.is_equal()).then(|| healed.elapsed());
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
    let known: HashSet<String> = letters.iter().flat_map(names).collect();
    found.forgotten = parked.iter().filter(|document| !known.contains(*document)).cloned().collect();
    found
}

/// The document of a dead letter as reports name it, in each of its indexes.
fn names(letter: &SoakLetter) -> Vec<String> {
    if letter.indexes.is_empty() {
        return vec![letter.document.clone()];
    }
    letter.indexes.iter().map(|index| within(index, &letter.document)).collect()
}

/// Compares each index with the source.
struct Comparison<'a> {
    /// Oracles with the names of their indexes; that of the short form needs none.
    oracles: Vec<(Option<&'static str>, Oracle)>,
    /// `None` without declared indexes.
    settling: Option<Settling<'a>>,
}

impl<'a> Comparison<'a> {
    async fn new(world: &'a World, options: &SoakOptions, declared: Option<Declarations>) -> Result<Self, SoakError> {
        let Some(declared) = declared else {
            return Ok(Self { oracles: vec![(None, short_form(world, options).await?)], settling: None });
        };
        let settings = declared.settings();
        let mut oracles = Vec::new();
        for (name, dimension) in declared.indexes() {
            let oracle =
                connect(world, options, dimension, name).await?.with_declaration(Declared::of(&settings, name)?);
            let has_undecodable = name == NAMES[EVERYTHING];
            let oracle = if has_undecodable { oracle.with_undecodable(UNDECODABLE) } else { oracle };
            oracles.push((Some(name), oracle));
        }
        Ok(Self { oracles, settling: Some(Settling::new(world, declared)) })
    }

    /// Whether nothing but the remaining entries changes the indexes.
    async fn is_settled(&mut self) -> Result<bool, SoakError> {
        match &mut self.settling {
            Some(settling) => settling.is_done().await,
            None => Ok(true),
        }
    }

    /// The differences of all indexes, and what else is not as declared.
    async fn compare(&self) -> Result<Report, OracleError> {
        let mut all = Report::default();
        for (index, oracle) in &self.oracles {
            let found = oracle.compare().await?;
            match index {
                Some(index) => add(&mut all, index, found),
                None => all = found,
            }
        }
        if let Some(settling) = &self.settling {
            all.extra.extend(settling.findings().await?);
        }
        Ok(all)
    }
}

/// A document within an index.
fn within(index: &str, document: &str) -> String {
    format!("{index}: {document}")
}

/// Adds what was found in an index.
fn add(all: &mut Report, index: &str, found: Report) {
    let Report { documents, points, missing, stale, extra, surplus_chunks, parked } = found;
    all.documents += documents;
    all.points += points;
    for (into, names) in [
        (&mut all.missing, missing),
        (&mut all.extra, extra),
        (&mut all.surplus_chunks, surplus_chunks),
        (&mut all.parked, parked),
    ] {
        into.extend(names.iter().map(|name| within(index, name)));
    }
    let stale = stale.into_iter();
    all.stale.extend(stale.map(|found| Difference { document: within(index, &found.document), ..found }));
}

async fn short_form(world: &World, options: &SoakOptions) -> Result<Oracle, OracleError> {
    let oracle = connect(world, options, SoakOptions::DIMENSION, "documents").await?;
    Ok(oracle.with_text(text_of).with_undecodable(UNDECODABLE))
}

/// An oracle for a collection or an alias.
async fn connect(
    world: &World,
    options: &SoakOptions,
    dimension: usize,
    collection: &str,
) -> Result<Oracle, OracleError> {
    let oracle = Oracle::connect(OracleOptions {
        mongodb_uri: world.stack.mongodb_uri(),
        database: DATABASE.into(),
        collections: COLLECTIONS.map(str::to_owned).into(),
        qdrant_url: world.stack.qdrant_grpc_url().unwrap_or_default(),
        qdrant_api_key: None,
        collection: collection.to_owned(),
    });
    let oracle = oracle.await?.with_parked(|document| document.contains_key(POISON));
    Ok(match options.embed.clone() {
        Some(embed) => oracle.with_vectors(move |text| embed(dimension, text)),
        None => oracle,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn dead_letters_are_matched_with_poisonous_documents() {
        let letter = |document: &str, reason: &str| SoakLetter {
            document: document.to_owned(),
            indexes: BTreeSet::new(),
            reason: reason.to_owned(),
        };
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

    #[test]
    fn dead_letter_explains_a_document_in_its_own_indexes() {
        let letter = SoakLetter {
            document: "soak.tickets \"poison/deep/1\"".to_owned(),
            indexes: ["all", "open"].map(str::to_owned).into(),
            reason: "150 levels of nested objects and arrays".to_owned(),
        };
        let mut all = Report::default();
        for index in ["all", "open", "things"] {
            let stale = vec![Difference { document: "soak.tickets 1".to_owned(), what: "no text".to_owned() }];
            let parked = vec![letter.document.clone()];
            add(&mut all, index, Report { documents: 2, points: 3, stale, parked, ..Report::default() });
        }
        assert_eq!((all.documents, all.points, all.stale.len()), (6, 9, 3));
        assert_eq!(all.stale[1].document, "open: soak.tickets 1");
        let found = explain(&[letter], &all.parked);
        assert_eq!(found.forgotten, ["things: soak.tickets \"poison/deep/1\""]);
        assert_eq!(found.explained, BTreeMap::from([("nested too deep", 1)]));
    }
}
