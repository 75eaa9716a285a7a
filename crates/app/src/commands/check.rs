//! `tidewheel check`: tests every server with the operations that the services use, and reports problems.

use std::time::{Duration, Instant};

use tidewheel_core::error::{Cause, PortError};
use tidewheel_core::ports::{Ownable as _, PortResult, Purpose, Registry as _};
use tidewheel_ops::within;

use crate::check::{self, CheckVerdict, CollectorFacts, EmbedderFacts, Facts, Finding, Owners};
use crate::cli::{CheckArgs, Output};
use crate::connect;
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, DIM, GOOD, WARN, styled};
use crate::services;
use crate::settings::{Settings, address};

/// Maximum time for a server to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A text that every model can embed.
const SAMPLE: &str = "The parcel arrived on Tuesday, and everything in it was whole.";

/// Queries every server, judges the facts, and prints the findings.
pub(crate) async fn run(args: &CheckArgs, settings: &Settings) -> Result<Answer, Failure> {
    let (mongodb, redis, embedder, qdrant, owners, traces) = tokio::join!(
        mongodb(settings),
        within(TIMEOUT, redis(settings)),
        embedder(settings),
        within(TIMEOUT, qdrant(settings)),
        owners(settings),
        traces(settings)
    );
    let facts = Facts {
        mongodb_uri: address::shown(settings.mongodb.uri.reveal()),
        mongodb,
        redis_url: address::shown(settings.redis.url.reveal()),
        redis: redis.map_err(failure),
        embedder_url: address::shown(connect::embedder_url(settings)),
        embedder,
        qdrant_url: address::shown(settings.qdrant.url.reveal()),
        collection: settings.qdrant.collection.clone(),
        qdrant: qdrant.map_err(failure),
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
    Owners { source, redis: redis.ok().flatten(), collection: collection.ok() }
}

async fn embedder(settings: &Settings) -> Result<EmbedderFacts, Failure> {
    let answer = within(TIMEOUT, running_embedder(settings)).await;
    let unreachable = matches!(&answer, Err(error) if error.cause == Cause::Unreachable);
    if unreachable && !settings.embedding.elsewhere {
        let dimension = services::rehearse_embedder(&settings.embedder).await?;
        return Ok(EmbedderFacts::ToStart { model: settings.embedder.model.clone(), dimension });
    }
    answer.map_err(failure)
}

async fn running_embedder(settings: &Settings) -> PortResult<EmbedderFacts> {
    let embedder = connect::embedder(settings, Some(TIMEOUT))?;
    let info = embedder.info().await?;
    let begun = Instant::now();
    let vectors = embedder.embed(&[SAMPLE.to_owned()], Purpose::Query).await?;
    let (dimension, latency) = (vectors.dimension(), begun.elapsed());
    Ok(EmbedderFacts::Running { model: info.model, dimension, latency, computes: embedder.details().await? })
}

async fn traces(settings: &Settings) -> Option<Result<CollectorFacts, Failure>> {
    let probed = tidewheel_telemetry::traces::probe(settings.traces.as_ref()?).await;
    Some(probed.map(|(address, refused)| CollectorFacts { address, refused }).map_err(Failure::from))
}
