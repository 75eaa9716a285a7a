//! The command line of `tidewheel`: settings and composition of the services. The binary only calls [`run`].
//!
//! [`run`] parses the command line, runs the command, and maps its answer to an exit code: 0 success, 1 a negative answer, 2 an
//! error.

mod audit_log;
mod check;
mod cli;
mod commands;
mod compose;
mod confirm;
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
mod signals;
mod since;
mod times;
mod wrap;

use std::process::ExitCode;

use clap::Parser as _;

/// Whether services measure themselves. A service without measurements has an empty `/metrics` and is missing from
/// `status` and the console: for benchmarks of what measurements cost, and for nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measurements {
    /// Services record metrics and publish reports in Redis.
    On,
    /// Services do neither.
    Off,
}

/// Runs the command line of this process, and returns its exit code. Changes limits of the process: call it once, first in
/// `main`.
#[must_use]
pub fn run(measurements: Measurements) -> ExitCode {
    process::prepare();
    let cli = cli::Cli::parse();
    commands::run(cli, measurements).map_or_else(
        |failure| {
            printer::failure(&failure);
            ExitCode::from(2)
        },
        ExitCode::from,
    )
}
