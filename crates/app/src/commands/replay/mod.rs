//! `tidewheel replay`: prints the plan, and with `--yes` applies it.

mod progress;
mod report;

use std::time::SystemTime;

use tidewheel_core::ports::SourceFilter;
use tidewheel_ops::replay::{Origin, ReplayPlan, ReplayRequest, plan};
use tidewheel_ops::text::thousands;
use tidewheel_pipeline::replay::{self, Progress};
use tokio_util::sync::CancellationToken;

use self::progress::Shown;
use self::report::{Ended, Publisher};
use crate::audit_log::{Actor, of_index};
use crate::cli::{Output, ReplayArgs};
use crate::compose::Replay;
use crate::exit::{Answer, Failure};
use crate::printer::{self, GOOD, STRONG, WARN, styled};
use crate::services::{guard, own_name};
use crate::settings::Settings;
use crate::signals;
use crate::times;

/// Prints the plan, and applies it with `--yes`.
pub(crate) async fn run(args: &ReplayArgs, settings: &Settings) -> Result<Answer, Failure> {
    let now = SystemTime::now();
    let since = args.since.as_deref().map(|text| times::parse("--since", text, now)).transpose()?;
    let (filter, into) = (args.filter.clone().map(SourceFilter), args.into.clone());
    let request = ReplayRequest { from: Origin::from(args.from), since, filter, into, index: args.index.clone() };
    let replay = Replay::new(settings, request, replay::number(now))?;
    // Keep documents of another database out of this Redis.
    guard(settings, replay.redis(), None, None).check_redis().await?;
    let facts = replay.facts().await?;
    let plan = plan(replay.request(), &facts)?;
    match args.output.output {
        Output::Json if !args.yes => printer::json(&plan),
        Output::Json => {}
        Output::Text => show(&plan, args.yes),
    }
    if !args.yes {
        return Ok(Answer::Fine);
    }
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        signals::received().await;
        interrupted.cancel();
    });
    let ReplayArgs { from, since: from_time, filter, into, index, .. } = args;
    let index = of_index(index.as_ref());
    let detail = format!("since {from_time:?}, filter {filter:?}, into {into:?}{index}");
    Actor::cli().records(replay.redis(), &format!("replay {from:?}").to_lowercase(), detail).await?;
    let shown = Shown::new();
    let publisher = Publisher::start(replay.redis().clone(), own_name("replay"), &plan);
    let done = replay.act(&plan, &facts, publisher.report(shown.report()), stop.clone()).await;
    shown.finish();
    publisher
        .end(match &done {
            Err(failure) => Ended::Failed(&failure.message),
            Ok(_) if stop.is_cancelled() => Ended::Interrupted,
            Ok(_) => Ended::Done,
        })
        .await;
    let done = done?;
    if args.output.output == Output::Json {
        printer::json(&done);
    }
    if stop.is_cancelled() {
        printer::message(styled(WARN, "interrupted: no data lost; run the same command to start again"));
        return Ok(Answer::No);
    }
    let Progress { read, replayed, skipped, .. } = done;
    let newest = if replayed + skipped < read { ", the newest of each document" } else { "" };
    let (read, replayed) = (thousands(read), thousands(replayed));
    printer::message(format_args!("{} {read} read, {replayed} replayed{newest}", styled(GOOD, "✔")));
    if skipped > 0 {
        printer::message(styled(WARN, format_args!("{} skipped: unreadable, or certain to fail", thousands(skipped))));
    }
    printer::message(&plan.afterwards);
    Ok(Answer::Fine)
}

fn show(plan: &ReplayPlan, acts: bool) {
    for (name, text) in plan.lines() {
        printer::data(format_args!("{} {text}", styled(STRONG, format_args!("{name:<8}"))));
    }
    for warning in &plan.warnings {
        printer::data(format_args!("{} {warning}", styled(WARN, format_args!("{:<8}", "note"))));
    }
    if !acts {
        printer::message("\nPlan only, nothing was changed. Add --yes to apply it.");
    }
}
