//! Collections whose owners are checked before they are written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::catalog::{CollectionSpec, PayloadIndex, TargetRecord, VectorLayout};
use tidewheel_core::filter::Filter;
use tidewheel_core::identity::DocumentId;
use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_core::ports::{
    Collection, CollectionAdmin, Collections, DocumentPoints, Fence, Hit, IndexInspector, IndexReader, IndexState,
    IndexWriter, IndexedPoint, KnownVector, KnownVectors, Listed, Ownable, PortResult, Searcher, Stored, Written,
};
use tidewheel_core::version::Version;
use tokio::sync::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Checked, Guard, INTERVAL};

/// Collections that only their installation writes: before the first write after [`INTERVAL`], and every [`INTERVAL`] while
/// writes continue, the mark of the collection is checked, and set if it is missing. Reads check nothing.
///
/// A write to a collection of another installation fails with a fatal error.
pub struct OwnedCollections {
    collections: Arc<dyn Collections>,
    guard: Arc<Guard>,
}

impl OwnedCollections {
    /// The same collections, checked by this guard.
    pub fn new(collections: Arc<dyn Collections>, guard: Arc<Guard>) -> Self {
        Self { collections, guard }
    }
}

#[async_trait]
impl Collections for OwnedCollections {
    fn open(&self, collection: &str) -> Arc<dyn Collection> {
        let inner = self.collections.open(collection);
        Arc::new(Owned { inner, guard: Arc::clone(&self.guard), checked: Mutex::default() })
    }

    async fn list(&self) -> PortResult<Listed> {
        self.collections.list().await
    }

    async fn point(&self, alias: &str, to: Option<&str>) -> PortResult<()> {
        self.collections.point(alias, to).await
    }
}

struct Owned {
    inner: Arc<dyn Collection>,
    guard: Arc<Guard>,
    /// When the owner was last checked. Held during a check: concurrent writes wait for it.
    checked: Mutex<Option<Instant>>,
}

impl Owned {
    /// Checks the owner, unless it was checked less than `within` ago.
    async fn check(&self, within: Duration) -> PortResult<()> {
        let mut checked = self.checked.lock().await;
        if checked.is_some_and(|checked| checked.elapsed() < within) {
            return Ok(());
        }
        // A collection that does not exist yet has to be marked before the first write to it.
        let is_marked = self.guard.check_written(&*self.inner).await? == Checked::Marked;
        *checked = is_marked.then(Instant::now);
        Ok(())
    }

    async fn before_write(&self) -> PortResult<()> {
        self.check(INTERVAL).await
    }

    /// Marks the collection if the call before has created it, or else checks its owner.
    async fn opened(&self, created: bool) -> PortResult<bool> {
        self.check(if created { Duration::ZERO } else { INTERVAL }).await?;
        Ok(created)
    }
}

#[async_trait]
impl IndexReader for Owned {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn exists(&self) -> PortResult<bool> {
        self.inner.exists().await
    }

    async fn count(&self) -> PortResult<Option<u64>> {
        self.inner.count().await
    }

    async fn points(&self, ids: &[Uuid], fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        self.inner.points(ids, fields).await
    }

    async fn page(&self, after: Option<Uuid>, limit: usize, fields: &[&str]) -> PortResult<Vec<IndexedPoint>> {
        self.inner.page(after, limit, fields).await
    }
}

#[async_trait]
impl IndexWriter for Owned {
    async fn prepare(&self, dimension: usize) -> PortResult<bool> {
        self.before_write().await?;
        let created = self.inner.prepare(dimension).await?;
        self.opened(created).await
    }

    async fn upsert(&self, documents: &[&DocumentPoints]) -> PortResult<Written> {
        self.before_write().await?;
        self.inner.upsert(documents).await
    }

    async fn refresh(&self, documents: &[&DocumentPoints]) -> PortResult<Vec<bool>> {
        self.before_write().await?;
        self.inner.refresh(documents).await
    }

    async fn stored(&self, documents: &[(DocumentId, u32)]) -> PortResult<Vec<Stored>> {
        self.inner.stored(documents).await
    }

    async fn delete(&self, fences: &[Fence]) -> PortResult<()> {
        self.before_write().await?;
        self.inner.delete(fences).await
    }

    async fn remove(&self, points: &[Uuid], version: Version) -> PortResult<()> {
        self.before_write().await?;
        self.inner.remove(points, version).await
    }
}

#[async_trait]
impl KnownVectors for Owned {
    async fn known(&self, points: &[Uuid]) -> PortResult<Vec<KnownVector>> {
        self.inner.known(points).await
    }
}

#[async_trait]
impl Searcher for Owned {
    async fn search(
        &self,
        vector: Vec<f32>,
        limit: usize,
        filter: Option<&Filter>,
        fields: &[&str],
    ) -> PortResult<Vec<Hit>> {
        self.inner.search(vector, limit, filter, fields).await
    }
}

#[async_trait]
impl Ownable for Owned {
    fn collection(&self) -> &str {
        self.inner.collection()
    }

    async fn mark(&self) -> PortResult<CollectionMark> {
        self.inner.mark().await
    }

    async fn set_mark(&self, installation: &Installation) -> PortResult<()> {
        self.inner.set_mark(installation).await
    }
}

#[async_trait]
impl IndexInspector for Owned {
    async fn index_state(&self) -> PortResult<IndexState> {
        self.inner.index_state().await
    }
}

#[async_trait]
impl CollectionAdmin for Owned {
    async fn create(&self, spec: &CollectionSpec, layout: &VectorLayout, dimension: usize) -> PortResult<bool> {
        // The collection of another client is refused here. A mark would make it look like our own.
        let created = self.inner.create(spec, layout, dimension).await?;
        self.opened(created).await
    }

    async fn alter(&self, spec: &CollectionSpec) -> PortResult<()> {
        self.before_write().await?;
        self.inner.alter(spec).await
    }

    async fn field_indexes(&self, wanted: &BTreeMap<String, PayloadIndex>) -> PortResult<()> {
        self.before_write().await?;
        self.inner.field_indexes(wanted).await
    }

    async fn record(&self) -> PortResult<Option<TargetRecord>> {
        self.inner.record().await
    }

    async fn set_record(&self, record: &TargetRecord) -> PortResult<()> {
        self.before_write().await?;
        self.inner.set_record(record).await
    }

    async fn is_settled(&self) -> PortResult<bool> {
        self.inner.is_settled().await
    }

    async fn drop_collection(&self) -> PortResult<()> {
        self.before_write().await?;
        self.inner.drop_collection().await
    }
}
