//! `tidewheel status`: whether the index is right, and everything that this follows from.

mod watch;

use std::time::Duration;

use crate::cli::{Output, StatusArgs};
use crate::exit::{Answer, Failure};
use crate::overview::{Looker, Overview};
use crate::printer;
use crate::settings::Settings;

/// How often `--watch` looks, and how long one status waits for its second look.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints the status once, or again and again.
pub(crate) async fn run(args: &StatusArgs, settings: &Settings) -> Result<Answer, Failure> {
    let looker = Looker::new(settings);
    if !args.watch {
        let overview = with_rates(&looker).await;
        match args.output.output {
            Output::Json => printer::json(&overview),
            Output::Text => printer::data(overview.text(printer::width()).trim_end()),
        }
        return Ok(if overview.complete() { Answer::Fine } else { Answer::Unknown });
    }
    if args.output.output == Output::Text && printer::shows_a_person() {
        return watch::run(looker).await;
    }
    loop {
        let overview = looker.look().await;
        match args.output.output {
            Output::Json => printer::json_line(&overview),
            Output::Text => printer::data(overview.text(printer::width())),
        }
        if printer::nobody_reads() {
            return Ok(Answer::Fine);
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = crate::services::a_signal() => return Ok(Answer::Fine),
        }
    }
}

/// One look; a second one, for the rates, if there is any work.
pub(super) async fn with_rates(looker: &Looker) -> Overview {
    let overview = looker.look().await;
    if overview.stages.iter().all(|stage| stage.known().is_none_or(|stage| stage.backlog == 0)) {
        return overview;
    }
    tokio::time::sleep(AGAIN).await;
    looker.look().await
}
