//! The `tidewheel` binary: command line, settings and composition of the services.
//!
//! `main` parses the command line, runs the command, and maps its answer to an exit code: 0 success, 1 a negative answer, 2 an
//! error.

mod audit_log;
mod check;
mod cli;
mod commands;
mod compose;
mod connect;
mod console;
mod exit;
mod local_data;
mod overview;
mod printer;
mod process;
mod services;
mod serving;
mod settings;
mod since;
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
