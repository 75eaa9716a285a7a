//! Watches what the active producer does about a submission.
//!
//! A watch decides nothing: it ends when the catalog, the checkpoint and the records of collections show that every index is
//! as submitted. Interrupting it interrupts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, Index, IndexName};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Checkpoint, PortResult};
use tokio::time::Instant;

use super::IndexesPorts;
use super::progress::{Facts, Progress, Step, progress};
use crate::overview::rates::Rate;

/// Interval between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// How long a problem that may be solved meanwhile, or a catalog without the submission, is waited out: long enough for the
/// producer to repeat a step that needs a person.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The indexes.
    pub indexes: BTreeSet<IndexName>,
    /// The revision that was submitted, or from which on nothing was to be done.
    pub revision: u64,
}

/// How a watch ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Every index is as submitted.
    Done,
    /// An index does not advance without an operator.
    Failed {
        /// The index.
        index: IndexName,
        /// Why.
        problem: String,
    },
    /// The store has an older catalog: it lost the submission.
    Lost,
}

/// The catalog and how far the producer is.
pub(super) struct Look {
    pub(super) catalog: Catalog,
    /// The clock of the catalog's store, in milliseconds since the Unix epoch.
    pub(super) now_ms: u64,
    pub(super) checkpoint: Option<Checkpoint>,
    /// Documents that the running snapshot reads, estimated.
    pub(super) expected: Option<u64>,
}

impl Look {
    pub(super) async fn at(ports: &IndexesPorts) -> PortResult<Self> {
        // Read first: a catalog that changes meanwhile counts as not adopted.
        let checkpoint = ports.journal.load().await?;
        let (catalog, now_ms) = ports.store.load().await?;
        // An estimate: the progress is complete without it.
        let reports = ports.reports.reports().await.unwrap_or_default();
        let expected = reports
            .iter()
            .filter_map(|published| published.report.figures.as_ref()?.producer.as_ref()?.snapshot_expected);
        let expected = expected.reduce(u64::saturating_add);
        Ok(Self { catalog, now_ms, checkpoint, expected })
    }

    /// The progress of an index. Without `is_recorded`, its collection counts as conforming.
    pub(super) fn progress(&self, name: &IndexName, is_recorded: Option<bool>) -> Progress {
        let facts = Facts {
            revision: self.catalog.revision,
            checkpoint: self.checkpoint.as_ref(),
            expected: self.expected,
            is_recorded,
        };
        progress(name, self.catalog.indexes.get(name), &facts)
    }
}

/// Watches until every index is done, and reports each look.
///
/// # Errors
/// If a server fails permanently. Outages are waited out.
pub async fn watch(
    ports: &IndexesPorts,
    watch: &Watch,
    report: &(dyn Fn(&[Progress]) + Send + Sync),
) -> PortResult<Watched> {
    let mut memory = Memory::default();
    loop {
        match memory.look(ports, watch).await {
            Ok(Some(progress)) => {
                report(&progress);
                if let Some(ended) = memory.ended(&progress) {
                    return Ok(ended);
                }
            }
            Ok(None) if memory.has_lost_it() => return Ok(Watched::Lost),
            Ok(None) => {}
            Err(error) if error.class == ErrorClass::Transient => {}
            Err(error) => return Err(error),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What is remembered between looks.
#[derive(Default)]
struct Memory {
    rates: BTreeMap<IndexName, Rate>,
    /// Indexes whose collection conforms to this revision of the catalog.
    recorded: BTreeMap<IndexName, u64>,
    /// Since when an index has a problem.
    problems: BTreeMap<IndexName, Instant>,
    /// Since when the catalog is older than the submission.
    older: Option<Instant>,
}

impl Memory {
    /// The progress of each index; `None` if the catalog lacks the submission.
    async fn look(&mut self, ports: &IndexesPorts, watch: &Watch) -> PortResult<Option<Vec<Progress>>> {
        let look = Look::at(ports).await?;
        if look.catalog.revision < watch.revision {
            self.older.get_or_insert_with(Instant::now);
            return Ok(None);
        }
        self.older = None;
        let mut all = Vec::with_capacity(watch.indexes.len());
        for name in &watch.indexes {
            let mut progress = look.progress(name, None);
            if progress.step == Step::Done
                && let Some(index) = look.catalog.indexes.get(name)
            {
                let is_recorded = self.is_recorded(ports, &look.catalog, name, index).await?;
                progress = look.progress(name, Some(is_recorded));
            }
            self.add_rate(&mut progress);
            all.push(progress);
        }
        Ok(Some(all))
    }

    /// Whether the serving collection conforms to the catalog.
    async fn is_recorded(
        &mut self,
        ports: &IndexesPorts,
        catalog: &Catalog,
        name: &IndexName,
        index: &Index,
    ) -> PortResult<bool> {
        if self.recorded.get(name) == Some(&catalog.revision) {
            return Ok(true);
        }
        let Some((_, serving)) = index.serving_generation() else { return Ok(true) };
        let record = ports.collections.open(&serving.collection).record().await?;
        let conforms = record.is_some_and(|record| record.declaration == *serving.declaration);
        if conforms {
            self.recorded.insert(name.clone(), catalog.revision);
        }
        Ok(conforms)
    }

    fn add_rate(&mut self, progress: &mut Progress) {
        let Some(documents) = progress.documents else {
            self.rates.remove(&progress.index);
            return;
        };
        let rate = self.rates.entry(progress.index.clone()).or_default();
        progress.per_second = rate.look(Instant::now().into_std(), documents as f64).filter(|rate| *rate > 0.0);
        let left = progress.of.map(|of| of.saturating_sub(documents));
        let seconds = left.zip(progress.per_second).map(|(left, rate)| (left as f64 / rate).ceil() as u64);
        progress.seconds_left = seconds;
    }

    /// How the watch ends, if it does.
    fn ended(&mut self, all: &[Progress]) -> Option<Watched> {
        self.problems.retain(|name, _| all.iter().any(|one| one.index == *name && one.problem.is_some()));
        for progress in all {
            let Some(problem) = &progress.problem else { continue };
            let since = *self.problems.entry(progress.index.clone()).or_insert_with(Instant::now);
            if progress.is_judged || since.elapsed() >= PATIENCE {
                return Some(Watched::Failed { index: progress.index.clone(), problem: problem.clone() });
            }
        }
        all.iter().all(|progress| progress.step.is_last()).then_some(Watched::Done)
    }

    fn has_lost_it(&self) -> bool {
        self.older.is_some_and(|since| since.elapsed() >= PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tidewheel_core::catalog::{Compared, State};
    use tidewheel_core::ports::{CollectionAdmin as _, IndexWriter as _, Journal as _};
    use tidewheel_testkit::contracts::samples::checkpoint;
    use tidewheel_testkit::fakes::faults::Fault;

    use super::*;
    use crate::indexes::samples::ports;
    use crate::samples::{Servers, catalog, index};

    fn tickets(revision: u64) -> Watch {
        Watch { indexes: [index("tickets")].into(), revision }
    }

    /// The producer has adopted this revision.
    async fn adopt(servers: &Servers, revision: u64) {
        let journal = servers.streams.journal();
        let before = journal.load().await.unwrap();
        let next = Checkpoint { catalog: revision, ..checkpoint(1) };
        journal.append(before.as_ref(), &[], &next).await.unwrap();
    }

    /// The collection of the index records what the catalog states.
    async fn record(servers: &Servers, catalog: &Catalog) {
        let collection = servers.collections.index("tickets.g1");
        collection.prepare(4).await.unwrap();
        let record = catalog.indexes[&index("tickets")].record(&index("tickets"), 1, catalog.revision).unwrap();
        collection.set_record(&record).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn watch_ends_when_the_producer_has_done_everything() {
        let servers = Servers::new();
        let mut applied = catalog(7, &[("tickets", State::Serving)]);
        applied.indexes.get_mut(&index("tickets")).unwrap().generations.get_mut(&1).unwrap().filled = 0;
        servers.apply(&applied).await;
        let (steps, ports) = (Mutex::new(Vec::new()), ports(&servers));
        let report = |all: &[Progress]| {
            let mut steps = steps.lock().unwrap();
            if steps.last() != Some(&all[0].step) {
                steps.push(all[0].step);
            }
        };
        let (wanted, working) = (tickets(7), async {
            let pause = || tokio::time::sleep(Duration::from_secs(5));
            pause().await;
            adopt(&servers, 7).await;
            pause().await;
            let generations = &mut applied.indexes.get_mut(&index("tickets")).unwrap().generations;
            generations.get_mut(&1).unwrap().filled = 7;
            applied.revision = 8;
            servers.apply(&applied).await;
            pause().await;
            adopt(&servers, 8).await;
            pause().await;
            record(&servers, &applied).await;
        });
        let (watched, ()) = tokio::join!(watch(&ports, &wanted, &report), working);
        assert_eq!(watched.unwrap(), Watched::Done);
        let steps = steps.into_inner().unwrap();
        assert_eq!(steps, [Step::Submitted, Step::Filling, Step::Submitted, Step::Altering, Step::Done]);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_comparison_ends_the_watch_and_other_problems_are_waited_out() {
        let servers = Servers::new();
        let mut applied = catalog(7, &[("tickets", State::Comparing)]);
        let tickets_index = applied.indexes.get_mut(&index("tickets")).unwrap();
        let generation = tickets_index.generations.get_mut(&1).unwrap();
        generation.problem = Some("3 documents differ".to_owned());
        generation.compared = Some(Compared::default());
        servers.apply(&applied).await;
        let ports = ports(&servers);
        let begun = Instant::now();
        let failed = Watched::Failed { index: index("tickets"), problem: "3 documents differ".to_owned() };
        assert_eq!(watch(&ports, &tickets(7), &|_| {}).await.unwrap(), failed);
        assert!(begun.elapsed() < EVERY);
        let tickets_index = applied.indexes.get_mut(&index("tickets")).unwrap();
        tickets_index.generations.get_mut(&1).unwrap().state = State::Creating;
        applied.revision = 8;
        servers.apply(&applied).await;
        assert_eq!(watch(&ports, &tickets(8), &|_| {}).await.unwrap(), failed);
        assert!(begun.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn lost_submission_and_outages_are_noticed() {
        let servers = Servers::new();
        servers.apply(&catalog(7, &[("tickets", State::Serving)])).await;
        let ports = ports(&servers);
        assert_eq!(watch(&ports, &tickets(8), &|_| {}).await.unwrap(), Watched::Lost);
        servers.streams.faults().once("load_catalog", Fault::unreachable());
        assert_eq!(watch(&ports, &tickets(8), &|_| {}).await.unwrap(), Watched::Lost);
        let gone = Watch { indexes: [index("notes")].into(), revision: 7 };
        assert_eq!(watch(&ports, &gone, &|_| {}).await.unwrap(), Watched::Done, "a dropped index");
    }
}
