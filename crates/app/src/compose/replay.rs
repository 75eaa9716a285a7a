//! Builds replays.

use std::sync::Arc;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{EntryId, IndexWriter as _, PortResult, Source, StreamLog};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_ops::catalog::CatalogReader;
use tidewheel_ops::replay::{Origin, PlanPorts, ReplayFacts, ReplayPlan, ReplayRequest, facts};
use tidewheel_pipeline::replay::{self, Destinations, Into, IntoPorts, Pages, Progress};
use tidewheel_pipeline::service::ServiceError;
use tidewheel_stores::redis::RedisStore;
use tidewheel_stores::redis::keys::STAGE_2_REPLAY;
use tokio_util::sync::CancellationToken;

use super::{read_targets, short_form};
use crate::connect;
use crate::exit::Failure;
use crate::services::{guard, known_vectors, own_name, processor_options, upserter_options, while_owned};
use crate::settings::Settings;

/// A replay of the pipeline's entries or of the source. Connects on first use.
pub(crate) struct Replay<'a> {
    request: ReplayRequest,
    settings: &'a Settings,
    redis: RedisStore,
    number: u32,
}

impl<'a> Replay<'a> {
    /// A replay with this [`number`](replay::number).
    pub(crate) fn new(settings: &'a Settings, request: ReplayRequest, number: u32) -> PortResult<Self> {
        Ok(Self { request, settings, redis: connect::redis(settings)?, number })
    }

    /// The Redis that it reads and writes.
    pub(crate) fn redis(&self) -> &RedisStore {
        &self.redis
    }

    /// What was requested.
    pub(crate) fn request(&self) -> &ReplayRequest {
        &self.request
    }

    /// Gathers the input of the plan.
    pub(crate) async fn facts(&self) -> Result<ReplayFacts, Failure> {
        let embedder = match self.request.from {
            Origin::Embedded => None,
            Origin::Raw | Origin::Source => Some(connect::embedder(self.settings, None)?),
        };
        let index = connect::index(self.settings)?;
        let into = self.request.into.as_deref().map(|name| connect::index_of(self.settings, name)).transpose()?;
        let (raw, embedded) = (self.raw(), self.embedded());
        let catalog = CatalogReader::new(Arc::new(self.redis.clone()), short_form(self.settings));
        let ports = PlanPorts {
            catalog: &catalog,
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

    /// Applies the plan until it is done or `stop` is cancelled.
    pub(crate) async fn act(
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
            let (log, after) = (self.embedded(), self.after());
            return Ok(replay::embedded(log, self.destinations()?, after, self.number, &report, stop).await?);
        }
        let mut pages = self.pages(facts, self.destinations()?).await?;
        Ok(replay::changes(&mut pages, &*self.raw(), &report, stop).await?)
    }

    /// The targets of the selected index, or else of all.
    fn destinations(&self) -> PortResult<Destinations> {
        Ok(Destinations::new(read_targets(self.settings, &self.redis)?, self.request.index.clone()))
    }

    async fn pages(&self, facts: &ReplayFacts, to: Destinations) -> Result<Pages, Failure> {
        if self.request.from == Origin::Raw {
            return Ok(replay::raw(self.raw(), to, self.after(), self.number).await?);
        }
        let options = connect::mongo_options(self.settings, "a replay of the source")?;
        let source: Arc<dyn Source> = Arc::new(connect::source(options).await?);
        let epoch = facts.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.epoch);
        Ok(match self.request.since {
            None => replay::rows(source, to, epoch, self.request.filter.clone()).await?,
            Some(since) => {
                let seconds = u32::try_from(since / 1_000).unwrap_or(u32::MAX);
                replay::history(source, to, epoch, ClusterTime { seconds, increment: 0 }, self.number).await?
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
        let declaration = short_form(self.settings).ok_or_else(|| {
            Failure::new("--into requires the short form of one index")
                .with_hint("with [[index]], `tidewheel apply --generation` fills a new collection")
        })?;
        let declaration = Arc::new(declaration);
        let to = Destinations::plain(declaration.clone());
        let into = Into {
            ports,
            declaration,
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
            self.pages(facts, to).await.map(Some).map_err(failed)
        };
        let run = into.run(from_stage_2.then(|| self.after()), pages, report, stop.clone());
        let done = while_owned(&guard, &stop, run).await?;
        // The collection may have been created and filled between two checks.
        guard.check().await?;
        Ok(done)
    }
}
