//! `tidewheel status`: shows whether the index is in sync, and the state of the pipeline.

mod watch;

use std::time::Duration;

use tidewheel_core::catalog::IndexName;
use tidewheel_ops::overview::{Looker, Overview};

use crate::cli::{Output, StatusArgs};
use crate::compose;
use crate::exit::{Answer, Failure};
use crate::overview::{page, text};
use crate::printer;
use crate::settings::Settings;

/// Refresh interval of `--watch`, and interval between the two observations that rates need.
const AGAIN: Duration = Duration::from_secs(1);

/// Prints the status once, or continuously.
pub(crate) async fn run(args: &StatusArgs, settings: &Settings) -> Result<Answer, Failure> {
    let looker = compose::looker(settings);
    if !args.watch {
        let overview = restricted(with_rates(&looker).await, args.index.as_ref())?;
        match args.output.output {
            Output::Json => printer::json(&overview),
            Output::Text => printer::data(shown(&overview, args.index.as_ref()).trim_end()),
        }
        return Ok(if overview.complete() { Answer::Fine } else { Answer::Unknown });
    }
    if args.output.output == Output::Text && printer::stdout_is_terminal() && args.index.is_none() {
        return watch::run(looker).await;
    }
    loop {
        let overview = restricted(looker.look().await, args.index.as_ref())?;
        match args.output.output {
            Output::Json => printer::json_line(&overview),
            Output::Text => printer::data(shown(&overview, args.index.as_ref())),
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

/// The overview, or everything about one index.
fn shown(overview: &Overview, index: Option<&IndexName>) -> String {
    match index.and_then(|name| overview.index(name.as_str())) {
        Some(index) => page(overview, index),
        None => text(overview, printer::width()),
    }
}

/// The overview of this index only. While Redis does not answer, it is unknown which there are.
pub(super) fn restricted(overview: Overview, index: Option<&IndexName>) -> Result<Overview, Failure> {
    let Some(name) = index else { return Ok(overview) };
    let is_known = overview.stages.iter().all(|stage| stage.error().is_none());
    if is_known && overview.index(name.as_str()).is_none() {
        let names: Vec<&str> = overview.indexes.iter().map(|index| index.name.as_str()).collect();
        return Err(Failure::new(match names.as_slice() {
            [] => format!("invalid --index {:?}: no index is applied yet", name.as_str()),
            names => format!("invalid --index {:?}: expected one of {}", name.as_str(), names.join(", ")),
        }));
    }
    Ok(overview.restricted(name))
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
