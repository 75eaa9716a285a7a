//! Writes to the fake collection.

use async_trait::async_trait;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::payload::{RESERVED, fingerprint_of, version_of};
use tidewheel_core::ports::{DocumentPoints, Fence, FenceTarget, IndexWriter, Point, PortResult, Stored, Written};
use tidewheel_core::version::Version;
use uuid::Uuid;

use super::{Collection, FakeIndex, SentWrite, State, has_vector};
use crate::contracts::index::payload_of;

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

impl State {
    fn prepare(&mut self, dimension: usize) -> PortResult<bool> {
        let created = self.collection.is_none();
        self.collection.get_or_insert_with(|| Collection::new(dimension)).check(dimension)?;
        Ok(created)
    }

    pub(super) fn upsert(&mut self, documents: &[&DocumentPoints]) -> PortResult<Written> {
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

    pub(super) fn refresh(&mut self, documents: &[&DocumentPoints]) -> Vec<bool> {
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

    pub(super) fn delete(&mut self, fences: &[Fence]) {
        if let Some(collection) = &mut self.collection {
            collection.points.retain(|_, point| !fences.iter().any(|fence| is_behind(point, fence)));
        }
    }
}

fn is_behind(point: &Point, fence: &Fence) -> bool {
    let reserved = |name: &str| point.payload.get(RESERVED)?.get(name)?.as_str();
    let guarded = match &fence.target {
        FenceTarget::Document(document) => reserved("document") == Some(document.to_string().as_str()),
        FenceTarget::Namespace(namespace) => reserved("namespace") == Some(namespace.as_str()),
    };
    guarded && version_of(&point.payload) < Some(fence.version)
}
