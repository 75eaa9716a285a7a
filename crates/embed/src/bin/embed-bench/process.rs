//! Another engine in a Python process, driven over its standard streams.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

const SCRIPT: &str = include_str!("engines.py");

/// One engine, ready to work.
pub(crate) struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
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
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("{} does not start: {error}", python.display()))?;
        let input = process.stdin.take().ok_or("no standard input")?;
        let output = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut child = Self { process, input, output };
        child.ask(&serde_json::json!({ "texts": texts, "ids": batch }))?;
        Ok(child)
    }

    /// The vectors of all texts.
    pub(crate) fn embed(&mut self) -> Result<Vec<f32>, String> {
        self.ask(&serde_json::json!({ "do": "embed" })).map(|answer| answer.vectors)
    }

    /// Seconds for all texts: by the clock, and of CPU.
    pub(crate) fn time(&mut self) -> Result<(f64, f64), String> {
        let answer = self.ask(&serde_json::json!({ "do": "time" }))?;
        Ok((answer.seconds[0], answer.cpu))
    }

    /// Seconds for each repeat of one text.
    pub(crate) fn single(&mut self, ids: &[u32], repeats: usize) -> Result<Vec<f64>, String> {
        self.ask(&serde_json::json!({ "do": "single", "ids": ids, "repeats": repeats })).map(|answer| answer.seconds)
    }

    fn ask(&mut self, question: &serde_json::Value) -> Result<Answer, String> {
        writeln!(self.input, "{question}").map_err(|error| format!("it stopped: {error}"))?;
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| format!("it stopped: {error}"))?;
        let answer: Answer = serde_json::from_str(&line).map_err(|error| format!("it answered {line:?}: {error}"))?;
        match answer.error {
            Some(error) => Err(error),
            None => Ok(answer),
        }
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
    // Fields 14 and 15 are user and system time in ticks of 10 ms; the second field may hold spaces, in parentheses.
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}
