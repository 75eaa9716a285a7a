//! `tidewheel check`: tests every server with the operations that the services use, and reports problems.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tidewheel_core::catalog::{Index, IndexName};
use tidewheel_core::error::{Cause, PortError};
use tidewheel_core::ports::{Embedders as _, Ownable as _, PortResult, Purpose, Registry as _};
use tidewheel_ops::within;

use crate::check::{self, CheckVerdict, CollectorFacts, EmbedderFacts, Facts, Finding, IndexFacts, Owners};
use crate::cli::{CheckArgs, Output};
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, DIM, GOOD, WARN, styled};
use crate::settings::{Embedding, Settings, address};
use crate::{compose, connect, services};

/// Maximum time for a server to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A text that every model can embed.
const SAMPLE: &str = "The parcel arrived on Tuesday, and everything in it was whole.";

/// Queries every server, judges the facts, and prints the findings.
pub(crate) async fn run(args: &CheckArgs, settings: &Settings) -> Result<Answer, Failure> {
    let embeddings = embeddings(settings, args.index.as_ref())?;
    let (first, others) =
        embeddings.split_first().map_or((&settings.embedding, &[][..]), |(first, others)| (*first, others));
    let (mongodb, redis, embedder, other_embedders, qdrant, indexes, owners, traces) = tokio::join!(
        mongodb(settings),
        within(TIMEOUT, redis(settings)),
        embedder(settings, first),
        embedders(settings, others),
        within(TIMEOUT, qdrant(settings)),
        indexes(settings, args.index.as_ref()),
        owners(settings),
        traces(settings)
    );
    let facts = Facts {
        mongodb_uri: address::shown(settings.mongodb.uri.reveal()),
        mongodb,
        redis_url: address::shown(settings.redis.url.reveal()),
        redis: redis.map_err(failure),
        embedder_url: address::shown(connect::url_of(first)),
        embedder,
        other_embedders,
        qdrant_url: address::shown(settings.qdrant.url.reveal()),
        collection: settings.qdrant.collection.clone(),
        qdrant: qdrant.map_err(failure),
        indexes,
        owners,
        traces,
    };
    let findings = check::findings(&facts);
    match args.output.output {
        Output::Json => printer::json(&findings),
        Output::Text => findings.iter().for_each(show),
    }
    let failed = findings.iter().filter(|finding| finding.verdict == CheckVerdict::Wrong).count();
    if args.output.output == Output::Text {
        let warnings = findings.iter().filter(|finding| finding.verdict == CheckVerdict::Doubtful).count();
        let warnings = printer::counted(warnings as u64, "warning");
        printer::message(format_args!("\n{} checks: {failed} failed, {warnings}", findings.len()));
    }
    Ok(if failed == 0 { Answer::Fine } else { Answer::No })
}

fn show(finding: &Finding) {
    let sign = match finding.verdict {
        CheckVerdict::Right => styled(GOOD, "✔"),
        CheckVerdict::Doubtful => styled(WARN, "!"),
        CheckVerdict::Wrong => styled(BAD, "✖"),
    };
    printer::data(format_args!("{sign} {:<9} {}", finding.part, finding.message));
    if let Some(hint) = &finding.hint {
        printer::data(styled(DIM, format_args!("            {hint}")));
    }
}

/// Converts an error without adding the default hint, which is to run this check.
fn failure(error: PortError) -> Failure {
    Failure { message: error.message, hint: error.hint }
}

async fn mongodb(settings: &Settings) -> Result<tidewheel_stores::mongo::MongoFacts, Failure> {
    let options = connect::mongo_options(settings, "the MongoDB check")?;
    within(TIMEOUT, async { connect::source(options).await?.inspect().await }).await.map_err(failure)
}

async fn redis(settings: &Settings) -> PortResult<tidewheel_stores::redis::RedisFacts> {
    let redis = connect::redis(settings)?;
    let facts = redis.inspect().await?;
    // Fails if this release cannot use the keys.
    redis.installation().await?;
    Ok(facts)
}

async fn qdrant(settings: &Settings) -> PortResult<tidewheel_stores::qdrant::QdrantFacts> {
    connect::index(settings)?.inspect().await
}

/// Owners. Servers that do not answer are reported by the other checks.
async fn owners(settings: &Settings) -> Owners {
    let source = async {
        let options = connect::mongo_options(settings, "the ownership check").ok()?;
        within(TIMEOUT, async { connect::source(options).await?.identity().await }).await.ok()
    };
    let redis = within(TIMEOUT, async { connect::redis(settings)?.installation().await });
    let collection = within(TIMEOUT, async { connect::index(settings)?.mark().await });
    let (source, redis, collection) = tokio::join!(source, redis, collection);
    // `installation show` names the owners of declared indexes' collections.
    let collection = collection.ok().filter(|_| !settings.is_declared());
    Owners { source, redis: redis.ok().flatten(), collection }
}

/// The embeddings of the declared indexes, or of one of them; that of the short form otherwise.
fn embeddings<'a>(settings: &'a Settings, index: Option<&IndexName>) -> Result<Vec<&'a Embedding>, Failure> {
    let declared = settings.declarations();
    let wanted = || declared.iter().filter(|declaration| index.is_none_or(|name| *name == declaration.name));
    if let Some(name) = index.filter(|_| wanted().next().is_none()) {
        let names: Vec<&str> = declared.iter().map(|declaration| declaration.name.as_str()).collect();
        return Err(Failure::new(format!("invalid --index {:?}: expected one of {}", name.as_str(), names.join(", "))));
    }
    let names: BTreeSet<&str> = wanted().map(|declaration| declaration.embedding.name.as_str()).collect();
    Ok(names.into_iter().filter_map(|name| settings.embedding_of(name)).collect())
}

async fn embedders(settings: &Settings, others: &[&Embedding]) -> Vec<(String, Result<EmbedderFacts, Failure>)> {
    let mut all = Vec::with_capacity(others.len());
    for embedding in others {
        all.push((address::shown(connect::url_of(embedding)), embedder(settings, embedding).await));
    }
    all
}

async fn embedder(settings: &Settings, embedding: &Embedding) -> Result<EmbedderFacts, Failure> {
    let answer = within(TIMEOUT, running_embedder(settings, embedding)).await;
    let unreachable = matches!(&answer, Err(error) if error.cause == Cause::Unreachable);
    if unreachable && !embedding.elsewhere {
        let dimension = services::rehearse_embedder(settings, &embedding.model).await?;
        return Ok(EmbedderFacts::ToStart { model: embedding.model.clone(), dimension });
    }
    answer.map_err(failure)
}

async fn running_embedder(settings: &Settings, embedding: &Embedding) -> PortResult<EmbedderFacts> {
    let embedder = match settings.is_declared() {
        // The server of the short form decides which model embeds.
        false => connect::embedder(settings, Some(TIMEOUT))?,
        true => connect::embedders(settings)?.of(&embedding.spec())?,
    };
    let info = embedder.info().await?;
    let begun = Instant::now();
    let vectors = embedder.embed(&[SAMPLE.to_owned()], Purpose::Query).await?;
    let (dimension, latency) = (vectors.dimension(), begun.elapsed());
    Ok(EmbedderFacts::Running { model: info.model, dimension, latency, computes: embedder.details().await? })
}

/// The declared indexes, as far as they were applied; `None` for the short form.
async fn indexes(settings: &Settings, index: Option<&IndexName>) -> Option<Result<Vec<IndexFacts>, Failure>> {
    if !settings.is_declared() {
        return None;
    }
    Some(within(TIMEOUT, applied(settings, index)).await.map_err(failure))
}

async fn applied(settings: &Settings, index: Option<&IndexName>) -> PortResult<Vec<IndexFacts>> {
    let catalog = compose::catalog(settings, &connect::redis(settings)?).read().await?;
    let mut all = Vec::with_capacity(settings.indexes.len());
    for declaration in settings.indexes.iter().filter(|one| index.is_none_or(|name| *name == one.name)) {
        let applied = catalog.indexes.get(&declaration.name);
        let serving = match applied.and_then(Index::serving_generation) {
            Some((_, generation)) => {
                let facts = connect::index_of(settings, &generation.collection)?.inspect().await?;
                Some((generation.collection.clone(), facts.collection))
            }
            None => None,
        };
        all.push(IndexFacts { name: declaration.name.to_string(), serving });
    }
    Ok(all)
}

async fn traces(settings: &Settings) -> Option<Result<CollectorFacts, Failure>> {
    let probed = tidewheel_telemetry::traces::probe(settings.traces.as_ref()?).await;
    Some(probed.map(|(address, refused)| CollectorFacts { address, refused }).map_err(Failure::from))
}
