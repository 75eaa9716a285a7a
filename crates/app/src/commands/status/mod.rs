//! `tidewheel status`: shows whether the index is in sync, and the state of the pipeline.

mod watch;

use std::time::Duration;

use tidewheel_ops::overview::{Looker, Overview};

use crate::cli::{Output, StatusArgs};
use crate::compose;
use crate::exit::{Answer, Failure};
use crate::overview::text;
use crate::printer;
use crate::settings::Settings;

/// Refresh interval of `--watch`, and interval between the two observations that rates need.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints the status once, or continuously.
pub(crate) async fn run(args: &StatusArgs, settings: &Settings) -> Result<Answer, Failure> {
    let looker = compose::looker(settings);
    if !args.watch {
        let overview = with_rates(&looker).await;
        match args.output.output {
            Output::Json => printer::json(&overview),
            Output::Text => printer::data(text(&overview, printer::width()).trim_end()),
        }
        return Ok(if overview.complete() { Answer::Fine } else { Answer::Unknown });
    }
    if args.output.output == Output::Text && printer::stdout_is_terminal() {
        return watch::run(looker).await;
    }
    loop {
        let overview = looker.look().await;
        match args.output.output {
            Output::Json => printer::json_line(&overview),
            Output::Text => printer::data(text(&overview, printer::width())),
        }
        if printer::stdout_is_closed() {
            return Ok(Answer::Fine);
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = crate::signals::received() => return Ok(Answer::Fine),
        }
    }
}

/// Observes the pipeline; twice if there is a backlog, to compute rates.
pub(super) async fn with_rates(looker: &Looker) -> Overview {
    let overview = looker.look().await;
    if overview.stages.iter().all(|stage| stage.known().is_none_or(|stage| stage.backlog == 0)) {
        return overview;
    }
    tokio::time::sleep(AGAIN).await;
    looker.look().await
}
