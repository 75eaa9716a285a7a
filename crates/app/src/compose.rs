//! Builds the use cases of `tidewheel-ops` from the settings.

mod indexes;
mod replay;
mod targets;

use std::sync::Arc;

use async_trait::async_trait;
use tidewheel_core::catalog::IndexName;
use tidewheel_core::change::Change;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{PortResult, Source, SourceHistory, SourceInspector};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_ops::catalog::CatalogReader;
use tidewheel_ops::dead_letters::{self, Acted, Action, LetterView, Pages, RetryPorts, SourceProvider};
use tidewheel_ops::inspect::report::Inspection;
use tidewheel_ops::inspect::{self, InspectPorts, Question};
use tidewheel_ops::overview::{EmbedderClient, IndexPorts, Looker, OverviewPorts, QueuePorts, ServerNames, TIMEOUT};
use tidewheel_ops::search::SearchPorts;
use tidewheel_ops::verify::VerifyPorts;
use tidewheel_ops::wait::{WaitPorts, Waiter};
use tidewheel_stores::mongo::{MongoOptions, MongoSource, id_readings};
use tidewheel_stores::qdrant::QdrantCollections;
use tidewheel_stores::redis::RedisStore;
use tokio::sync::OnceCell;

use crate::connect;
use crate::exit::Failure;
use crate::settings::{Provider, Settings, address};

pub(crate) use self::indexes::Indexes;
pub(crate) use self::replay::Replay;
pub(crate) use self::targets::{embedding_targets, owned_targets, read_targets, short_form};

/// The source, connected on first use.
struct LazySource {
    /// The options, or why there are none.
    options: PortResult<MongoOptions>,
    source: OnceCell<MongoSource>,
}

impl LazySource {
    fn new(settings: &Settings, needed_by: &'static str) -> Self {
        let options = connect::mongo_options(settings, needed_by).map_err(|Failure { message, hint }| match hint {
            Some(hint) => PortError::fatal(message).with_hint(hint),
            None => PortError::fatal(message),
        });
        Self { options, source: OnceCell::new() }
    }

    async fn connected(&self) -> PortResult<&MongoSource> {
        self.source.get_or_try_init(|| async { connect::source(self.options.clone()?).await }).await
    }
}

#[async_trait]
impl SourceInspector for LazySource {
    async fn cluster_time(&self) -> PortResult<ClusterTime> {
        self.connected().await?.cluster_time().await
    }

    async fn history(&self) -> PortResult<Option<SourceHistory>> {
        self.connected().await?.history().await
    }

    async fn passed_over(&self) -> PortResult<Vec<String>> {
        self.connected().await?.passed_over().await
    }
}

#[async_trait]
impl SourceProvider for LazySource {
    async fn source(&self) -> PortResult<Arc<dyn Source>> {
        Ok(Arc::new(self.connected().await?.clone()))
    }
}

/// Overviews of all servers. Connects on first use. Must be called within a Tokio runtime.
pub(crate) fn looker(settings: &Settings) -> Looker {
    let queue = connect::redis(settings).map(|redis| {
        let redis = Arc::new(redis);
        QueuePorts {
            registry: redis.clone(),
            stages: redis.clone(),
            server: redis.clone(),
            journal: redis.clone(),
            reports: redis.clone(),
            catalog: Arc::new(CatalogReader::new(redis.clone(), short_form(settings))),
            states: redis,
        }
    });
    let index = connect::index(settings).map(|index| {
        let collections = Arc::new(QdrantCollections::from(&index));
        let index = Arc::new(index);
        IndexPorts { reader: index.clone(), inspector: index, collections }
    });
    let source = || Arc::new(LazySource::new(settings, "the overview")) as Arc<dyn SourceInspector>;
    let source = (settings.mongodb.database.is_some() || settings.is_declared()).then(source);
    let embedder: EmbedderClient = match &settings.embedding.provider {
        Provider::Tidewheel { .. } => {
            let settings = settings.clone();
            Box::new(move || connect::embedder(&settings, Some(TIMEOUT)))
        }
        // Every request to other providers costs money.
        Provider::Remote { .. } => {
            let client = connect::embedder(settings, Some(TIMEOUT));
            Box::new(move || client.clone())
        }
    };
    let names = ServerNames {
        database: settings.mongodb.database.clone(),
        index_url: address::shown(settings.qdrant.url.reveal()),
        embedder_url: address::shown(connect::embedder_url(settings)),
    };
    Looker::new(OverviewPorts { queue, source, index, embedder }, names, settings.monitor.thresholds.clone())
}

/// Semantic search. Connects on first use.
pub(crate) fn search(settings: &Settings) -> Result<SearchPorts, Failure> {
    let collections = Arc::new(QdrantCollections::from(&connect::index(settings)?));
    Ok(SearchPorts { targets: embedding_targets(settings, &connect::redis(settings)?)?, collections })
}

/// The source, to plan comparisons of it with the indexes, and the ports of these comparisons. Repairs only with `repair`.
pub(crate) async fn verify(
    settings: &Settings,
    redis: &RedisStore,
    repair: bool,
) -> Result<(MongoSource, VerifyPorts), Failure> {
    let source = connect::source(connect::mongo_options(settings, "verify")?).await?;
    let ports = VerifyPorts {
        source: Arc::new(source.clone()),
        targets: read_targets(settings, redis)?,
        journal: Arc::new(redis.clone()),
        repair: repair.then(|| Arc::new(redis.stream_log(Stage::Raw)) as _),
        finder: Arc::new(redis.clone()),
    };
    Ok((source, ports))
}

/// The wait for read-your-writes consistency. Connects on first use.
pub(crate) fn waiter(settings: &Settings) -> Result<Waiter, Failure> {
    let redis = Arc::new(connect::redis(settings)?);
    let catalog = CatalogReader::new(redis.clone(), short_form(settings));
    Ok(Waiter::new(WaitPorts {
        registry: redis.clone(),
        catalog: Arc::new(catalog),
        journal: redis.clone(),
        stages: redis,
        source: Arc::new(LazySource::new(settings, "the cluster time lookup")),
    }))
}

/// The catalog, for use cases without targets.
pub(crate) fn catalog(settings: &Settings, redis: &RedisStore) -> CatalogReader {
    CatalogReader::new(Arc::new(redis.clone()), short_form(settings))
}

/// An action on dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LettersAction {
    /// Puts them back into their stage.
    Retry,
    /// Deletes them.
    Drop,
}

impl LettersAction {
    /// The command that does it, for the audit log.
    pub(crate) fn command(self) -> &'static str {
        match self {
            Self::Retry => "dead-letters retry",
            Self::Drop => "dead-letters drop",
        }
    }
}

/// Acts on the chosen dead letters of these pages. Connects to MongoDB only if documents have to be read again.
pub(crate) async fn act_on_letters(
    settings: &Settings,
    redis: &RedisStore,
    action: LettersAction,
    pages: Pages<'_>,
    chosen: &(dyn Fn(&LetterView) -> bool + Send + Sync),
    progress: &(dyn Fn(Acted) + Send + Sync),
) -> PortResult<Acted> {
    let stream_log = redis.stream_log::<Change>(Stage::Raw);
    let options = connect::mongo_options(settings, "dead-letters retry").map_err(|_| {
        PortError::fatal("these dead letters have no usable document, and mongodb.database is not set")
            .with_hint("set mongodb.database: the documents are read from it")
    });
    let source = LazySource { options, source: OnceCell::new() };
    let catalog = catalog(settings, redis);
    let action = match action {
        LettersAction::Retry => Action::Retry {
            ports: RetryPorts {
                registry: redis,
                catalog: &catalog,
                letters: redis,
                journal: redis,
                stream_log: &stream_log,
            },
            source: &source,
        },
        LettersAction::Drop => Action::Discard { registry: redis },
    };
    dead_letters::act(&action, pages, chosen, progress).await
}

/// Inspects all documents that `id` may refer to, in one index or in all. `namespace` is `database.collection` or a
/// collection.
pub(crate) async fn inspect(
    settings: &Settings,
    id: &str,
    namespace: Option<&str>,
    scan: u64,
    index: Option<IndexName>,
) -> Result<Inspection, Failure> {
    let redis = connect::redis(settings)?;
    let targets = read_targets(settings, &redis)?;
    let namespaces = namespace.map(|text| namespace_of(settings, text)).transpose()?.into_iter().collect();
    let source = connect::source(connect::mongo_options(settings, "the document lookup")?).await;
    let ports = InspectPorts {
        // A failed connection is part of the result, not an error.
        source: source.map(|source| Arc::new(source) as Arc<dyn Source>),
        registry: &redis,
        stages: &redis,
        finder: &redis,
        targets: &targets,
    };
    let question = Question { id: id.to_owned(), readings: id_readings(id), namespaces, scan, index };
    Ok(inspect::inspect(&ports, &question).await?)
}

fn namespace_of(settings: &Settings, text: &str) -> Result<Namespace, Failure> {
    let database = settings.mongodb.database.as_deref().unwrap_or_default();
    let any = database.is_empty() || settings.is_declared();
    let whole = Namespace::parse(text).filter(|namespace| any || namespace.database() == database);
    let within = (!database.is_empty() && !text.is_empty()).then(|| Namespace::new(database, text));
    whole.or(within).ok_or_else(|| {
        Failure::new(format!("invalid --namespace {text:?}: expected a collection"))
            .with_hint("use the form shop.tickets")
    })
}
