//! `tidewheel`: the command line, the settings, and the place where everything is put together.
//!
//! The program itself does nothing: it reads the command line and the settings, starts the logs, calls the command, and
//! turns its answer into an exit code: 0 fine, 1 the answer is no, 2 could not tell.

mod audit_log;
mod check;
mod cli;
mod commands;
mod connect;
mod console;
mod escape;
mod exit;
mod local_data;
mod logging;
mod overview;
mod printer;
mod process;
mod services;
mod serving;
mod settings;
mod times;
mod wrap;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    process::prepare();
    let cli = cli::Cli::parse();
    commands::run(cli).map_or_else(
        |failure| {
            printer::failure(&failure);
            ExitCode::from(2)
        },
        ExitCode::from,
    )
}
