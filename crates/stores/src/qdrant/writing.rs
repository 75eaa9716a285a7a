//! Writes to the collection.

use std::collections::HashSet;

use async_trait::async_trait;
use qdrant_client::qdrant::{Filter, PointId};
use tidewheel_core::identity::DocumentId;
use tidewheel_core::ports::{DocumentPoints, Fence, FenceTarget, IndexWriter, PortResult, Stored, Written};
use tidewheel_core::version::Version;
use tonic::Status;
use uuid::Uuid;

use super::batch::{self, Part};
use super::collection::CollectionFacts;
use super::{QdrantIndex, all_completed, bounds, collection, completed, error, existing, fence, request, uuid_of};

/// Points of a dropped collection deleted per call. Deleting millions at once times out, and is retried while the
/// server still works on the previous call.
const DROPPED_PER_CALL: u32 = 5_000;

/// Maximum fences per delete: a filter is planned and evaluated as a whole, and strict mode may limit its size.
const FENCES_PER_CALL: usize = 256;

impl QdrantIndex {
    /// Sends one request, once.
    async fn write(&self, parts: &[Part<'_>]) -> Result<(), Status> {
        let request = request::upsert(&self.collection, parts);
        bounds::check_size(&request)?;
        if let Some(request) = request::clear(&self.collection, parts) {
            completed(self.connection.points().delete(request).await)?;
        }
        completed(self.connection.points().upsert(request).await)
    }

    /// Deletes the points that the filter selects. Succeeds if the collection is missing.
    async fn delete_behind(&self, filter: Filter, what: &str) -> PortResult<()> {
        match completed(self.connection.points().delete(request::delete(&self.collection, filter)).await) {
            Err(status) if error::is_missing(&status) => Ok(()),
            response => response.map_err(|status| self.failed(what, &status)),
        }
    }

    /// Deletes the points of a whole collection, page by page.
    async fn delete_namespace(&self, fence: &Fence) -> PortResult<()> {
        let mut start = None;
        loop {
            let filter = fence::behind(std::slice::from_ref(fence));
            let request = request::ids(&self.collection, filter, start, DROPPED_PER_CALL);
            let response = existing(self.connection.points().scroll(request).await)
                .map_err(|status| self.failed("list points of a dropped collection", &status))?;
            let Some(page) = response else { return Ok(()) };
            let ids: Vec<PointId> = page.result.into_iter().filter_map(|point| point.id).collect();
            if !ids.is_empty() {
                let what = format!("delete {} points of a dropped collection", ids.len());
                self.delete_behind(fence::among(ids, fence), &what).await?;
            }
            start = page.next_page_offset;
            if start.is_none() {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl IndexWriter for QdrantIndex {
    async fn prepare(&self, dimension: usize) -> PortResult<bool> {
        let (info, created) = match self.info().await? {
            Some(info) => (info, false),
            None => self.create_by(collection::creation(&self.collection, dimension)).await?,
        };
        let facts = CollectionFacts::from(&info);
        collection::check(&self.collection, &facts, dimension)?;
        self.index_own_fields(&facts).await?;
        Ok(created)
    }

    async fn upsert(&self, documents: &[&DocumentPoints]) -> PortResult<Written> {
        bounds::check_levels(documents)?;
        for parts in batch::requests(documents, self.limits) {
            match self.write(&parts).await {
                Ok(()) => {}
                Err(status) if error::is_missing(&status) => return Ok(Written::NoCollection),
                Err(status) => {
                    let points: usize = parts.iter().map(|part| part.points.len()).sum();
                    return Err(self.failed(&format!("write {points} points"), &status));
                }
            }
        }
        Ok(Written::Durably)
    }

    async fn refresh(&self, documents: &[&DocumentPoints]) -> PortResult<Vec<bool>> {
        bounds::check_levels(documents)?;
        for parts in batch::requests(documents, self.limits) {
            let request = request::refresh(&self.collection, &parts);
            let operations = request.operations.len();
            if operations == 0 {
                continue;
            }
            match self.connection.points().update_batch(request).await.and_then(all_completed) {
                // A missing collection has nothing to refresh.
                Err(status) if error::is_missing(&status) => break,
                response => {
                    response.map_err(|status| self.failed(&format!("write {operations} payloads"), &status))?;
                }
            }
        }
        let ids = documents.iter().flat_map(|document| &document.points).map(|point| point.id).collect();
        let versions = self.versions(ids).await?;
        let there = |document: &&DocumentPoints| {
            let mut points = document.points.iter();
            points.all(|point| versions.get(&point.id).copied().flatten() >= Some(document.version))
        };
        Ok(documents.iter().map(there).collect())
    }

    async fn stored(&self, documents: &[(DocumentId, u32)]) -> PortResult<Vec<Stored>> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        // Checking a point's existence is cheap; a version is part of a payload, which has to be read.
        let behind = documents.iter().map(|(document, chunks)| document.point(*chunks));
        let first = documents.iter().filter(|(_, chunks)| *chunks > 1).map(|(document, _)| document.point(0));
        let behind = self.get(request::which_exist(&self.collection, behind)).await?;
        let versions = self.versions(first.collect()).await?;
        let behind: HashSet<Uuid> = behind.into_iter().filter_map(|point| uuid_of(point.id)).collect();
        let stored = |(document, chunks): &(DocumentId, u32)| Stored {
            version: versions.get(&document.point(0)).copied().flatten().filter(|_| *chunks > 1),
            surplus: behind.contains(&document.point(*chunks)),
        };
        Ok(documents.iter().map(stored).collect())
    }

    async fn delete(&self, fences: &[Fence]) -> PortResult<()> {
        let (documents, namespaces): (Vec<Fence>, Vec<Fence>) =
            fences.iter().cloned().partition(|fence| matches!(fence.target, FenceTarget::Document(_)));
        for fences in documents.chunks(FENCES_PER_CALL) {
            let what = format!("delete points behind {} fences", fences.len());
            self.delete_behind(fence::behind(fences), &what).await?;
        }
        for fence in &namespaces {
            self.delete_namespace(fence).await?;
        }
        Ok(())
    }

    async fn remove(&self, points: &[Uuid], version: Version) -> PortResult<()> {
        for points in points.chunks(FENCES_PER_CALL) {
            let ids = points.iter().copied().map(request::id).collect();
            let what = format!("delete {} points", points.len());
            self.delete_behind(fence::replaceable([(version, ids)]), &what).await?;
        }
        Ok(())
    }
}
