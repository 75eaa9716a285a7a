//! Gathers an overview: probes all servers concurrently, each for at most [`TIMEOUT`].

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tidewheel_core::address;
use tidewheel_core::metric;
use tidewheel_core::ports::{
    Embedder as EmbedderPort, IndexReader as _, Journal as _, PortResult, SnapshotState, StageStatus,
};
use tidewheel_core::stage;
use tidewheel_embed::client::secure;
use tidewheel_stores::mongo::{MongoSource, Oplog};
use tidewheel_stores::qdrant::QdrantIndex;
use tidewheel_stores::redis::RedisStore;
use tokio::sync::OnceCell;

use super::rates::{Rate, Stall, eta, extrapolated};
use super::report::{Report, audit, latency, sum};
use super::{Collection, Embedder, Overview, Probe, Redis, Service, Snapshot, Source, Stage, State, Tokens, Verdict};
use super::{problems, verdict};
use crate::connect;
use crate::services::numbers;
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
    /// `None` if the TLS files are invalid, which the embedder's client reports.
    http: Option<reqwest::Client>,
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
            http: http(settings),
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
            probe(self.timeout, self.stage(stage::Stage::Raw)),
            probe(self.timeout, self.stage(stage::Stage::Embedded)),
            probe(self.timeout, self.reports()),
            probe(self.timeout, self.redis()),
            probe(self.timeout, self.place()),
            probe(self.timeout, self.mongo()),
            probe(self.timeout, self.collection()),
            probe(self.timeout, self.embedder()),
        );
        let passed_over = self.passed_over(&collection).await;
        let now = Instant::now();
        let published = published.known().cloned().unwrap_or_default();
        let reports: Vec<Report> = published.iter().map(|(_, _, report)| report.clone()).collect();
        let measured = || reports.iter().map(|report| &report.measured);
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let [memory_1, memory_2] = &mut memory.stages;
        let stages = [
            one.map(|status| memory_1.look(now, status, idle(&reports, "processor"))),
            two.map(|status| memory_2.look(now, status, idle(&reports, "upserter"))),
        ];
        let source = memory.place(place).map(|place| {
            let source = Source { passed_over, ..self.source(place, &mongo) };
            self.with_reports(source, &reports, &mut memory.rows, now)
        });
        let embedder = embedder.map(|(mut embedder, own): (Embedder, BTreeMap<String, f64>)| {
            let number = |name| sum(measured(), name).or_else(|| sum([&own].into_iter(), name));
            embedder.queued_tokens = number(metric::EMBEDDER_QUEUE_TOKENS).map(|tokens| tokens as u64);
            let tokens = number(metric::EMBEDDER_TOKENS);
            embedder.tokens_per_second = tokens.and_then(|tokens| memory.tokens.look(now, tokens));
            embedder.tokens = tokens.map(|tokens| tokens as u64);
            embedder
        });
        let embedded = embedder.known().and_then(|embedder| embedder.tokens);
        let tokens = embedded.map(|embedded| Tokens {
            embedded,
            saved: sum(measured(), metric::PROCESSOR_TOKENS_SAVED).unwrap_or(0.0) as u64,
        });
        let mut overview = Overview {
            at_ms: times::now_ms(),
            verdict: Verdict {
                state: State::Unknown,
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
            latency: latency(&reports, metric::SEARCHABLE),
            audit: audit(&reports),
            tokens,
            services: services(&published),
        };
        overview.problems = problems::problems(&overview, &self.settings.monitor.thresholds);
        overview.verdict = verdict::verdict(&overview, &overview.problems);
        overview
    }

    fn store(&self) -> PortResult<&RedisStore> {
        self.redis.as_ref().map_err(Clone::clone)
    }

    async fn stage(&self, stage: stage::Stage) -> PortResult<StageStatus> {
        self.store()?.status(stage).await
    }

    /// Reports by process, with their age in milliseconds.
    async fn reports(&self) -> PortResult<Vec<(String, u64, Report)>> {
        let published = self.store()?.published().await?;
        // Skip reports of other versions that this one cannot parse.
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
        let store = self.store()?;
        let (read, applied, positions) = tokio::join!(store.load(), store.applied(), store.positions());
        Ok(Place {
            read: read?.map(|checkpoint| (checkpoint.last.0, checkpoint.snapshot)),
            applied: applied?.map(|checkpoint| checkpoint.last.0.seconds),
            damage: positions?.damage.map(|damage| damage.to_string()),
        })
    }

    /// The oplog window; `None` if no database is set, or the oplog is not readable.
    async fn mongo(&self) -> PortResult<Option<Oplog>> {
        let Ok(options) = connect::mongo_options(&self.settings, "the overview") else { return Ok(None) };
        self.mongo.get_or_try_init(|| connect::source(options)).await?.oplog().await
    }

    /// Collections outside the selection; queried only if the index is empty.
    async fn passed_over(&self, collection: &Probe<Collection>) -> Vec<String> {
        let empty = collection.known().is_some_and(|collection| collection.points.unwrap_or(0) == 0);
        let Some(mongo) = self.mongo.get().filter(|_| empty) else { return Vec::new() };
        probe(self.timeout, mongo.passed_over()).await.known().cloned().unwrap_or_default()
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

    async fn embedder(&self) -> PortResult<(Embedder, BTreeMap<String, f64>)> {
        let measured = self.embedder_numbers().await;
        // The client caches the embedder's info, so only a fresh one detects an outage. With other providers that request would
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
        Ok((embedder, measured))
    }

    /// Metrics scraped from the tidewheel embedder, which may not reach Redis to report there; empty if that fails.
    async fn embedder_numbers(&self) -> BTreeMap<String, f64> {
        let Provider::Tidewheel { url, token } = &self.settings.embedding.provider else { return BTreeMap::new() };
        let ask = async {
            let http = self.http.as_ref()?;
            let request = http.get(format!("{}/metrics", url.trim_end_matches('/'))).timeout(self.timeout);
            let request = match token {
                Some(token) => request.bearer_auth(token.reveal()),
                None => request,
            };
            request.send().await.ok()?.error_for_status().ok()?.text().await.ok()
        };
        ask.await.map(|text| numbers(&text)).unwrap_or_default()
    }

    fn source(&self, place: Place, mongo: &Probe<Option<Oplog>>) -> Source {
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

    /// Adds the producer's metrics to the source.
    fn with_reports(&self, mut source: Source, reports: &[Report], rows: &mut Rate, now: Instant) -> Source {
        let measured = |name| sum(reports.iter().map(|report| &report.measured), name);
        source.checkpoint_age_seconds = measured(metric::PRODUCER_SAVED).map(|at| (times::now_seconds() - at).max(0.0));
        if let Some(snapshot) = source.snapshot.as_mut().filter(|snapshot| snapshot.state == "running") {
            snapshot.of = measured(metric::SNAPSHOT_EXPECTED).map(|of| of as u64);
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
    fn look(&mut self, now: Instant, status: StageStatus, idle: Option<f64>) -> Stage {
        let backlog = status.lag.unwrap_or(status.length) + status.pending;
        let confirmed = status.appended.saturating_sub(backlog);
        let in_per_second = self.appended.look(now, status.appended as f64);
        let out_per_second = self.confirmed.look(now, confirmed as f64);
        let stalled = self.stall.look(now, confirmed, backlog).as_secs_f64();
        // Idling without a backlog is not a stall.
        let waiting = status.oldest_age_ms.map_or(0.0, |millis| millis as f64 / 1e3);
        let stalled_seconds = if backlog == 0 { 0.0 } else { stalled.max(idle.unwrap_or(0.0).min(waiting)) };
        Stage {
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

/// An HTTP client with the embedder's TLS settings.
fn http(settings: &Settings) -> Option<reqwest::Client> {
    let pem = settings.embedding.tls.read("embedding.").ok()?;
    secure(tidewheel_http::builder(connect::embedder_url(settings)), &pem).ok()?.build().ok()
}

/// Seconds since the last progress in any of these services; `None` if none reported progress.
fn idle(reports: &[Report], service: &str) -> Option<f64> {
    let name = format!("{}{{service=\"{service}\"}}", metric::PROGRESS);
    let last = reports.iter().filter_map(|report| report.measured.get(&name)).copied().max_by(f64::total_cmp)?;
    Some((times::now_seconds() - last).max(0.0))
}

fn services(published: &[(String, u64, Report)]) -> Vec<Service> {
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
        }));
    }
    services.sort_by(|a, b| (&a.service, &a.process).cmp(&(&b.service, &b.process)));
    services
}

async fn probe<T>(timeout: Duration, answer: impl Future<Output = PortResult<T>>) -> Probe<T> {
    match tokio::time::timeout(timeout, answer).await {
        Ok(Ok(answer)) => Probe::Known(answer),
        Ok(Err(error)) => Probe::Unknown(error.message),
        Err(_) => Probe::Unknown(format!("no answer within {} s", timeout.as_secs())),
    }
}
