//! Shows the progress of a long action: a bar on a terminal, a line every few seconds elsewhere.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tidewheel_ops::dead_letters::Acted;
use tidewheel_ops::text::thousands;

use crate::printer;

/// Interval between lines without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Fewer dead letters need no bar.
const MANY: u64 = 1_000;

/// Bar of an action.
const BAR: &str = "  {bar:30} {human_pos} of {human_len}  {per_sec}  ETA {eta}";

/// The progress display.
pub(super) struct Shown {
    of: u64,
    bar: Option<ProgressBar>,
    printed: Mutex<Instant>,
}

impl Shown {
    /// For an action on this many dead letters.
    pub(super) fn new(of: u64) -> Self {
        let bar = (of >= MANY && printer::stderr_is_terminal()).then(|| {
            let style = ProgressStyle::with_template(BAR).expect("the template is valid");
            ProgressBar::new(of).with_style(style)
        });
        Self { of, bar, printed: Mutex::new(Instant::now()) }
    }

    pub(super) fn report(&self, acted: Acted) {
        if let Some(bar) = &self.bar {
            bar.set_position(acted.found);
            return;
        }
        let mut printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner);
        if printed.elapsed() >= LINE_EVERY {
            *printed = Instant::now();
            printer::message(format_args!("{} of {} dead letters", thousands(acted.found), thousands(self.of)));
        }
    }

    pub(super) fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
