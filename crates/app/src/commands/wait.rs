//! `tidewheel wait`: waits for read-your-writes consistency.

use std::time::SystemTime;

use crate::cli::{Output, WaitArgs};
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, GOOD, styled};
use crate::settings::Settings;
use crate::{compose, since, times};

/// Waits, and prints the result.
pub(crate) async fn run(args: &WaitArgs, settings: &Settings) -> Result<Answer, Failure> {
    let waiter = compose::waiter(settings)?;
    let since = since::parse(&args.since, SystemTime::now())?;
    let waited = waiter.wait(since, args.timeout, args.index.as_ref()).await?;
    match args.output.output {
        Output::Json => printer::json(&waited),
        Output::Text => {
            let took = times::span(waited.waited_ms);
            match &waited.why {
                None => {
                    let text = format!("everything up to {} is searchable ({took})", waited.until);
                    printer::data(format_args!("{} {text}", styled(GOOD, "✔")));
                }
                Some(why) => {
                    let text = format!(
                        "timed out after {took}: not all changes up to {} are searchable ({why})",
                        waited.until
                    );
                    printer::data(format_args!("{} {text}", styled(BAD, "✖")));
                    printer::message("run `tidewheel status` to see the cause");
                }
            }
        }
    }
    Ok(if waited.searchable { Answer::Fine } else { Answer::No })
}
