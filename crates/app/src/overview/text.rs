//! The overview as plain text: verdict, problems, numbers.

use std::fmt::Write as _;

use tidewheel_ops::Probe;
use tidewheel_ops::overview::{
    Collection, Embedder, Overview, Problem, Severity, Source, StageOverview, SyncState as State,
};
use tidewheel_ops::text::{FAR_SECONDS, duration, estimate, thousands};

use super::indexes;
use crate::printer::{BAD, DIM, GOOD, STRONG, WARN, styled};

/// Renders with styles; the table fits `width` if that is at least 80 columns.
pub(crate) fn text(overview: &Overview, width: usize) -> String {
    let mut text = String::new();
    let (sign, style) = indexes::sign(overview.verdict.state);
    // The first line already states the blocking problem; its code leads to the runbook.
    let first = usize::from(matches!(overview.verdict.state, State::Stalled | State::Unknown));
    let tag = overview.problems.first().filter(|_| first == 1).map_or_else(String::new, |problem| code(problem.code));
    let _ = writeln!(text, "{} {}{tag}", styled(style, sign), styled(STRONG, &overview.verdict.summary));
    // Each problem below has its own action.
    if let Some(action) = overview.verdict.action.as_ref().filter(|_| first == 1 || overview.problems.is_empty()) {
        let _ = writeln!(text, "  {} {action}", styled(GOOD, "→"));
    }
    problem_lines(&mut text, overview.problems.iter().skip(first));
    let _ = writeln!(text);
    stages_table(overview, &mut text, width);
    let _ = writeln!(text);
    let mut line = |name: &str, value: Result<String, &str>| {
        let value = value.unwrap_or_else(|error| styled(BAD, error));
        let _ = writeln!(text, "{}{}{value}", styled(STRONG, name), " ".repeat(12 - name.len()));
    };
    line("source", overview.source.known().map(source_line).ok_or_else(|| overview.source.error().unwrap_or_default()));
    // The indexes are listed below.
    if !indexes::is_listed(overview) || overview.collection.error().is_some() {
        line(
            "collection",
            overview
                .collection
                .known()
                .map(collection_line)
                .ok_or_else(|| overview.collection.error().unwrap_or_default()),
        );
    }
    line(
        "embedder",
        overview.embedder.known().map(embedder_line).ok_or_else(|| overview.embedder.error().unwrap_or_default()),
    );
    if let Probe::Known(redis) = &overview.redis {
        let limit = redis.memory_limit_bytes.map_or_else(
            || ", no limit".to_owned(),
            |limit| format!(" of {} ({}%)", bytes(limit), redis.memory_bytes * 100 / limit.max(1)),
        );
        let address = styled(DIM, &redis.address);
        line("redis", Ok(format!("{} in use{limit}  {address}", bytes(redis.memory_bytes))));
    }
    if let Some(latency) = &overview.latency {
        line(
            "latency",
            Ok(format!(
                "p50 {} · p95 {} from commit to searchable",
                duration(latency.p50_seconds),
                duration(latency.p95_seconds)
            )),
        );
    }
    if let Some(tokens) = &overview.tokens {
        let (embedded, saved) = (thousands(tokens.embedded), thousands(tokens.saved));
        line("tokens", Ok(format!("{embedded} embedded, {saved} saved")));
    }
    if !overview.services.is_empty() {
        let mut names: Vec<String> = Vec::new();
        for service in &overview.services {
            let (sign, style) = if service.ready { ("✔", GOOD) } else { ("✖", BAD) };
            let version = service.foreign_version.as_ref().map_or_else(String::new, |version| {
                format!(" {}", styled(DIM, format_args!("(version {version}, figures unknown)")))
            });
            names.push(format!("{}{version}", styled(style, format_args!("{sign} {}", service.service))));
        }
        line("services", Ok(names.join("  ")));
    }
    if indexes::is_listed(overview) {
        let _ = writeln!(text);
        for line in indexes::lines(overview) {
            let _ = writeln!(text, "{line}");
        }
    }
    text
}

/// Adds problems with their remedies.
pub(super) fn problem_lines<'a>(text: &mut String, problems: impl IntoIterator<Item = &'a Problem>) {
    for problem in problems {
        let style = if problem.severity == Severity::Critical { BAD } else { WARN };
        let _ = writeln!(text, "{} {}{}", styled(style, "!"), problem.message, code(problem.code));
        let _ = writeln!(text, "  {} {}", styled(GOOD, "→"), problem.action);
    }
}

fn stages_table(overview: &Overview, text: &mut String, width: usize) {
    let _ = writeln!(text, "{}", styled(STRONG, row("stream", &COLUMNS.map(|column| column.name.to_owned()), width)));
    for stage in &overview.stages {
        let _ = match stage {
            Probe::Known(stage) => writeln!(text, "{}", stage_line(stage, width)),
            Probe::Unknown(error) => writeln!(text, "{}", styled(BAD, error)),
        };
    }
}

/// A right-aligned column of the stage table.
#[derive(Clone, Copy)]
struct Column {
    name: &'static str,
    /// Including the leading space.
    width: usize,
    /// Whether it is dropped on narrow terminals.
    spare: bool,
}

const fn column(name: &'static str, width: usize, spare: bool) -> Column {
    Column { name, width, spare }
}

/// A row takes 75 columns without the spare ones and 95 with them.
const COLUMNS: [Column; 9] = [
    column("entries", 9, true),
    column("lag", 9, false),
    column("pending", 9, false),
    column("oldest", 9, false),
    column("in/s", 7, false),
    column("out/s", 7, false),
    column("eta", 8, false),
    column("dead", 6, false),
    column("consumers", 11, true),
];

/// The width of `raw_document_changes`.
const NAME: usize = 20;

/// A row of the table; dead letters are highlighted.
fn row(name: &str, cells: &[String; COLUMNS.len()], width: usize) -> String {
    let all = NAME + COLUMNS.iter().map(|column| column.width).sum::<usize>() <= width;
    let mut row = format!("{name:<NAME$}");
    for (Column { name, width, spare }, cell) in COLUMNS.iter().zip(cells) {
        if all || !spare {
            let padded = format!("{cell:>width$}");
            let dead = *name == "dead" && cell.parse().is_ok_and(|dead: u64| dead > 0);
            row += &if dead { styled(WARN, padded) } else { padded };
        }
    }
    row
}

/// Formats a problem's code, to follow its message.
fn code(code: &str) -> String {
    format!(" {}", styled(DIM, format_args!("[{code}]")))
}

fn stage_line(stage: &StageOverview, width: usize) -> String {
    let status = &stage.status;
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".into(), |rate| format!("{rate:.0}"));
    let eta = match stage.eta_seconds {
        _ if stage.backlog == 0 => "-".into(),
        // The column has no room for more.
        Some(seconds) if seconds >= FAR_SECONDS as f64 => ">30 d".into(),
        Some(seconds) => duration(seconds),
        None => "?".into(),
    };
    let cells = [
        status.length.to_string(),
        status.lag.map_or_else(|| "?".into(), |lag| lag.to_string()),
        status.pending.to_string(),
        status.oldest_age_ms.map_or_else(|| "-".into(), |millis| duration(millis as f64 / 1e3)),
        rate(stage.in_per_second),
        rate(stage.out_per_second),
        eta,
        status.dead_letters.to_string(),
        status.consumers.len().to_string(),
    ];
    row(&status.stream, &cells, width)
}

pub(super) fn source_line(source: &Source) -> String {
    let mut parts = Vec::new();
    match (&source.snapshot, source.read_until) {
        (Some(snapshot), Some(_)) if snapshot.state == "done" => {
            parts.push("streaming".to_owned());
        }
        (Some(snapshot), Some(_)) => {
            let of = snapshot.of.map_or_else(String::new, |of| format!(" of about {}", thousands(of)));
            let eta = snapshot.eta_seconds.map_or_else(String::new, |eta| format!(", ETA {}", estimate(eta)));
            parts.push(format!("snapshot {}: {}{of} documents{eta}", snapshot.state, thousands(snapshot.rows)));
        }
        _ => parts.push("not read yet".to_owned()),
    }
    if let Some(age) = source.checkpoint_age_seconds {
        parts.push(format!("checkpoint {} ago", duration(age)));
    }
    if let Some(left) = source.oplog_time_to_loss_seconds {
        parts.push(format!("oplog headroom {}", estimate(left as f64)));
    }
    if let Some(snapshot) = source.snapshot.as_ref().filter(|snapshot| snapshot.state == "done" && snapshot.rows > 0) {
        parts.push(format!("snapshot of {} documents", thousands(snapshot.rows)));
    }
    if let Some(error) = &source.error {
        parts.push(styled(BAD, error));
    }
    parts.join(", ")
}

fn collection_line(collection: &Collection) -> String {
    let facts = match (&collection.status, collection.points) {
        (Some(status), Some(points)) => {
            let style = if status == "red" { BAD } else { GOOD };
            let dimension = collection.dimension.map_or_else(|| "?".into(), |dimension| dimension.to_string());
            format!("{} points, {dimension} dimensions, {}", thousands(points), styled(style, status))
        }
        _ => "not created yet; the upserter creates it with the first document".into(),
    };
    format!("{}  {facts}  {}", collection.name, styled(DIM, &collection.url))
}

fn embedder_line(embedder: &Embedder) -> String {
    let rate = embedder
        .tokens_per_second
        .map_or_else(String::new, |rate| format!(", {} tokens/s", thousands(rate.round() as u64)));
    let queued = embedder.queued_tokens.map_or_else(String::new, |tokens| format!(", {} queued", thousands(tokens)));
    format!(
        "{}  {} dimensions, {} tokens{rate}{queued}  {}",
        embedder.model,
        embedder.dimension,
        embedder.max_tokens,
        styled(DIM, &embedder.url)
    )
}

/// Formats in the largest unit that yields at least one.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.0} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
