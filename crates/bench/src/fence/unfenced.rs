//! An index without the fence: the cost of writes if changes never arrived out of order.

use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::points_client::PointsClient;
use qdrant_client::qdrant::points_selector::PointsSelectorOneOf;
use qdrant_client::qdrant::{
    Condition, DeletePoints, Filter, PointStruct, PointsOperationResponse, PointsSelector, UpdateStatus, UpsertPoints,
};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::payload::{DOCUMENT, NAMESPACE};
use tidewheel_core::ports::{
    Collected, DocumentPoints, Fence, FenceTarget, IndexReader, IndexWriter, IndexedPoint, Point, PortResult, Stored,
    Tombstones, Written,
};
use tidewheel_core::version::Version;
use tidewheel_stores::qdrant::{QdrantIndex, payload};
use tonic::transport::Channel;
use tonic::{Response, Status};
use uuid::Uuid;

/// Maximum points per request, as in the real index. The records here never reach its limit of bytes.
const MAX_POINTS: usize = 256;

/// Upserts without a condition, deletes without a version, does not read back after a write.
pub struct Unfenced {
    /// Creates the collection.
    real: QdrantIndex,
    points: PointsClient<Channel>,
    collection: String,
}

impl Unfenced {
    /// Connects separately from the real index.
    pub async fn connect(real: QdrantIndex, url: String, collection: &str) -> Result<Self, tonic::transport::Error> {
        Ok(Self { real, points: PointsClient::connect(url).await?, collection: collection.to_owned() })
    }
}

#[async_trait]
impl IndexReader for Unfenced {
    fn name(&self) -> &str {
        &self.collection
    }

    async fn exists(&self) -> PortResult<bool> {
        self.real.exists().await
    }

    async fn count(&self) -> PortResult<Option<u64>> {
        self.real.count().await
    }

    async fn points(&self, ids: &[Uuid], fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        self.real.points(ids, fields).await
    }

    async fn page(&self, after: Option<Uuid>, limit: usize, fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        self.real.page(after, limit, fields).await
    }
}

#[async_trait]
impl IndexWriter for Unfenced {
    async fn prepare(&self, dimension: usize) -> PortResult<bool> {
        self.real.prepare(dimension).await
    }

    async fn upsert(&self, documents: &[&DocumentPoints]) -> PortResult<Written> {
        let points = |document| points_of(document);
        let points: Vec<(&DocumentPoints, &Point)> = documents.iter().copied().flat_map(points).collect();
        for points in points.chunks(MAX_POINTS) {
            let request = UpsertPoints {
                collection_name: self.collection.clone(),
                wait: Some(true),
                points: points.iter().map(|(document, own)| point(document, own)).collect(),
                ..UpsertPoints::default()
            };
            completed(self.points.clone().upsert(request).await)?;
        }
        Ok(Written::Durably)
    }

    async fn refresh(&self, documents: &[&DocumentPoints]) -> PortResult<Vec<bool>> {
        // The records have no such documents.
        Ok(vec![false; documents.len()])
    }

    async fn stored(&self, documents: &[(DocumentId, u32)]) -> PortResult<Vec<Stored>> {
        // Older than any version, so that every write counts as successful.
        Ok(vec![Stored { version: Some(Version::default()), surplus: false }; documents.len()])
    }

    async fn delete(&self, fences: &[Fence]) -> PortResult<()> {
        let mut documents = Vec::new();
        let mut namespaces = Vec::new();
        for fence in fences {
            match &fence.target {
                FenceTarget::Document(document) => documents.push(document.to_string()),
                FenceTarget::Namespace(namespace) => namespaces.push(namespace.to_string()),
            }
        }
        let named = [(DOCUMENT, documents), (NAMESPACE, namespaces)].into_iter().filter(|(_, names)| !names.is_empty());
        let filter = Filter::should(named.map(|(field, names)| Condition::matches(field, names)));
        let request = DeletePoints {
            collection_name: self.collection.clone(),
            wait: Some(true),
            points: Some(PointsSelector { points_selector_one_of: Some(PointsSelectorOneOf::Filter(filter)) }),
            ..DeletePoints::default()
        };
        completed(self.points.clone().delete(request).await)
    }

    async fn remove(&self, points: &[Uuid], version: Version) -> PortResult<()> {
        self.real.remove(points, version).await
    }
}

/// Keeps no tombstones.
pub struct NoTombstones;

#[async_trait]
impl Tombstones for NoTombstones {
    async fn raise(&self, _: &[Fence]) -> PortResult<()> {
        Ok(())
    }

    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>> {
        Ok(vec![None; targets.len()])
    }

    async fn collect(&self, _: Duration, _: u64) -> PortResult<Collected> {
        Ok(Collected::default())
    }
}

fn completed(answer: Result<Response<PointsOperationResponse>, Status>) -> PortResult<()> {
    let answer = answer.map_err(|status| PortError::fatal(format!("Qdrant rejected the request: {status}")))?;
    match answer.into_inner().result.unwrap_or_default().status() {
        UpdateStatus::Completed => Ok(()),
        status => Err(PortError::fatal(format!("Qdrant returned {}", status.as_str_name()))),
    }
}

fn points_of(document: &DocumentPoints) -> impl Iterator<Item = (&DocumentPoints, &Point)> {
    document.points.iter().map(move |point| (document, point))
}

/// The payload is built as the real index builds it.
fn point(document: &DocumentPoints, point: &Point) -> PointStruct {
    PointStruct::new(point.id.to_string(), point.vector.clone(), payload(document, point))
}
