//! What an overview is gathered from.

use std::sync::Arc;

use tidewheel_core::ports::{
    Collections, Embedder, IndexInspector, IndexReader, Journal, PortResult, QueueServerInspector, Registry,
    ReportReader, SourceInspector, StageInspector, TargetStates,
};

use crate::catalog::CatalogReader;

/// The ports on Redis.
#[derive(Clone)]
pub struct QueuePorts {
    /// The installation.
    pub registry: Arc<dyn Registry>,
    /// The stages.
    pub stages: Arc<dyn StageInspector>,
    /// The server.
    pub server: Arc<dyn QueueServerInspector>,
    /// The checkpoints.
    pub journal: Arc<dyn Journal>,
    /// The reports of processes.
    pub reports: Arc<dyn ReportReader>,
    /// The applied catalog.
    pub catalog: Arc<CatalogReader>,
    /// What is stored about each target.
    pub states: Arc<dyn TargetStates>,
}

/// The ports on the index.
#[derive(Clone)]
pub struct IndexPorts {
    /// The collection of the short form.
    pub reader: Arc<dyn IndexReader>,
    /// Its state.
    pub inspector: Arc<dyn IndexInspector>,
    /// The collections of declared indexes.
    pub collections: Arc<dyn Collections>,
}

/// Returns a client of the embedder. A client caches the embedder's metadata, so only a new client detects an outage and
/// reads the load; the same client is returned where requests cost money.
pub type EmbedderClient = Box<dyn Fn() -> PortResult<Arc<dyn Embedder>> + Send + Sync>;

/// The ports of an overview; an error where the settings of a client are invalid.
pub struct OverviewPorts {
    /// Redis.
    pub queue: PortResult<QueuePorts>,
    /// The source; `None` if no database is set.
    pub source: Option<Arc<dyn SourceInspector>>,
    /// The index.
    pub index: PortResult<IndexPorts>,
    /// The embedder.
    pub embedder: EmbedderClient,
}

/// Names of the servers in an overview, without credentials.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// The source's database; `None` if none is set.
    pub database: Option<String>,
    /// URL of the index.
    pub index_url: String,
    /// URL of the embedder.
    pub embedder_url: String,
}
