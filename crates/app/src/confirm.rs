//! Asks an operator on the terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::cli::Output;

/// Whether a question can be asked: stdin is a terminal, and the output is for people.
pub(crate) fn may_ask(output: Output) -> bool {
    std::io::stdin().is_terminal() && output == Output::Text
}

/// Asks for confirmation. Anything but yes is a no.
pub(crate) fn agreed(question: &str) -> bool {
    let mut stderr = anstream::stderr();
    let _ = write!(stderr, "{question}").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}
