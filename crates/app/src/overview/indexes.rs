//! Indexes as text: a line for each, and a page about one.

use std::fmt::Write as _;

use anstyle::Style;
use tidewheel_core::catalog::State;
use tidewheel_ops::overview::{Audit, Declared, GenerationOverview, IndexOverview, Overview, SyncState};
use tidewheel_ops::text::{documents, duration, entries, thousands};
use tidewheel_ops::times;

use super::text::problem_lines;
use crate::printer::{BAD, DIM, GOOD, STRONG, WARN, styled};

/// Width of the names of facts.
const NAMES: usize = 16;

/// Whether the indexes are listed. A single one without a change of generations is described by the overview itself.
pub(super) fn is_listed(overview: &Overview) -> bool {
    match overview.indexes.as_slice() {
        [only] => only.generations.len() != 1,
        indexes => !indexes.is_empty(),
    }
}

/// The sign of a state, with its style.
pub(super) fn sign(state: SyncState) -> (&'static str, Style) {
    match state {
        SyncState::InSync => ("✔", GOOD),
        SyncState::Drifted => ("≠", WARN),
        SyncState::Syncing => ("●", WARN),
        SyncState::Empty => ("○", DIM),
        SyncState::Stalled | SyncState::Unknown => ("✖", BAD),
    }
}

/// One line for each index: state, serving generation, points, and what is being done.
pub(super) fn lines(overview: &Overview) -> Vec<String> {
    let widest = overview.indexes.iter().map(|index| index.name.as_str().chars().count()).max().unwrap_or(0);
    overview.indexes.iter().map(|index| line(index, widest)).collect()
}

fn line(index: &IndexOverview, width: usize) -> String {
    let (sign, style) = sign(index.state);
    let mut facts = vec![match &index.serving {
        Some(serving) => format!("generation {}", serving.generation),
        None if index.generations.is_empty() => "not applied".to_owned(),
        None => "not created yet".to_owned(),
    }];
    facts.extend(index.points.map(|points| format!("{} points", thousands(points))));
    facts.extend(index.operation.as_ref().map(|operation| operation.line(&index.name)));
    let name = format!("{:<width$}", index.name.as_str());
    format!("{} {}  {:<8} {}", styled(style, sign), styled(STRONG, name), index.state.text(), facts.join(" · "))
}

/// Everything about one index. The overview is [restricted](Overview::restricted) to it.
pub(crate) fn page(overview: &Overview, index: &IndexOverview) -> String {
    let mut text = String::new();
    let (sign, style) = sign(index.state);
    let title = format!("{}: {}", index.name, index.state.text());
    let _ = writeln!(text, "{} {}", styled(style, sign), styled(STRONG, title));
    problem_lines(&mut text, &overview.problems);
    let _ = writeln!(text);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{}{value}", styled(STRONG, format_args!("{name:<NAMES$}")));
    };
    if let Some(operation) = &index.operation {
        line("operation", operation.line(&index.name));
    }
    line("declared", declared(index.declared).to_owned());
    line("drift", index.drift.as_ref().map_or_else(|| "not audited yet".to_owned(), drift));
    if let Some(latency) = &index.latency {
        let (p50, p95) = (duration(latency.p50_seconds), duration(latency.p95_seconds));
        line("latency", format!("p50 {p50} · p95 {p95} from commit to searchable"));
    }
    match index.dead_letters {
        Some(letters) => line("parked", entries(letters)),
        None => line("parked", format!("see `tidewheel dead-letters list --index {}`", index.name)),
    }
    for generation in &index.generations {
        line(&format!("generation {}", generation.number), described(generation));
    }
    text
}

fn declared(declared: Declared) -> &'static str {
    match declared {
        Declared::Applied => "as applied",
        Declared::Differs => "differently from what is applied",
        Declared::Absent => "no longer",
        Declared::Unknown => "unknown: no service with declarations reports",
    }
}

fn drift(audit: &Audit) -> String {
    let since = duration(audit.seconds_ago);
    match audit.drift() {
        0 => format!("none, audited {since} ago"),
        drift => styled(WARN, format_args!("{}, audited {since} ago", documents(drift))),
    }
}

fn described(generation: &GenerationOverview) -> String {
    let mut facts = vec![generation.state.name().to_owned()];
    if generation.state == State::Kept
        && let Some(until) = generation.until_ms
    {
        facts[0] += &format!(" until {}", times::show(until));
    }
    if !generation.filled {
        facts.push("not filled".to_owned());
    }
    facts.extend(generation.points.map(|points| format!("{} points", thousands(points))));
    if let Some(status) = &generation.status {
        facts.push(styled(if status == "red" { BAD } else { GOOD }, status));
    }
    facts.extend(generation.lost.as_ref().map(|lost| styled(WARN, format_args!("lost: {lost}"))));
    format!("{}  {}", facts.join(", "), styled(DIM, &generation.collection))
}
