//! The report of a soak.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::SoakOptions;
use super::redis::Backlog;
use super::service::tail;
use super::tally::Tally;
use super::verdict::Verdict;
use super::world::World;

/// Lines shown of each log of a failed run.
const TAIL: usize = 15;

/// The outcome of one seed. Its text form is a table; its JSON form uses the field names.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SoakReport {
    /// The seed of the writes and faults.
    pub seed: u64,
    /// Duration of writes and faults.
    pub seconds: f64,
    /// Whether the run found no problem.
    pub converged: bool,
    /// Seconds from healing to the first comparison without differences.
    pub seconds_to_converge: Option<f64>,
    /// Writes that changed something, by kind.
    pub operations: BTreeMap<String, u64>,
    /// Writes that found nothing to change.
    pub idle_operations: u64,
    /// Writes that MongoDB did not acknowledge; their outcome is unknown.
    pub unacknowledged_operations: u64,
    /// Effective faults by fault and target.
    pub faults: BTreeMap<String, BTreeMap<String, u64>>,
    /// Faults without effect, not counted above.
    pub idle_faults: u64,
    /// Confirmed changes of declarations, by kind.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub changes: BTreeMap<String, u64>,
    /// Changes of declarations whose command failed or was killed, so that their outcome is unknown; `None` without
    /// declared indexes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unconfirmed_changes: Option<u64>,
    /// Documents in MongoDB at the end; those of all declared indexes.
    pub documents: u64,
    /// Points in Qdrant at the end.
    pub points: u64,
    /// Documents without a point.
    pub missing: Vec<String>,
    /// Documents with differing points, and the difference.
    pub stale: Vec<String>,
    /// Documents in the index but not in the source.
    pub extra: Vec<String>,
    /// Chunks after the last of their document.
    pub surplus_chunks: Vec<String>,
    /// Documents in MongoDB that cannot be indexed, and are dead letters as expected.
    pub parked: u64,
    /// Dead letters by explanation.
    pub explained_dead_letters: BTreeMap<String, u64>,
    /// Dead letters of indexable documents, or with an unexpected reason.
    pub unexplained_dead_letters: Vec<String>,
    /// Documents that cannot be indexed but have no dead letter.
    pub without_dead_letter: Vec<String>,
    /// Backlog of both streams at the end.
    pub streams: Vec<Backlog>,
    /// Services that exited on their own, or did not stop cleanly on SIGTERM.
    pub findings: Vec<String>,
    /// Folder of the run's data, unless removed.
    pub folder: PathBuf,
    /// The last lines of each log of a failed run.
    pub logs: BTreeMap<String, Vec<String>>,
}

impl SoakReport {
    pub(super) fn new(options: &SoakOptions, tally: &Tally, verdict: Verdict, world: &World) -> Self {
        let counts = tally.counts();
        let mut faults: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for ((fault, target), times) in counts.faults {
            faults.entry(fault.to_owned()).or_default().insert(target.to_string(), times);
        }
        let found = verdict.report;
        let mut report = Self {
            seed: options.seed,
            seconds: options.duration.as_secs_f64(),
            converged: false,
            seconds_to_converge: verdict.took.map(|took| took.as_secs_f64()),
            operations: counts.operations.into_iter().map(|(kind, times)| (kind.to_owned(), times)).collect(),
            idle_operations: counts.idle_operations,
            unacknowledged_operations: counts.unacknowledged,
            faults,
            idle_faults: counts.idle_faults,
            changes: counts.changes.into_iter().map(|(kind, times)| (kind.to_owned(), times)).collect(),
            unconfirmed_changes: options.indexes.then_some(counts.unconfirmed_changes),
            documents: found.documents,
            points: found.points,
            missing: found.missing,
            stale: found.stale.into_iter().map(|stale| format!("{}: {}", stale.document, stale.what)).collect(),
            extra: found.extra,
            surplus_chunks: found.surplus_chunks,
            parked: found.parked.len() as u64,
            explained_dead_letters: verdict
                .explained
                .into_iter()
                .map(|(explanation, count)| (explanation.to_owned(), count))
                .collect(),
            unexplained_dead_letters: verdict.unexplained,
            without_dead_letter: verdict.forgotten,
            streams: verdict.stages,
            findings: counts.findings,
            folder: options.folder.clone(),
            logs: BTreeMap::new(),
        };
        report.converged = report.seconds_to_converge.is_some()
            && report.unexplained_dead_letters.is_empty()
            && report.without_dead_letter.is_empty()
            && report.findings.is_empty();
        if !report.converged {
            report.logs = world.logs().map(|(name, log)| (name, tail(&log, TAIL))).collect();
        }
        report
    }

    /// Number of effective faults.
    #[must_use]
    pub fn faults_in_all(&self) -> u64 {
        self.faults.values().flat_map(BTreeMap::values).sum()
    }

    /// Number of confirmed changes of declarations.
    #[must_use]
    pub fn changes_in_all(&self) -> u64 {
        self.changes.values().sum()
    }

    /// Number of writes that changed something.
    #[must_use]
    pub fn operations_in_all(&self) -> u64 {
        self.operations.values().sum()
    }
}

impl fmt::Display for SoakReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.seconds_to_converge {
            Some(seconds) if self.converged => format!("converged within {seconds:.1} s"),
            Some(seconds) => format!("converged within {seconds:.1} s, but see below"),
            None => "did NOT converge".to_owned(),
        };
        writeln!(f, "seed {}, {:.0} s of writes and faults: {verdict}", self.seed, self.seconds)?;
        let mut row = |name: &str, count: u64, detail: &str| {
            writeln!(f, "  {}", format!("{name:<22} {count:>7}  {detail}").trim_end())
        };
        row("writes", self.operations_in_all(), "")?;
        for (kind, times) in &self.operations {
            row(&format!("  {kind}"), *times, "")?;
        }
        row("  changed nothing", self.idle_operations, "not counted")?;
        row("  not acknowledged", self.unacknowledged_operations, "not counted")?;
        row("faults", self.faults_in_all(), "")?;
        for (fault, targets) in &self.faults {
            let each: Vec<String> = targets.iter().map(|(target, times)| format!("{target} {times}")).collect();
            row(&format!("  {fault}"), targets.values().sum(), &each.join(", "))?;
        }
        row("  without effect", self.idle_faults, "not counted")?;
        if let Some(unconfirmed) = self.unconfirmed_changes {
            row("changes of indexes", self.changes_in_all(), "")?;
            for (kind, times) in &self.changes {
                row(&format!("  {kind}"), *times, "")?;
            }
            row("  not confirmed", unconfirmed, "not counted")?;
        }
        row("documents", self.documents, "")?;
        row("points", self.points, "")?;
        for (name, found) in self.differences() {
            row(name, found.len() as u64, "")?;
        }
        row("parked", self.parked, "as expected")?;
        for (explanation, letters) in &self.explained_dead_letters {
            row(&format!("  {explanation}"), *letters, "dead letters")?;
        }
        for stream in &self.streams {
            let state = if stream.drained { "drained" } else { "NOT drained" };
            row(stream.stream, stream.lag.unwrap_or_default() + stream.pending, state)?;
        }
        row("findings", self.findings.len() as u64, "")?;
        self.details(f)
    }
}

impl SoakReport {
    fn differences(&self) -> [(&'static str, &Vec<String>); 6] {
        [
            ("missing", &self.missing),
            ("stale", &self.stale),
            ("extra", &self.extra),
            ("surplus chunks", &self.surplus_chunks),
            ("unexplained", &self.unexplained_dead_letters),
            ("without dead letter", &self.without_dead_letter),
        ]
    }

    /// Lists the problems, with the ends of the logs.
    fn details(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Maximum problems shown per kind.
        const SHOWN: usize = 10;
        for (name, found) in self.differences().into_iter().chain([("finding", &self.findings)]) {
            for one in found.iter().take(SHOWN) {
                writeln!(f, "{name}: {one}")?;
            }
            if found.len() > SHOWN {
                writeln!(f, "{name}: … and {} more", found.len() - SHOWN)?;
            }
        }
        for (name, lines) in &self.logs {
            writeln!(f, "--- {name}")?;
            for line in lines {
                writeln!(f, "{line}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_table_is_aligned_and_lists_problems() {
        let mut report = SoakReport {
            seed: 7,
            seconds: 60.0,
            converged: true,
            seconds_to_converge: Some(3.21),
            operations: BTreeMap::from([("insert".to_owned(), 12), ("double update".to_owned(), 3)]),
            faults: BTreeMap::from([("kill".to_owned(), BTreeMap::from([("producer".to_owned(), 2)]))]),
            ..SoakReport::default()
        };
        let text = report.to_string();
        assert!(text.starts_with("seed 7, 60 s of writes and faults: converged within 3.2 s\n"), "{text}");
        assert!(text.contains("  writes                      15\n    double update              3\n"), "{text}");
        assert!(text.contains("    kill                       2  producer 2\n"), "{text}");
        report.converged = false;
        report.seconds_to_converge = None;
        report.missing = (0..12).map(|key| format!("soak.tickets {key}")).collect();
        report.logs.insert("producer-1".to_owned(), vec!["the last words".to_owned()]);
        let text = report.to_string();
        assert!(text.contains("did NOT converge") && text.contains("missing: … and 2 more"), "{text}");
        assert!(text.ends_with("--- producer-1\nthe last words\n"), "{text}");
    }
}
