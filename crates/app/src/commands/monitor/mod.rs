//! `tidewheel monitor`: prints backlogs and problems at an interval, and notifies a webhook when a problem begins or is resolved.
//!
//! A problem is reported when it begins and when it is resolved, not at every interval. A problem that cannot be observed, because
//! the server that reports it does not answer, does not count as resolved.

mod changes;
mod webhook;

use std::time::Duration;

use serde::Serialize;
use tidewheel_core::time::Civil;
use tidewheel_ops::Probe;
use tidewheel_ops::overview::{
    IndexOverview, Operation, Overview, Problem, Severity, StageOverview, SyncState, SyncVerdict,
};
use tidewheel_ops::text::{estimate, thousands};

use crate::cli::{MonitorArgs, Output};
use crate::commands::status::{restricted, with_rates};
use crate::compose;
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, DIM, GOOD, STRONG, WARN, styled};
use crate::settings::Settings;
use changes::{Changes, Known};
use webhook::Webhook;

/// One observation, as JSON.
#[derive(Serialize)]
struct Line<'a> {
    at_ms: u64,
    verdict: &'a SyncVerdict,
    stages: Vec<Option<StageLine<'a>>>,
    indexes: Vec<IndexLine<'a>>,
    problems: &'a [Problem],
    begun: &'a [Problem],
    over: &'a [Problem],
}

/// A stage; `null` if Redis does not answer.
#[derive(Serialize)]
struct StageLine<'a> {
    stream: &'a str,
    length: u64,
    backlog: u64,
    dead_letters: u64,
    in_per_second: Option<f64>,
    out_per_second: Option<f64>,
    eta_seconds: Option<f64>,
}

/// An index.
#[derive(Serialize)]
struct IndexLine<'a> {
    name: &'a str,
    state: SyncState,
    operation: Option<&'a Operation>,
}

/// Observes once, or until a signal.
pub(crate) async fn run(args: &MonitorArgs, settings: &Settings) -> Result<Answer, Failure> {
    let looker = compose::looker(settings);
    let mut known = Known::default();
    if args.once {
        let overview = restricted(with_rates(&looker).await, args.index.as_ref())?;
        print(args.output.output, &overview, &known.look(&overview));
        return Ok(answer(&overview));
    }
    let webhook = settings.monitor.webhook.as_ref().map(Webhook::start).transpose()?;
    loop {
        let overview = restricted(looker.look().await, args.index.as_ref())?;
        let changes = known.look(&overview);
        print(args.output.output, &overview, &changes);
        match &webhook {
            Some(webhook) => webhook.post(&overview, &changes),
            None if printer::stdout_is_closed() => break,
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(settings.monitor.interval) => {}
            () = crate::signals::received() => break,
        }
    }
    if let Some(webhook) = webhook {
        webhook.finish(Duration::from_secs(5)).await;
    }
    Ok(Answer::Fine)
}

fn answer(overview: &Overview) -> Answer {
    match overview.verdict.state {
        SyncState::Unknown => Answer::Unknown,
        _ if overview.problems.is_empty() => Answer::Fine,
        _ => Answer::No,
    }
}

fn print(output: Output, overview: &Overview, changes: &Changes) {
    match output {
        Output::Json => printer::json_line(&line(overview, changes)),
        Output::Text => printer::data(text(overview, changes).trim_end()),
    }
}

fn line<'a>(overview: &'a Overview, changes: &'a Changes) -> Line<'a> {
    let stage = |stage: &'a Probe<StageOverview>| {
        stage.known().map(|stage| StageLine {
            stream: &stage.status.stream,
            length: stage.status.length,
            backlog: stage.backlog,
            dead_letters: stage.status.dead_letters,
            in_per_second: stage.in_per_second,
            out_per_second: stage.out_per_second,
            eta_seconds: stage.eta_seconds,
        })
    };
    let index = |index: &'a IndexOverview| IndexLine {
        name: index.name.as_str(),
        state: index.state,
        operation: index.operation.as_ref(),
    };
    Line {
        at_ms: overview.at_ms,
        verdict: &overview.verdict,
        stages: overview.stages.iter().map(stage).collect(),
        indexes: overview.indexes.iter().map(index).collect(),
        problems: &overview.problems,
        begun: &changes.begun,
        over: &changes.over,
    }
}

/// A line with the stages, and a line for each new generation and each open or resolved problem.
fn text(overview: &Overview, changes: &Changes) -> String {
    let mut parts = Vec::new();
    for (number, stage) in (1..).zip(&overview.stages) {
        parts.push(match stage.known() {
            None => format!("stage {number}: {}", styled(BAD, "?")),
            Some(stage) => {
                let style = if stage.backlog == 0 { GOOD } else { WARN };
                let backlog = styled(style, thousands(stage.backlog));
                let length = thousands(stage.status.length);
                let rates = match (stage.in_per_second, stage.out_per_second) {
                    (Some(into), Some(out)) => format!(", {into:.0}/s in, {out:.0}/s out"),
                    _ => String::new(),
                };
                let eta = stage.eta_seconds.filter(|_| stage.backlog > 0);
                let eta = eta.map_or_else(String::new, |seconds| format!(", ETA {}", estimate(seconds)));
                format!("stage {number}: backlog {backlog} of {length}{rates}{eta}")
            }
        });
    }
    let mut text = format!("{}  {}\n", styled(DIM, clock(overview.at_ms)), parts.join("   "));
    for index in &overview.indexes {
        let serving = index.serving.as_ref().map(|serving| serving.generation);
        let operation = index.operation.as_ref().filter(|operation| Some(operation.generation) != serving);
        if let Some(operation) = operation {
            text.push_str(&format!("  {} {}: {}\n", styled(WARN, "●"), index.name, operation.line(&index.name)));
        }
    }
    for problem in &overview.problems {
        let style = if problem.severity == Severity::Critical { BAD } else { WARN };
        let new = if changes.begun.contains(problem) { styled(STRONG, "new: ") } else { String::new() };
        let code = styled(DIM, format_args!("[{}]", problem.code));
        text.push_str(&format!("  {} {new}{} {code}\n", styled(style, "!"), problem.message));
        if !new.is_empty() {
            text.push_str(&format!("    {} {}\n", styled(GOOD, "→"), problem.action));
        }
    }
    for problem in &changes.over {
        text.push_str(&format!("  {} resolved: {}\n", styled(GOOD, "✔"), problem.message));
    }
    text
}

/// The time of day in UTC.
fn clock(at_ms: u64) -> String {
    let Civil { hour, minute, second, .. } = Civil::of(i64::try_from(at_ms).unwrap_or(i64::MAX));
    format!("{hour:02}:{minute:02}:{second:02}Z")
}
