//! `tidewheel rollback`: switches an index back to its previous generation.

use tidewheel_ops::indexes::{has_kept_generation, plan_rollback};

use super::indexes::{Request, Submitted};
use crate::cli::RollbackArgs;
use crate::compose::Indexes;
use crate::exit::{Answer, Failure};
use crate::settings::Settings;

/// Shows the plan, asks, submits it, and follows its progress.
pub(crate) async fn run(args: &RollbackArgs, settings: &Settings) -> Result<Answer, Failure> {
    let indexes = Indexes::new(settings)?;
    let (ports, output) = (indexes.ports(), args.output.output);
    let request = Request { command: "rollback", indexes: &indexes, yes: args.yes, forced: false, output };
    let submitted = request.submit(async || plan_rollback(ports, &args.index).await.map_err(Failure::from)).await?;
    let answer = match submitted {
        Submitted::Plan(planned) => return request.follow(&planned, None).await,
        Submitted::Ended(answer) => answer,
    };
    // Without a generation to return to, the answer is no instead of an error.
    if answer == Answer::Unknown && !has_kept_generation(ports, &args.index).await? {
        return Ok(Answer::No);
    }
    Ok(answer)
}
