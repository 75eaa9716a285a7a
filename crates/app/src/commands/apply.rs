//! `tidewheel apply`: applies the declared indexes, and shows the progress.

use serde_json::json;
use tidewheel_core::catalog::ApplyOptions;

use super::indexes::{Request, Submitted};
use crate::cli::{ApplyArgs, DEFAULT_SAMPLE, Output};
use crate::compose::Indexes;
use crate::exit::{Answer, Failure};
use crate::printer::{self, GOOD, styled};
use crate::settings::Settings;

/// Shows the plan, asks, submits it, and follows its progress.
pub(crate) async fn run(args: &ApplyArgs, settings: &Settings) -> Result<Answer, Failure> {
    let indexes = Indexes::new(settings)?;
    let output = args.output.output;
    let request = Request { command: "apply", indexes: &indexes, yes: args.yes, forced: args.force, output };
    let options = options(args);
    let planned = match request.submit(async || indexes.plan(options.clone(), DEFAULT_SAMPLE).await).await? {
        Submitted::Plan(planned) => planned,
        Submitted::Ended(answer) => return Ok(answer),
    };
    let revision = planned.watched().revision;
    if !planned.plan.todo && planned.plan.running.is_empty() {
        if output == Output::Json {
            printer::json_line(&json!({"result": "nothing", "revision": revision}));
        }
        return Ok(Answer::Fine);
    }
    if args.detach {
        match output {
            Output::Json => printer::json_line(&json!({"result": "submitted", "revision": revision})),
            Output::Text => {
                let text = "submitted; `tidewheel status` shows the progress";
                printer::data(format_args!("{} {text}", styled(GOOD, "✔")));
            }
        }
        return Ok(Answer::Fine);
    }
    request.follow(&planned, args.timeout).await
}

fn options(args: &ApplyArgs) -> ApplyOptions {
    ApplyOptions {
        only: args.indexes.iter().cloned().collect(),
        forced: args.generation,
        hold: args.hold,
        accept_missing: args.accept_missing,
        drop_kept: args.drop_kept,
        ..ApplyOptions::default()
    }
}
