//! Shows how far a replay is: a bar on a terminal, a line now and then elsewhere.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tidewheel_pipeline::replay::{Progress, Report};

use crate::printer;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// With an end in sight.
const BAR: &str = "  {bar:30} {human_pos} of {human_len}  {per_sec}  {eta} left";
/// Without.
const SPINNER: &str = "  {spinner} {human_pos}  {per_sec}";

/// What is shown.
pub(super) struct Shown {
    bar: Option<ProgressBar>,
    printed: Arc<Mutex<Instant>>,
}

impl Shown {
    pub(super) fn new() -> Self {
        let bar = printer::talks_to_a_person().then(|| {
            let style = ProgressStyle::with_template(SPINNER).expect("the template is fixed");
            ProgressBar::new_spinner().with_style(style)
        });
        Self { bar, printed: Arc::new(Mutex::new(Instant::now())) }
    }

    pub(super) fn report(&self) -> Report {
        let (bar, printed) = (self.bar.clone(), self.printed.clone());
        Arc::new(move |progress: Progress| match &bar {
            Some(bar) => {
                if let Some(of) = progress.of.filter(|_| bar.length().is_none()) {
                    bar.set_style(ProgressStyle::with_template(BAR).expect("the template is fixed"));
                    bar.set_length(of);
                }
                bar.set_position(progress.read);
            }
            None => {
                let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
                if printed.elapsed() >= LINE_EVERY {
                    *printed = Instant::now();
                    let of = progress.of.map(|of| format!(" of {of}")).unwrap_or_default();
                    printer::say(format_args!("{}{of} read, {} replayed", progress.read, progress.replayed));
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
