//! Writes to stdout (data) and stderr (messages).
//!
//! Colours appear on a terminal, or if CLICOLOR_FORCE is set, and never with NO_COLOR. On a terminal long lines wrap between
//! words; elsewhere they are not wrapped. A closed stdout (`tidewheel status | head`) is not an error.
//!
//! Text of documents and servers is escaped here, for all commands: see [`escape`].

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Effects, Style};
use serde::Serialize;
use tidewheel_ops::text::thousands;
use tidewheel_telemetry::escape;

use crate::exit::Failure;
use crate::wrap;

/// Success.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Needs attention.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Failure.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// Secondary text.
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
/// Emphasis.
pub(crate) const STRONG: Style = Style::new().effects(Effects::BOLD);

/// Formats `text` in a style.
pub(crate) fn styled(style: Style, text: impl Display) -> String {
    format!("{}{text}{}", escape::style(style), escape::style_end(style))
}

/// Whether the reader of stdout has closed it.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether stdout is closed, so that a command that runs forever can stop.
pub(crate) fn stdout_is_closed() -> bool {
    CLOSED.load(Ordering::Relaxed)
}

fn to_stdout(text: &[u8]) {
    let mut stdout = anstream::stdout();
    if stdout.write_all(text).and_then(|()| stdout.flush()).is_err() {
        CLOSED.store(true, Ordering::Relaxed);
    }
}

/// The number with its noun, in the plural unless the number is 1.
pub(crate) fn counted(number: u64, one: &str) -> String {
    format!("{} {one}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// Writes human-readable data to stdout.
pub(crate) fn data(lines: impl Display) {
    let lines = fitted(&lines.to_string(), stdout_is_terminal());
    to_stdout(format!("{}\n", escape::lines(&lines)).as_bytes());
}

/// Writes data to stdout as one pretty-printed JSON document.
pub(crate) fn json(value: &impl Serialize) {
    json_text(&serde_json::to_string_pretty(value).expect("printed values are plain data"));
}

/// Writes data to stdout as a line of JSON, one of many.
pub(crate) fn json_line(value: &impl Serialize) {
    json_text(&serde_json::to_string(value).expect("printed values are plain data"));
}

fn json_text(text: &str) {
    to_stdout(format!("{}\n", escape::json(text)).as_bytes());
}

/// Writes a line to stdout for copying, never wrapped.
pub(crate) fn exactly(line: impl Display) {
    to_stdout(format!("{}\n", escape::lines(&line.to_string())).as_bytes());
}

/// Writes trusted text to stdout as is, without a trailing newline.
pub(crate) fn raw(text: &str) {
    to_stdout(text.as_bytes());
}

/// Writes a message to stderr.
pub(crate) fn message(lines: impl Display) {
    let lines = fitted(&lines.to_string(), stderr_is_terminal());
    let _ = writeln!(anstream::stderr(), "{}", escape::lines(&lines));
}

/// Wraps lines to the width of the terminal, if there is one.
fn fitted(lines: &str, terminal: bool) -> String {
    if !terminal {
        return lines.to_owned();
    }
    let width = width();
    lines.split('\n').map(|line| wrap::hanging(line, width)).collect::<Vec<_>>().join("\n")
}

/// Prints an error with its hint.
pub(crate) fn failure(failure: &Failure) {
    problem(&failure.message, failure.hint.as_deref());
}

/// Prints an error with its hint.
pub(crate) fn problem(text: &str, hint: Option<&str>) {
    message(format_args!("{}: {text}", styled(BAD, "error")));
    if let Some(hint) = hint {
        message(format_args!("{}: {hint}", styled(GOOD, "hint")));
    }
}

/// Prints a warning with its hint.
pub(crate) fn warning(text: impl Display, hint: impl Display) {
    message(format_args!("{}: {text}", styled(WARN, "warning")));
    message(format_args!("{}: {hint}", styled(GOOD, "hint")));
}

/// Whether stderr is a terminal.
pub(crate) fn stderr_is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether stdout is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Width of the terminal in columns; 100 without a terminal.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0)).max(40)
}
