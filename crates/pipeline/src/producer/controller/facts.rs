//! Gathers what the index has: collections, aliases and records.
//!
//! It is read beside the loop of the session, because the producer works while the index is unavailable: every
//! [`EVERY`], and again for an index after each of its steps and each change of its entry in the catalog. A step is
//! decided only from facts that were read after the one before it.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::join_all;
use tidewheel_core::catalog::{Catalog, Generation, Index, IndexName, State, TargetId, TargetRecord};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{Listed, PortResult};
use tidewheel_core::retry::Backoff;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::tools::{Tools, Work};
use crate::background;

/// How often collections and aliases are listed while nothing happens.
const EVERY: Duration = Duration::from_secs(5);

/// The pause after a read in which the record of a collection was missing, because the collection is unavailable.
const UNREAD_PAUSE: Duration = Duration::from_secs(1);

/// How long a collection may take to settle before it is compared regardless.
const SETTLE: Duration = Duration::from_secs(10 * 60);

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The existing collections. A plain collection exists also under an alias that an operator has made.
    pub(super) collections: BTreeSet<String>,
    /// The aliases, with the collection that each one names.
    pub(super) aliases: BTreeMap<String, String>,
    /// Unacknowledged entries of both stages; 0 if no index asks for them.
    pub(super) backlog: u64,
    /// Generations to be compared whose collection is settled.
    settled: BTreeSet<TargetId>,
}

/// Reads the facts, and knows for which indexes they are current.
pub(super) struct Observer {
    seen: Seen,
    /// When they were read.
    at: Option<Instant>,
    records: BTreeMap<IndexName, BTreeMap<u32, TargetRecord>>,
    /// Number of reads.
    reads: u64,
    /// The revision and the entries of the catalog for which the records were read.
    revision: u64,
    known: BTreeMap<IndexName, Index>,
    /// Indexes of which a step has ended since the facts were read.
    outdated: BTreeSet<IndexName>,
    /// Indexes of which a record could not be read.
    unread: BTreeSet<IndexName>,
    /// When a generation to be compared was first seen.
    comparing: BTreeMap<TargetId, Instant>,
    reading: Option<Reading>,
    backoff: Backoff,
    retry_at: Option<Instant>,
}

/// A read that is running.
struct Reading {
    work: Work<Read>,
    revision: u64,
    indexes: BTreeMap<IndexName, Index>,
    outdated: BTreeSet<IndexName>,
}

/// What was read.
#[derive(Debug)]
struct Read {
    seen: Seen,
    /// The records read; `None` of collections without one.
    records: Vec<(TargetId, Option<TargetRecord>)>,
    /// Indexes of which a record could not be read.
    unread: BTreeSet<IndexName>,
}

/// A collection to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    target: TargetId,
    collection: String,
    is_plain: bool,
    /// Whether its record is read even if the collection existed before.
    reads_record: bool,
    is_compared: bool,
}

impl Observer {
    pub(super) fn new() -> Self {
        Self {
            seen: Seen::default(),
            at: None,
            records: BTreeMap::new(),
            reads: 0,
            revision: 0,
            known: BTreeMap::new(),
            outdated: BTreeSet::new(),
            unread: BTreeSet::new(),
            comparing: BTreeMap::new(),
            reading: None,
            backoff: Backoff::for_servers(),
            retry_at: None,
        }
    }

    /// What was read last.
    pub(super) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Number of reads so far: what follows from the facts alone is decided once for each.
    pub(super) fn reads(&self) -> u64 {
        self.reads
    }

    /// The records of an index's collections, if the facts are current for it.
    pub(super) fn records(&self, name: &IndexName, index: &Index) -> Option<&BTreeMap<u32, TargetRecord>> {
        static NONE: BTreeMap<u32, TargetRecord> = BTreeMap::new();
        if !self.is_current(name, index) {
            return None;
        }
        Some(self.records.get(name).unwrap_or(&NONE))
    }

    fn is_current(&self, name: &IndexName, index: &Index) -> bool {
        self.at.is_some() && !self.outdated.contains(name) && self.known.get(name) == Some(index)
    }

    /// Whether a collection of the index is unavailable, so that its steps wait.
    pub(super) fn is_unread(&self, name: &IndexName) -> bool {
        self.unread.contains(name)
    }

    /// Whether the collection of a generation to be compared is settled, or has had time to.
    pub(super) fn is_settled(&self, target: &TargetId) -> bool {
        let waited = self.comparing.get(target).map(Instant::elapsed);
        self.seen.settled.contains(target) || waited.is_some_and(|waited| waited >= SETTLE)
    }

    /// Reads the facts for an index again before its next step.
    pub(super) fn outdate(&mut self, name: &IndexName) {
        self.outdated.insert(name.clone());
    }

    /// Begins to read if the facts are old, or not current for an index of the catalog.
    pub(super) fn update(&mut self, catalog: &Catalog, tools: &Tools) {
        self.prune(catalog);
        let is_due = self.at.is_none_or(|at| at.elapsed() >= EVERY)
            || self.revision != catalog.revision
            || !self.outdated.is_empty();
        let must_wait = self.retry_at.is_some_and(|at| at > Instant::now());
        if self.reading.is_some() || must_wait || !is_due {
            return;
        }
        let wanted = self.wanted(catalog);
        let had = self.seen.collections.clone();
        let wants_backlog = catalog.indexes.values().any(is_about_to_move);
        let tools = tools.clone();
        self.reading = Some(Reading {
            work: background::begin(async move { read(&tools, wanted, &had, wants_backlog).await }),
            revision: catalog.revision,
            indexes: catalog.indexes.clone(),
            outdated: std::mem::take(&mut self.outdated),
        });
    }

    /// Forgets what the catalog no longer has.
    fn prune(&mut self, catalog: &Catalog) {
        if self.revision == catalog.revision {
            return;
        }
        self.records.retain(|name, _| catalog.indexes.contains_key(name));
        self.outdated.retain(|name| catalog.indexes.contains_key(name));
        let is_compared = |target: &TargetId| catalog.generation(target).is_some_and(|g| g.state == State::Comparing);
        self.comparing.retain(|target, _| is_compared(target));
    }

    fn wanted(&self, catalog: &Catalog) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for (name, index) in &catalog.indexes {
            let reads_record = !self.is_current(name, index);
            for (target, generation) in index.targets(name) {
                wanted.push(Wanted {
                    is_plain: index.is_plain(name, target.generation),
                    target,
                    collection: generation.collection.clone(),
                    reads_record,
                    is_compared: generation.state == State::Comparing,
                });
            }
        }
        wanted
    }

    /// Continues to read; ready when that has ended.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(reading) = &mut self.reading else { return Poll::Pending };
        let Poll::Ready(read) = reading.work.as_mut().poll(context) else { return Poll::Pending };
        let Some(reading) = self.reading.take() else { return Poll::Pending };
        match read {
            Ok(read) => self.take(reading, read),
            Err(error) => {
                debug!("failed to read the collections: {error}");
                self.outdated.extend(reading.outdated);
                self.retry_at = Some(Instant::now() + self.backoff.next_delay(error.retry_after));
            }
        }
        Poll::Ready(())
    }

    fn take(&mut self, reading: Reading, read: Read) {
        let now = Instant::now();
        self.backoff.reset();
        self.at = Some(now);
        self.reads += 1;
        // Their steps wait for the records; those of the others go on.
        self.retry_at = (!read.unread.is_empty()).then(|| now + UNREAD_PAUSE);
        self.outdated.extend(read.unread.iter().cloned());
        self.unread = read.unread;
        (self.revision, self.known) = (reading.revision, reading.indexes);
        for (target, record) in read.records {
            let records = self.records.entry(target.index.clone()).or_default();
            match record.filter(|record| record.target() == target) {
                Some(record) => records.insert(target.generation, record),
                None => records.remove(&target.generation),
            };
        }
        let compared = self.known.iter().flat_map(|(name, index)| index.targets(name));
        for (target, _) in compared.filter(|(_, generation)| generation.state == State::Comparing) {
            self.comparing.entry(target).or_insert(now);
        }
        self.seen = read.seen;
    }
}

/// Whether the backlog decides about the next step of an index.
fn is_about_to_move(index: &Index) -> bool {
    index.switching.is_some() || index.generations.values().any(|generation| generation.state == State::Ready)
}

async fn read(tools: &Tools, wanted: Vec<Wanted>, had: &BTreeSet<String>, wants_backlog: bool) -> PortResult<Read> {
    let Listed { mut collections, aliases } = tools.catalog.collections.list().await?;
    let aliased = wanted.iter().filter(|wanted| wanted.is_plain && aliases.contains_key(&wanted.collection));
    let aliased: Vec<String> = aliased.map(|wanted| wanted.collection.clone()).collect();
    collections.extend(aliased);
    let backlog = if wants_backlog { tools.backlog().await? } else { 0 };
    let (mut records, mut settled, mut unread) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    let (existing, missing): (Vec<Wanted>, Vec<Wanted>) =
        wanted.into_iter().partition(|wanted| collections.contains(&wanted.collection));
    records.extend(missing.into_iter().map(|wanted| (wanted.target, None)));
    let looks = existing.into_iter().map(|wanted| {
        let reads_record = wanted.reads_record || !had.contains(&wanted.collection);
        look_at(tools, wanted, reads_record)
    });
    for Looked { target, is_settled, record } in join_all(looks).await {
        if is_settled {
            settled.insert(target.clone());
        }
        match record {
            None => {}
            Some(Ok(record)) => records.push((target, record)),
            Some(Err(error)) => {
                debug!(index = %target.index, "failed to read the record of {target}: {error}");
                unread.insert(target.index);
            }
        }
    }
    Ok(Read { seen: Seen { collections, aliases, backlog, settled }, records, unread })
}

/// What an existing collection is like.
struct Looked {
    target: TargetId,
    is_settled: bool,
    /// Its record; `None` if it was not read.
    record: Option<PortResult<Option<TargetRecord>>>,
}

/// Looks at one collection. Its failures concern its index alone.
async fn look_at(tools: &Tools, wanted: Wanted, reads_record: bool) -> Looked {
    let Wanted { target, collection, is_compared, .. } = wanted;
    let opened = tools.catalog.collections.open(&collection);
    let is_settled = is_compared && opened.is_settled().await.unwrap_or(false);
    if !reads_record {
        return Looked { target, is_settled, record: None };
    }
    let record = match opened.record().await {
        Err(error) if error.class == ErrorClass::Fatal => {
            warn!(index = %target.index, collection, "an unreadable record is written again: {error}");
            Ok(None)
        }
        record => record,
    };
    Looked { target, is_settled, record: Some(record) }
}

/// Whether the generation is being created, and only the controller's steps are missing.
pub(super) fn is_being_created(generation: &Generation) -> bool {
    generation.state == State::Creating && generation.embedder.is_some()
}
