//! Arguments of `installation`: ownership of Redis and of the collection.

use clap::{Args, Subcommand};

use super::OutputArgs;

/// `installation`.
#[derive(Debug, Subcommand)]
pub(crate) enum InstallationCommand {
    /// Show the owners of Redis and of the collection
    #[command(after_help = "\
Examples:
  tidewheel installation show
  tidewheel installation show --output json | jq .redis.id

Exit codes:
  0  owners printed
  2  error")]
    Show(OutputArgs),
    /// Take over a Redis or a collection owned by another installation
    #[command(after_help = "\
Examples:
  tidewheel installation adopt                 show the plan
  tidewheel installation adopt --yes           make the database in these settings the owner of both
  tidewheel installation adopt --yes --output json

Services of the previous owner stop within seconds; stop them first if possible. The next producer takes a \
comparing snapshot, which removes documents of another database from the index.

Exit codes:
  0  done, nothing to do, or plan printed
  2  error")]
    Adopt(AdoptArgs),
}

/// `installation adopt`.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// Apply the plan; without this flag it is only printed
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
