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

/// Returns a guard for these settings; `source` is set where MongoDB was queried. With `[[index]]` it ignores `index`: the
/// applied catalog names the collections.
pub(crate) fn guard(
    settings: &Settings,
    redis: &RedisStore,
    index: Option<QdrantIndex>,
    source: Option<SourceIdentity>,
) -> Guard {
    let serves = Serves { source, database: database(settings) };
    let index = index.filter(|_| !settings.is_declared());
    Guard::new(Arc::new(redis.clone()), index.map(|index| Arc::new(index) as Arc<dyn Ownable>), serves)
}

/// Returns the database that identifies the source of these settings; `None` if they name none.
fn database(settings: &Settings) -> Option<String> {
    if !settings.is_declared() {
        return settings.mongodb.database.clone();
    }
    Some(SourceIdentity::database_of(settings.indexes.iter().map(|index| &index.source)))
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
