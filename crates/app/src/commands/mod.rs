//! The commands, one file each.

mod completions;
mod config;

use crate::cli::{Cli, Command};
use crate::exit::{Answer, Failure};
use crate::settings;

/// Does what the command line says.
pub(crate) fn run(cli: Cli) -> Result<Answer, Failure> {
    let mut given = cli.settings.given(environment());
    if let Command::Up(args) = &cli.command {
        given.flags.extend(args.settings());
    }
    match cli.command {
        Command::Config(command) => config::run(&command, &given),
        Command::Completions { shell } => Ok(completions::run(shell)),
        _ => Err(Failure::new("not built yet")),
    }
}

/// The variables that are text; no other can be a setting.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
