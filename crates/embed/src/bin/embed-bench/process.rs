//! Other processes: what the system says about them, and engines in Python driven over their standard streams.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde::Deserialize;

use crate::contestant::Times;

const SCRIPT: &str = include_str!("engines.py");

/// Last lines of what a process said that are worth repeating.
const LAST_WORDS: usize = 3;

/// One engine in a process of its own, ready to work.
pub(crate) struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    complaints: Receiver<String>,
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
    /// Starts the engine of this name.
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
            .map_err(|error| format!("{} does not start: {error}", python.display()))?;
        let input = process.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let errors = BufReader::new(process.stderr.take().ok_or("no standard error")?);
        let (sender, complaints) = channel();
        // Ends with the process. What nobody asks for is dropped with the receiver.
        std::thread::spawn(move || errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let mut child = Self { process, input, output, complaints };
        child.ask(&serde_json::json!({ "texts": texts, "ids": batch }))?;
        Ok(child)
    }

    /// The vectors of all texts.
    pub(crate) fn embed(&mut self) -> Result<Vec<f32>, String> {
        self.ask(&serde_json::json!({ "do": "embed" })).map(|answer| answer.vectors)
    }

    /// The time for all texts.
    pub(crate) fn time(&mut self) -> Result<Times, String> {
        let answer = self.ask(&serde_json::json!({ "do": "time" }))?;
        let clock = answer.seconds.first().copied().ok_or("it answered without a time")?;
        Ok(Times { clock, cpu: answer.cpu })
    }

    /// Seconds for each repeat of one text.
    pub(crate) fn single(&mut self, ids: &[u32], repeats: usize) -> Result<Vec<f64>, String> {
        self.ask(&serde_json::json!({ "do": "single", "ids": ids, "repeats": repeats })).map(|answer| answer.seconds)
    }

    fn ask(&mut self, question: &serde_json::Value) -> Result<Answer, String> {
        let mut line = String::new();
        let asked = writeln!(self.input, "{question}").and_then(|()| self.output.read_line(&mut line));
        if !matches!(asked, Ok(1..)) {
            return Err(format!("it stopped: {}", self.last_words()));
        }
        let answer: Answer = serde_json::from_str(&line).map_err(|error| format!("it answered {line:?}: {error}"))?;
        match answer.error {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    fn last_words(&mut self) -> String {
        // Once it is gone, its last line has been read.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let lines: Vec<String> = self.complaints.iter().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join(" / ")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// CPU seconds of a process and its threads so far; 0 where the system does not say.
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    cpu_of(&std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default())
}

fn cpu_of(stat: &str) -> f64 {
    // Fields 14 and 15 are user and system time in ticks of 10 ms; the second field may hold spaces, in parentheses.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Resident memory of a process in megabytes: now, and the most it ever was; 0 where the system does not say.
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
        assert!(start("/nowhere/python").err().unwrap().contains("/nowhere/python does not start"));
        // A program that is no Python: it complains and is gone.
        let reason = start("/bin/ls").err().unwrap();
        assert!(reason.starts_with("it stopped: ") && reason.contains("ls"), "{reason}");
    }
}
