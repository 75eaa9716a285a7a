//! Builds the targets of the services.

use std::collections::BTreeMap;
use std::sync::Arc;

use tidewheel_core::catalog::Declaration;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Collections, Embedder, Embedders, PortResult};
use tidewheel_embed::pool::EmbedderPool;
use tidewheel_pipeline::ownership::{Guard, OwnedCollections};
use tidewheel_pipeline::targets::{CatalogPorts, LocalTarget, TargetPorts, Targets};
use tidewheel_stores::qdrant::QdrantCollections;
use tidewheel_stores::redis::RedisStore;

use crate::connect;
use crate::settings::Settings;

/// The declaration of the short form; `None` with `[[index]]`.
pub(crate) fn short_form(settings: &Settings) -> Option<Declaration> {
    if settings.is_declared() { None } else { settings.declarations().pop() }
}

/// The targets of a service or command that embeds.
pub(crate) fn embedding_targets(settings: &Settings, redis: &RedisStore) -> PortResult<Arc<Targets>> {
    let embedders = Arc::new(connect::embedders(settings)?);
    targets(settings, redis, embedders, Ok(connect::embedder(settings, None)?), |collections| collections)
}

/// The targets of a service that writes collections and does not embed. It works without usable settings of embedders. The
/// guard checks the owners of the collections.
pub(crate) fn owned_targets(settings: &Settings, redis: &RedisStore, guard: &Arc<Guard>) -> PortResult<Arc<Targets>> {
    let owned = |collections| Arc::new(OwnedCollections::new(collections, guard.clone())) as Arc<dyn Collections>;
    let targets = targets(settings, redis, no_embedders(), no_embedder(), owned)?;
    guard.follow(&targets);
    Ok(targets)
}

/// The targets of a command that does not embed.
pub(crate) fn read_targets(settings: &Settings, redis: &RedisStore) -> PortResult<Arc<Targets>> {
    targets(settings, redis, no_embedders(), no_embedder(), |collections| collections)
}

fn no_embedders() -> Arc<dyn Embedders> {
    Arc::new(EmbedderPool::new(BTreeMap::new()))
}

fn no_embedder() -> PortResult<Arc<dyn Embedder>> {
    Err(PortError::fatal("nothing is embedded here"))
}

/// `embedder` is that of the short form, whose server decides which model embeds.
fn targets(
    settings: &Settings,
    redis: &RedisStore,
    embedders: Arc<dyn Embedders>,
    embedder: PortResult<Arc<dyn Embedder>>,
    checked: impl FnOnce(Arc<dyn Collections>) -> Arc<dyn Collections>,
) -> PortResult<Arc<Targets>> {
    let (index, redis) = (Arc::new(connect::index(settings)?), Arc::new(redis.clone()));
    let ports = CatalogPorts {
        store: redis.clone(),
        collections: checked(Arc::new(QdrantCollections::from(&*index))),
        states: redis.clone(),
        embedders,
        reuse: settings.reuse_vectors,
    };
    let local = short_form(settings).map(|declaration| LocalTarget {
        declaration: Arc::new(declaration),
        ports: TargetPorts {
            index: index.clone(),
            known: if settings.reuse_vectors { Some(index.clone()) } else { None },
            admin: Some(index),
            tombstones: redis.clone(),
            registry: Some(redis.clone()),
            audit: Some(redis),
            embedder,
        },
    });
    Ok(Arc::new(Targets::new(local.as_ref(), ports)))
}
