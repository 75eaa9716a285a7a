//! `tidewheel rollback`: switches an index back to its previous generation.

use tidewheel_ops::dead_letters::{Filter, OfIndex, list};
use tidewheel_ops::indexes::{Planned, has_kept_generation, plan_rollback};

use super::indexes::{Request, Submitted};
use crate::cli::RollbackArgs;
use crate::compose::{self, Indexes};
use crate::exit::{Answer, Failure};
use crate::printer;
use crate::settings::Settings;

/// Shows the plan, asks, submits it, and follows its progress.
pub(crate) async fn run(args: &RollbackArgs, settings: &Settings) -> Result<Answer, Failure> {
    let indexes = Indexes::new(settings)?;
    let output = args.output.output;
    let request = Request { command: "rollback", indexes: &indexes, yes: args.yes, forced: false, output };
    let answer = match request.submit(async || plan(args, &indexes).await).await? {
        Submitted::Plan(planned) => return request.follow(&planned, None).await,
        Submitted::Ended(answer) => answer,
    };
    // Without a generation to return to, the answer is no instead of an error.
    if answer == Answer::Unknown && !has_kept_generation(indexes.ports(), &args.index).await? {
        return Ok(Answer::No);
    }
    Ok(answer)
}

/// The plan, with a warning of documents that the kept generation may lack.
async fn plan(args: &RollbackArgs, indexes: &Indexes<'_>) -> Result<Planned, Failure> {
    let mut planned = plan_rollback(indexes.ports(), &args.index).await?;
    if planned.plan.todo {
        let catalog = compose::catalog(indexes.settings(), indexes.redis()).read().await?;
        let filter = Filter { index: Some(OfIndex::new(&catalog, &args.index)?), ..Filter::default() };
        let letters = list(indexes.redis(), &filter, 1, false).await?.matching;
        if letters > 0 {
            let letters = printer::counted(letters, "dead letter");
            let warning =
                format!("{letters} of the index: their documents may be missing or outdated in that generation");
            planned.plan.warnings.push(warning);
        }
    }
    Ok(planned)
}
