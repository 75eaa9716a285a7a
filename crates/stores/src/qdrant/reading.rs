//! Reads and searches of the collection.

use std::collections::HashMap;

use async_trait::async_trait;
use qdrant_client::qdrant::vector_output::Vector;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{CountPoints, DenseVector, GetPoints, RetrievedPoint, ScoredPoint};
use tidewheel_core::filter::Filter;
use tidewheel_core::payload::{fingerprint_of, version_of};
use tidewheel_core::ports::{Hit, IndexReader, IndexedPoint, KnownVector, KnownVectors, PortResult, Searcher};
use tidewheel_core::version::Version;
use uuid::Uuid;

use super::{QdrantIndex, existing, filter, request, uuid_of, value};

/// Maximum points counted exactly: an exact count reads all of them.
const COUNTED: u64 = 100_000;

/// Maximum points whose versions are read per call: a long document has thousands.
const VERSIONS_PER_CALL: usize = 4_096;

impl QdrantIndex {
    /// Returns the requested points; none if the collection is missing.
    pub(super) async fn get(&self, request: GetPoints) -> PortResult<Vec<RetrievedPoint>> {
        let count = request.ids.len();
        let response = existing(self.connection.points().get(request).await)
            .map_err(|status| self.failed(&format!("read {count} points"), &status))?;
        Ok(response.map(|response| response.result).unwrap_or_default())
    }

    /// Returns the versions of the existing points among these.
    pub(super) async fn versions(&self, ids: Vec<Uuid>) -> PortResult<HashMap<Uuid, Option<Version>>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let version =
            |point: RetrievedPoint| Some((uuid_of(point.id)?, version_of(&value::from_payload(point.payload))));
        let mut versions = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(VERSIONS_PER_CALL) {
            let request = request::versions(&self.collection, ids.iter().copied());
            versions.extend(self.get(request).await?.into_iter().filter_map(version));
        }
        Ok(versions)
    }

    async fn counted(&self, exact: bool) -> PortResult<Option<u64>> {
        let request =
            CountPoints { collection_name: self.collection.clone(), exact: Some(exact), ..CountPoints::default() };
        let response = existing(self.connection.points().count(request).await)
            .map_err(|status| self.failed("count the points", &status))?;
        Ok(response.map(|response| response.result.unwrap_or_default().count))
    }
}

#[async_trait]
impl IndexReader for QdrantIndex {
    fn name(&self) -> &str {
        &self.collection
    }

    async fn exists(&self) -> PortResult<bool> {
        self.facts().await.map(|facts| facts.is_some())
    }

    async fn count(&self) -> PortResult<Option<u64>> {
        match self.counted(false).await? {
            Some(about) if about <= COUNTED => self.counted(true).await,
            about => Ok(about),
        }
    }

    async fn points(&self, ids: &[Uuid], fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        self.get(request::points(&self.collection, ids, fields)).await.map(indexed)
    }

    async fn page(&self, after: Option<Uuid>, limit: usize, fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        // UUIDs are ordered as 128-bit integers, and Qdrant's page starts at the given id. Starts at the nil UUID,
        // because points with integer ids, which are not ours, come before all UUIDs.
        let Some(start) = after.map_or(Some(0), |after| after.as_u128().checked_add(1)) else {
            return Ok(Vec::new());
        };
        let request = request::page(&self.collection, Uuid::from_u128(start), limit, fields);
        let response = existing(self.connection.points().scroll(request).await)
            .map_err(|status| self.failed("read a page of points", &status))?;
        Ok(indexed(response.map(|response| response.result).unwrap_or_default()))
    }
}

#[async_trait]
impl Searcher for QdrantIndex {
    async fn search(
        &self,
        vector: Vec<f32>,
        limit: usize,
        filter: Option<&Filter>,
        fields: &[&str],
    ) -> PortResult<Vec<Hit>> {
        let filter = filter.map(filter::to_proto);
        let request = request::search(&self.collection, vector, limit, filter, fields);
        let response = self.connection.points().query(request).await;
        let points = response.map_err(|status| self.failed("search", &status))?.into_inner().result;
        let hit = |point: ScoredPoint| {
            Some(Hit { id: uuid_of(point.id)?, score: point.score, payload: value::from_payload(point.payload) })
        };
        Ok(points.into_iter().filter_map(hit).collect())
    }
}

#[async_trait]
impl KnownVectors for QdrantIndex {
    async fn known(&self, points: &[Uuid]) -> PortResult<Vec<KnownVector>> {
        let mut known = Vec::new();
        // A vector of 1,536 numbers takes 6 KB: well below the response limit.
        for points in points.chunks(self.limits.points) {
            let found = self.get(request::known(&self.collection, points)).await?;
            known.extend(found.into_iter().filter_map(known_vector));
        }
        Ok(known)
    }
}

/// `None` if the point has no fingerprint, or another kind of vector than we write.
fn known_vector(point: RetrievedPoint) -> Option<KnownVector> {
    let fingerprint = fingerprint_of(&value::from_payload(point.payload))?.to_owned();
    let Some(VectorsOptions::Vector(vector)) = point.vectors?.vectors_options else { return None };
    let Vector::Dense(DenseVector { data }) = vector.into_vector() else { return None };
    Some(KnownVector { id: uuid_of(point.id)?, fingerprint, vector: data })
}

fn indexed(points: Vec<RetrievedPoint>) -> Vec<IndexedPoint> {
    let indexed = |point: RetrievedPoint| {
        Some(IndexedPoint { id: uuid_of(point.id)?, payload: value::from_payload(point.payload) })
    };
    points.into_iter().filter_map(indexed).collect()
}
