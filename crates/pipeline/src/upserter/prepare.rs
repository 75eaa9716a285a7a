//! Prepares the collection of a target before the first write.
//!
//! A collection that is missing is created only if the catalog still routes the target: one that was retired meanwhile is
//! deleted on purpose, and would come back as an orphan. Its loss is recorded before it is created, so that after a crash
//! in between it is still missing. A plain collection is not created while an alias replaces it.

use std::sync::atomic::Ordering;

use tidewheel_core::error::PortError;
use tidewheel_core::ports::{CollectionAdmin, DocumentPoints, Listed, PortResult};

use super::apply::Applier;
use crate::metric;
use crate::retry::RetryError;
use crate::targets::{Applied, Target};

impl Applier<'_> {
    /// Prepares the collection for these documents. A vector whose dimension does not match the collection is not the
    /// fault of its document: the service stops.
    pub(super) async fn prepare(&self, documents: &[&DocumentPoints]) -> Result<(), RetryError> {
        for point in documents.iter().flat_map(|document| &document.points) {
            let dimension = point.vector.len();
            match self.lane.prepared.load(Ordering::Relaxed) {
                prepared if prepared == dimension => {}
                0 => {
                    self.prepare_for(dimension).await?;
                    self.lane.prepared.store(dimension, Ordering::Relaxed);
                }
                prepared => {
                    metric::rejected("dimension", 1);
                    return Err(RetryError::Failed(mismatch(self.target, dimension, prepared)));
                }
            }
        }
        Ok(())
    }

    async fn prepare_for(&self, dimension: usize) -> Result<(), RetryError> {
        if self.target.plain && !self.target.is_local() {
            self.retry.call("prepare the plain collection", || self.has_its_name()).await?;
        }
        let applied = self.streams.call("load the applied catalog", || self.targets.reload()).await?;
        let Some(target) = applied.target(Some(&self.target.id)) else {
            self.gone.store(true, Ordering::Relaxed);
            return Err(RetryError::Shutdown);
        };
        let exists = self.retry.call("check the collection", || target.ports.index.exists()).await?;
        if !exists {
            self.record(false).await?;
        }
        let created = self.retry.call("prepare the collection", || open(target, dimension)).await?;
        if created {
            if exists {
                // Deleted in between.
                self.record(false).await?;
            }
            self.complete(&applied, target).await?;
        }
        self.record(true).await
    }

    /// Fails while an alias replaces the plain collection, or is about to. One that is created meanwhile would be in the way of
    /// the alias, and a write would reach another generation through it.
    async fn has_its_name(&self) -> PortResult<()> {
        let applied = self.targets.reload().await?;
        let Some(target) = applied.target(Some(&self.target.id)).filter(|target| target.plain) else { return Ok(()) };
        let index = applied.catalog().indexes.get(&target.id.index);
        let (Some(index), Some(ports)) = (index, self.targets.ports()) else { return Ok(()) };
        let Listed { collections, aliases } = ports.collections.list().await?;
        let name = &target.generation.collection;
        let is_replaced = match aliases.get(name) {
            // That of an operator names a collection that is no generation.
            Some(named) => index.generations.values().any(|generation| generation.collection == *named),
            None => !collections.contains(name) && index.switching.is_some_and(|switch| switch.plain),
        };
        if is_replaced {
            return Err(PortError::transient(format!("an alias replaces the plain collection {name:?}")));
        }
        Ok(())
    }

    /// Adds to a new collection what the declaration asks for beside its vectors. After a crash in between the producer
    /// adds it.
    async fn complete(&self, applied: &Applied, target: &Target) -> Result<(), RetryError> {
        let Some(admin) = created_as_declared(target) else { return Ok(()) };
        let fields = &target.declaration().payload_indexes;
        self.retry.call("index payload fields", || admin.field_indexes(fields)).await?;
        let Some(record) = applied.record(&target.id) else { return Ok(()) };
        self.retry.call("record the index", || admin.set_record(&record)).await
    }

    async fn record(&self, exists: bool) -> Result<(), RetryError> {
        let Some(registry) = &self.target.ports.registry else { return Ok(()) };
        let name = self.target.ports.index.name();
        self.streams.call("record the collection", || registry.collection(name, exists)).await
    }
}

/// What creates the collection as declared; `None` before a catalog is applied: the index then has its defaults.
fn created_as_declared(target: &Target) -> Option<&dyn CollectionAdmin> {
    target.ports.admin.as_deref().filter(|_| !target.is_local())
}

/// Creates the collection if it is missing, and checks it; returns whether it was created.
async fn open(target: &Target, dimension: usize) -> PortResult<bool> {
    match created_as_declared(target) {
        Some(admin) => {
            let declaration = target.declaration();
            admin.create(&declaration.collection, &declaration.vectors, dimension).await
        }
        None => target.ports.index.prepare(dimension).await,
    }
}

fn mismatch(target: &Target, dimension: usize, prepared: usize) -> PortError {
    let hint = if target.is_local() {
        "set qdrant.collection to a new name: a new model needs a new collection"
    } else {
        "run `tidewheel apply --generation`: a new model needs a new generation of the index"
    };
    PortError::fatal(format!(
        "stage 2 has vectors of dimension {dimension}, but the collection has dimension {prepared}"
    ))
    .with_hint(hint)
}
