//! Gathers an overview: probes all servers concurrently, each for at most [`TIMEOUT`].

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidewheel_core::error::Cause;
use tidewheel_core::ports::{
    Embedder as EmbedderPort, EmbedderLoad, IndexInspector, IndexReader, Journal, PortResult, PublishedReport,
    QueueServerInspector, Registry, ReportReader, SnapshotState, SourceHistory, SourceInspector, StageInspector,
    StageStatus,
};
use tidewheel_core::report::Figures;
use tidewheel_core::stage::Stage;
use tidewheel_core::time::{now_ms, now_seconds};
use tidewheel_core::version::ClusterTime;

use super::figures::{audit, latency, newest, sum};
use super::rates::{Rate, Stall, eta, extrapolated};
use super::{
    Collection, Embedder, Overview, Redis, Service, Snapshot, Source, StageOverview, SyncState, SyncVerdict,
    Thresholds, Tokens,
};
use crate::{Probe, check_layout};

/// Timeout after which a server counts as unreachable.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Up to this many points, the count is exact.
const EXACT: u64 = 1_000_000;

/// A consumer idle for longer is not counted as alive.
const ALIVE_MS: u64 = 60_000;

/// The ports on Redis.
#[derive(Clone)]
pub struct QueuePorts {
    /// The installation.
    pub registry: Arc<dyn Registry>,
    /// The stages.
    pub stages: Arc<dyn StageInspector>,
    /// The server.
    pub server: Arc<dyn QueueServerInspector>,
    /// The checkpoints.
    pub journal: Arc<dyn Journal>,
    /// The reports of processes.
    pub reports: Arc<dyn ReportReader>,
}

/// The ports on the index.
#[derive(Clone)]
pub struct IndexPorts {
    /// The collection.
    pub reader: Arc<dyn IndexReader>,
    /// Its state.
    pub inspector: Arc<dyn IndexInspector>,
}

/// Returns a client of the embedder. A client caches the embedder's metadata, so only a new client detects an outage and
/// reads the load; the same client is returned where requests cost money.
pub type EmbedderClient = Box<dyn Fn() -> PortResult<Arc<dyn EmbedderPort>> + Send + Sync>;

/// The ports of an overview; an error where the settings of a client are invalid.
pub struct OverviewPorts {
    /// Redis.
    pub queue: PortResult<QueuePorts>,
    /// The source; `None` if no database is set.
    pub source: Option<Arc<dyn SourceInspector>>,
    /// The index.
    pub index: PortResult<IndexPorts>,
    /// The embedder.
    pub embedder: EmbedderClient,
}

/// Names of the servers in an overview, without credentials.
#[derive(Clone, Debug, Default)]
pub struct ServerNames {
    /// The source's database; `None` if none is set.
    pub database: Option<String>,
    /// URL of the index.
    pub index_url: String,
    /// URL of the embedder.
    pub embedder_url: String,
}

/// Takes overviews repeatedly; rates are computed between them.
pub struct Looker {
    ports: OverviewPorts,
    names: ServerNames,
    thresholds: Thresholds,
    memory: Mutex<Memory>,
    timeout: Duration,
}

/// State kept between overviews.
#[derive(Default)]
struct Memory {
    stages: [StageMemory; 2],
    position: Option<Position>,
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
    /// Creates it without connecting.
    pub fn new(ports: OverviewPorts, names: ServerNames, thresholds: Thresholds) -> Self {
        Self { ports, names, thresholds, memory: Mutex::default(), timeout: TIMEOUT }
    }

    /// Sets the timeout for each server.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Takes an overview. Never fails: an unreachable server is reported as unknown.
    pub async fn look(&self) -> Overview {
        let (one, two, reports, redis, position, history, collection, embedder) = tokio::join!(
            Probe::within(self.timeout, self.stage(Stage::Raw)),
            Probe::within(self.timeout, self.stage(Stage::Embedded)),
            Probe::within(self.timeout, self.reports()),
            Probe::within(self.timeout, self.redis()),
            Probe::within(self.timeout, self.position()),
            Probe::within(self.timeout, self.history()),
            Probe::within(self.timeout, self.collection()),
            Probe::within(self.timeout, self.embedder()),
        );
        let passed_over = self.passed_over(&collection, &history).await;
        let now = tokio::time::Instant::now().into_std();
        let reports = reports.known().cloned().unwrap_or_default();
        let figures: Vec<Figures> = reports.iter().filter_map(|published| published.report.figures.clone()).collect();
        let idle = |progressed_at: Option<f64>| progressed_at.map(|at| (now_seconds() - at).max(0.0));
        let processors = newest(&figures, |figures| figures.processor.as_ref().map(|one| one.progressed_at));
        let upserters = newest(&figures, |figures| figures.upserter.as_ref().map(|one| one.progressed_at));
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let [memory_1, memory_2] = &mut memory.stages;
        let stages = [
            one.map(|status| memory_1.look(now, status, idle(processors))),
            two.map(|status| memory_2.look(now, status, idle(upserters))),
        ];
        let source = memory.position(position).map(|position| {
            let source = Source { passed_over, ..self.source(position, &history) };
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
            at_ms: now_ms(),
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
            services: services(&reports),
        };
        overview.judged(&self.thresholds)
    }

    fn queue(&self) -> PortResult<&QueuePorts> {
        self.ports.queue.as_ref().map_err(Clone::clone)
    }

    /// Redis, unless a newer release has written the keys, which this release could misread.
    async fn readable_queue(&self) -> PortResult<&QueuePorts> {
        let queue = self.queue()?;
        check_layout(&*queue.registry).await?;
        Ok(queue)
    }

    async fn stage(&self, stage: Stage) -> PortResult<StageStatus> {
        self.readable_queue().await?.stages.status(stage).await
    }

    async fn reports(&self) -> PortResult<Vec<PublishedReport>> {
        self.queue()?.reports.reports().await
    }

    async fn redis(&self) -> PortResult<Redis> {
        let server = self.queue()?.server.queue_server().await?;
        Ok(Redis {
            address: server.address,
            version: server.version,
            memory_bytes: server.memory_bytes,
            memory_limit_bytes: server.memory_limit_bytes,
        })
    }

    async fn position(&self) -> PortResult<Position> {
        let queue = self.readable_queue().await.inspect_err(|error| {
            // With keys of a newer release the position is unknown, not unchanged.
            if error.cause == Cause::Newer {
                self.memory.lock().unwrap_or_else(PoisonError::into_inner).position = None;
            }
        })?;
        let journal = &queue.journal;
        let (read, applied, positions) = tokio::join!(journal.load(), journal.applied(), journal.positions());
        Ok(Position {
            read: read?.map(|checkpoint| (checkpoint.last.0, checkpoint.snapshot)),
            applied: applied?.map(|checkpoint| checkpoint.last.0.seconds),
            damage: positions?.damage.map(|damage| damage.to_string()),
        })
    }

    /// The history of the source; `None` if no database is set, or the history is not readable.
    async fn history(&self) -> PortResult<Option<SourceHistory>> {
        match &self.ports.source {
            Some(source) => source.history().await,
            None => Ok(None),
        }
    }

    /// Collections outside the selection; queried only if the index is empty and the source is reachable.
    async fn passed_over(&self, collection: &Probe<Collection>, history: &Probe<Option<SourceHistory>>) -> Vec<String> {
        let empty = collection.known().is_some_and(|collection| collection.points.unwrap_or(0) == 0);
        let is_queried = empty && history.known().is_some();
        let Some(source) = self.ports.source.as_ref().filter(|_| is_queried) else { return Vec::new() };
        Probe::within(self.timeout, source.passed_over()).await.known().cloned().unwrap_or_default()
    }

    async fn collection(&self) -> PortResult<Collection> {
        let IndexPorts { reader, inspector } = self.ports.index.as_ref().map_err(Clone::clone)?;
        let state = inspector.index_state().await?;
        // The collection's own count is an estimate; an exact count is expensive for many points.
        let points = match state.collection.as_ref().map(|collection| collection.points) {
            Some(about) if about > EXACT => Some(about),
            _ => reader.count().await?,
        };
        let (version, collection) = (state.version, state.collection);
        Ok(Collection {
            url: self.names.index_url.clone(),
            name: reader.name().to_owned(),
            version,
            exists: collection.is_some(),
            points,
            indexed_vectors: collection.as_ref().map(|collection| collection.indexed_vectors),
            dimension: collection.as_ref().and_then(|collection| collection.dimension),
            status: collection.map(|collection| collection.status),
        })
    }

    /// The embedder, and its load as it reports it to clients.
    async fn embedder(&self) -> PortResult<(Embedder, Option<EmbedderLoad>)> {
        let info = (self.ports.embedder)()?.info().await?;
        let embedder = Embedder {
            url: self.names.embedder_url.clone(),
            model: info.model,
            dimension: info.dimension,
            max_tokens: info.max_tokens,
            tokens_per_second: None,
            queued_tokens: None,
            tokens: None,
        };
        Ok((embedder, info.load))
    }

    fn source(&self, position: Position, history: &Probe<Option<SourceHistory>>) -> Source {
        let oplog = history.known().copied().flatten();
        let read = position.read.as_ref().map(|(time, _)| *time);
        Source {
            database: self.names.database.clone(),
            error: history.error().map(str::to_owned),
            oplog_window_seconds: oplog.map(|oplog| oplog.window.seconds()),
            oplog_time_to_loss_seconds: oplog
                .zip(read)
                .and_then(|(oplog, read)| extrapolated(oplog.seconds_left(read), oplog.window.seconds())),
            read_until: read.map(|time| time.seconds),
            searchable_until: position.applied,
            checkpoint_age_seconds: None,
            snapshot: position.read.map(|(_, snapshot)| {
                let (state, rows) = match snapshot {
                    SnapshotState::Running { rows, .. } => ("running", rows),
                    SnapshotState::Sweeping { rows, .. } => ("sweeping", rows),
                    SnapshotState::Done { rows, .. } => ("done", rows),
                };
                Snapshot { state, rows, of: None, rows_per_second: None, eta_seconds: None }
            }),
            damage: position.damage,
            passed_over: Vec::new(),
        }
    }

    /// Adds the producer's figures to the source.
    fn with_figures(mut source: Source, figures: &[Figures], rows: &mut Rate, now: Instant) -> Source {
        let saved = newest(figures, |figures| figures.producer.as_ref()?.checkpoint_saved_at);
        source.checkpoint_age_seconds = saved.map(|at| (now_seconds() - at).max(0.0));
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
struct Position {
    read: Option<(ClusterTime, SnapshotState)>,
    applied: Option<u32>,
    damage: Option<String>,
}

impl Memory {
    /// The current position, or the last known one. While Redis is unreachable the position does not move but the source's
    /// history does, which makes the remaining headroom most important.
    fn position(&mut self, position: Probe<Position>) -> Probe<Position> {
        match (position, &self.position) {
            (Probe::Known(position), _) => {
                self.position = Some(position.clone());
                Probe::Known(position)
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

fn services(reports: &[PublishedReport]) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for PublishedReport { process, age_ms, report } in reports {
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
