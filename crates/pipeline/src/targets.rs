//! The targets of the applied catalog: where a service reads and writes each of them, and how.
//!
//! ```text
//!  catalog ──revision, every second──▶ differs? ──load──▶ Applied: catalog, targets ──▶ one batch, one step
//!                                         ▲
//!  entry stamped with a newer revision ───┘
//! ```
//!
//! Guarantees:
//! - **Immutable**: an [`Applied`] catalog never changes. A service takes one for a batch and works from it alone.
//! - **Never older than an entry**: [`Targets::at_least`] loads the catalog if an entry needs a newer one, and waits while
//!   the store has none. A newer catalog than that of an entry is fine.
//! - **Followed in both directions**: a store that lost its last second has a lower revision, which is loaded too. A
//!   catalog that vanished is lost, not withdrawn: the last one stays in effect until the producer has saved it again.
//!   Nothing is left out by a catalog that the store does not have any more: see [`Targets::confirmed`].
//! - **Nothing is called** to open a target: collections, states and embedders connect on first use.
//!
//! Without an applied catalog there is one target, of revision 0: the [`LocalTarget`], made from local settings. Without
//! one of these either, nothing can be done until a catalog is applied.

mod applied;

use std::sync::Arc;
use std::time::Duration;

pub use applied::{Applied, CatalogPorts, LocalTarget, Target, TargetPorts};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::PortResult;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// How often the revision of the catalog is read.
const POLL: Duration = Duration::from_secs(1);

/// The applied catalog with its targets, followed while it changes.
pub struct Targets {
    applied: watch::Sender<Arc<Applied>>,
    /// `None` if they never change.
    ports: Option<CatalogPorts>,
    /// Held while the catalog is loaded: one load serves all callers that wait for it.
    loading: Mutex<()>,
}

impl Targets {
    /// The targets of the applied catalog. Before the first one is applied, that of local settings, if there is one.
    pub fn new(local: Option<&LocalTarget>, ports: CatalogPorts) -> Self {
        Self::starting_with(Applied::of_local(local, false), Some(ports))
    }

    /// One target that never changes, regardless of any catalog.
    pub fn fixed(target: &LocalTarget) -> Self {
        Self::starting_with(Applied::of_local(Some(target), true), None)
    }

    fn starting_with(applied: Applied, ports: Option<CatalogPorts>) -> Self {
        Self { applied: watch::Sender::new(Arc::new(applied)), ports, loading: Mutex::default() }
    }

    /// What the targets are made from; `None` if they never change.
    pub fn ports(&self) -> Option<&CatalogPorts> {
        self.ports.as_ref()
    }

    /// The catalog as it was last loaded; before that, local settings.
    pub fn current(&self) -> Arc<Applied> {
        self.applied.borrow().clone()
    }

    /// Notifies of every change of [`Self::current`].
    pub fn subscribe(&self) -> watch::Receiver<Arc<Applied>> {
        self.applied.subscribe()
    }

    /// Waits until the catalog as it is known here meets a condition.
    pub(crate) async fn until(&self, condition: impl Fn(&Applied) -> bool) {
        let mut changes = self.subscribe();
        loop {
            let applied = changes.borrow_and_update().clone();
            if condition(&applied) {
                return;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The catalog, at this revision or a newer one, to process an entry stamped with it; 0 for an entry without a stamp.
    /// Calls the store only if the known catalog does not suffice.
    ///
    /// # Errors
    /// Transient if the store fails or has no such catalog yet.
    pub async fn at_least(&self, revision: u64) -> PortResult<Arc<Applied>> {
        let applied = self.current();
        if applied.serves(revision) || self.ports.is_none() {
            return Ok(applied);
        }
        let _loading = self.loading.lock().await;
        let applied = self.current();
        if applied.serves(revision) {
            return Ok(applied);
        }
        let applied = self.load().await?;
        if applied.serves(revision) {
            return Ok(applied);
        }
        Err(PortError::transient(match applied.revision() {
            0 if revision == 0 => "no index is applied yet: waiting for the producer".to_owned(),
            known => format!("the applied catalog has revision {known}, but an entry requires {revision}"),
        }))
    }

    /// The catalog as the store has it now, to decide what must not rest on an earlier one.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn reload(&self) -> PortResult<Arc<Applied>> {
        let Some(ports) = &self.ports else { return Ok(self.current()) };
        let revision = ports.store.revision().await?;
        let applied = self.current();
        if applied.is_at(revision) {
            return Ok(applied);
        }
        let _loading = self.loading.lock().await;
        self.load().await
    }

    /// The catalog as the store has it now, at this revision or a newer one. By it entries of this revision may be
    /// acknowledged without effect, because it does not route their targets: a known catalog may be one that the store has
    /// lost, and with it the end of their routing.
    ///
    /// # Errors
    /// As [`Self::at_least`].
    pub async fn confirmed(&self, revision: u64) -> PortResult<Arc<Applied>> {
        let applied = self.reload().await?;
        if applied.serves(revision) { Ok(applied) } else { self.at_least(revision).await }
    }

    /// Follows the catalog until `stop`. Its failures are not reported: entries that need a newer catalog report them.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        if self.ports.is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            if let Err(error) = self.reload().await {
                debug!("failed to follow the catalog: {error}");
            }
        }
    }

    /// Loads the catalog. The caller holds `loading`.
    async fn load(&self) -> PortResult<Arc<Applied>> {
        let before = self.current();
        let Some(ports) = &self.ports else { return Ok(before) };
        let (catalog, _) = ports.store.load().await?;
        let revision = catalog.revision;
        if before.is_at(revision) {
            return Ok(before);
        }
        let applied = if revision == 0 {
            before.known()
        } else {
            info!(revision, indexes = catalog.indexes.len(), "loaded the applied catalog");
            Applied::of_catalog(catalog, ports, &before)
        };
        let applied = Arc::new(applied);
        self.applied.send_replace(applied.clone());
        Ok(applied)
    }
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
