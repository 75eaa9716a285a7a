//! `tidewheel verify`: compares the index with MongoDB, and repairs differences with `--repair`.

mod shown;

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{PortResult, Source};
use tidewheel_core::stage::Stage;
use tidewheel_pipeline::audit::{self, AuditOptions, AuditPorts, Difference, Found, Kind, Range, Report, Scope};
use tidewheel_stores::mongo::{MongoSource, id_readings};
use tidewheel_stores::redis::{RedisStore, wire};

use self::shown::Shown;
use crate::audit_log::Actor;
use crate::cli::{Output, VerifyArgs};
use crate::connect;
use crate::exit::{Answer, Failure};
use crate::overview::none_of;
use crate::printer::{self, BAD, DIM, GOOD, STRONG, WARN, styled};
use crate::services::{guard, left_out, upserter_options};
use crate::settings::Settings;

/// Differences to print.
const SHOWN: usize = 20;

/// Dead letters to scan for the reasons of differences.
const LETTERS: u64 = 10_000;

/// Documents to look up among the dead letters.
const EXPLAINED: usize = 1_000;

/// Audits the index and prints the result.
pub(crate) async fn run(args: &VerifyArgs, settings: &Settings) -> Result<Answer, Failure> {
    let shown = Arc::new(Shown::new());
    let report = shown.clone();
    let verified = verify(args, settings, Arc::new(move |progress| report.report(progress))).await;
    shown.finish();
    let verified = verified?;
    match args.output.output {
        Output::Json => printer::json(&verified),
        Output::Text => show(&verified),
    }
    Ok(verified.answer())
}

/// Result of an audit, with known reasons.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Verified {
    #[serde(flatten)]
    pub(crate) found: Found,
    /// Documents that differ because they are dead letters.
    pub(crate) parked: Vec<Parked>,
    /// Whether only a part of the documents was compared.
    pub(crate) partly: bool,
}

/// A document that differs because its change is a dead letter.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Parked {
    pub(crate) namespace: String,
    pub(crate) key: String,
    pub(crate) reason: String,
}

impl Verified {
    /// Success if nothing differs or everything was repaired.
    fn answer(&self) -> Answer {
        let left = self.found.repaired.as_ref().map_or_else(|| self.found.drift(), |repaired| repaired.left);
        if left == 0 { Answer::Fine } else { Answer::No }
    }
}

/// Compares source and index, and repairs differences with `--repair`.
pub(crate) async fn verify(args: &VerifyArgs, settings: &Settings, report: Report) -> Result<Verified, Failure> {
    let options = AuditOptions {
        scope: scope(args, settings).await?,
        payload: (!args.quick).then(|| upserter_options(settings).payload),
        settle: args.settle,
        left_out: left_out(settings)?,
        ..AuditOptions::default()
    };
    let partly = options.scope.share.is_some() || options.scope.range.is_some() || !options.scope.namespaces.is_empty();
    let source = connect::source(connect::mongo_options(settings, "verify")?).await?;
    let passed_over = source.passed_over().await?;
    if !passed_over.is_empty() {
        // An empty index matches an empty selection, which would be misleading.
        return Err(Failure::new(format!("mongodb.collection selects {}", none_of(&passed_over)))
            .with_hint("correct mongodb.collection: a name, or a pattern such as \"tickets_*\""));
    }
    let (ports, redis) = ports(settings, source, args.repair).await?;
    if args.repair {
        let scope = format!(
            "namespaces {:?}, sample {:?}, from {:?}, to {:?}",
            args.namespaces, args.sample, args.from, args.to
        );
        Actor::cli().records(&redis, "verify --repair", scope).await?;
    }
    let found = audit::audit(&ports, &options, &report).await?;
    let parked = parked(&redis, &found.differences).await.unwrap_or_default();
    Ok(Verified { found, parked, partly })
}

async fn ports(settings: &Settings, source: MongoSource, repair: bool) -> Result<(AuditPorts, RedisStore), Failure> {
    let redis = connect::redis(settings)?;
    if repair {
        // Keep documents of another database out of this Redis.
        guard(settings, &redis, None, None).check_redis().await?;
    }
    let ports = AuditPorts {
        source: Arc::new(source),
        index: Arc::new(connect::index(settings)?),
        journal: Arc::new(redis.clone()),
        repair: repair.then(|| Arc::new(redis.stream_log(Stage::Raw)) as _),
    };
    Ok((ports, redis))
}

async fn scope(args: &VerifyArgs, settings: &Settings) -> Result<Scope, Failure> {
    let database = settings.mongodb.database.clone().unwrap_or_default();
    let namespace = |text: &String| {
        let whole = Namespace::parse(text).filter(|namespace| namespace.database() == database);
        whole.unwrap_or_else(|| Namespace::new(&database, text))
    };
    let namespaces: Vec<Namespace> = args.namespaces.iter().map(namespace).collect();
    let share = match &args.sample {
        None => None,
        Some(text) => Some(share(text, settings, &namespaces).await?),
    };
    // The likeliest reading is used; extended JSON is unambiguous.
    let end = |text: &Option<String>| {
        text.as_ref().and_then(|text| id_readings(text).into_iter().next()).map(|reading| reading.key)
    };
    let range = Range { from: end(&args.from), to: end(&args.to) };
    let range = (range != Range::default()).then_some(range);
    Ok(Scope { namespaces, share, range })
}

/// Returns the sample as a share of all documents.
async fn share(text: &str, settings: &Settings, namespaces: &[Namespace]) -> Result<f64, Failure> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok().map(|percent| percent / 100.0),
        None => match text.parse::<u64>() {
            Ok(wanted) => Some(wanted as f64 / documents(settings, namespaces).await?.max(1) as f64),
            Err(_) => None,
        },
    };
    share.filter(|share| *share > 0.0).map(|share| share.min(1.0)).ok_or_else(|| {
        Failure::new(format!("invalid --sample {text:?}: expected a number or a percentage"))
            .with_hint("use a number of documents such as 1000, or a percentage such as 5%")
    })
}

/// Returns the estimated number of documents.
async fn documents(settings: &Settings, namespaces: &[Namespace]) -> Result<u64, Failure> {
    let source = connect::source(connect::mongo_options(settings, "verify")?).await?;
    let mut all = 0;
    for namespace in source.collections().await? {
        if namespaces.is_empty() || namespaces.contains(&namespace) {
            all += source.estimate(&namespace).await?;
        }
    }
    Ok(all)
}

/// Returns the documents that have a dead letter, with its reason.
async fn parked(redis: &RedisStore, differences: &[Difference]) -> PortResult<Vec<Parked>> {
    let wanted: Vec<(Namespace, String)> = differences
        .iter()
        .filter(|difference| matches!(difference.kind, Kind::Missing | Kind::Stale))
        .take(EXPLAINED)
        .filter_map(|difference| Some((Namespace::parse(&difference.namespace)?, difference.key.clone())))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let mut reasons: HashMap<(String, String), String> = HashMap::new();
    for stage in [Stage::Raw, Stage::Embedded] {
        for entry in redis.letters_of(stage, &wanted, LETTERS).await?.entries {
            let text = |name: &str| {
                let value = entry.fields.iter().find(|(field, _)| field == name.as_bytes());
                value.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
            };
            let of = (text("namespace"), text("key"));
            let letter = wire::letter(stage, entry.id.clone(), entry.fields.clone());
            reasons.entry(of).or_insert(letter.reason);
        }
    }
    let parked = wanted.into_iter().filter_map(|(namespace, key)| {
        let reason = reasons.get(&(namespace.to_string(), key.clone()))?.clone();
        Some(Parked { namespace: namespace.to_string(), key, reason })
    });
    Ok(parked.collect())
}

fn show(verified: &Verified) {
    let Verified { found, parked, partly } = verified;
    let rate = found.documents as f64 / found.seconds.max(1e-3);
    let scope = if *partly { "in the compared part of the documents" } else { "in all documents" };
    printer::say(format_args!(
        "{} and {} compared in {:.1} s ({rate:.0} documents/s)",
        printer::counted(found.documents, "document"),
        printer::counted(found.points, "point"),
        found.seconds
    ));
    if found.foreign > 0 {
        printer::say(styled(DIM, format_args!("{} points of other writers ignored", found.foreign)));
    }
    if found.unsettled > 0 {
        let text = format!("{} documents kept changing and could not be compared", found.unsettled);
        printer::say(styled(WARN, text));
    }
    if found.drift() == 0 {
        printer::data(format_args!("{} the index matches MongoDB {scope}", styled(GOOD, "✔")));
        return;
    }
    let counts = Kind::ALL.into_iter().filter(|kind| found.of(*kind) > 0);
    let counts = counts.map(|kind| format!("{} {}", found.of(kind), kind.name())).collect::<Vec<_>>().join(", ");
    printer::data(format_args!("{} the index differs from MongoDB: {counts}", styled(BAD, "✖")));
    for difference in found.differences.iter().take(SHOWN) {
        show_difference(difference, parked);
    }
    if found.drift() > SHOWN as u64 {
        printer::data(styled(DIM, format_args!("… and {} more", found.drift() - SHOWN as u64)));
    }
    if !found.settled {
        printer::say(styled(
            WARN,
            "earlier changes had not arrived: the differences include changes in flight. Run `tidewheel status` to see why",
        ));
    }
    match &found.repaired {
        None => {
            printer::say("");
            if !parked.is_empty() {
                let them =
                    if parked.len() == 1 { "1 of them is".into() } else { format!("{} of them are", parked.len()) };
                printer::say(format_args!(
                    "{them} parked: fix the cause, then run `tidewheel dead-letters retry --all --yes`"
                ));
            }
            if found.drift() > parked.len() as u64 {
                printer::say("run `tidewheel verify --repair` to send differing documents through the pipeline again");
            }
        }
        Some(repaired) => {
            let sent = format!(
                "{} and {} sent again",
                printer::counted(repaired.sent, "document"),
                printer::counted(repaired.deleted, "deletion")
            );
            if repaired.left == 0 {
                printer::data(format_args!("{} {sent}; no differences left", styled(GOOD, "✔")));
            } else {
                for difference in repaired.still.iter().take(SHOWN) {
                    show_difference(difference, parked);
                }
                let text = format!("{sent}; {} still differ", repaired.left);
                printer::data(format_args!("{} {text}: run `tidewheel inspect` to see why", styled(BAD, "✖")));
            }
        }
    }
}

fn show_difference(difference: &Difference, parked: &[Parked]) {
    let Difference { kind, namespace, key, what } = difference;
    let reason = parked.iter().find(|parked| parked.namespace == *namespace && parked.key == *key);
    let reason = reason.map(|parked| styled(WARN, format_args!(" (parked: {})", parked.reason))).unwrap_or_default();
    printer::data(format_args!(
        "{} {namespace} {key}: {what}{reason}",
        styled(STRONG, format_args!("{:<8}", kind.name()))
    ));
}
