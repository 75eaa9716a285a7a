//! A Qdrant collection, in memory.

mod inspector;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use serde_json::{Map, Value};
use tidewheel_core::error::PortError;
use tidewheel_core::filter::Filter;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_core::payload::{RESERVED, fingerprint_of, version_of};
use tidewheel_core::ports::{
    DocumentPoints, Fence, FenceTarget, Hit, IndexReader, IndexWriter, IndexedPoint, KnownVector, KnownVectors,
    Ownable, Point, PortResult, Searcher, Stored, Written,
};
use tidewheel_core::version::Version;
use uuid::Uuid;

use super::faults::Faults;
use super::filter;
use super::process::Process;
use crate::contracts::index::payload_of;

/// A sent write, regardless of its outcome.
#[derive(Clone, Debug, PartialEq)]
pub enum SentWrite {
    /// [`IndexWriter::upsert`].
    Upsert(Vec<DocumentPoints>),
    /// [`IndexWriter::refresh`].
    Refresh(Vec<DocumentPoints>),
    /// [`IndexWriter::delete`].
    Delete(Vec<Fence>),
}

/// A server with at most one collection. Clones share it.
#[derive(Clone, Default)]
pub struct FakeIndex {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

#[derive(Default)]
struct State {
    collection: Option<Collection>,
    refused: HashMap<DocumentId, PortError>,
    undeletable: HashMap<DocumentId, PortError>,
    sent: Vec<SentWrite>,
    calls: BTreeMap<&'static str, u64>,
    largest: usize,
}

struct Collection {
    dimension: usize,
    points: BTreeMap<Uuid, Point>,
    mark: Option<Installation>,
}

impl FakeIndex {
    /// A server without a collection.
    pub fn new() -> Self {
        Self::default()
    }

    /// The faults of its calls, named like the port's methods.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The same server, with the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { faults: self.faults.used_by(process), ..self.clone() }
    }

    /// All points, ordered by id.
    pub fn points(&self) -> Vec<Point> {
        self.state().collection.iter().flat_map(|collection| collection.points.values().cloned()).collect()
    }

    /// Every sent write, in order, including those prevented by a fault.
    pub fn sent(&self) -> Vec<SentWrite> {
        self.state().sent.clone()
    }

    /// How often a method of the port was called.
    pub fn calls(&self, call: &str) -> u64 {
        self.state().calls.get(call).copied().unwrap_or(0)
    }

    /// Applies a write now, again or for the first time: a delayed or duplicate request.
    pub fn arrives_late(&self, write: &SentWrite) -> PortResult<()> {
        let mut state = self.state();
        match write {
            SentWrite::Upsert(documents) => state.upsert(&documents.iter().collect::<Vec<_>>()).map(drop),
            SentWrite::Refresh(documents) => {
                state.refresh(&documents.iter().collect::<Vec<_>>());
                Ok(())
            }
            SentWrite::Delete(fences) => {
                state.delete(fences);
                Ok(())
            }
        }
    }

    /// Makes writes with this document fail as poison.
    pub fn refuse(&self, document: DocumentId) {
        self.fail_for(document, PortError::poison(format!("injected: {document} cannot be written")));
    }

    /// Makes writes with this document fail with this error.
    pub fn fail_for(&self, document: DocumentId, error: PortError) {
        self.state().refused.insert(document, error);
    }

    /// Makes deletions of this document fail with this error.
    pub fn fail_to_delete(&self, document: DocumentId, error: PortError) {
        self.state().undeletable.insert(document, error);
    }

    /// Ends the failures of documents.
    pub fn cure(&self) {
        let mut state = self.state();
        state.refused.clear();
        state.undeletable.clear();
    }

    /// Writes a point externally, as another client may.
    ///
    /// # Panics
    /// If the collection does not exist.
    pub fn put(&self, point: Point) {
        self.state().collection.as_mut().expect("a collection").points.insert(point.id, point);
    }

    /// Removes a point externally; returns whether it existed.
    pub fn remove(&self, id: Uuid) -> bool {
        self.state().collection.as_mut().is_some_and(|collection| collection.points.remove(&id).is_some())
    }

    /// Returns the largest number of points read in one call since the last call of this method.
    pub fn largest_read(&self) -> usize {
        std::mem::take(&mut self.state().largest)
    }

    /// Deletes the collection, as an operator may.
    pub fn drop_collection(&self) {
        self.state().collection = None;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn called(&self, call: &'static str) -> MutexGuard<'_, State> {
        let mut state = self.state();
        *state.calls.entry(call).or_default() += 1;
        state
    }
}

#[async_trait]
impl IndexReader for FakeIndex {
    fn name(&self) -> &str {
        "documents"
    }

    async fn exists(&self) -> PortResult<bool> {
        drop(self.called("exists"));
        self.faults.around("exists", || Ok(self.state().collection.is_some())).await
    }

    async fn count(&self) -> PortResult<Option<u64>> {
        drop(self.called("count"));
        let count = || Ok(self.state().collection.as_ref().map(|collection| collection.points.len() as u64));
        self.faults.around("count", count).await
    }

    async fn points(&self, ids: &[Uuid], fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        self.called("points").reads(ids.len());
        let points = || {
            let state = self.state();
            let points = state.collection.iter().flat_map(|collection| collection.points.values());
            Ok(points.filter(|point| ids.contains(&point.id)).map(|point| indexed(point, fields)).collect())
        };
        self.faults.around("points", points).await
    }

    async fn page(&self, after: Option<Uuid>, limit: usize, fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        self.called("page").reads(limit);
        let page = || {
            let state = self.state();
            let points = state.collection.iter().flat_map(|collection| collection.points.values());
            let after = points.filter(|point| after.is_none_or(|after| point.id > after));
            Ok(after.take(limit).map(|point| indexed(point, fields)).collect())
        };
        self.faults.around("page", page).await
    }
}

#[async_trait]
impl IndexWriter for FakeIndex {
    async fn prepare(&self, dimension: usize) -> PortResult<bool> {
        drop(self.called("prepare"));
        self.faults.around("prepare", || self.state().prepare(dimension)).await
    }

    async fn upsert(&self, documents: &[&DocumentPoints]) -> PortResult<Written> {
        if documents.is_empty() {
            return Ok(Written::Durably);
        }
        let sent = SentWrite::Upsert(documents.iter().map(|document| (*document).clone()).collect());
        self.called("upsert").sent.push(sent);
        self.faults.around("upsert", || self.state().upsert(documents)).await
    }

    async fn refresh(&self, documents: &[&DocumentPoints]) -> PortResult<Vec<bool>> {
        let sent = SentWrite::Refresh(documents.iter().map(|document| (*document).clone()).collect());
        self.called("refresh").sent.push(sent);
        self.faults.around("refresh", || Ok(self.state().refresh(documents))).await
    }

    async fn stored(&self, documents: &[(DocumentId, u32)]) -> PortResult<Vec<Stored>> {
        drop(self.called("stored"));
        let look = || {
            let state = self.state();
            let points = state.collection.as_ref().map(|collection| &collection.points);
            let point = |id: Uuid| points.and_then(|points| points.get(&id));
            let stored = |(document, chunks): &(DocumentId, u32)| Stored {
                version: point(document.point(0)).filter(|_| *chunks > 1).and_then(|point| version_of(&point.payload)),
                surplus: point(document.point(*chunks)).is_some(),
            };
            Ok(documents.iter().map(stored).collect())
        };
        self.faults.around("stored", look).await
    }

    async fn delete(&self, fences: &[Fence]) -> PortResult<()> {
        if fences.is_empty() {
            return Ok(());
        }
        self.called("delete").sent.push(SentWrite::Delete(fences.to_vec()));
        let delete = || {
            let mut state = self.state();
            let refused = |fence: &Fence| match fence.target {
                FenceTarget::Document(document) => state.undeletable.get(&document).cloned(),
                FenceTarget::Namespace(_) => None,
            };
            if let Some(error) = fences.iter().find_map(refused) {
                return Err(error);
            }
            state.delete(fences);
            Ok(())
        };
        self.faults.around("delete", delete).await
    }

    async fn remove(&self, points: &[Uuid], version: Version) -> PortResult<()> {
        drop(self.called("remove"));
        let remove = || {
            if let Some(collection) = &mut self.state().collection {
                let goes = |point: &Point| points.contains(&point.id) && version_of(&point.payload) < Some(version);
                collection.points.retain(|_, point| !goes(point));
            }
            Ok(())
        };
        self.faults.around("remove", remove).await
    }
}

#[async_trait]
impl Searcher for FakeIndex {
    async fn search(
        &self,
        vector: Vec<f32>,
        limit: usize,
        filter: Option<&Filter>,
        fields: &[&str],
    ) -> PortResult<Vec<Hit>> {
        drop(self.called("search"));
        let search = || {
            let state = self.state();
            let collection =
                state.collection.as_ref().ok_or_else(|| PortError::transient("the collection does not exist"))?;
            collection.check(vector.len())?;
            let mut hits = Vec::new();
            for point in collection.points.values().filter(|point| has_vector(point)) {
                if filter.map_or(Ok(true), |filter| filter::matches(filter, point.id, &point.payload))? {
                    let score = cosine(&vector, &point.vector);
                    hits.push(Hit { id: point.id, score, payload: indexed(point, fields).payload });
                }
            }
            hits.sort_by(|a, b| b.score.total_cmp(&a.score));
            hits.truncate(limit);
            Ok(hits)
        };
        self.faults.around("search", search).await
    }
}

#[async_trait]
impl KnownVectors for FakeIndex {
    async fn known(&self, points: &[Uuid]) -> PortResult<Vec<KnownVector>> {
        drop(self.called("known"));
        let known = || {
            let state = self.state();
            let stored = state.collection.iter().flat_map(|collection| &collection.points);
            let known = |(id, point): (&Uuid, &Point)| {
                let fingerprint = fingerprint_of(&point.payload)?.to_owned();
                Some(KnownVector { id: *id, fingerprint, vector: point.vector.clone() })
            };
            let stored = stored.filter(|(id, point)| points.contains(id) && has_vector(point));
            Ok(stored.filter_map(known).collect())
        };
        self.faults.around("known", known).await
    }
}

#[async_trait]
impl Ownable for FakeIndex {
    fn collection(&self) -> &str {
        self.name()
    }

    async fn mark(&self) -> PortResult<CollectionMark> {
        let mark = || {
            Ok(match self.state().collection.as_ref().map(|collection| collection.mark.clone()) {
                None => CollectionMark::NoCollection,
                Some(None) => CollectionMark::Unmarked,
                Some(Some(installation)) => CollectionMark::Of(installation),
            })
        };
        self.faults.around("mark", mark).await
    }

    async fn set_mark(&self, installation: &Installation) -> PortResult<()> {
        let set = || {
            if let Some(collection) = &mut self.state().collection {
                collection.mark = Some(installation.clone());
            }
            Ok(())
        };
        self.faults.around("set_mark", set).await
    }
}

/// The point with these payload fields, whose paths have at most two names; all if `fields` is empty.
fn indexed(point: &Point, fields: &[&str]) -> IndexedPoint {
    let mut payload = if fields.is_empty() { point.payload.clone() } else { Map::new() };
    for field in fields {
        match field.split_once('.') {
            None => payload.extend(point.payload.get(*field).map(|value| ((*field).to_owned(), value.clone()))),
            Some((outer, inner)) => {
                if let Some(value) = point.payload.get(outer).and_then(|object| object.get(inner)) {
                    payload.entry(outer).or_insert_with(|| Value::Object(Map::new()))[inner] = value.clone();
                }
            }
        }
    }
    IndexedPoint { id: point.id, payload }
}

impl State {
    fn reads(&mut self, points: usize) {
        self.largest = self.largest.max(points);
    }

    fn prepare(&mut self, dimension: usize) -> PortResult<bool> {
        let created = self.collection.is_none();
        let new = || Collection { dimension, points: BTreeMap::new(), mark: None };
        self.collection.get_or_insert_with(new).check(dimension)?;
        Ok(created)
    }

    fn upsert(&mut self, documents: &[&DocumentPoints]) -> PortResult<Written> {
        let Some(collection) = &mut self.collection else { return Ok(Written::NoCollection) };
        if let Some(error) = documents.iter().find_map(|document| self.refused.get(&document.document)) {
            return Err(error.clone());
        }
        for point in documents.iter().flat_map(|document| &document.points).filter(|point| has_vector(point)) {
            collection.check(point.vector.len())?;
        }
        for document in documents {
            for point in &document.points {
                let stored = collection.points.get(&point.id);
                if stored.is_none_or(|stored| version_of(&stored.payload) < Some(document.version)) {
                    let payload = payload_of(document, point);
                    collection.points.insert(point.id, Point { payload, ..point.clone() });
                }
            }
        }
        Ok(Written::Durably)
    }

    fn refresh(&mut self, documents: &[&DocumentPoints]) -> Vec<bool> {
        let Some(collection) = &mut self.collection else { return vec![false; documents.len()] };
        let mut refresh = |document: &DocumentPoints, point: &Point| {
            let Some(stored) = collection.points.get_mut(&point.id) else { return false };
            let older = version_of(&stored.payload) < Some(document.version);
            let fingerprint = fingerprint_of(&point.payload);
            if older && fingerprint.is_some() && fingerprint_of(&stored.payload) == fingerprint {
                stored.payload = payload_of(document, point);
            }
            version_of(&stored.payload) >= Some(document.version)
        };
        // Every point is written, regardless of the others.
        let mut whole = |document: &&DocumentPoints| {
            let refreshed: Vec<bool> = document.points.iter().map(|point| refresh(document, point)).collect();
            !refreshed.contains(&false)
        };
        documents.iter().map(&mut whole).collect()
    }

    fn delete(&mut self, fences: &[Fence]) {
        if let Some(collection) = &mut self.collection {
            collection.points.retain(|_, point| !fences.iter().any(|fence| is_behind(point, fence)));
        }
    }
}

impl Collection {
    fn check(&self, dimension: usize) -> PortResult<()> {
        if self.dimension == dimension {
            return Ok(());
        }
        let expected = self.dimension;
        Err(PortError::fatal(format!("the collection's dimension is {expected}, the vector's is {dimension}"))
            .with_hint("use another collection"))
    }
}

/// A zero vector means no vector.
fn has_vector(point: &Point) -> bool {
    point.vector.iter().any(|number| *number != 0.0)
}

fn is_behind(point: &Point, fence: &Fence) -> bool {
    let reserved = |name: &str| point.payload.get(RESERVED)?.get(name)?.as_str();
    let guarded = match &fence.target {
        FenceTarget::Document(document) => reserved("document") == Some(document.to_string().as_str()),
        FenceTarget::Namespace(namespace) => reserved("namespace") == Some(namespace.as_str()),
    };
    guarded && version_of(&point.payload) < Some(fence.version)
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    if norms == 0.0 { 0.0 } else { dot(a, b) / norms }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::version::{ClusterTime, Version};

    use super::super::faults::Fault;
    use super::*;
    use crate::contracts::index::document;

    fn version(seconds: u32) -> Version {
        Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 }
    }

    #[tokio::test]
    async fn write_with_lost_response_is_applied_and_sent_write_can_arrive_late() {
        let (index, namespace) = (FakeIndex::new(), Namespace::new("shop", "tickets"));
        let first = document(&namespace, "1", version(1), &["a"]);
        index.prepare(4).await.unwrap();
        index.faults().once("upsert", Fault::answer_lost());
        assert!(index.upsert(&[&first]).await.is_err());
        assert_eq!(index.points().len(), 1);

        let fence = Fence { target: FenceTarget::Document(first.document), version: version(2) };
        index.delete(&[fence]).await.unwrap();
        assert!(index.points().is_empty());

        index.arrives_late(&index.sent()[0]).unwrap();
        assert_eq!(index.points(), first.points);
        assert_eq!((index.calls("upsert"), index.faults().hits("upsert")), (1, 1));
    }
}
