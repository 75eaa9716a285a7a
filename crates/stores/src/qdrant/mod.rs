//! The Qdrant adapter, over gRPC.
//!
//! * **Order.** Every write carries a filter on the stored version, which the server evaluates and applies atomically:
//!   an older change never replaces or deletes a newer one, however late or often it arrives. Only a missing point is
//!   inserted regardless of its version: tombstones and [`IndexWriter::stored`] cover that case.
//! * **Durability.** Writes wait, and succeed only if the server reports `Completed`. Anything less is a transient
//!   error and is retried.
//! * **No hidden retries.** One call of the port is one attempt.
//! * **A deleted collection** is reported by the next write, which does not create it.

mod aliases;
mod batch;
mod bounds;
mod collection;
mod connection;
mod error;
mod fence;
mod filter;
mod inspect;
mod numbers;
mod ownership;
mod redirect;
mod request;
mod value;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::vector_output::Vector;
use qdrant_client::qdrant::vectors_output::VectorsOptions;
use qdrant_client::qdrant::{
    CountPoints, DenseVector, Filter, GetCollectionInfoRequest, GetPoints, HealthCheckRequest, PointId,
    PointsOperationResponse, RetrievedPoint, ScoredPoint, UpdateBatchResponse, UpdateResult, UpdateStatus,
};
use serde::Serialize;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::payload::{fingerprint_of, version_of};
use tidewheel_core::ports::{
    DocumentPoints, Fence, FenceTarget, Hit, IndexReader, IndexWriter, IndexedPoint, KnownVector, KnownVectors,
    PortResult, Searcher, Stored, Written,
};
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tidewheel_core::version::Version;
use tonic::{Response, Status};
use uuid::Uuid;

use self::batch::{Limits, Part};
pub use self::collection::CollectionFacts;
use self::connection::Connection;
use self::error::Call;
pub use self::request::payload;

/// Maximum points counted exactly: an exact count reads all of them.
const COUNTED: u64 = 100_000;

/// Points of a dropped collection deleted per call. Deleting millions at once times out, and is retried while the
/// server still works on the previous call.
const DROPPED_PER_CALL: u32 = 5_000;

/// Maximum fences per delete: a filter is planned and evaluated as a whole, and strict mode may limit its size.
const FENCES_PER_CALL: usize = 256;

/// Maximum points whose versions are read per call: a long document has thousands.
const VERSIONS_PER_CALL: usize = 4_096;

/// Connection options for Qdrant and request limits.
#[derive(Clone, Debug)]
pub struct QdrantOptions {
    /// The gRPC address, `http://host:6334` or `https://host:6334`. The scheme defaults to http, the port to 6334.
    pub url: String,
    /// The API key, sent with every call.
    pub api_key: Option<Secret>,
    /// A private CA and a client certificate. Only with `https://`.
    pub tls: ClientTls,
    /// A collection or an alias.
    pub collection: String,
    /// Connect timeout.
    pub connect_timeout: Duration,
    /// Response timeout. A write that exceeds it may still be applied.
    pub timeout: Duration,
    /// Maximum points per request. Qdrant's documentation recommends 64 to 256.
    pub max_points: usize,
    /// Approximate maximum bytes per request.
    pub max_bytes: usize,
}

impl QdrantOptions {
    /// Default options for this address and collection.
    pub fn new(url: impl Into<String>, collection: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            api_key: None,
            tls: ClientTls::default(),
            collection: collection.into(),
            connect_timeout: Duration::from_secs(5),
            // A write may wait for a segment that is being optimised.
            timeout: Duration::from_secs(60),
            max_points: 256,
            // Half of Qdrant's maximum: our byte count is an estimate.
            max_bytes: 16 * 1024 * 1024,
        }
    }
}

/// State of the server and the collection, for operators.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QdrantFacts {
    /// The server's title.
    pub title: String,
    /// The server's version.
    pub version: String,
    /// The collection; `None` if it does not exist yet.
    pub collection: Option<CollectionFacts>,
}

/// A collection in Qdrant. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct QdrantIndex {
    connection: Connection,
    collection: String,
    url: String,
    limits: Limits,
}

impl std::fmt::Debug for QdrantIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QdrantIndex").field("url", &self.url).field("collection", &self.collection).finish()
    }
}

impl QdrantIndex {
    /// Checks the options; the first call connects. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Fatal, if the address or the API key is invalid.
    pub fn connect(options: QdrantOptions) -> PortResult<Self> {
        let QdrantOptions { url, api_key, tls, collection, connect_timeout, timeout, max_points, max_bytes } = options;
        Ok(Self {
            connection: Connection::new(&url, api_key.as_ref(), &tls, connect_timeout, timeout)?,
            collection,
            url,
            limits: Limits { points: max_points.max(1), bytes: max_bytes },
        })
    }

    /// Reads the current state of the server and the collection.
    pub async fn inspect(&self) -> PortResult<QdrantFacts> {
        let server = self.connection.server().health_check(HealthCheckRequest {}).await;
        let server = server.map_err(|status| self.failed("reach the server", &status))?.into_inner();
        Ok(QdrantFacts { title: server.title, version: server.version, collection: self.facts().await? })
    }

    async fn facts(&self) -> PortResult<Option<CollectionFacts>> {
        let request = GetCollectionInfoRequest { collection_name: self.collection.clone() };
        let response = existing(self.connection.collections().get(request).await)
            .map_err(|status| self.failed("read the collection's state", &status))?;
        Ok(response.and_then(|response| response.result).map(|info| CollectionFacts::from(&info)))
    }

    async fn create(&self, dimension: usize) -> PortResult<bool> {
        tracing::info!(collection = %self.collection, dimension, "creating the Qdrant collection");
        match self.connection.collections().create(collection::creation(&self.collection, dimension)).await {
            Ok(_) => Ok(true),
            // Another upserter created it first; it is checked like any other.
            Err(status) if error::already_exists(&status) => Ok(false),
            Err(status) => Err(self.failed("create the collection", &status)),
        }
    }

    /// Sends one request, once.
    async fn write(&self, parts: &[Part<'_>]) -> Result<(), Status> {
        let request = request::upsert(&self.collection, parts);
        bounds::check_size(&request)?;
        if let Some(request) = request::clear(&self.collection, parts) {
            completed(self.connection.points().delete(request).await)?;
        }
        completed(self.connection.points().upsert(request).await)
    }

    /// Returns the requested points; none if the collection is missing.
    async fn get(&self, request: GetPoints) -> PortResult<Vec<RetrievedPoint>> {
        let count = request.ids.len();
        let response = existing(self.connection.points().get(request).await)
            .map_err(|status| self.failed(&format!("read {count} points"), &status))?;
        Ok(response.map(|response| response.result).unwrap_or_default())
    }

    /// Returns the versions of the existing points among these.
    async fn versions(&self, ids: Vec<Uuid>) -> PortResult<HashMap<Uuid, Option<Version>>> {
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

    fn failed(&self, what: &str, status: &Status) -> PortError {
        error::classify(Call { what, collection: &self.collection, url: &self.url }, status)
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
impl IndexWriter for QdrantIndex {
    async fn prepare(&self, dimension: usize) -> PortResult<bool> {
        let mut created = false;
        let facts = match self.facts().await? {
            Some(facts) => facts,
            None => {
                created = self.create(dimension).await?;
                let gone = || {
                    PortError::transient(format!(
                        "Qdrant collection {:?} was deleted after its creation",
                        self.collection
                    ))
                };
                self.facts().await?.ok_or_else(gone)?
            }
        };
        collection::check(&self.collection, &facts, dimension)?;
        for request in collection::missing_indexes(&self.collection, &facts) {
            let what = format!("index payload field {:?}", request.field_name);
            completed(self.connection.points().create_field_index(request).await)
                .map_err(|status| self.failed(&what, &status))?;
        }
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

#[async_trait]
impl Searcher for QdrantIndex {
    async fn search(
        &self,
        vector: Vec<f32>,
        limit: usize,
        filter: Option<&tidewheel_core::filter::Filter>,
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

/// Checks that a write is completed. `WaitTimeout` comes in an otherwise successful response: the write is in progress,
/// and its outcome is unknown.
fn completed(response: Result<Response<PointsOperationResponse>, Status>) -> Result<(), Status> {
    completion(response?.into_inner().result.unwrap_or_default().status())
}

fn completion(status: UpdateStatus) -> Result<(), Status> {
    if status == UpdateStatus::Completed {
        return Ok(());
    }
    Err(Status::aborted(format!("the server returned {} instead of Completed", status.as_str_name())))
}

/// Checks that every write of a batch is completed.
fn all_completed(response: Response<UpdateBatchResponse>) -> Result<(), Status> {
    response.into_inner().result.iter().map(UpdateResult::status).try_for_each(completion)
}

/// `None` if the collection is missing.
fn existing<T>(response: Result<Response<T>, Status>) -> Result<Option<T>, Status> {
    match response {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(status) if error::is_missing(&status) => Ok(None),
        Err(status) => Err(status),
    }
}

fn uuid_of(id: Option<PointId>) -> Option<Uuid> {
    match id?.point_id_options? {
        PointIdOptions::Uuid(text) => Uuid::parse_str(&text).ok(),
        PointIdOptions::Num(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_a_completed_write_succeeds() {
        let response = |status: UpdateStatus| {
            let result = UpdateResult { status: status.into(), ..UpdateResult::default() };
            completed(Ok(Response::new(PointsOperationResponse {
                result: Some(result),
                ..PointsOperationResponse::default()
            })))
        };
        assert!(response(UpdateStatus::Completed).is_ok());
        for status in [UpdateStatus::Acknowledged, UpdateStatus::ClockRejected, UpdateStatus::WaitTimeout] {
            let status = response(status).unwrap_err();
            assert_eq!(status.code(), Code::Aborted, "which is transient");
        }
        assert!(completed(Ok(Response::new(PointsOperationResponse::default()))).is_err());
    }
}
