//! Owns stdout and stderr: stdout is data, stderr is talk.
//!
//! Colours appear on a terminal only, or where CLICOLOR_FORCE asks for them, and never with NO_COLOR. On a terminal long lines
//! are broken between words; elsewhere a line is a line. A reader that went away (`tidewheel status | head`) is not
//! an error.
//!
//! What comes from documents and servers is escaped here, for all commands: see [`escape`].

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use anstyle::{AnsiColor, Effects, Style};
use serde::Serialize;

use crate::exit::Failure;
use crate::{escape, wrap};

/// All is well.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Something deserves a look.
pub(crate) const WARN: Style = AnsiColor::Yellow.on_default();
/// Something is wrong.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().effects(Effects::BOLD);
/// Less important than what is around it.
pub(crate) const DIM: Style = Style::new().effects(Effects::DIMMED);
/// More important than what is around it.
pub(crate) const STRONG: Style = Style::new().effects(Effects::BOLD);

/// A text in a style.
pub(crate) fn styled(style: Style, text: impl Display) -> String {
    format!("{}{text}{}", escape::style(style), escape::style_end(style))
}

/// Whether whoever read stdout has gone away.
static GONE: AtomicBool = AtomicBool::new(false);

/// Whether nobody reads what is written to stdout any more, so that a command that goes on for ever may end.
pub(crate) fn nobody_reads() -> bool {
    GONE.load(Ordering::Relaxed)
}

fn to_stdout(text: &[u8]) {
    let mut stdout = anstream::stdout();
    if stdout.write_all(text).and_then(|()| stdout.flush()).is_err() {
        GONE.store(true, Ordering::Relaxed);
    }
}

/// So many of them, in the right form.
pub(crate) fn counted(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Writes lines of data for people to stdout.
pub(crate) fn data(lines: impl Display) {
    let lines = fitted(&lines.to_string(), shows_a_person());
    to_stdout(format!("{}\n", escape::lines(&lines)).as_bytes());
}

/// Writes data to stdout as JSON: one document.
pub(crate) fn json(value: &impl Serialize) {
    json_text(&serde_json::to_string_pretty(value).expect("what is printed is plain data"));
}

/// Writes data to stdout as JSON in a line: one document of many.
pub(crate) fn json_line(value: &impl Serialize) {
    json_text(&serde_json::to_string(value).expect("what is printed is plain data"));
}

fn json_text(text: &str) {
    to_stdout(format!("{}\n", escape::json(text)).as_bytes());
}

/// Writes a line to stdout that is to be copied: not even a terminal breaks it.
pub(crate) fn exactly(line: impl Display) {
    to_stdout(format!("{}\n", escape::lines(&line.to_string())).as_bytes());
}

/// Writes text of this program to stdout as it is, without a line's end.
pub(crate) fn raw(text: &str) {
    to_stdout(text.as_bytes());
}

/// Writes lines of talk to stderr.
pub(crate) fn say(lines: impl Display) {
    let lines = fitted(&lines.to_string(), talks_to_a_person());
    let _ = writeln!(anstream::stderr(), "{}", escape::lines(&lines));
}

/// On a terminal, lines that it does not have to break.
fn fitted(lines: &str, terminal: bool) -> String {
    if !terminal {
        return lines.to_owned();
    }
    let width = width();
    lines.split('\n').map(|line| wrap::hanging(line, width)).collect::<Vec<_>>().join("\n")
}

/// Says what went wrong and what to do.
pub(crate) fn failure(failure: &Failure) {
    problem(&failure.message, failure.hint.as_deref());
}

/// Says what went wrong and what to do.
pub(crate) fn problem(message: &str, hint: Option<&str>) {
    say(format_args!("{}: {message}", styled(BAD, "error")));
    if let Some(hint) = hint {
        say(format_args!("{}: {hint}", styled(GOOD, "hint")));
    }
}

/// Says what deserves a look and what to do about it.
pub(crate) fn warning(message: impl Display, hint: impl Display) {
    say(format_args!("{}: {message}", styled(WARN, "warning")));
    say(format_args!("{}: {hint}", styled(GOOD, "hint")));
}

/// Whether a person looks at stderr.
pub(crate) fn talks_to_a_person() -> bool {
    std::io::stderr().is_terminal()
}

/// Whether a person looks at stdout.
pub(crate) fn shows_a_person() -> bool {
    std::io::stdout().is_terminal()
}

/// Columns of the terminal; 100 where there is none.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(100, |(width, _)| usize::from(width.0)).max(40)
}
