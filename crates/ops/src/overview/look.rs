//! Gathers an overview: probes all servers concurrently, each for at most [`TIMEOUT`].
//!
//! Cost: a declared index adds no call. Of all collections beyond the first index's, at most five are read per overview,
//! in turn; collections and aliases are listed once; the catalog is loaded only if its revision has changed.

mod collections;
mod memory;
mod ports;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tidewheel_core::error::Cause;
use tidewheel_core::ports::{EmbedderLoad, PortResult, PublishedReport, SnapshotState, SourceHistory, StageStatus};
use tidewheel_core::report::Figures;
use tidewheel_core::stage::Stage;
use tidewheel_core::time::{now_ms, now_seconds};

use self::collections::{Indexed, describe_first};
use self::memory::{Memory, Position};
pub use self::ports::{EmbedderClient, IndexPorts, OverviewPorts, QueuePorts, ServerNames};
use super::figures::{audit, audit_of, latency, newest, sum};
use super::indexes::{Facts, IndexOverview, indexes};
use super::rates::{Rate, eta, extrapolated};
use super::{Audit, Embedder, Overview, Redis, Service, Snapshot, Source, SyncState, SyncVerdict, Thresholds, Tokens};
use crate::{Probe, check_layout};

/// Timeout after which a server counts as unreachable.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes overviews repeatedly; rates are computed between them.
pub struct Looker {
    ports: OverviewPorts,
    names: ServerNames,
    thresholds: Thresholds,
    memory: Mutex<Memory>,
    timeout: Duration,
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
        let (one, two, reports, redis, position, history, indexed, embedder) = tokio::join!(
            Probe::within(self.timeout, self.stage(Stage::Raw)),
            Probe::within(self.timeout, self.stage(Stage::Embedded)),
            Probe::within(self.timeout, self.reports()),
            Probe::within(self.timeout, self.redis()),
            Probe::within(self.timeout, self.position()),
            Probe::within(self.timeout, self.history()),
            self.indexed(),
            Probe::within(self.timeout, self.embedder()),
        );
        let passed_over = self.passed_over(&indexed, &history).await;
        let now = tokio::time::Instant::now().into_std();
        let reports = reports.known().cloned().unwrap_or_default();
        let figures: Vec<Figures> = reports.iter().filter_map(|published| published.report.figures.clone()).collect();
        let idle = |progressed_at: Option<f64>| progressed_at.map(|at| (now_seconds() - at).max(0.0));
        let processors = newest(&figures, |figures| figures.processor.as_ref().map(|one| one.progressed_at));
        let upserters = newest(&figures, |figures| figures.upserter.as_ref().map(|one| one.progressed_at));
        let mut memory = self.memory();
        let [memory_1, memory_2] = &mut memory.stages;
        let stages = [
            one.map(|status| memory_1.look(now, status, idle(processors))),
            two.map(|status| memory_2.look(now, status, idle(upserters))),
        ];
        let position = memory.position(position);
        let source = position.as_ref().map(|position| {
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
        let parked: Option<u64> = stages.iter().map(|stage| stage.known().map(|stage| stage.status.dead_letters)).sum();
        let fingerprints = memory.fingerprints(&indexed.catalog);
        memory.retain(&indexed.catalog);
        let collections = memory.collections.states().clone();
        let facts = Facts {
            catalog: &indexed.catalog,
            fingerprints: &fingerprints,
            collections: &collections,
            aliases: indexed.aliases.as_ref(),
            checkpoint: position.known().and_then(|position| position.read.as_ref()),
            snapshot: source.known().and_then(|source| source.snapshot.as_ref()),
            audits: &indexed.audits,
            lost: position.known().map_or(&[], |position| position.lost.as_slice()),
            reports: &reports,
            figures: &figures,
            parked,
        };
        let mut indexes = indexes(&facts, &mut |target, progress| memory.stalled(now, target, progress));
        describe_first(&mut indexes, indexed.collection.known());
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
            collection: indexed.collection,
            embedder,
            latency: latency(&figures),
            audit: first_audit(&indexes, &figures),
            tokens,
            services: services(&reports),
            indexes,
        };
        overview.judged(&self.thresholds)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> PortResult<&QueuePorts> {
        self.ports.queue.as_ref().map_err(Clone::clone)
    }

    fn index(&self) -> PortResult<&IndexPorts> {
        self.ports.index.as_ref().map_err(Clone::clone)
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
                self.memory().forget_position();
            }
        })?;
        let journal = &queue.journal;
        let (read, applied, positions) = tokio::join!(journal.load(), journal.applied(), journal.positions());
        let positions = positions?;
        Ok(Position {
            read: read?,
            applied: applied?.map(|checkpoint| checkpoint.last.0.seconds),
            damage: positions.damage.map(|damage| damage.to_string()),
            lost: positions.lost,
        })
    }

    /// The history of the source; `None` if no database is set, or the history is not readable.
    async fn history(&self) -> PortResult<Option<SourceHistory>> {
        match &self.ports.source {
            Some(source) => source.history().await,
            None => Ok(None),
        }
    }

    /// Collections outside the selection; queried only if the index of the short form is empty and the source is reachable.
    async fn passed_over(&self, indexed: &Indexed, history: &Probe<Option<SourceHistory>>) -> Vec<String> {
        let empty = indexed.collection.known().is_some_and(|collection| collection.points.unwrap_or(0) == 0);
        let is_queried = empty && indexed.catalog.is_short_form() && history.known().is_some();
        let Some(source) = self.ports.source.as_ref().filter(|_| is_queried) else { return Vec::new() };
        Probe::within(self.timeout, source.passed_over()).await.known().cloned().unwrap_or_default()
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

    fn source(&self, position: &Position, history: &Probe<Option<SourceHistory>>) -> Source {
        let oplog = history.known().copied().flatten();
        let read = position.read.as_ref().map(|checkpoint| checkpoint.last.0);
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
            snapshot: position.read.as_ref().map(|checkpoint| {
                let (state, rows) = match checkpoint.snapshot {
                    SnapshotState::Running { rows, .. } => ("running", rows),
                    SnapshotState::Sweeping { rows, .. } => ("sweeping", rows),
                    SnapshotState::Done { rows, .. } => ("done", rows),
                };
                let scope = checkpoint.scope.iter().map(|due| due.target.clone()).collect();
                Snapshot { state, rows, of: None, rows_per_second: None, eta_seconds: None, scope }
            }),
            damage: position.damage.clone(),
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

/// The last audit of the first index. Processes of earlier releases report the only index without its name.
fn first_audit(indexes: &[IndexOverview], figures: &[Figures]) -> Option<Audit> {
    match indexes {
        [] => audit(figures),
        [only] => audit_of(figures, &only.name).or_else(|| audit(figures)),
        [first, ..] => audit_of(figures, &first.name),
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
