//! Builds clients from the settings. Clients connect lazily, on first use.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::Selector;
use tidewheel_core::installation::SourceIdentity;
use tidewheel_core::ports::{Embedder, PortResult};
use tidewheel_embed::client::{ClientOptions, RemoteClient, RemoteOptions, TidewheelClient};
use tidewheel_embed::pool::{EmbedderPool, Transport};
use tidewheel_stores::mongo::{MongoOptions, MongoSource};
use tidewheel_stores::qdrant::{QdrantIndex, QdrantOptions};
use tidewheel_stores::redis::{RedisOptions, RedisStore};

use crate::exit::Failure;
use crate::local_data;
use crate::settings::{DEFAULT_EMBEDDING, Embedding, Problem, Provider, Settings};

/// The store of both streams.
pub(crate) fn redis(settings: &Settings) -> PortResult<RedisStore> {
    RedisStore::open(&RedisOptions { url: settings.redis.url.clone(), tls: settings.redis.tls.clone() })
}

/// The options of the source.
pub(crate) fn mongo_options(settings: &Settings, needed_by: &'static str) -> Result<MongoOptions, Failure> {
    let uri = settings.mongodb.uri.clone();
    if settings.is_declared() {
        let selectors: Vec<Selector> = settings.indexes.iter().map(|index| index.source.clone()).collect();
        return Ok(MongoOptions { uri, database: SourceIdentity::database_of(&selectors), selectors });
    }
    let database = settings.mongodb.database.clone();
    let missing = || Problem::Missing { key: "mongodb.database".into(), needed_by: needed_by.into() };
    let database = database.ok_or_else(missing)?;
    Ok(MongoOptions::of_database(uri, &database, &settings.mongodb.collection))
}

/// The source. Only a `mongodb+srv` URI needs the network here.
pub(crate) async fn source(options: MongoOptions) -> PortResult<MongoSource> {
    MongoSource::connect(options).await
}

/// The index.
pub(crate) fn index(settings: &Settings) -> PortResult<QdrantIndex> {
    index_of(settings, &settings.qdrant.collection)
}

/// Another collection on the same server.
pub(crate) fn index_of(settings: &Settings, collection: &str) -> PortResult<QdrantIndex> {
    let qdrant = &settings.qdrant;
    QdrantIndex::connect(QdrantOptions {
        api_key: local_data::qdrant_key(settings),
        tls: qdrant.tls.clone(),
        timeout: qdrant.timeout,
        ..QdrantOptions::new(qdrant.url.reveal(), collection)
    })
}

/// The embedder. `timeout` is per request and defaults to the setting.
pub(crate) fn embedder(settings: &Settings, timeout: Option<Duration>) -> PortResult<Arc<dyn Embedder>> {
    let timeout = timeout.unwrap_or(settings.embedding.timeout);
    let pem = settings.embedding.tls.read("embedding.")?;
    match &settings.embedding.provider {
        Provider::Tidewheel { url, token } => {
            let options = ClientOptions { url: url.clone(), token: token.clone(), timeout, pem, spec: None };
            Ok(Arc::new(TidewheelClient::new(options)?))
        }
        Provider::Remote {
            api,
            url,
            api_key,
            model,
            dimensions,
            max_tokens,
            batch,
            concurrency,
            requests_per_minute,
            tokens_per_minute,
        } => Ok(Arc::new(RemoteClient::new(RemoteOptions {
            key: api_key.clone(),
            dimensions: *dimensions,
            max_tokens: *max_tokens,
            batch: *batch,
            concurrency: *concurrency,
            requests_per_minute: *requests_per_minute,
            tokens_per_minute: *tokens_per_minute,
            query_prefix: settings.embedding.query_prefix.clone().unwrap_or_default(),
            passage_prefix: settings.embedding.passage_prefix.clone().unwrap_or_default(),
            timeout,
            pem,
            ..RemoteOptions::new(*api, url, model)
        })?)),
    }
}

/// The embedders of all indexes, by what the applied catalog states about each.
pub(crate) fn embedders(settings: &Settings) -> PortResult<EmbedderPool> {
    let mut transports = BTreeMap::new();
    for embedding in settings.embedding_names().filter_map(|name| settings.embedding_of(name)) {
        transports.insert(embedding.name.clone(), transport(embedding)?);
    }
    Ok(EmbedderPool::new(transports))
}

/// How an embedder is reached.
fn transport(embedding: &Embedding) -> PortResult<Transport> {
    let prefix = match embedding.name.as_str() {
        DEFAULT_EMBEDDING => "embedding.".to_owned(),
        name => format!("embedding.{name}."),
    };
    let (timeout, pem) = (embedding.timeout, embedding.tls.read(&prefix)?);
    Ok(match &embedding.provider {
        Provider::Tidewheel { url, token } => {
            let is_foreign = embedding.url_is_set;
            Transport { is_foreign, key: token.clone(), timeout, pem, ..Transport::new(url.as_str()) }
        }
        Provider::Remote {
            url,
            api_key,
            max_tokens,
            batch,
            concurrency,
            requests_per_minute,
            tokens_per_minute,
            ..
        } => Transport {
            key: api_key.clone(),
            timeout,
            pem,
            max_tokens: *max_tokens,
            batch: *batch,
            concurrency: *concurrency,
            requests_per_minute: *requests_per_minute,
            tokens_per_minute: *tokens_per_minute,
            ..Transport::new(url.as_str())
        },
    })
}

/// URL of the embedder of `[embedding]`, for messages.
pub(crate) fn embedder_url(settings: &Settings) -> &str {
    url_of(&settings.embedding)
}

/// URL of an embedder, for messages.
pub(crate) fn url_of(embedding: &Embedding) -> &str {
    match &embedding.provider {
        Provider::Tidewheel { url, .. } | Provider::Remote { url, .. } => url,
    }
}
