//! Shows the progress of indexes: a line for each on a terminal, a line for each step elsewhere, or JSON lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidewheel_core::catalog::IndexName;
use tidewheel_ops::indexes::{Progress, Step};
use tidewheel_telemetry::escape;

use crate::cli::Output;
use crate::printer;

/// Interval between lines of one step without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// The progress display.
pub(super) struct Shown {
    output: Output,
    /// Width of the names.
    width: usize,
    bars: Option<MultiProgress>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    bars: BTreeMap<IndexName, ProgressBar>,
    /// The last progress of each index, and when a line was printed.
    printed: BTreeMap<IndexName, (Progress, Instant)>,
}

impl Shown {
    /// For these indexes.
    pub(super) fn new(output: Output, indexes: &BTreeSet<IndexName>) -> Self {
        let width = indexes.iter().map(|name| name.as_str().chars().count()).max().unwrap_or_default();
        let bars = (output == Output::Text && printer::stderr_is_terminal()).then(MultiProgress::new);
        Self { output, width, bars, state: Mutex::default() }
    }

    /// Shows what has changed.
    pub(super) fn report(&self, all: &[Progress]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for progress in all {
            match (self.output, &self.bars) {
                (Output::Json, _) => state.json(progress),
                (Output::Text, Some(bars)) => state.bar(progress, bars, &self.line(progress)),
                (Output::Text, None) => state.text(progress, &self.line(progress)),
            }
        }
    }

    fn line(&self, progress: &Progress) -> String {
        let (name, width) = (progress.index.as_str(), self.width);
        format!("{name:<width$}  {}", progress.line())
    }

    /// Ends the display; the last lines stay.
    pub(super) fn finish(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for bar in state.bars.values() {
            bar.abandon();
        }
    }
}

impl State {
    fn json(&mut self, progress: &Progress) {
        if self.last(progress).is_none_or(|(last, _)| last != progress) {
            printer::json_line(progress);
            self.keep(progress);
        }
    }

    fn bar(&mut self, progress: &Progress, bars: &MultiProgress, line: &str) {
        // An index at which nothing has to be done needs no line.
        if progress.step == Step::Done && !self.bars.contains_key(&progress.index) {
            return;
        }
        let new = || {
            let style = ProgressStyle::with_template("{wide_msg}").expect("the template is valid");
            bars.add(ProgressBar::new_spinner().with_style(style))
        };
        let bar = self.bars.entry(progress.index.clone()).or_insert_with(new);
        bar.set_message(escape::line(line).into_owned());
        bar.tick();
    }

    fn text(&mut self, progress: &Progress, line: &str) {
        let is_new = match self.last(progress) {
            Some((last, at)) => {
                let is_same = last.step == progress.step && last.problem == progress.problem;
                !is_same || (last != progress && at.elapsed() >= LINE_EVERY)
            }
            None => progress.step != Step::Done,
        };
        if is_new {
            printer::message(line);
            self.keep(progress);
        }
    }

    fn last(&self, progress: &Progress) -> Option<&(Progress, Instant)> {
        self.printed.get(&progress.index)
    }

    fn keep(&mut self, progress: &Progress) {
        self.printed.insert(progress.index.clone(), (progress.clone(), Instant::now()));
    }
}
