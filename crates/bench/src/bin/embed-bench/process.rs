//! Child processes: resource usage from `/proc`, and Python engines driven over standard streams.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde::Deserialize;

use crate::contestant::Times;

const SCRIPT: &str = include_str!("engines.py");

/// Number of trailing stderr lines quoted in errors.
const STDERR_LINES: usize = 3;

/// A running Python engine.
pub(crate) struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    stderr: Receiver<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    error: Option<String>,
    seconds: Vec<f64>,
    cpu: f64,
    vectors: Vec<f32>,
}

impl Child {
    /// Starts the named engine.
    pub(crate) fn start(
        python: &Path,
        engine: &str,
        model: &Path,
        texts: &[String],
        batch: &[&[u32]],
    ) -> Result<Self, String> {
        let mut process = Command::new(python)
            .args(["-c", SCRIPT, engine])
            .arg(model)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("failed to start {}: {error}", python.display()))?;
        let input = process.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let errors = BufReader::new(process.stderr.take().ok_or("no standard error")?);
        let (sender, stderr) = channel();
        // Ends with the process. Unread lines are dropped with the receiver.
        std::thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut child = Self { process, input, output, stderr };
        child.ask(&serde_json::json!({ "texts": texts, "ids": batch }))?;
        Ok(child)
    }

    /// Embeds all texts.
    pub(crate) fn embed(&mut self) -> Result<Vec<f32>, String> {
        self.ask(&serde_json::json!({ "do": "embed" })).map(|answer| answer.vectors)
    }

    /// Measures the time for all texts.
    pub(crate) fn time(&mut self) -> Result<Times, String> {
        let answer = self.ask(&serde_json::json!({ "do": "time" }))?;
        let clock = answer.seconds.first().copied().ok_or("response without a time")?;
        Ok(Times { clock, cpu: answer.cpu })
    }

    /// Measures repeated embeddings of one text. Returns seconds per run.
    pub(crate) fn single(&mut self, ids: &[u32], repeats: usize) -> Result<Vec<f64>, String> {
        self.ask(&serde_json::json!({ "do": "single", "ids": ids, "repeats": repeats })).map(|answer| answer.seconds)
    }

    fn ask(&mut self, question: &serde_json::Value) -> Result<Answer, String> {
        let mut line = String::new();
        let asked = writeln!(self.input, "{question}").and_then(|()| self.output.read_line(&mut line));
        if !matches!(asked, Ok(1..)) {
            return Err(format!("process exited: {}", self.last_stderr()));
        }
        let answer: Answer =
            serde_json::from_str(&line).map_err(|error| format!("invalid response {line:?}: {error}"))?;
        match answer.error {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    fn last_stderr(&mut self) -> String {
        // After the process exits, all its lines have been read.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let lines: Vec<String> = self.stderr.iter().collect();
        lines[lines.len().saturating_sub(STDERR_LINES)..].join(" / ")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the CPU seconds used by a process and its threads; 0 if unavailable.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    cpu_of(&std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default())
}

fn cpu_of(stat: &str) -> f64 {
    // Fields 14 and 15 are user and system time in ticks of 10 ms; the second field may hold spaces, in parentheses.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Returns the current and peak resident memory of a process in megabytes; 0 if unavailable.
pub(crate) fn resident(process: u32) -> (f64, f64) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    (megabytes(&status, "VmRSS:"), megabytes(&status, "VmHWM:"))
}

fn megabytes(status: &str, field: &str) -> f64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kibibytes: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.unwrap_or(0.0) * 1024.0 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_figures_are_parsed() {
        assert!((cpu_of("7 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20") - 3.0).abs() < 1e-9);
        assert!(cpu_of("").abs() < 1e-9);
        let status = "Name:\tx\nVmHWM:\t  250000 kB\nVmRSS:\t  125000 kB\n";
        assert!((megabytes(status, "VmRSS:") - 128.0).abs() < 1e-9);
        assert!((megabytes(status, "VmHWM:") - 256.0).abs() < 1e-9);
    }

    #[test]
    fn engine_start_failure_reports_stderr() {
        let start = |python: &str| Child::start(Path::new(python), "st-8", Path::new("/nowhere"), &[], &[]);
        assert!(start("/nowhere/python").err().unwrap().contains("failed to start /nowhere/python"));
        // Not a Python interpreter: prints an error and exits.
        let reason = start("/bin/ls").err().unwrap();
        assert!(reason.starts_with("process exited: ") && reason.contains("ls"), "{reason}");
    }
}
