//! `tidewheel replay`: prints the plan, and with `--yes` applies it.

mod progress;
mod report;

use std::sync::Arc;
use std::time::SystemTime;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{EntryId, IndexWriter as _, SourceFilter, StreamLog};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_ops::replay::{Origin, PlanPorts, ReplayFacts, ReplayPlan, ReplayRequest, facts, plan};
use tidewheel_ops::text::thousands;
use tidewheel_pipeline::replay::{self, Into, IntoPorts, Pages, Progress};
use tidewheel_pipeline::service::ServiceError;
use tidewheel_stores::redis::RedisStore;
use tidewheel_stores::redis::keys::STAGE_2_REPLAY;
use tokio_util::sync::CancellationToken;

use self::progress::Shown;
use self::report::{Ended, Publisher};
use crate::audit_log::Actor;
use crate::cli::{Output, ReplayArgs};
use crate::connect;
use crate::exit::{Answer, Failure};
use crate::printer::{self, GOOD, STRONG, WARN, styled};
use crate::services::{a_signal, guard, known_vectors, own_name, processor_options, upserter_options, while_owned};
use crate::settings::Settings;
use crate::times;

/// Prints the plan, and applies it with `--yes`.
pub(crate) async fn run(args: &ReplayArgs, settings: &Settings) -> Result<Answer, Failure> {
    let now = SystemTime::now();
    let since = args.since.as_deref().map(|text| times::parse("--since", text, now)).transpose()?;
    let (filter, into) = (args.filter.clone().map(SourceFilter), args.into.clone());
    let request = ReplayRequest { from: Origin::from(args.from), since, filter, into };
    let replay = Replay { request, settings, redis: connect::redis(settings)?, number: replay::number(now) };
    // Keep documents of another database out of this Redis.
    guard(settings, &replay.redis, None, None).check_redis().await?;
    let facts = replay.facts().await?;
    let plan = plan(&replay.request, &facts)?;
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
        a_signal().await;
        interrupted.cancel();
    });
    let ReplayArgs { from, since: from_time, filter, into, .. } = args;
    let detail = format!("since {from_time:?}, filter {filter:?}, into {into:?}");
    Actor::cli().records(&replay.redis, &format!("replay {from:?}").to_lowercase(), detail).await?;
    let shown = Shown::new();
    let publisher = Publisher::start(replay.redis.clone(), own_name("replay"), &plan);
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

struct Replay<'a> {
    request: ReplayRequest,
    settings: &'a Settings,
    redis: RedisStore,
    number: u32,
}

impl Replay<'_> {
    /// Gathers the input of the plan.
    async fn facts(&self) -> Result<ReplayFacts, Failure> {
        let embedder = match self.request.from {
            Origin::Embedded => None,
            Origin::Raw | Origin::Source => Some(connect::embedder(self.settings, None)?),
        };
        let index = connect::index(self.settings)?;
        let into = self.request.into.as_deref().map(|name| connect::index_of(self.settings, name)).transpose()?;
        let (raw, embedded) = (self.raw(), self.embedded());
        let ports = PlanPorts {
            raw: &*raw,
            embedded: &*embedded,
            journal: &self.redis,
            stages: &self.redis,
            embedder: embedder.as_deref(),
            aliases: &index,
            into: into.as_ref().map(|index| index as _),
        };
        Ok(facts(&ports, &self.request, &self.settings.qdrant.collection).await?)
    }

    fn raw(&self) -> Arc<dyn StreamLog<Change>> {
        Arc::new(self.redis.stream_log(Stage::Raw))
    }

    fn embedded(&self) -> Arc<dyn StreamLog<Embedded>> {
        Arc::new(self.redis.stream_log(Stage::Embedded))
    }

    fn after(&self) -> EntryId {
        self.request.since.map_or_else(EntryId::zero, EntryId::before_time)
    }

    async fn act(
        &self,
        plan: &ReplayPlan,
        facts: &ReplayFacts,
        report: replay::Report,
        stop: CancellationToken,
    ) -> Result<Progress, Failure> {
        if let Some(into) = &self.request.into {
            return self.into(into, plan, facts, report, stop).await;
        }
        if self.request.from == Origin::Embedded {
            return Ok(replay::embedded(self.embedded(), self.after(), self.number, &report, stop).await?);
        }
        let mut pages = self.pages(facts).await?;
        Ok(replay::changes(&mut pages, &*self.raw(), &report, stop).await?)
    }

    async fn pages(&self, facts: &ReplayFacts) -> Result<Pages, Failure> {
        if self.request.from == Origin::Raw {
            return Ok(replay::raw(self.raw(), self.after(), self.number).await?);
        }
        let options = connect::mongo_options(self.settings, "a replay of the source")?;
        let source = Arc::new(connect::source(options).await?);
        let epoch = facts.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch);
        Ok(match self.request.since {
            None => replay::rows(source, epoch, self.request.filter.clone()).await?,
            Some(since) => {
                let seconds = u32::try_from(since / 1_000).unwrap_or(u32::MAX);
                replay::history(source, epoch, ClusterTime { seconds, increment: 0 }, self.number).await?
            }
        })
    }

    async fn into(
        &self,
        name: &str,
        plan: &ReplayPlan,
        facts: &ReplayFacts,
        report: replay::Report,
        stop: CancellationToken,
    ) -> Result<Progress, Failure> {
        let index = connect::index_of(self.settings, name)?;
        if let Some(embedder) = &facts.embedder {
            index.prepare(embedder.dimension).await?;
        }
        let redis = self.redis.clone();
        let guard = guard(self.settings, &redis, Some(index.clone()), None);
        guard.check().await?;
        let ports = IntoPorts {
            aliases: Arc::new(index.clone()),
            index: Arc::new(index),
            tombstones: Arc::new(redis.clone()),
            embedder: connect::embedder(self.settings, None)?,
            known: known_vectors(self.settings)?,
            queue: Arc::new(redis.queue(STAGE_2_REPLAY, own_name("replay"))),
            follower: Arc::new(redis),
            embedded: self.embedded(),
        };
        let into = Into {
            ports,
            processor: processor_options(self.settings),
            upserter: upserter_options(self.settings),
            alias: plan.alias.clone(),
        };
        let from_stage_2 = self.request.from == Origin::Embedded;
        let pages = async || {
            if from_stage_2 {
                return Ok(None);
            }
            let failed =
                |failure: Failure| ServiceError { service: "replay", message: failure.message, hint: failure.hint };
            self.pages(facts).await.map(Some).map_err(failed)
        };
        let run = into.run(from_stage_2.then(|| self.after()), pages, report, stop.clone());
        let done = while_owned(&guard, &stop, run).await?;
        // The collection may have been created and filled between two checks.
        guard.check().await?;
        Ok(done)
    }
}
