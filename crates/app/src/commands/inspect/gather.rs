//! Queries every server for a document.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value};
use tidewheel_core::change::Change;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, Stamped, digest};
use tidewheel_core::ports::{FenceTarget, IndexReader, IndexedPoint, PortResult, Source, SourceRow, Tombstones as _};
use tidewheel_core::stage::Stage;
use tidewheel_core::trace::ChangeTrace;
use tidewheel_core::version::Version;
use tidewheel_stores::mongo::{IdReading, id_readings};
use tidewheel_stores::redis::wire::{self, Record as _};
use tidewheel_stores::redis::{EntryState, FoundEntries, FoundEntry, RedisStore};
use uuid::Uuid;

use super::facts::{
    ChangeFacts, Deletions, DocumentReport, EntryFacts, Hop, IndexFacts, Inspection, LetterFacts, Progress,
    SourceFacts, StageFacts,
};
use super::verdict::{Facts, State, verdict};
use crate::cli::StageName;
use crate::commands::dead_letters::letters::stage_of;
use crate::probe::Probe;
use crate::times;

/// Maximum time for a server to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Delay before a missing or stale document is queried again: a change that was just committed is in no stream yet.
const MOMENT: Duration = Duration::from_millis(1_500);

/// Chunks probed beyond the last expected one.
const BLIND: u32 = 64;

/// Maximum number of chunks to query.
const MOST_CHUNKS: u32 = 10_000;

/// Fields common to all changes; the other fields of an entry describe its embedding.
const OF_CHANGE: [&str; 8] = ["format", "operation", "namespace", "id", "key", "version", "committed_at", "document"];

/// The servers to query.
pub(crate) struct Servers<'a> {
    pub(crate) source: PortResult<Box<dyn Source>>,
    pub(crate) redis: &'a RedisStore,
    pub(crate) index: &'a dyn IndexReader,
}

/// A query for a document.
pub(crate) struct Question {
    /// An `_id` in plain form or extended JSON.
    pub(crate) id: String,
    /// Collections to search; empty for every selected collection.
    pub(crate) namespaces: Vec<Namespace>,
    /// Number of newest entries to scan in each stage.
    pub(crate) scan: u64,
}

/// Looks up the documents that the id may refer to. Missing or stale documents are queried a second time: the change may have
/// just been committed.
pub(crate) async fn inspect(servers: &Servers<'_>, question: &Question) -> PortResult<Inspection> {
    let found = once(servers, question).await?;
    let unsettled = |document: &DocumentReport| matches!(document.verdict.state, State::Missing | State::Stale);
    if !found.documents.iter().any(unsettled) {
        return Ok(found);
    }
    tokio::time::sleep(MOMENT).await;
    once(servers, question).await
}

async fn once(servers: &Servers<'_>, question: &Question) -> PortResult<Inspection> {
    let namespaces = match (&question.namespaces[..], &servers.source) {
        ([], Ok(source)) => source.collections().await?,
        ([], Err(error)) => return Err(error.clone().with_hint("set --namespace to search without MongoDB")),
        (given, _) => given.to_vec(),
    };
    let readings = id_readings(&question.id);
    let asked: Vec<Asked> = namespaces
        .iter()
        .flat_map(|namespace| readings.iter().map(|reading| Asked::new(namespace.clone(), reading.clone())))
        .collect();
    let wanted = pairs(&asked);
    let (source, raw, embedded, index, deleted, one, two, producer) = tokio::join!(
        probe(source(servers, &namespaces, &readings)),
        probe(servers.redis.entries_of(Stage::Raw, &wanted, question.scan)),
        probe(servers.redis.entries_of(Stage::Embedded, &wanted, question.scan)),
        probe(index(servers.index, &asked)),
        probe(deleted(servers.redis, &asked)),
        probe(servers.redis.letters_of(Stage::Raw, &wanted, question.scan)),
        probe(servers.redis.letters_of(Stage::Embedded, &wanted, question.scan)),
        probe(servers.redis.leader()),
    );
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
                let letters = [(StageName::Raw, one), (StageName::Embedded, two)];
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
    let heard = |document: &DocumentReport| document.verdict.state != State::Unheard;
    let is_known = |document: &DocumentReport| match document.verdict.state {
        State::Unheard => false,
        // A server did not answer: keep the reading that another server knows.
        State::Unknown => {
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

async fn probe<T>(answer: impl Future<Output = PortResult<T>>) -> Probe<T> {
    match tokio::time::timeout(TIMEOUT, answer).await {
        Ok(Ok(known)) => Probe::Known(known),
        Ok(Err(error)) => Probe::Unknown(error.message),
        Err(_) => Probe::Unknown(format!("no answer within {} s", TIMEOUT.as_secs())),
    }
}

type Rows = HashMap<(Namespace, String), SourceRow>;

async fn source(servers: &Servers<'_>, namespaces: &[Namespace], readings: &[IdReading]) -> PortResult<Rows> {
    let source = servers.source.as_ref().map_err(Clone::clone)?;
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

async fn deleted(redis: &RedisStore, asked: &[Asked]) -> PortResult<HashMap<DocumentId, Deletions>> {
    let targets: Vec<FenceTarget> = asked
        .iter()
        .flat_map(|asked| [FenceTarget::Document(asked.document), FenceTarget::Namespace(asked.namespace.clone())])
        .collect();
    let versions = redis.of(&targets).await?;
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
    let field = |entry: &FoundEntry, name: &str, value: &str| {
        entry.fields.iter().any(|(field, found)| field == name.as_bytes() && found == value.as_bytes())
    };
    let (namespace, key) = (asked.namespace.to_string(), asked.reading.key.clone());
    found.entries.iter().filter(move |entry| {
        field(entry, "namespace", &namespace) && (field(entry, "key", &key) || field(entry, "operation", "drop"))
    })
}

fn stage(asked: &Asked, found: &FoundEntries) -> StageFacts {
    let entries = of_document(asked, found).map(entry).collect();
    StageFacts { entries, looked_at: found.looked_at, complete: found.complete }
}

fn entry(found: &FoundEntry) -> EntryFacts {
    let mut embedding = Map::new();
    for (name, value) in &found.fields {
        let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        if name == "chunks" {
            let count = serde_json::from_str::<Vec<Value>>(&value).map_or(0, |chunks| chunks.len());
            embedding.insert("chunks".into(), count.into());
        } else if !OF_CHANGE.contains(&&*name) {
            embedding.insert(name.into_owned(), value.into_owned().into());
        }
    }
    let change = Change::decode(found.fields.clone());
    let unreadable = change.as_ref().err().map(ToString::to_string);
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
        change: change.ok().map(|change| ChangeFacts {
            operation: change.operation.to_string(),
            version: change.version.to_string(),
            trace_id: ChangeTrace::of_change(&change).id.to_string(),
            committed_at: change.committed_at,
            digest: change.document.as_deref().map(digest),
        }),
        unreadable,
        embedding,
    }
}

fn letters_of(asked: &Asked, stage: StageName, found: &FoundEntries) -> Vec<LetterFacts> {
    let letters = of_document(asked, found).map(|entry| {
        let letter = wire::letter(stage_of(stage), entry.id.clone(), entry.fields.clone());
        let change = Change::decode(entry.fields.clone());
        LetterFacts {
            stage,
            id: letter.id.0,
            trace_id: change.as_ref().ok().map(|change| ChangeTrace::of_change(change).id.to_string()),
            version: change.map(|change| change.version.to_string()).unwrap_or_default(),
            reason: letter.reason,
            parked_at: times::show(letter.parked_at),
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
