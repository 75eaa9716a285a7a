//! The commands, one module each.

mod apply;
mod audit_log;
mod check;
mod completions;
mod config;
mod console;
mod dead_letters;
mod indexes;
mod inspect;
mod installation;
mod monitor;
mod plan;
mod replay;
mod rollback;
mod run;
mod search;
mod status;
mod up;
mod verify;
mod wait;

use tidewheel_telemetry::logging;

use crate::Measurements;
use crate::cli::{Cli, Command};
use crate::exit::{Answer, Failure};
use crate::printer;
use crate::services::Kind;
use crate::settings::{self, Loaded};

/// Runs the command.
pub(crate) fn run(cli: Cli, measurements: Measurements) -> Result<Answer, Failure> {
    let mut given = cli.settings.given(environment());
    if let Command::Up(args) = &cli.command {
        given.flags.extend(args.settings());
    }
    match &cli.command {
        Command::Config(command) => return config::run(command, &given),
        Command::Completions { shell } => return Ok(completions::run(*shell)),
        _ => {}
    }
    let loaded = settings::load(&given)?;
    let settings = &loaded.settings;
    logging::start(&settings.log, default_level(&cli.command));
    warn(&loaded, &cli.command);
    // Used by every TLS connection of the process. Fails only if a library has installed the same provider before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::new(format!("failed to start the async runtime: {error}")))?;
    let answer = runtime.block_on(async {
        match cli.command {
            Command::Up(args) => up::run(&args, &loaded, measurements).await,
            Command::Run => run::run(&Kind::of_run(settings), settings, measurements).await,
            Command::Producer => run::run(&[Kind::Producer], settings, measurements).await,
            Command::Embedder => run::run(&[Kind::Embedder], settings, measurements).await,
            Command::Processor => run::run(&[Kind::Processor], settings, measurements).await,
            Command::Upserter => run::run(&[Kind::Upserter], settings, measurements).await,
            Command::Search(args) => search::run(&args, settings).await,
            Command::Status(args) => status::run(&args, settings).await,
            Command::Monitor(args) => monitor::run(&args, settings).await,
            Command::Plan(args) => plan::run(&args, settings).await,
            Command::Apply(args) => apply::run(&args, settings).await,
            Command::Rollback(args) => rollback::run(&args, settings).await,
            Command::Replay(args) => replay::run(&args, settings).await,
            Command::Inspect(args) => inspect::run(&args, settings).await,
            Command::Wait(args) => wait::run(&args, settings).await,
            Command::Verify(args) => verify::run(&args, settings).await,
            Command::DeadLetters(command) => dead_letters::run(&command, settings).await,
            Command::Installation(command) => installation::run(&command, settings).await,
            Command::AuditLog(args) => audit_log::run(&args, settings).await,
            Command::Console => console::run(settings).await,
            Command::Check(args) => check::run(&args, settings).await,
            Command::Config(_) | Command::Completions { .. } => Ok(Answer::Fine),
        }
    });
    // Exit without shutting the runtime down: that would wait for blocked threads, and it drops tasks in any order, on which the
    // MongoDB driver's tasks panic when one uses a pool that another one has just left.
    std::mem::forget(runtime);
    answer
}

/// Reports warnings about the settings: a service in its log, other commands on stderr.
fn warn(loaded: &Loaded, command: &Command) {
    for warning in &loaded.warnings {
        if default_level(command) == "info" {
            tracing::warn!(hint = warning.hint(), "{warning}");
        } else {
            printer::warning(warning, warning.hint());
        }
    }
}

/// Default log level: `info` for services, `warn` for other commands.
fn default_level(command: &Command) -> &'static str {
    match command {
        Command::Run
        | Command::Producer
        | Command::Embedder
        | Command::Processor
        | Command::Upserter
        | Command::Console => "info",
        _ => "warn",
    }
}

/// The environment variables that are valid UTF-8; only these can be settings.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
