//! Gathers an overview: probes all servers concurrently, each for at most [`TIMEOUT`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidewheel_core::address;
use tidewheel_core::error::Cause;
use tidewheel_core::ports::{
    Embedder as EmbedderPort, EmbedderLoad, IndexReader as _, Journal as _, PortResult, SnapshotState, SourceHistory,
    SourceInspector as _, StageInspector as _, StageStatus,
};
use tidewheel_core::stage::Stage;
use tidewheel_ops::overview::rates::{Rate, Stall, eta, extrapolated};
use tidewheel_ops::overview::{
    Collection, Embedder, Overview, Redis, Service, Snapshot, Source, StageOverview, SyncState, SyncVerdict, Tokens,
};
use tidewheel_ops::{Probe, check_layout};
use tidewheel_stores::mongo::MongoSource;
use tidewheel_stores::qdrant::QdrantIndex;
use tidewheel_stores::redis::RedisStore;
use tidewheel_telemetry::report::{Figures, ProcessReport};
use tokio::sync::OnceCell;

use super::report::{audit, latency, newest, sum};
use crate::connect;
use crate::settings::{Provider, Settings};
use crate::times;

/// Timeout after which a server counts as unreachable.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Up to this many points, the count is exact.
const EXACT: u64 = 1_000_000;

/// A consumer idle for longer is not counted as alive.
const ALIVE_MS: u64 = 60_000;

/// Takes overviews repeatedly over open connections; rates are computed between them.
pub(crate) struct Looker {
    settings: Settings,
    redis: PortResult<RedisStore>,
    index: PortResult<QdrantIndex>,
    embedder: PortResult<Arc<dyn EmbedderPort>>,
    mongo: OnceCell<MongoSource>,
    memory: Mutex<Memory>,
    timeout: Duration,
}

/// State kept between overviews.
#[derive(Default)]
struct Memory {
    stages: [StageMemory; 2],
    place: Option<Place>,
    rows: Rate,
    tokens: Rate,
}

#[derive(Default)]
struct StageMemory {
    appended: Rate,
    confirmed: Rate,
    stall: Stall,
}

impl Looker {
    /// Creates it without connecting. Must be called within a Tokio runtime.
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            settings: settings.clone(),
            redis: connect::redis(settings),
            index: connect::index(settings),
            embedder: connect::embedder(settings, Some(TIMEOUT)),
            mongo: OnceCell::new(),
            memory: Mutex::default(),
            timeout: TIMEOUT,
        }
    }

    /// Sets the timeout for each server.
    pub(crate) fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Takes an overview. Never fails: an unreachable server is reported as unknown.
    pub(crate) async fn look(&self) -> Overview {
        let (one, two, published, redis, place, mongo, collection, embedder) = tokio::join!(
            Probe::within(self.timeout, self.stage(Stage::Raw)),
            Probe::within(self.timeout, self.stage(Stage::Embedded)),
            Probe::within(self.timeout, self.reports()),
            Probe::within(self.timeout, self.redis()),
            Probe::within(self.timeout, self.place()),
            Probe::within(self.timeout, self.mongo()),
            Probe::within(self.timeout, self.collection()),
            Probe::within(self.timeout, self.embedder()),
        );
        let passed_over = self.passed_over(&collection).await;
        let now = Instant::now();
        let published = published.known().cloned().unwrap_or_default();
        let figures: Vec<Figures> = published.iter().filter_map(|(_, _, report)| report.figures.clone()).collect();
        let idle = |progressed_at: Option<f64>| progressed_at.map(|at| (times::now_seconds() - at).max(0.0));
        let processors = newest(&figures, |figures| figures.processor.as_ref().map(|one| one.progressed_at));
        let upserters = newest(&figures, |figures| figures.upserter.as_ref().map(|one| one.progressed_at));
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let [memory_1, memory_2] = &mut memory.stages;
        let stages = [
            one.map(|status| memory_1.look(now, status, idle(processors))),
            two.map(|status| memory_2.look(now, status, idle(upserters))),
        ];
        let source = memory.place(place).map(|place| {
            let source = Source { passed_over, ..self.source(place, &mongo) };
            Self::with_figures(source, &figures, &mut memory.rows, now)
        });
        let embedder = embedder.map(|(mut embedder, own): (Embedder, Option<EmbedderLoad>)| {
            let queued = sum(&figures, |figures| Some(figures.embedder.as_ref()?.queued_tokens));
            let tokens = sum(&figures, |figures| Some(figures.embedder.as_ref()?.tokens));
            // An embedder that cannot reach Redis reports only to its clients.
            embedder.queued_tokens = queued.or(own.map(|own| own.queued_tokens));
            embedder.tokens = tokens.or(own.map(|own| own.tokens));
            embedder.tokens_per_second = embedder.tokens.and_then(|tokens| memory.tokens.look(now, tokens as f64));
            embedder
        });
        let embedded = embedder.known().and_then(|embedder| embedder.tokens);
        let tokens = embedded.map(|embedded| Tokens {
            embedded,
            saved: sum(&figures, |figures| Some(figures.processor.as_ref()?.tokens_saved)).unwrap_or(0),
        });
        let overview = Overview {
            at_ms: times::now_ms(),
            verdict: SyncVerdict {
                state: SyncState::Unknown,
                summary: String::new(),
                action: None,
                stage: None,
                eta_seconds: None,
            },
            problems: Vec::new(),
            stages,
            source,
            redis,
            collection,
            embedder,
            latency: latency(&figures),
            audit: audit(&figures),
            tokens,
            services: services(&published),
        };
        overview.judged(&self.settings.monitor.thresholds)
    }

    fn store(&self) -> PortResult<&RedisStore> {
        self.redis.as_ref().map_err(Clone::clone)
    }

    /// Redis, unless a newer release has written the keys, which this release could misread.
    async fn readable_store(&self) -> PortResult<&RedisStore> {
        let store = self.store()?;
        check_layout(store).await?;
        Ok(store)
    }

    async fn stage(&self, stage: Stage) -> PortResult<StageStatus> {
        self.readable_store().await?.status(stage).await
    }

    /// Reports by process, with their age in milliseconds.
    async fn reports(&self) -> PortResult<Vec<(String, u64, ProcessReport)>> {
        let published = self.store()?.published().await?;
        // Skip invalid reports.
        Ok(published
            .into_iter()
            .filter_map(|entry| Some((entry.process, entry.age_ms, serde_json::from_str(&entry.text).ok()?)))
            .collect())
    }

    async fn redis(&self) -> PortResult<Redis> {
        let store = self.store()?;
        let facts = store.inspect().await?;
        Ok(Redis {
            address: store.address().to_owned(),
            version: facts.version,
            memory_bytes: facts.used_memory,
            memory_limit_bytes: (facts.max_memory > 0).then_some(facts.max_memory),
        })
    }

    async fn place(&self) -> PortResult<Place> {
        let store = self.readable_store().await.inspect_err(|error| {
            // With keys of a newer release the position is unknown, not unchanged.
            if error.cause == Cause::Newer {
                self.memory.lock().unwrap_or_else(PoisonError::into_inner).place = None;
            }
        })?;
        let (read, applied, positions) = tokio::join!(store.load(), store.applied(), store.positions());
        Ok(Place {
            read: read?.map(|checkpoint| (checkpoint.last.0, checkpoint.snapshot)),
            applied: applied?.map(|checkpoint| checkpoint.last.0.seconds),
            damage: positions?.damage.map(|damage| damage.to_string()),
        })
    }

    /// The oplog window; `None` if no database is set, or the oplog is not readable.
    async fn mongo(&self) -> PortResult<Option<SourceHistory>> {
        let Ok(options) = connect::mongo_options(&self.settings, "the overview") else { return Ok(None) };
        self.mongo.get_or_try_init(|| connect::source(options)).await?.history().await
    }

    /// Collections outside the selection; queried only if the index is empty.
    async fn passed_over(&self, collection: &Probe<Collection>) -> Vec<String> {
        let empty = collection.known().is_some_and(|collection| collection.points.unwrap_or(0) == 0);
        let Some(mongo) = self.mongo.get().filter(|_| empty) else { return Vec::new() };
        Probe::within(self.timeout, mongo.passed_over()).await.known().cloned().unwrap_or_default()
    }

    async fn collection(&self) -> PortResult<Collection> {
        let index = self.index.as_ref().map_err(Clone::clone)?;
        let facts = index.inspect().await?;
        // The collection's own count is an estimate; an exact count is expensive for many points.
        let points = match facts.collection.as_ref().map(|facts| facts.points) {
            Some(about) if about > EXACT => Some(about),
            _ => index.count().await?,
        };
        let (version, facts) = (facts.version, facts.collection);
        Ok(Collection {
            url: address::shown(self.settings.qdrant.url.reveal()),
            name: self.settings.qdrant.collection.clone(),
            version,
            exists: facts.is_some(),
            points,
            indexed_vectors: facts.as_ref().map(|facts| facts.indexed_vectors),
            dimension: facts.as_ref().and_then(|facts| facts.dimension),
            status: facts.map(|facts| facts.status),
        })
    }

    /// The embedder, and its load as it reports it to clients.
    async fn embedder(&self) -> PortResult<(Embedder, Option<EmbedderLoad>)> {
        // The client caches the embedder's info, so only a fresh one detects an outage and reads the load. With other providers that request would
        // cost money.
        let fresh = match &self.settings.embedding.provider {
            Provider::Tidewheel { .. } => Some(connect::embedder(&self.settings, Some(self.timeout))?),
            Provider::Remote { .. } => None,
        };
        let client = match &fresh {
            Some(client) => client,
            None => self.embedder.as_ref().map_err(Clone::clone)?,
        };
        let info = client.info().await?;
        let embedder = Embedder {
            url: address::shown(connect::embedder_url(&self.settings)),
            model: info.model,
            dimension: info.dimension,
            max_tokens: info.max_tokens,
            tokens_per_second: None,
            queued_tokens: None,
            tokens: None,
        };
        Ok((embedder, info.load))
    }

    fn source(&self, place: Place, mongo: &Probe<Option<SourceHistory>>) -> Source {
        let oplog = mongo.known().copied().flatten();
        let read = place.read.as_ref().map(|(time, _)| *time);
        Source {
            database: self.settings.mongodb.database.clone(),
            error: mongo.error().map(str::to_owned),
            oplog_window_seconds: oplog.map(|oplog| oplog.window.seconds()),
            oplog_time_to_loss_seconds: oplog
                .zip(read)
                .and_then(|(oplog, read)| extrapolated(oplog.seconds_left(read), oplog.window.seconds())),
            read_until: read.map(|time| time.seconds),
            searchable_until: place.applied,
            checkpoint_age_seconds: None,
            snapshot: place.read.map(|(_, snapshot)| {
                let (state, rows) = match snapshot {
                    SnapshotState::Running { rows, .. } => ("running", rows),
                    SnapshotState::Sweeping { rows, .. } => ("sweeping", rows),
                    SnapshotState::Done { rows, .. } => ("done", rows),
                };
                Snapshot { state, rows, of: None, rows_per_second: None, eta_seconds: None }
            }),
            damage: place.damage,
            passed_over: Vec::new(),
        }
    }

    /// Adds the producer's figures to the source.
    fn with_figures(mut source: Source, figures: &[Figures], rows: &mut Rate, now: Instant) -> Source {
        let saved = newest(figures, |figures| figures.producer.as_ref()?.checkpoint_saved_at);
        source.checkpoint_age_seconds = saved.map(|at| (times::now_seconds() - at).max(0.0));
        if let Some(snapshot) = source.snapshot.as_mut().filter(|snapshot| snapshot.state == "running") {
            snapshot.of = sum(figures, |figures| figures.producer.as_ref()?.snapshot_expected);
            snapshot.rows_per_second = rows.look(now, snapshot.rows as f64);
            let left = snapshot.of.map(|of| of.saturating_sub(snapshot.rows));
            snapshot.eta_seconds = left.and_then(|left| eta(left, Some(0.0), snapshot.rows_per_second));
        }
        source
    }
}

/// Position in the source.
#[derive(Clone)]
struct Place {
    read: Option<(tidewheel_core::version::ClusterTime, SnapshotState)>,
    applied: Option<u32>,
    damage: Option<String>,
}

impl Memory {
    /// The current position, or the last known one. While Redis is unreachable the position does not move but MongoDB's oplog
    /// does, which makes the remaining headroom most important.
    fn place(&mut self, place: Probe<Place>) -> Probe<Place> {
        match (place, &self.place) {
            (Probe::Known(place), _) => {
                self.place = Some(place.clone());
                Probe::Known(place)
            }
            (Probe::Unknown(_), Some(last)) => Probe::Known(last.clone()),
            (unknown, None) => unknown,
        }
    }
}

impl StageMemory {
    /// `idle` is the reported number of seconds without progress in any of its services.
    fn look(&mut self, now: Instant, status: StageStatus, idle: Option<f64>) -> StageOverview {
        let backlog = status.lag.unwrap_or(status.length) + status.pending;
        let confirmed = status.appended.saturating_sub(backlog);
        let in_per_second = self.appended.look(now, status.appended as f64);
        let out_per_second = self.confirmed.look(now, confirmed as f64);
        let stalled = self.stall.look(now, confirmed, backlog).as_secs_f64();
        // Idling without a backlog is not a stall.
        let waiting = status.oldest_age_ms.map_or(0.0, |millis| millis as f64 / 1e3);
        let stalled_seconds = if backlog == 0 { 0.0 } else { stalled.max(idle.unwrap_or(0.0).min(waiting)) };
        StageOverview {
            backlog,
            in_per_second,
            out_per_second,
            eta_seconds: eta(backlog, in_per_second, out_per_second),
            stalled_seconds,
            alive: status.consumers.iter().filter(|consumer| consumer.idle_ms < ALIVE_MS).count() as u64,
            status,
        }
    }
}

fn services(published: &[(String, u64, ProcessReport)]) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for (process, age_ms, report) in published {
        services.extend(report.services.iter().map(|state| Service {
            service: state.service.clone(),
            process: process.clone(),
            operations: report.operations.clone(),
            up_seconds: report.up_seconds,
            silent_seconds: *age_ms as f64 / 1e3,
            ready: state.ready,
            reasons: state.reasons.clone(),
            foreign_version: report.figures.is_none().then(|| report.version.clone()),
        }));
    }
    services.sort_by(|a, b| (&a.service, &a.process).cmp(&(&b.service, &b.process)));
    services
}
