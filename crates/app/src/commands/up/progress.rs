//! Shows the progress of downloads and server starts: bars on a terminal, one line per step elsewhere.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tidewheel_local::{Event, Part, Report};

use crate::printer::{self, BAD, DIM, GOOD, WARN, styled};

/// Bar with throughput and ETA.
const WITH_TOTAL: &str = "  {prefix:<14} {bar:30} {bytes:>10} of {total_bytes} {bytes_per_sec:>12} {eta:>4}";
/// Spinner for a download of unknown size.
const WITHOUT_TOTAL: &str = "  {prefix:<14} {spinner} {bytes:>10} {bytes_per_sec:>12}";

const OF_CRATES: &str = "  {prefix:<14} {bar:30} {pos:>10} of {len} crates {elapsed}";

/// Returns a report that prints events to stderr.
pub(super) fn report() -> Report {
    let bars = Arc::new(Bars::default());
    Arc::new(move |event| bars.show(event))
}

struct Bars {
    all: MultiProgress,
    by_part: Mutex<HashMap<Part, ProgressBar>>,
    compiling: Mutex<Option<ProgressBar>>,
}

impl Default for Bars {
    fn default() -> Self {
        let target =
            if printer::stderr_is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self { all: MultiProgress::with_draw_target(target), by_part: Mutex::default(), compiling: Mutex::default() }
    }
}

impl Bars {
    fn show(&self, event: Event) {
        match event {
            Event::Fetching { part, what, from, bytes, licence } => {
                let size = bytes.map(|bytes| format!("{}, ", size(bytes))).unwrap_or_default();
                self.print(&format!("downloading {what} from {from} ({size}licence: {licence})"));
                let bar = self.all.add(bar(bytes).with_prefix(part.to_string()));
                self.bars().insert(part, bar);
            }
            Event::Progress { part, done, total } => {
                if let Some(bar) = self.bars().get(&part) {
                    if let Some(total) = total {
                        bar.set_length(total);
                    }
                    bar.set_position(done);
                }
            }
            Event::Fetched { part, took } => {
                if let Some(bar) = self.bars().remove(&part) {
                    bar.finish_and_clear();
                }
                self.print(&format!("{} {part} downloaded and verified {}", styled(GOOD, "✔"), faint(took)));
            }
            Event::Waiting { part } => self.print(&format!("waiting for another process to download {part}")),
            Event::Skipped { part, reason } => self.print(&styled(DIM, format_args!("{part}: {reason}"))),
            Event::Warned { part, reason } => self.print(&format!("{} {part}: {reason}", styled(WARN, "!"))),
            Event::Compiling { what, done, total } => self.compiling(what, done, total),
            Event::Compiled { what, took } => {
                if let Some(bar) = self.compiling.lock().unwrap_or_else(PoisonError::into_inner).take() {
                    bar.finish_and_clear();
                }
                self.print(&format!("{} {what} compiled {}", styled(GOOD, "✔"), faint(took)));
            }
            Event::Starting { .. } => {}
            Event::Ready { server, port, took } => {
                self.print(&format!("{} {server} on port {port} {}", styled(GOOD, "✔"), faint(took)));
            }
            Event::Died { server, status } => {
                self.print(&format!("{} {server} exited unexpectedly: {status}", styled(BAD, "✖")));
            }
            Event::Restarting { server, after } => {
                self.print(&format!("restarting {server} in {:.1} s", after.as_secs_f32()));
            }
            Event::RestartFailed { server, reason } => {
                self.print(&format!("{} failed to restart {server}: {reason}", styled(WARN, "!")));
            }
            Event::Stopped { server } => self.print(&styled(DIM, format_args!("{server} stopped"))),
            // The enum is non-exhaustive.
            _ => {}
        }
    }

    fn compiling(&self, what: &'static str, done: usize, total: usize) {
        let mut bar = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = bar.get_or_insert_with(|| {
            self.print(&format!("compiling {what}, once: {total} crates; this takes minutes"));
            let style = ProgressStyle::with_template(OF_CRATES).expect("the template is valid").progress_chars("━╸ ");
            self.all.add(ProgressBar::new(total as u64).with_style(style).with_prefix("compiling"))
        });
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    }

    /// Prints a line above the bars.
    fn print(&self, line: &str) {
        self.all.suspend(|| printer::message(line));
    }

    fn bars(&self) -> std::sync::MutexGuard<'_, HashMap<Part, ProgressBar>> {
        self.by_part.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let bar = total.map_or_else(ProgressBar::no_length, ProgressBar::new);
    let template = if total.is_some() { WITH_TOTAL } else { WITHOUT_TOTAL };
    bar.with_style(ProgressStyle::with_template(template).expect("the template is valid").progress_chars("━╸ "))
}

fn faint(took: Duration) -> String {
    styled(DIM, format_args!("({:.1} s)", took.as_secs_f32()))
}

/// Formats the size of a download in decimal units, as package sources do. Sizes in memory are in binary units:
/// `bytes` in `overview/text.rs`.
fn size(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
