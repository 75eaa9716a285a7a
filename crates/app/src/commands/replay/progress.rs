//! Shows the progress of a replay: a bar on a terminal, a line every few seconds elsewhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tidewheel_ops::text::thousands;
use tidewheel_pipeline::replay::{Progress, Report};

use crate::printer;

/// Interval between lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Bar for a known total.
const BAR: &str = "  {bar:30} {human_pos} of {human_len}  {per_sec}  ETA {eta}";
/// Spinner for an unknown total.
const SPINNER: &str = "  {spinner} {human_pos}  {per_sec}";

/// The progress display.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    printed: Arc<Mutex<Instant>>,
}

impl Shown {
    pub(super) fn new() -> Self {
        let bar = printer::stderr_is_terminal().then(|| {
            let style = ProgressStyle::with_template(SPINNER).expect("the template is valid");
            ProgressBar::new_spinner().with_style(style)
        });
        Self { bar, printed: Arc::new(Mutex::new(Instant::now())) }
    }

    pub(super) fn report(&self) -> Report {
        let (bar, printed) = (self.bar.clone(), self.printed.clone());
        Arc::new(move |progress: Progress| match &bar {
            Some(bar) => {
                if let Some(of) = progress.of.filter(|_| bar.length().is_none()) {
                    bar.set_style(ProgressStyle::with_template(BAR).expect("the template is valid"));
                    bar.set_length(of);
                }
                bar.set_position(progress.read);
            }
            None => {
                let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
                if printed.elapsed() >= LINE_EVERY {
                    *printed = Instant::now();
                    let (read, replayed) = (thousands(progress.read), thousands(progress.replayed));
                    let of = progress.of.map(|of| format!(" of {}", thousands(of))).unwrap_or_default();
                    printer::message(format_args!("{read}{of} read, {replayed} replayed"));
                }
            }
        })
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
