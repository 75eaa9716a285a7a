//! `tidewheel wait`: waits for read-your-writes consistency.

pub(crate) mod http;
mod since;
pub(crate) mod waiter;

use self::waiter::Waiter;
use crate::cli::{Output, WaitArgs};
use crate::exit::{Answer, Failure};
use crate::printer::{self, BAD, GOOD, styled};
use crate::settings::Settings;
use crate::times;

/// Waits, and prints the result.
pub(crate) async fn run(args: &WaitArgs, settings: &Settings) -> Result<Answer, Failure> {
    let waited = Waiter::new(settings)?.wait(&args.since, args.timeout).await?;
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
                        "timed out after {took}: changes up to {} are not all searchable ({why})",
                        waited.until
                    );
                    printer::data(format_args!("{} {text}", styled(BAD, "✖")));
                    printer::say("run `tidewheel status` to see the cause");
                }
            }
        }
    }
    Ok(if waited.searchable { Answer::Fine } else { Answer::No })
}
