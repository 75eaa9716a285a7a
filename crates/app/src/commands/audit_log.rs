//! `tidewheel audit-log`: prints the audit log.

use std::time::SystemTime;

use crate::cli::{AuditLogArgs, Output};
use crate::connect;
use crate::exit::{Answer, Failure};
use crate::printer::{self, STRONG, styled};
use crate::settings::Settings;
use crate::times;

/// Prints the newest actions.
pub(crate) async fn run(args: &AuditLogArgs, settings: &Settings) -> Result<Answer, Failure> {
    let now = SystemTime::now();
    let since = args.since.as_deref().map(|text| times::parse("--since", text, now)).transpose()?;
    let recorded = connect::redis(settings)?.recorded(since.unwrap_or(0), args.limit).await?;
    if args.output.output == Output::Json {
        printer::json(&recorded);
        return Ok(Answer::Fine);
    }
    if recorded.is_empty() {
        printer::message("no actions recorded");
        return Ok(Answer::Fine);
    }
    let header = format!("{:<24} {:<20} {:<24} {:<18} detail", "time", "user", "origin", "action");
    printer::data(styled(STRONG, header));
    for recorded in &recorded {
        let action = &recorded.action;
        printer::data(format_args!(
            "{:<24} {:<20} {:<24} {:<18} {}",
            times::show(recorded.at_ms),
            action.user,
            action.origin,
            action.action,
            action.detail
        ));
    }
    Ok(Answer::Fine)
}
