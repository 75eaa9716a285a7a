//! Inspects one document across every hop: queries every server for it, and explains where it is and why, index by index.

pub mod facts;
mod places;
pub mod report;
#[cfg(test)]
mod tests;
pub mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tidewheel_core::catalog::{IndexName, routes};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::digest;
use tidewheel_core::ports::{
    Covered, EntryFinder, EntryState, FoundEntries, FoundEntry, IdReading, Judged, PortResult, Registry, Source,
    SourceRow, StageInspector,
};
use tidewheel_core::stage::Stage;
use tidewheel_core::trace::ChangeTrace;
use tidewheel_core::version::Version;
use tidewheel_pipeline::targets::Targets;

use self::facts::{ChangeFacts, EntryFacts, LetterFacts, Progress, StageFacts};
use self::places::{Place, look};
use self::report::{DocumentReport, Hop, Inspection};
use self::verdict::{DocumentState, Facts, verdict};
use crate::selection::{self, applied_or_local};
use crate::{Probe, check_layout, times};

/// Maximum time for a server to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Delay before a missing or stale document is queried again: a change that was just committed is in no stream yet.
const MOMENT: Duration = Duration::from_millis(1_500);

/// The ports of an inspection.
pub struct InspectPorts<'a> {
    /// The source, or why it is unreachable.
    pub source: PortResult<Arc<dyn Source>>,
    /// The installation.
    pub registry: &'a dyn Registry,
    /// The producer's state.
    pub stages: &'a dyn StageInspector,
    /// The entries of both stages.
    pub finder: &'a dyn EntryFinder,
    /// The indexes.
    pub targets: &'a Targets,
}

/// A query for a document.
pub struct Question {
    /// An `_id` as given.
    pub id: String,
    /// What the `_id` may mean, the likeliest first.
    pub readings: Vec<IdReading>,
    /// Collections to search; empty for every selected collection.
    pub namespaces: Vec<Namespace>,
    /// Number of newest entries to scan in each stage.
    pub scan: u64,
    /// Only this index.
    pub index: Option<IndexName>,
}

/// Looks up the documents that the id may refer to. Missing or stale documents are queried a second time: the change may have
/// just been committed.
///
/// # Errors
/// If this release cannot use the keys in Redis, the indexes are unknown, there is no such index, or no collections are
/// given and the source is unreachable. Any other unreachable server is part of the answer.
pub async fn inspect(ports: &InspectPorts<'_>, question: &Question) -> PortResult<Inspection> {
    let found = once(ports, question).await?;
    let unsettled =
        |document: &DocumentReport| matches!(document.verdict.state, DocumentState::Missing | DocumentState::Stale);
    if !found.documents.iter().any(unsettled) {
        return Ok(found);
    }
    tokio::time::sleep(MOMENT).await;
    once(ports, question).await
}

async fn once(ports: &InspectPorts<'_>, question: &Question) -> PortResult<Inspection> {
    let applied = applied_or_local(ports.targets).await?;
    let targets = selection::serving(&applied, question.index.as_ref())?;
    let routes = routes(&selection::restricted(applied.catalog(), question.index.as_ref())?);
    let coverage = routes.coverage();
    let source = ports.source.as_ref().map(|source| Covered { source: source.clone(), coverage: coverage.clone() });
    let namespaces = match (&question.namespaces[..], &source) {
        ([], Ok(source)) => source.collections().await?,
        ([], Err(error)) => return Err((*error).clone().with_hint("set --namespace to search without MongoDB")),
        (given, _) => given.to_vec(),
    };
    let readings = &question.readings;
    let asked: Vec<Asked> = namespaces
        .iter()
        .flat_map(|namespace| readings.iter().map(|reading| Asked::new(namespace.clone(), reading.clone())))
        .collect();
    let wanted = pairs(&asked);
    let (layout, source, raw, embedded, places, one, two, producer) = tokio::join!(
        tokio::time::timeout(TIMEOUT, check_layout(ports.registry)),
        Probe::within(TIMEOUT, rows(source, &namespaces, readings)),
        Probe::within(TIMEOUT, ports.finder.entries_of(Stage::Raw, &wanted, question.scan)),
        Probe::within(TIMEOUT, ports.finder.entries_of(Stage::Embedded, &wanted, question.scan)),
        look(targets, &routes, &asked),
        Probe::within(TIMEOUT, ports.finder.letters_of(Stage::Raw, &wanted, question.scan)),
        Probe::within(TIMEOUT, ports.finder.letters_of(Stage::Embedded, &wanted, question.scan)),
        Probe::within(TIMEOUT, ports.stages.leader()),
    );
    // Without an answer the probes of Redis are unknown as well.
    layout.unwrap_or(Ok(()))?;
    let answers = Answers { source, raw, embedded, one, two, producer: producer.known().map(Option::is_some) };
    let mut documents = Vec::new();
    for asked in &asked {
        let covering = places.iter().filter(|place| place.covers(asked));
        let mut reports: Vec<DocumentReport> = covering.map(|place| report(asked, place, &answers)).collect();
        if reports.is_empty() {
            // An index may still hold what it covered before.
            reports.extend(places.iter().map(|place| report(asked, place, &answers)));
        }
        documents.extend(reports);
    }
    // An id has several readings; unknown ones are dropped if another one is known.
    let heard = |document: &DocumentReport| document.verdict.state != DocumentState::Unheard;
    let is_known = |document: &DocumentReport| match document.verdict.state {
        DocumentState::Unheard => false,
        // A server did not answer: keep the reading that another server knows.
        DocumentState::Unknown => {
            document.source.known().is_some_and(|source| source.exists)
                || matches!(document.index.known(), Some(Some(_)))
                || [&document.raw, &document.embedded].into_iter().flat_map(Probe::known).any(|s| !s.entries.is_empty())
        }
        _ => true,
    };
    let mut known: Vec<DocumentReport> = documents.iter().filter(|document| is_known(document)).cloned().collect();
    if known.is_empty() {
        known.extend(documents.into_iter().find(heard));
    }
    Ok(Inspection {
        asked: question.id.clone(),
        read_as: readings.iter().map(|reading| reading.kind).collect(),
        namespaces: namespaces.iter().map(Namespace::to_string).collect(),
        documents: known,
    })
}

/// A document that the id may refer to.
struct Asked {
    namespace: Namespace,
    reading: IdReading,
    document: DocumentId,
}

impl Asked {
    fn new(namespace: Namespace, reading: IdReading) -> Self {
        let document = DocumentId::new(&namespace, &reading.key);
        Self { namespace, reading, document }
    }
}

fn pairs(asked: &[Asked]) -> Vec<(Namespace, String)> {
    asked.iter().map(|asked| (asked.namespace.clone(), asked.reading.key.clone())).collect()
}

type Rows = HashMap<(Namespace, String), SourceRow>;

/// Returns the rows of all documents, judged by the filters of the coverage.
async fn rows(
    source: Result<Covered, &PortError>,
    namespaces: &[Namespace],
    readings: &[IdReading],
) -> PortResult<Rows> {
    let Covered { source, coverage } = source.map_err(Clone::clone)?;
    let keys: Vec<String> = readings.iter().map(|reading| reading.key.clone()).collect();
    let judged = Judged { filters: coverage.filters.clone(), pushed: None };
    let now = source.now().await?;
    let mut rows = Rows::new();
    for namespace in namespaces.iter().filter(|namespace| coverage.covers(namespace)) {
        let found = source.fetch(namespace, &keys, now, &judged).await?;
        rows.extend(found.into_iter().map(|row| ((namespace.clone(), row.key.clone()), row)));
    }
    Ok(rows)
}

/// What the source and the streams answered about all documents.
struct Answers {
    source: Probe<Rows>,
    raw: Probe<FoundEntries>,
    embedded: Probe<FoundEntries>,
    /// Dead letters of stage 1.
    one: Probe<FoundEntries>,
    /// Dead letters of stage 2.
    two: Probe<FoundEntries>,
    /// Whether a producer holds the lease; `None` if unknown.
    producer: Option<bool>,
}

/// One document in one target.
fn report(asked: &Asked, place: &Place, answers: &Answers) -> DocumentReport {
    let row = |rows: &Rows| place.source(asked, rows.get(&(asked.namespace.clone(), asked.reading.key.clone())));
    let source = answers.source.as_ref().map(row);
    let raw = answers.raw.as_ref().map(|found| stage(asked, place, found));
    let embedded = answers.embedded.as_ref().map(|found| stage(asked, place, found));
    let (index, deleted) = (place.index(asked), place.deleted(asked));
    let dead_letters = match (&answers.one, &answers.two) {
        (Probe::Known(one), Probe::Known(two)) => {
            let letters = [(Stage::Raw, one), (Stage::Embedded, two)];
            let letters = letters.into_iter().flat_map(|(stage, found)| letters_of(asked, place, stage, found));
            Probe::Known(letters.collect())
        }
        (Probe::Unknown(error), _) | (_, Probe::Unknown(error)) => Probe::Unknown(error.clone()),
    };
    let facts = Facts {
        source: &source,
        raw: &raw,
        embedded: &embedded,
        index: &index,
        deleted: &deleted,
        letters: &dead_letters,
        producer: answers.producer,
    };
    DocumentReport {
        namespace: asked.namespace.to_string(),
        key: asked.reading.key.clone(),
        kind: asked.reading.kind,
        document: asked.document.to_string(),
        target: place.name(),
        verdict: verdict(&facts),
        hops: hops(raw.known(), embedded.known()),
        source,
        raw,
        embedded,
        index,
        deleted,
        dead_letters,
    }
}

/// Entries that concern this document in this target.
fn of_document<'f>(asked: &Asked, place: &Place, found: &'f FoundEntries) -> impl Iterator<Item = &'f FoundEntry> {
    let (namespace, key) = (asked.namespace.as_str(), asked.reading.key.as_str());
    let is_named = move |entry: &FoundEntry| entry.namespace == namespace && (entry.key == key || entry.is_drop);
    found.entries.iter().filter(move |entry| is_named(entry) && place.holds(entry))
}

fn stage(asked: &Asked, place: &Place, found: &FoundEntries) -> StageFacts {
    let entries = of_document(asked, place, found).map(entry).collect();
    StageFacts { entries, looked_at: found.looked_at, complete: found.complete }
}

fn entry(found: &FoundEntry) -> EntryFacts {
    let mut embedding: Map<String, Value> =
        found.embedding.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    embedding.extend(found.chunks.map(|chunks| ("chunks".to_owned(), chunks.into())));
    EntryFacts {
        id: found.id.0.clone(),
        added_at: times::show(found.id.parts().0),
        state: match &found.state {
            EntryState::Waiting => Progress::Waiting,
            EntryState::Confirmed => Progress::Confirmed,
            EntryState::Pending { consumer, idle_ms, deliveries } => {
                Progress::Pending { consumer: consumer.clone(), idle_ms: *idle_ms, deliveries: *deliveries }
            }
        },
        change: found.change.as_ref().ok().map(|change| ChangeFacts {
            operation: change.operation.to_string(),
            version: change.version.to_string(),
            trace_id: ChangeTrace::of_change(change).id.to_string(),
            committed_at: change.committed_at,
            digest: change.document.as_deref().map(digest),
        }),
        unreadable: found.change.as_ref().err().map(ToString::to_string),
        embedding,
    }
}

fn letters_of(asked: &Asked, place: &Place, stage: Stage, found: &FoundEntries) -> Vec<LetterFacts> {
    let letters = of_document(asked, place, found).map(|entry| {
        let change = entry.change.as_ref().ok();
        let (reason, parked_at) =
            entry.parked.as_ref().map_or_else(Default::default, |parked| (parked.reason.clone(), parked.parked_at));
        LetterFacts {
            stage,
            id: entry.id.0.clone(),
            trace_id: change.map(|change| ChangeTrace::of_change(change).id.to_string()),
            version: change.map(|change| change.version.to_string()).unwrap_or_default(),
            reason,
            parked_at: times::show(parked_at),
        }
    });
    letters.collect()
}

/// Latencies of the newest change, as far as both stages still hold it.
fn hops(raw: Option<&StageFacts>, embedded: Option<&StageFacts>) -> Vec<Hop> {
    let milliseconds = |id: &str| tidewheel_core::ports::EntryId(id.to_owned()).parts().0;
    let Some((entry, change)) = raw.and_then(|raw| {
        let changes = raw.entries.iter().filter_map(|entry| Some((entry, entry.change.as_ref()?)));
        changes.max_by_key(|(_, change)| change.version.parse::<Version>().ok())
    }) else {
        return Vec::new();
    };
    let added = milliseconds(&entry.id);
    let mut hops = Vec::new();
    // The commit time of a snapshot row is unknown.
    if change.operation != "read" {
        hops.push(Hop { name: "commit → stage 1", took_ms: added.saturating_sub(change.committed_at) });
    }
    let same = |other: &&EntryFacts| other.change.as_ref().is_some_and(|other| other.version == change.version);
    if let Some(next) = embedded.and_then(|embedded| embedded.entries.iter().find(same)) {
        let next = milliseconds(&next.id);
        hops.push(Hop { name: "stage 1 → stage 2", took_ms: next.saturating_sub(added) });
    }
    hops
}
