//! Builds plans and submissions of declared indexes.

use std::sync::Arc;

use tidewheel_core::catalog::ApplyOptions;
use tidewheel_core::ports::PortResult;
use tidewheel_ops::indexes::{EstimatePorts, IndexesPorts, PlanRequest, Planned, plan};
use tidewheel_stores::qdrant::QdrantCollections;
use tidewheel_stores::redis::RedisStore;

use crate::connect;
use crate::exit::Failure;
use crate::settings::Settings;

/// The declared and the applied indexes. Connects on first use.
pub(crate) struct Indexes<'a> {
    settings: &'a Settings,
    redis: RedisStore,
    ports: IndexesPorts,
}

impl<'a> Indexes<'a> {
    pub(crate) fn new(settings: &'a Settings) -> PortResult<Self> {
        let (redis, index) = (connect::redis(settings)?, connect::index(settings)?);
        let store = Arc::new(redis.clone());
        let ports = IndexesPorts {
            registry: store.clone(),
            journal: store.clone(),
            stages: store.clone(),
            reports: store.clone(),
            store,
            collections: Arc::new(QdrantCollections::from(&index)),
        };
        Ok(Self { settings, redis, ports })
    }

    /// The settings.
    pub(crate) fn settings(&self) -> &Settings {
        self.settings
    }

    /// The Redis that holds the catalog.
    pub(crate) fn redis(&self) -> &RedisStore {
        &self.redis
    }

    /// The ports of submissions and watches.
    pub(crate) fn ports(&self) -> &IndexesPorts {
        &self.ports
    }

    /// Plans what the declarations in the settings change. Costs are estimated from `sample` documents of each index.
    pub(crate) async fn plan(&self, options: ApplyOptions, sample: u32) -> Result<Planned, Failure> {
        let settings = self.settings;
        let source = connect::source(connect::mongo_options(settings, "a plan")?).await?;
        let embedders = connect::embedders(settings)?;
        let request = PlanRequest {
            declared: settings.declarations(),
            short_form: !settings.is_declared(),
            options,
            sample: sample as usize,
            reuse: settings.reuse_vectors,
        };
        Ok(plan(&self.ports, EstimatePorts { source: &source, embedders: &embedders }, &request).await?)
    }
}
