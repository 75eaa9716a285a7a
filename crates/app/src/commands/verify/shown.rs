//! Shows the progress of an audit: a bar on a terminal, a line every few seconds elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tidewheel_pipeline::audit::Progress;

use crate::printer;

/// Interval between lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Bar for documents and points together.
const BAR: &str = "  {bar:30} {percent}%  {msg}  ETA {eta}";

/// The progress display.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    printed: Mutex<Instant>,
}

impl Shown {
    pub(super) fn new() -> Self {
        let bar = printer::stderr_is_terminal().then(|| {
            let style = ProgressStyle::with_template(BAR).expect("the template is valid");
            ProgressBar::new(1).with_style(style)
        });
        Self { bar, printed: Mutex::new(Instant::now()) }
    }

    pub(super) fn report(&self, progress: Progress) {
        let Progress { documents, of_documents, points, of_points, suspects } = progress;
        let text = format!("{documents} documents, {points} points compared, {suspects} to recheck");
        match &self.bar {
            Some(bar) => {
                bar.set_length((of_documents + of_points).max(1));
                bar.set_position(documents + points);
                bar.set_message(text);
            }
            None => {
                let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
                if printed.elapsed() >= LINE_EVERY {
                    *printed = Instant::now();
                    printer::message(text);
                }
            }
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
