//! `tidewheel plan`: shows what the declared indexes would change, and what that costs.

use tidewheel_core::catalog::ApplyOptions;
use tidewheel_ops::indexes::Plan;

use super::indexes::show;
use crate::cli::{Output, PlanArgs};
use crate::compose::Indexes;
use crate::exit::{Answer, Failure};
use crate::printer;
use crate::services::guard;
use crate::settings::Settings;

/// Prints the plan.
pub(crate) async fn run(args: &PlanArgs, settings: &Settings) -> Result<Answer, Failure> {
    let options = ApplyOptions { only: args.indexes.iter().cloned().collect(), ..ApplyOptions::default() };
    let indexes = Indexes::new(settings)?;
    // The catalog of another installation is none to compare with.
    guard(settings, indexes.redis(), None, None).check_redis().await?;
    let planned = indexes.plan(options, args.sample).await?;
    match args.output.output {
        Output::Json => printer::json(&planned.plan),
        Output::Text => show(&planned.plan),
    }
    Ok(answer(&planned.plan))
}

/// Negative, if there is something to do.
fn answer(plan: &Plan) -> Answer {
    match plan.todo {
        _ if !plan.refused.is_empty() => Answer::Unknown,
        true => Answer::No,
        false => Answer::Fine,
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_ops::indexes::Refused;

    use super::*;

    #[test]
    fn exit_code_tells_whether_there_is_something_to_do() {
        let plan = |todo, refused| Plan {
            revision: 7,
            todo,
            indexes: Vec::new(),
            running: Vec::new(),
            refused,
            warnings: Vec::new(),
        };
        assert_eq!(answer(&plan(false, Vec::new())), Answer::Fine);
        assert_eq!(answer(&plan(true, Vec::new())), Answer::No);
        let refused = Refused { index: None, reason: "unsupported".to_owned(), hint: String::new() };
        assert_eq!(answer(&plan(true, vec![refused])), Answer::Unknown);
    }
}
