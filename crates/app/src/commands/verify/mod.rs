//! `tidewheel verify`: compares the index with MongoDB, and repairs differences with `--repair`.

mod shown;

use std::sync::Arc;

use tidewheel_core::identity::Namespace;
use tidewheel_ops::text::thousands;
use tidewheel_ops::verify::{self, ParkedDocument, Sample, Verified, VerifyRequest};
use tidewheel_pipeline::audit::{Difference, Kind, Range, Report};
use tidewheel_stores::mongo::id_readings;

use self::shown::Shown;
use crate::audit_log::{Actor, of_index};
use crate::cli::{Output, VerifyArgs};
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, DIM, GOOD, STRONG, WARN, styled};
use crate::services::guard;
use crate::settings::Settings;
use crate::{compose, connect};

/// Differences to print.
const SHOWN: usize = 20;

/// Audits the index and prints the result.
pub(crate) async fn run(args: &VerifyArgs, settings: &Settings) -> Result<Answer, Failure> {
    let shown = Arc::new(Shown::new());
    let report = shown.clone();
    let verified = verified(args, settings, Arc::new(move |progress| report.report(progress))).await;
    shown.finish();
    let verified = verified?;
    match (args.output.output, verified.as_slice()) {
        (Output::Json, [only]) if !is_list(args.index.is_some(), settings.is_declared()) => printer::json(only),
        (Output::Json, all) => printer::json(&all),
        (Output::Text, all) => all.iter().for_each(show),
    }
    Ok(answer(&verified))
}

/// Whether the JSON of one result is a list. It depends on what a script knows beforehand: whether it names an index, and
/// whether the settings declare some.
fn is_list(is_named: bool, is_declared: bool) -> bool {
    is_declared && !is_named
}

/// Success if nothing differs or everything was repaired.
fn answer(verified: &[Verified]) -> Answer {
    if verified.iter().all(|verified| verified.left() == 0) { Answer::Fine } else { Answer::No }
}

/// Compares the source with each index, and repairs differences with `--repair`.
async fn verified(args: &VerifyArgs, settings: &Settings, report: Report) -> Result<Vec<Verified>, Failure> {
    let request = request(args, settings)?;
    let redis = connect::redis(settings)?;
    let (source, ports) = compose::verify(settings, &redis, args.repair).await?;
    let comparisons = verify::plan(&ports, &source, &request).await?;
    if args.repair {
        // Keep documents of another database out of this Redis.
        guard(settings, &redis, None, None).check_redis().await?;
        let scope = format!(
            "namespaces {:?}, sample {:?}, from {:?}, to {:?}{}",
            args.namespaces,
            args.sample,
            args.from,
            args.to,
            of_index(args.index.as_ref())
        );
        Actor::cli().records(&redis, "verify --repair", scope).await?;
    }
    let mut verified = Vec::with_capacity(comparisons.len());
    for comparison in &comparisons {
        verified.push(verify::verify(&ports, comparison, &report).await?);
    }
    Ok(verified)
}

fn request(args: &VerifyArgs, settings: &Settings) -> Result<VerifyRequest, Failure> {
    let database = settings.mongodb.database.clone().unwrap_or_default();
    let any = settings.is_declared();
    let namespace = |text: &String| {
        let whole = Namespace::parse(text).filter(|namespace| any || namespace.database() == database);
        whole.unwrap_or_else(|| Namespace::new(&database, text))
    };
    // The likeliest reading is used; extended JSON is unambiguous.
    let end = |text: &Option<String>| {
        text.as_ref().and_then(|text| id_readings(text).into_iter().next()).map(|reading| reading.key)
    };
    let range = Range { from: end(&args.from), to: end(&args.to) };
    Ok(VerifyRequest {
        index: args.index.clone(),
        namespaces: args.namespaces.iter().map(namespace).collect(),
        sample: args.sample.as_deref().map(sample).transpose()?,
        range: (range != Range::default()).then_some(range),
        quick: args.quick,
        settle: args.settle,
    })
}

/// Parses a sample.
fn sample(text: &str) -> Result<Sample, Failure> {
    let share = text.strip_suffix('%').and_then(|percent| percent.trim().parse::<f64>().ok());
    match (share, text.parse::<u64>()) {
        (Some(percent), _) if percent > 0.0 => Ok(Sample::Share(percent / 100.0)),
        (None, Ok(documents @ 1..)) => Ok(Sample::Documents(documents)),
        _ => Err(Failure::new(format!("invalid --sample {text:?}: expected a number or a percentage"))
            .with_hint("use a number of documents such as 1000, or a percentage such as 5%")),
    }
}

fn show(verified: &Verified) {
    let Verified { index, found, parked, partly } = verified;
    if let Some(index) = index {
        printer::data(styled(STRONG, format_args!("index {index}")));
    }
    let rate = found.documents as f64 / found.seconds.max(1e-3);
    let scope = if *partly { "in the compared part of the documents" } else { "in all documents" };
    printer::message(format_args!(
        "{} and {} compared in {:.1} s ({} documents/s)",
        printer::counted(found.documents, "document"),
        printer::counted(found.points, "point"),
        found.seconds,
        thousands(rate.round() as u64)
    ));
    if found.foreign > 0 {
        printer::message(styled(
            DIM,
            format_args!("ignored {} of other writers", printer::counted(found.foreign, "point")),
        ));
    }
    if found.unsettled > 0 {
        let documents = printer::counted(found.unsettled, "document");
        printer::message(styled(WARN, format_args!("failed to compare {documents}: changed during the comparison")));
    }
    if found.drift() == 0 {
        printer::data(format_args!("{} the index matches MongoDB {scope}", styled(GOOD, "✔")));
        return;
    }
    let counts = Kind::ALL.into_iter().filter(|kind| found.of(*kind) > 0);
    let counts =
        counts.map(|kind| format!("{} {}", thousands(found.of(kind)), kind.name())).collect::<Vec<_>>().join(", ");
    printer::data(format_args!("{} the index differs from MongoDB: {counts}", styled(BAD, "✖")));
    for difference in found.differences.iter().take(SHOWN) {
        show_difference(difference, parked);
    }
    if found.drift() > SHOWN as u64 {
        printer::data(styled(DIM, format_args!("… and {} more", found.drift() - SHOWN as u64)));
    }
    if !found.settled {
        printer::message(styled(
            WARN,
            "earlier changes did not arrive in time: the differences include changes in flight; run `tidewheel status` to see why",
        ));
    }
    match &found.repaired {
        None => {
            printer::message("");
            if !parked.is_empty() {
                let documents = printer::counted(parked.len() as u64, "document");
                printer::message(format_args!(
                    "{documents} parked: fix the cause, then run `tidewheel dead-letters retry --all --yes`"
                ));
            }
            if found.drift() > parked.len() as u64 {
                printer::message(
                    "run `tidewheel verify --repair` to send differing documents through the pipeline again",
                );
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
                let text = format!("{sent}; {} still differ", thousands(repaired.left));
                printer::data(format_args!("{} {text}: run `tidewheel inspect` to see why", styled(BAD, "✖")));
            }
        }
    }
}

fn show_difference(difference: &Difference, parked: &[ParkedDocument]) {
    let Difference { kind, namespace, key, what } = difference;
    let reason = parked.iter().find(|parked| parked.namespace == *namespace && parked.key == *key);
    let reason = reason.map(|parked| styled(WARN, format_args!(" (parked: {})", parked.reason))).unwrap_or_default();
    printer::data(format_args!(
        "{} {namespace} {key}: {what}{reason}",
        styled(STRONG, format_args!("{:<8}", kind.name()))
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_a_list_only_if_the_settings_declare_indexes_and_none_is_named() {
        let lists = [(false, false), (true, false), (true, true), (false, true)];
        let lists = lists.map(|(is_named, is_declared)| is_list(is_named, is_declared));
        assert_eq!(lists, [false, false, false, true]);
    }

    #[test]
    fn sample_is_a_positive_number_or_percentage() {
        assert_eq!(sample("1000"), Ok(Sample::Documents(1_000)));
        assert_eq!(sample("5%"), Ok(Sample::Share(0.05)));
        assert_eq!(sample("0.5 %"), Ok(Sample::Share(0.005)));
        for invalid in ["", "0", "0%", "-5%", "NaN%", "%", "many", "-1", "1.5"] {
            assert!(sample(invalid).is_err(), "{invalid}");
        }
    }
}
