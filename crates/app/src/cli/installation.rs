//! `installation`: who owns this Redis and this collection.

use clap::{Args, Subcommand};

use super::OutputArgs;

/// `installation`.
#[derive(Debug, Subcommand)]
pub(crate) enum InstallationCommand {
    /// Show which installation owns this Redis and this collection
    Show(OutputArgs),
    /// Take over a Redis or a collection that belongs to another installation
    #[command(after_help = "\
Examples:
  tidewheel installation adopt                 what would change
  tidewheel installation adopt --yes           the database in these settings owns both from now on
  tidewheel installation adopt --yes --output json

Services of the former owner stop within seconds. Stop them first where you can. What Redis and the collection hold of
another database is removed from the index by the comparison that the next producer makes.
Exit code: 0 done, nothing to do, or the plan was printed; 2 could not.")]
    Adopt(AdoptArgs),
}

/// `installation adopt`.
#[derive(Debug, Args)]
pub(crate) struct AdoptArgs {
    /// Do it; without this only the plan is printed
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
