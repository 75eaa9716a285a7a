//! Asks an operator on the terminal.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use tokio::sync::oneshot;

use crate::cli::Output;
use crate::signals;

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

/// Asks for confirmation as [`agreed`]; `None` if a signal arrives instead of an answer. The process has to end then, because
/// a thread still reads the terminal.
pub(crate) async fn agreed_unless_interrupted(question: &str) -> Option<bool> {
    let (answer, answered) = oneshot::channel();
    let question = question.to_owned();
    std::thread::spawn(move || answer.send(agreed(&question)));
    let agreed = signals::uninterrupted(answered).await?;
    Some(agreed.unwrap_or(false))
}
