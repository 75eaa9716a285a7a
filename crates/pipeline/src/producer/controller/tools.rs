//! What the controller works with.

use std::sync::Arc;

use tidewheel_core::catalog::Generation;
use tidewheel_core::ports::{Backlog, Collection, EntryFinder, Journal, PortResult, Registry, Source};

use super::super::ProducerPorts;
use crate::background;
use crate::targets::{CatalogPorts, Targets};

/// Work beside the loop of the session.
pub(super) type Work<T> = background::Work<PortResult<T>>;

/// What a producer needs to advance declared indexes, beside the ports of its other work.
#[derive(Clone)]
pub struct ControllerPorts {
    /// The backlog of stage 2.
    pub embedded: Arc<dyn Backlog>,
    /// Finds the dead letters of documents that a new generation lacks.
    pub letters: Arc<dyn EntryFinder>,
    /// The installation, whose collections the catalog is restored from.
    pub registry: Arc<dyn Registry>,
}

/// The ports of the controller. Cheap to clone.
#[derive(Clone)]
pub(super) struct Tools {
    pub(super) source: Arc<dyn Source>,
    pub(super) journal: Arc<dyn Journal>,
    pub(super) raw: Arc<dyn Backlog>,
    pub(super) targets: Arc<Targets>,
    pub(super) catalog: CatalogPorts,
    pub(super) control: ControllerPorts,
}

impl Tools {
    /// The tools of a producer; `None` if its targets never change, or nothing is to be advanced.
    pub(super) fn of(ports: &ProducerPorts) -> Option<Self> {
        Some(Self {
            source: ports.source.clone(),
            journal: ports.journal.clone(),
            raw: ports.backlog.clone(),
            targets: ports.targets.clone(),
            catalog: ports.targets.ports()?.clone(),
            control: ports.controller.clone()?,
        })
    }

    /// The collection of a generation.
    pub(super) fn open(&self, generation: &Generation) -> Arc<dyn Collection> {
        self.catalog.collections.open(&generation.collection)
    }

    /// Unacknowledged entries of both stages.
    pub(super) async fn backlog(&self) -> PortResult<u64> {
        Ok(self.raw.backlog().await? + self.control.embedded.backlog().await?)
    }
}
