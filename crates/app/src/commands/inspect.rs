//! `tidewheel inspect`: shows where a document is in the pipeline, and why.

use tidewheel_core::identity::Namespace;
use tidewheel_core::trace::{ChangeTrace, TraceId};
use tidewheel_ops::Probe;
use tidewheel_ops::inspect::facts::{EntryFacts, Progress, StageFacts};
use tidewheel_ops::inspect::report::{DocumentReport, Inspection};
use tidewheel_ops::inspect::verdict::DocumentState as State;
use tidewheel_telemetry::traces::TracesOptions;

use crate::cli::{InspectArgs, Output};
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, DIM, GOOD, STRONG, WARN, styled};
use crate::settings::Settings;
use crate::{compose, times};

/// Entries of a stage to print.
const SHOWN: usize = 5;

/// Queries every server and prints the result.
pub(crate) async fn run(args: &InspectArgs, settings: &Settings) -> Result<Answer, Failure> {
    let (namespace, index) = (args.namespace.as_deref(), args.index.clone());
    let found = compose::inspect(settings, &args.id, namespace, args.scan, index).await?;
    match args.output.output {
        Output::Json => printer::json(&found),
        Output::Text => show(&found, settings.traces.as_ref()),
    }
    Ok(answer(&found))
}

/// The exit code: 0 searchable or deleted, 1 any other state, 2 unknown.
fn answer(found: &Inspection) -> Answer {
    let states = found.documents.iter().map(|document| document.verdict.state);
    let of = |state| match state {
        State::Searchable | State::Deleted | State::Excluded => Answer::Fine,
        State::Unknown => Answer::Unknown,
        State::OnItsWay | State::Parked | State::Missing | State::Stale | State::Unheard => Answer::No,
    };
    let answers: Vec<Answer> = states.map(of).collect();
    match answers.as_slice() {
        [] => Answer::No,
        all if all.contains(&Answer::Unknown) => Answer::Unknown,
        all if all.contains(&Answer::No) => Answer::No,
        _ => Answer::Fine,
    }
}

fn show(found: &Inspection, traces: Option<&TracesOptions>) {
    if found.documents.is_empty() {
        printer::data(format_args!(
            "_id {} not found in {} (searched as {})",
            found.asked,
            found.namespaces.join(", "),
            found.read_as.join(", ")
        ));
        printer::message("For an _id of another type, use extended JSON, such as '{\"$numberDecimal\": \"7\"}'.");
    }
    for document in &found.documents {
        show_document(document, traces);
    }
}

fn show_document(document: &DocumentReport, traces: Option<&TracesOptions>) {
    let name = format!("{} {}", document.namespace, document.key);
    printer::data(format_args!("{}  {}", styled(STRONG, name), styled(DIM, document.document.as_str())));
    if let Some(target) = &document.target {
        printer::data(format_args!("in {target}"));
    }
    let (sign, style) = match document.verdict.state {
        State::Searchable | State::Deleted | State::Excluded => ("✔", GOOD),
        State::OnItsWay => ("…", WARN),
        State::Parked | State::Missing | State::Stale => ("✖", BAD),
        State::Unheard | State::Unknown => ("?", WARN),
    };
    printer::data(format_args!("{} {}", styled(style, sign), document.verdict.text));
    let line = |name: &str, value: &str| {
        printer::data(format_args!("  {} {value}", styled(STRONG, format_args!("{name:<12}"))));
    };
    match &document.source {
        Probe::Unknown(error) => line("MongoDB", &styled(BAD, error)),
        Probe::Known(source) if source.exists => {
            let digest = source.digest.as_deref().unwrap_or_default();
            line("MongoDB", &format!("found: {} bytes, digest {digest}", source.bytes.unwrap_or_default()));
        }
        Probe::Known(_) => line("MongoDB", "not found"),
    }
    for (name, stage) in [("stage 1", &document.raw), ("stage 2", &document.embedded)] {
        match stage {
            Probe::Unknown(error) => line(name, &styled(BAD, error)),
            Probe::Known(stage) => show_stage(name, stage, &line),
        }
    }
    match &document.index {
        Probe::Unknown(error) => line("Qdrant", &styled(BAD, error)),
        Probe::Known(None) => line("Qdrant", "not found"),
        Probe::Known(Some(index)) => {
            let surplus = if index.surplus > 0 { format!(", {} surplus", index.surplus) } else { String::new() };
            let chunks = format!("{} of {} chunks{surplus}", index.present, index.chunks);
            line("Qdrant", &format!("found: {chunks}, version {}, digest {}", index.version, index.digest));
            let made = index.made.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>();
            if !made.is_empty() {
                line("", &styled(DIM, made.join(", ")));
            }
        }
    }
    match &document.deleted {
        Probe::Unknown(error) => line("tombstone", &styled(BAD, error)),
        Probe::Known(deleted) => {
            if let Some(version) = &deleted.document {
                line("tombstone", &format!("document deleted at version {version}"));
            }
            if let Some(version) = &deleted.collection {
                line("tombstone", &format!("collection dropped at version {version}"));
            }
        }
    }
    match &document.dead_letters {
        Probe::Unknown(error) => line("dead letters", &styled(BAD, error)),
        Probe::Known(letters) => {
            for letter in letters {
                let text =
                    format!("{} of {}, version {}: {}", letter.id, letter.stage.title(), letter.version, letter.reason);
                line("dead letter", &styled(WARN, text));
            }
        }
    }
    if !document.hops.is_empty() {
        let hops =
            document.hops.iter().map(|hop| format!("{} {}", hop.name, times::span(hop.took_ms))).collect::<Vec<_>>();
        line("latency", &hops.join(", "));
    }
    if let Some((traces, newest)) = traces.zip(otel_trace(document)) {
        let recorded = if traces.ratio.includes(newest) { "" } else { ", not recorded: see traces.share" };
        line("trace", &format!("{newest} of its newest change{recorded}"));
    }
    printer::data("");
}

/// The OpenTelemetry trace of the document's newest change.
fn otel_trace(document: &DocumentReport) -> Option<TraceId> {
    let namespace = Namespace::parse(&document.namespace)?;
    Some(ChangeTrace::of(&namespace, &document.key, document.newest()?).id)
}

fn show_stage(name: &str, stage: &StageFacts, line: &dyn Fn(&str, &str)) {
    let scanned = if stage.complete { "all".to_owned() } else { format!("only the newest {}", stage.looked_at) };
    if stage.entries.is_empty() {
        let text = format!("no entry found ({scanned} entries scanned)");
        line(name, &if stage.complete { styled(DIM, text) } else { styled(WARN, text) });
        return;
    }
    for (number, entry) in stage.entries.iter().take(SHOWN).enumerate() {
        line(if number == 0 { name } else { "" }, &entry_line(entry));
    }
    if stage.entries.len() > SHOWN {
        line("", &styled(DIM, format_args!("… and {} older", stage.entries.len() - SHOWN)));
    }
    if !stage.complete {
        line("", &styled(WARN, format_args!("{scanned} entries scanned")));
    }
}

fn entry_line(entry: &EntryFacts) -> String {
    let state = match &entry.state {
        Progress::Waiting => styled(WARN, "undelivered"),
        Progress::Confirmed => styled(DIM, "acknowledged"),
        Progress::Pending { consumer, idle_ms, deliveries } => styled(
            WARN,
            format_args!("pending at {consumer} for {}, delivered {}", times::span(*idle_ms), often(*deliveries)),
        ),
    };
    let what = match (&entry.change, &entry.unreadable) {
        (Some(change), _) => format!("{} version {}", change.operation, change.version),
        (None, Some(unreadable)) => styled(BAD, unreadable),
        (None, None) => String::new(),
    };
    let embedding = entry.embedding.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>();
    let embedding =
        if embedding.is_empty() { String::new() } else { format!("  {}", styled(DIM, embedding.join(", "))) };
    format!("{}  {}  {what}, {state}{embedding}", entry.id, styled(DIM, &entry.added_at))
}

fn often(times: u64) -> String {
    if times == 1 { "once".to_owned() } else { format!("{times} times") }
}

fn plain(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
