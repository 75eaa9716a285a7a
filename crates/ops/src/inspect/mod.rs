//! Inspects one document across every hop: queries every server for it, and explains where it is and why.

pub mod facts;
pub mod report;
#[cfg(test)]
mod tests;
pub mod verdict;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, Stamped, digest};
use tidewheel_core::ports::{
    Covered, EntryFinder, EntryState, FenceTarget, FoundEntries, FoundEntry, IdReading, IndexReader, IndexedPoint,
    PortResult, Registry, SourceRow, StageInspector, Tombstones,
};
use tidewheel_core::stage::Stage;
use tidewheel_core::trace::ChangeTrace;
use tidewheel_core::version::Version;
use uuid::Uuid;

use self::facts::{ChangeFacts, Deletions, EntryFacts, IndexFacts, LetterFacts, Progress, SourceFacts, StageFacts};
use self::report::{DocumentReport, Hop, Inspection};
use self::verdict::{DocumentState, Facts, verdict};
use crate::{Probe, check_layout, times};

/// Maximum time for a server to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Delay before a missing or stale document is queried again: a change that was just committed is in no stream yet.
const MOMENT: Duration = Duration::from_millis(1_500);

/// Chunks probed beyond the last expected one.
const BLIND: u32 = 64;

/// Maximum number of chunks to query.
const MOST_CHUNKS: u32 = 10_000;

/// The ports of an inspection.
pub struct InspectPorts<'a> {
    /// The source, or why it is unreachable.
    pub source: PortResult<Covered>,
    /// The installation.
    pub registry: &'a dyn Registry,
    /// The producer's state.
    pub stages: &'a dyn StageInspector,
    /// The entries of both stages.
    pub finder: &'a dyn EntryFinder,
    /// The tombstones.
    pub tombstones: &'a dyn Tombstones,
    /// The index.
    pub index: &'a dyn IndexReader,
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
}

/// Looks up the documents that the id may refer to. Missing or stale documents are queried a second time: the change may have
/// just been committed.
///
/// # Errors
/// If this release cannot use the keys in Redis, or no collections are given and the source is unreachable. Any other
/// unreachable server is part of the answer.
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
    let namespaces = match (&question.namespaces[..], &ports.source) {
        ([], Ok(source)) => source.collections().await?,
        ([], Err(error)) => return Err(error.clone().with_hint("set --namespace to search without MongoDB")),
        (given, _) => given.to_vec(),
    };
    let readings = &question.readings;
    let asked: Vec<Asked> = namespaces
        .iter()
        .flat_map(|namespace| readings.iter().map(|reading| Asked::new(namespace.clone(), reading.clone())))
        .collect();
    let wanted = pairs(&asked);
    let (layout, source, raw, embedded, index, deleted, one, two, producer) = tokio::join!(
        tokio::time::timeout(TIMEOUT, check_layout(ports.registry)),
        Probe::within(TIMEOUT, source(ports, &namespaces, readings)),
        Probe::within(TIMEOUT, ports.finder.entries_of(Stage::Raw, &wanted, question.scan)),
        Probe::within(TIMEOUT, ports.finder.entries_of(Stage::Embedded, &wanted, question.scan)),
        Probe::within(TIMEOUT, index(ports.index, &asked)),
        Probe::within(TIMEOUT, deleted(ports.tombstones, &asked)),
        Probe::within(TIMEOUT, ports.finder.letters_of(Stage::Raw, &wanted, question.scan)),
        Probe::within(TIMEOUT, ports.finder.letters_of(Stage::Embedded, &wanted, question.scan)),
        Probe::within(TIMEOUT, ports.stages.leader()),
    );
    // Without an answer the probes of Redis are unknown as well.
    layout.unwrap_or(Ok(()))?;
    let producer = producer.known().map(Option::is_some);
    let documents = asked.iter().map(|asked| {
        let source =
            source.as_ref().map(|rows| source_facts(rows.get(&(asked.namespace.clone(), asked.reading.key.clone()))));
        let (raw, embedded) =
            (raw.as_ref().map(|found| stage(asked, found)), embedded.as_ref().map(|found| stage(asked, found)));
        let index = index.as_ref().map(|points| index_facts(asked, points));
        let deleted = deleted.as_ref().map(|known| known.get(&asked.document).cloned().unwrap_or_default());
        let dead_letters = match (&one, &two) {
            (Probe::Known(one), Probe::Known(two)) => {
                let letters = [(Stage::Raw, one), (Stage::Embedded, two)];
                Probe::Known(letters.into_iter().flat_map(|(stage, found)| letters_of(asked, stage, found)).collect())
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
            producer,
        };
        DocumentReport {
            namespace: asked.namespace.to_string(),
            key: asked.reading.key.clone(),
            kind: asked.reading.kind,
            document: asked.document.to_string(),
            verdict: verdict(&facts),
            hops: hops(raw.known(), embedded.known()),
            source,
            raw,
            embedded,
            index,
            deleted,
            dead_letters,
        }
    });
    let documents: Vec<DocumentReport> = documents.collect();
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

async fn source(ports: &InspectPorts<'_>, namespaces: &[Namespace], readings: &[IdReading]) -> PortResult<Rows> {
    let source = ports.source.as_ref().map_err(Clone::clone)?;
    let keys: Vec<String> = readings.iter().map(|reading| reading.key.clone()).collect();
    let now = source.now().await?;
    let mut rows = Rows::new();
    for namespace in namespaces {
        let found = source.fetch(namespace, &keys, now).await?;
        rows.extend(found.into_iter().map(|row| ((namespace.clone(), row.key.clone()), row)));
    }
    Ok(rows)
}

fn source_facts(row: Option<&SourceRow>) -> SourceFacts {
    SourceFacts {
        exists: row.is_some(),
        digest: row.and_then(|row| row.document.as_ref().ok()).map(|document| digest(document)),
        bytes: row.and_then(|row| row.document.as_ref().ok()).map(String::len),
    }
}

/// Returns the points of each document in the index.
async fn index(index: &dyn IndexReader, asked: &[Asked]) -> PortResult<HashMap<Uuid, IndexedPoint>> {
    let fields = [RESERVED];
    let first: Vec<Uuid> = asked.iter().map(|asked| asked.document.point(0)).collect();
    let mut points: HashMap<Uuid, IndexedPoint> = HashMap::new();
    let mut add = |found: Vec<IndexedPoint>| points.extend(found.into_iter().map(|point| (point.id, point)));
    let found = index.points(&first, &fields).await?;
    let reach: HashMap<Uuid, u32> = found.iter().map(|point| (point.id, reach(Some(point)))).collect();
    add(found);
    for asked in asked {
        let last = reach.get(&asked.document.point(0)).copied().unwrap_or_else(|| self::reach(None));
        let rest: Vec<Uuid> = (1..last).map(|chunk| asked.document.point(chunk)).collect();
        add(index.points(&rest, &fields).await?);
    }
    Ok(points)
}

/// Number of chunks to query, given the first one: some more than expected.
fn reach(first: Option<&IndexedPoint>) -> u32 {
    let chunks = first.and_then(|point| Stamped::read(&point.payload)).map_or(0, |stamp| stamp.chunks);
    chunks.saturating_add(BLIND).min(MOST_CHUNKS)
}

fn index_facts(asked: &Asked, points: &HashMap<Uuid, IndexedPoint>) -> Option<IndexFacts> {
    let stamp = |chunk: u32| {
        let point = points.get(&asked.document.point(chunk))?;
        Some((point, Stamped::read(&point.payload)?))
    };
    let reach = reach(points.get(&asked.document.point(0)));
    let all: Vec<(u32, (&IndexedPoint, Stamped))> =
        (0..reach).filter_map(|chunk| Some((chunk, stamp(chunk)?))).collect();
    let (_, (point, first)) = all.first()?;
    let whole = |(chunk, (_, stamp)): &&(u32, (&IndexedPoint, Stamped))| {
        *chunk < first.chunks && stamp.version == first.version
    };
    let present = u32::try_from(all.iter().filter(whole).count()).unwrap_or(u32::MAX);
    let mut made: Map<String, Value> =
        point.payload.get(RESERVED).and_then(Value::as_object).cloned().unwrap_or_default();
    made.retain(|name, value| !value.is_object() && !SHOWN_ELSEWHERE.contains(&name.as_str()));
    // Qdrant does not keep the order of fields.
    made.sort_keys();
    Some(IndexFacts {
        version: first.version.to_string(),
        trace_id: ChangeTrace::of(&asked.namespace, &asked.reading.key, first.version).id.to_string(),
        digest: first.digest.clone(),
        chunks: first.chunks,
        present,
        surplus: u32::try_from(all.len()).unwrap_or(u32::MAX) - present,
        made,
        point: point.id.to_string(),
    })
}

/// Metadata fields of a point that have their own field in the result, and the text.
const SHOWN_ELSEWHERE: [&str; 8] = ["key", "namespace", "document", "version", "digest", "chunk", "chunks", "text"];

async fn deleted(tombstones: &dyn Tombstones, asked: &[Asked]) -> PortResult<HashMap<DocumentId, Deletions>> {
    let targets: Vec<FenceTarget> = asked
        .iter()
        .flat_map(|asked| [FenceTarget::Document(asked.document), FenceTarget::Namespace(asked.namespace.clone())])
        .collect();
    let versions = tombstones.of(&targets).await?;
    let text = |version: &Option<Version>| version.as_ref().map(ToString::to_string);
    let deletions = asked.iter().zip(versions.as_chunks::<2>().0);
    Ok(deletions
        .map(|(asked, [document, collection])| {
            (asked.document, Deletions { document: text(document), collection: text(collection) })
        })
        .collect())
}

/// Entries that concern this document.
fn of_document<'f>(asked: &Asked, found: &'f FoundEntries) -> impl Iterator<Item = &'f FoundEntry> {
    let (namespace, key) = (asked.namespace.as_str(), asked.reading.key.as_str());
    found.entries.iter().filter(move |entry| entry.namespace == namespace && (entry.key == key || entry.is_drop))
}

fn stage(asked: &Asked, found: &FoundEntries) -> StageFacts {
    let entries = of_document(asked, found).map(entry).collect();
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

fn letters_of(asked: &Asked, stage: Stage, found: &FoundEntries) -> Vec<LetterFacts> {
    let letters = of_document(asked, found).map(|entry| {
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
