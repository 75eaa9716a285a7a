//! An overview as plain text: the answer first, then why, then the numbers.

use std::fmt::Write as _;

use super::problems::{Severity, duration, thousands};
use super::{Collection, Embedder, Overview, Source, Stage, State, Told};
use crate::printer::{BAD, DIM, GOOD, STRONG, WARN, styled};

impl Overview {
    /// Whether everything that was asked has answered.
    pub(crate) fn complete(&self) -> bool {
        self.stages.iter().all(|stage| stage.error().is_none())
            && self.source.known().is_some_and(|source| source.error.is_none())
            && self.redis.error().is_none()
            && self.collection.error().is_none()
            && self.embedder.error().is_none()
    }

    /// For people, with styles.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let (sign, style) = match self.verdict.state {
            State::Right => ("✔", GOOD),
            State::Behind => ("●", WARN),
            State::Empty => ("○", DIM),
            State::Broken | State::Unknown => ("✖", BAD),
        };
        // What stops the index is told by the first line already; with its code it is found in the runbook.
        let first = usize::from(matches!(self.verdict.state, State::Broken | State::Unknown));
        let tag = self.problems.first().filter(|_| first == 1).map_or_else(String::new, |problem| code(problem.code));
        let _ = writeln!(text, "{} {}{tag}", styled(style, sign), styled(STRONG, &self.verdict.summary));
        if let Some(action) = &self.verdict.action {
            let _ = writeln!(text, "  {} {action}", styled(GOOD, "→"));
        }
        for problem in self.problems.iter().skip(first) {
            let style = if problem.severity == Severity::Critical { BAD } else { WARN };
            let _ = writeln!(text, "{} {}{}", styled(style, "!"), problem.message, code(problem.code));
            if Some(&problem.action) != self.verdict.action.as_ref() {
                let _ = writeln!(text, "  {} {}", styled(GOOD, "→"), problem.action);
            }
        }
        let _ = writeln!(text);
        self.stages_table(&mut text);
        let _ = writeln!(text);
        let mut line = |name: &str, told: Result<String, &str>| {
            let told = told.unwrap_or_else(|error| styled(BAD, error));
            let _ = writeln!(text, "{}{}{told}", styled(STRONG, name), " ".repeat(12 - name.len()));
        };
        line("source", self.source.known().map(source_line).ok_or_else(|| self.source.error().unwrap_or_default()));
        line(
            "collection",
            self.collection.known().map(collection_line).ok_or_else(|| self.collection.error().unwrap_or_default()),
        );
        line(
            "embedder",
            self.embedder.known().map(embedder_line).ok_or_else(|| self.embedder.error().unwrap_or_default()),
        );
        if let Told::Known(redis) = &self.redis {
            let limit = redis.memory_limit_bytes.map_or_else(
                || ", no limit".to_owned(),
                |limit| format!(" of {} ({} %)", bytes(limit), redis.memory_bytes * 100 / limit.max(1)),
            );
            let address = styled(DIM, &redis.address);
            line("redis", Ok(format!("{} in use{limit}  {address}", bytes(redis.memory_bytes))));
        }
        if let Some(latency) = &self.latency {
            line(
                "latency",
                Ok(format!(
                    "{} from commit to searchable (half), {} (95 of 100), last minute",
                    duration(latency.p50_seconds),
                    duration(latency.p95_seconds)
                )),
            );
        }
        if let Some(tokens) = &self.tokens {
            let (embedded, saved) = (thousands(tokens.embedded), thousands(tokens.saved));
            line("tokens", Ok(format!("{embedded} embedded, {saved} saved")));
        }
        if !self.services.is_empty() {
            let mut names: Vec<String> = Vec::new();
            for service in &self.services {
                let style = if service.ready { GOOD } else { BAD };
                names.push(styled(style, &service.service));
            }
            line("services", Ok(names.join(", ")));
        }
        text
    }

    fn stages_table(&self, text: &mut String) {
        let head = format!(
            "{:<22} {:>9} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>5} {:>9}",
            "stream", "entries", "lag", "pending", "oldest", "in/s", "out/s", "eta", "dead", "consumers"
        );
        let _ = writeln!(text, "{}", styled(STRONG, head));
        for stage in &self.stages {
            let _ = match stage {
                Told::Known(stage) => writeln!(text, "{}", stage_line(stage)),
                Told::Unknown(error) => writeln!(text, "{}", styled(BAD, error)),
            };
        }
    }
}

/// The code of a problem, after its sentence.
fn code(code: &str) -> String {
    format!(" {}", styled(DIM, format_args!("[{code}]")))
}

fn stage_line(stage: &Stage) -> String {
    let status = &stage.status;
    let lag = status.lag.map_or_else(|| "?".into(), |lag| lag.to_string());
    let oldest = status.oldest_age_ms.map_or_else(|| "-".into(), |millis| duration(millis as f64 / 1e3));
    let rate = |rate: Option<f64>| rate.map_or_else(|| "-".into(), |rate| format!("{rate:.0}"));
    let eta = match stage.eta_seconds {
        _ if stage.backlog == 0 => "-".into(),
        Some(seconds) => duration(seconds),
        None => "?".into(),
    };
    let dead = format!("{:>5}", status.dead_letters);
    let dead = if status.dead_letters > 0 { styled(WARN, dead) } else { dead };
    format!(
        "{:<22} {:>9} {lag:>9} {:>9} {oldest:>9} {:>8} {:>8} {eta:>8} {dead} {:>9}",
        status.stream,
        status.length,
        status.pending,
        rate(stage.in_per_second),
        rate(stage.out_per_second),
        status.consumers.len()
    )
}

pub(super) fn source_line(source: &Source) -> String {
    let mut parts = Vec::new();
    match (&source.snapshot, source.read_until) {
        (Some(snapshot), Some(_)) if snapshot.state == "done" => {
            parts.push(format!("following, {} documents read at the start", thousands(snapshot.rows)));
        }
        (Some(snapshot), Some(_)) => {
            let of = snapshot.of.map_or_else(String::new, |of| format!(" of about {}", thousands(of)));
            let eta = snapshot.eta_seconds.map_or_else(String::new, |eta| format!(", {} left", duration(eta)));
            parts.push(format!("{}: {}{of} documents{eta}", snapshot.state, thousands(snapshot.rows)));
        }
        _ => parts.push("not read yet".to_owned()),
    }
    if let Some(age) = source.checkpoint_age_seconds {
        parts.push(format!("checkpoint {} ago", duration(age)));
    }
    if let Some(left) = source.oplog_time_to_loss_seconds {
        parts.push(format!("oplog reaches for {} more", duration(left as f64)));
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
            format!("{points} points, {dimension} dimensions, {}", styled(style, status))
        }
        _ => "not there yet; the upserter creates it with the first document".into(),
    };
    format!("{}  {facts}  {}", collection.name, styled(DIM, &collection.url))
}

fn embedder_line(embedder: &Embedder) -> String {
    let rate = embedder.tokens_per_second.map_or_else(String::new, |rate| format!(", {rate:.0} tokens/s"));
    let queued = embedder.queued_tokens.map_or_else(String::new, |tokens| format!(", {} queued", thousands(tokens)));
    format!(
        "{}  {} dimensions, {} tokens{rate}{queued}  {}",
        embedder.model,
        embedder.dimension,
        embedder.max_tokens,
        styled(DIM, &embedder.url)
    )
}

/// With the largest unit that leaves a number of at least one.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.0} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.0} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
