//! `tidewheel replay`: prints the plan, and with `--yes` applies it.

mod plan;
mod progress;
mod tell;

use std::sync::Arc;
use std::time::SystemTime;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{Aliases as _, EntryId, Extent, IndexWriter as _, Journal as _, StreamLog};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_pipeline::replay::{self, Into, IntoPorts, Pages, Progress};
use tidewheel_pipeline::service::ServiceError;
use tidewheel_stores::redis::RedisStore;
use tidewheel_stores::redis::keys::STAGE_2_REPLAY;
use tokio_util::sync::CancellationToken;

use self::plan::{Facts, Plan};
use self::progress::Shown;
use self::tell::{Ended, Publisher};
use crate::audit_log::Actor;
use crate::cli::{Output, ReplayArgs, ReplayFrom};
use crate::connect;
use crate::exit::{Answer, Failure};
use crate::printer::{self, GOOD, STRONG, WARN, styled};
use crate::services::{a_signal, guard, known_vectors, own_name, processor_options, upserter_options, while_owned};
use crate::settings::Settings;
use crate::times;

/// Idle time in milliseconds after which a processor counts as stopped: processors poll every second.
const SILENT_MS: u64 = 20_000;

/// Prints the plan, and applies it with `--yes`.
pub(crate) async fn run(args: &ReplayArgs, settings: &Settings) -> Result<Answer, Failure> {
    let now = SystemTime::now();
    let since = args.since.as_deref().map(|text| times::parse("--since", text, now)).transpose()?;
    let replay = Replay { args, settings, redis: connect::redis(settings)?, since, number: replay::number(now) };
    // Keep documents of another database out of this Redis.
    guard(settings, &replay.redis, None, None).check_redis().await?;
    let facts = replay.facts().await?;
    let plan = plan::plan(args, since, &facts)?;
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
        printer::say(styled(WARN, "interrupted: no data lost; run the same command to start again"));
        return Ok(Answer::No);
    }
    let Progress { read, replayed, skipped, .. } = done;
    let newest = if replayed + skipped < read { ", the newest of each document" } else { "" };
    printer::say(format_args!("{} {read} read, {replayed} replayed{newest}", styled(GOOD, "✔")));
    if skipped > 0 {
        printer::say(styled(WARN, format_args!("{skipped} skipped: unreadable, or certain to fail")));
    }
    printer::say(&plan.afterwards);
    Ok(Answer::Fine)
}

fn show(plan: &Plan, acts: bool) {
    for (name, text) in plan.lines() {
        printer::data(format_args!("{} {text}", styled(STRONG, format_args!("{name:<8}"))));
    }
    for warning in &plan.warnings {
        printer::data(format_args!("{} {warning}", styled(WARN, format_args!("{:<8}", "note"))));
    }
    if !acts {
        printer::say("\nPlan only, nothing was changed. Add --yes to apply it.");
    }
}

struct Replay<'a> {
    args: &'a ReplayArgs,
    settings: &'a Settings,
    redis: RedisStore,
    /// Milliseconds since the Unix epoch.
    since: Option<u64>,
    number: u32,
}

impl Replay<'_> {
    /// Gathers the input of the plan.
    async fn facts(&self) -> Result<Facts, Failure> {
        let (raw, embedded) = (self.raw(), self.embedded());
        let (raw, embedded): (Extent, Extent) = tokio::try_join!(raw.extent(), embedded.extent())?;
        let embedder = match self.args.from {
            ReplayFrom::Embedded => None,
            ReplayFrom::Raw | ReplayFrom::Source => Some(connect::embedder(self.settings, None)?.info().await?),
        };
        let index = connect::index(self.settings)?;
        let collection = self.settings.qdrant.collection.clone();
        let into = match &self.args.into {
            Some(name) => Some((name.clone(), connect::index_of(self.settings, name)?.count().await?)),
            None => None,
        };
        let resolved = index.resolve(&collection).await?;
        let model = self.newest_model(&embedded).await?;
        let checkpoint = self.redis.load().await?;
        let consumers = self.redis.status(Stage::Raw).await?.consumers;
        let processors = consumers.iter().any(|consumer| consumer.idle_ms < SILENT_MS);
        Ok(Facts { processors, raw, embedded, embedder, collection, resolved, into, model, checkpoint })
    }

    /// The model of the newest vectors in stage 2.
    async fn newest_model(&self, extent: &Extent) -> Result<Option<String>, Failure> {
        let (milliseconds, sequence) = extent.last.parts();
        let before_last = match sequence.checked_sub(1) {
            Some(sequence) => EntryId(format!("{milliseconds}-{sequence}")),
            None => replay::before(milliseconds),
        };
        let last = self.embedded().page(&before_last, 1).await?;
        let model = last.into_iter().find_map(|delivery| delivery.record.ok()).map(|record| record.model);
        Ok(model.filter(|model| !model.is_empty()))
    }

    fn raw(&self) -> Arc<dyn StreamLog<Change>> {
        Arc::new(self.redis.stream_log(Stage::Raw))
    }

    fn embedded(&self) -> Arc<dyn StreamLog<Embedded>> {
        Arc::new(self.redis.stream_log(Stage::Embedded))
    }

    fn after(&self) -> EntryId {
        self.since.map_or_else(EntryId::zero, replay::before)
    }

    async fn act(
        &self,
        plan: &Plan,
        facts: &Facts,
        report: replay::Report,
        stop: CancellationToken,
    ) -> Result<Progress, Failure> {
        if let Some(into) = &self.args.into {
            return self.into(into, plan, facts, report, stop).await;
        }
        if self.args.from == ReplayFrom::Embedded {
            return Ok(replay::embedded(self.embedded(), self.after(), self.number, &report, stop).await?);
        }
        let mut pages = self.pages(facts).await?;
        Ok(replay::changes(&mut pages, &*self.raw(), &report, stop).await?)
    }

    async fn pages(&self, facts: &Facts) -> Result<Pages, Failure> {
        if self.args.from == ReplayFrom::Raw {
            return Ok(replay::raw(self.raw(), self.after(), self.number).await?);
        }
        let options = connect::mongo_options(self.settings, "a replay of the source")?;
        let source = Arc::new(connect::source(options).await?);
        let epoch = facts.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch);
        Ok(match self.since {
            None => replay::rows(source, epoch, self.args.filter.clone()).await?,
            Some(since) => {
                let seconds = u32::try_from(since / 1_000).unwrap_or(u32::MAX);
                replay::history(source, epoch, ClusterTime { seconds, increment: 0 }, self.number).await?
            }
        })
    }

    async fn into(
        &self,
        name: &str,
        plan: &Plan,
        facts: &Facts,
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
        let from_stage_2 = self.args.from == ReplayFrom::Embedded;
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
