//! `tidewheel completions`: prints a shell completion script.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::cli::Cli;
use crate::exit::Answer;
use crate::printer;

/// Prints the script.
pub(crate) fn run(shell: Shell) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidewheel", &mut script);
    printer::raw(&String::from_utf8_lossy(&script));
    Answer::Fine
}
