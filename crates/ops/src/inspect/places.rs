//! What the indexes hold of documents: points and tombstones, target by target.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Map, Value};
use tidewheel_core::catalog::Routes;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::payload::{RESERVED, Stamped};
use tidewheel_core::ports::{FenceTarget, FoundEntry, IndexReader, IndexedPoint, PortResult, SourceRow, Tombstones};
use tidewheel_core::trace::ChangeTrace;
use tidewheel_core::version::Version;
use tidewheel_pipeline::targets::Target;
use tokio::time::Instant;
use uuid::Uuid;

use super::facts::{Deletions, IndexFacts, SourceFacts};
use super::{Asked, TIMEOUT};
use crate::Probe;
use crate::selection::concerns;

/// Chunks probed beyond the last expected one.
const BLIND: u32 = 64;

/// Maximum number of chunks to query.
const MOST_CHUNKS: u32 = 10_000;

/// Metadata fields of a point that have their own field in the result, and the text.
const SHOWN_ELSEWHERE: [&str; 8] = ["key", "namespace", "document", "version", "digest", "chunk", "chunks", "text"];

/// A target, and what it holds of all queried documents.
pub(super) struct Place {
    target: Arc<Target>,
    /// The number of its filter among the judged ones.
    filter: Option<usize>,
    points: Probe<HashMap<Uuid, IndexedPoint>>,
    deleted: Probe<HashMap<DocumentId, Deletions>>,
}

/// Queries the targets, all of them within [`TIMEOUT`]. `routes` number their filters.
pub(super) async fn look(targets: Vec<Arc<Target>>, routes: &Routes, asked: &[Asked]) -> Vec<Place> {
    let deadline = Instant::now() + TIMEOUT;
    let filters = &routes.coverage().filters;
    let mut places = Vec::with_capacity(targets.len());
    for target in targets {
        let left = deadline.saturating_duration_since(Instant::now());
        let (points, deleted) = tokio::join!(
            Probe::within(left, points(&*target.ports.index, asked)),
            Probe::within(left, deleted(&*target.ports.tombstones, asked)),
        );
        let filter = target.declaration().filter.as_ref();
        let filter = filter.and_then(|filter| filters.iter().position(|judged| judged == filter));
        places.push(Place { target, filter, points, deleted });
    }
    places
}

impl Place {
    /// Its name; `None` of local settings.
    pub(super) fn name(&self) -> Option<String> {
        (!self.target.is_local()).then(|| self.target.id.to_string())
    }

    /// Whether its index covers the collection of the document.
    pub(super) fn covers(&self, asked: &Asked) -> bool {
        self.target.declaration().source.covers(&asked.namespace)
    }

    /// Facts about the document in the source, given its row.
    pub(super) fn source(&self, asked: &Asked, row: Option<&SourceRow>) -> SourceFacts {
        let row = row.filter(|_| self.covers(asked));
        let verdict = self.filter.and_then(|filter| row?.verdicts.get(filter));
        SourceFacts { excluded: verdict == Some(false), ..SourceFacts::of(row) }
    }

    /// Whether an entry concerns the target, or may do so because it cannot be read.
    pub(super) fn holds(&self, entry: &FoundEntry) -> bool {
        concerns(entry, &self.target)
    }

    /// The points of the document; `None` if there are none.
    pub(super) fn index(&self, asked: &Asked) -> Probe<Option<IndexFacts>> {
        self.points.as_ref().map(|points| index_facts(asked, points))
    }

    /// The tombstones of the document.
    pub(super) fn deleted(&self, asked: &Asked) -> Probe<Deletions> {
        self.deleted.as_ref().map(|known| known.get(&asked.document).cloned().unwrap_or_default())
    }
}

/// Returns the points of each document in the index.
async fn points(index: &dyn IndexReader, asked: &[Asked]) -> PortResult<HashMap<Uuid, IndexedPoint>> {
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
