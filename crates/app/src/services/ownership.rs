//! Stops services whose Redis or collection belongs to another installation.

use std::future::Future;
use std::sync::Arc;

use tidewheel_core::installation::SourceIdentity;
use tidewheel_core::ports::Ownable;
use tidewheel_pipeline::ownership::{Guard, Serves};
use tidewheel_stores::qdrant::QdrantIndex;
use tidewheel_stores::redis::RedisStore;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use crate::settings::Settings;

/// Returns a guard for these settings; `source` is set where MongoDB was queried.
pub(crate) fn guard(
    settings: &Settings,
    redis: &RedisStore,
    index: Option<QdrantIndex>,
    source: Option<SourceIdentity>,
) -> Guard {
    let serves = Serves { source, database: settings.mongodb.database.clone() };
    Guard::new(Arc::new(redis.clone()), index.map(|index| Arc::new(index) as Arc<dyn Ownable>), serves)
}

/// Runs the work until it ends or ownership passes to another installation.
pub(crate) async fn while_owned<T, E: Into<Failure>>(
    guard: &Guard,
    shutdown: &CancellationToken,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    tokio::select! {
        ended = work => ended.map_err(Into::into),
        Some(foreign) = guard.watch(shutdown.clone()) => Err(foreign.into()),
    }
}
