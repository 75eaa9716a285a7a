//! Publishes this process's status in Redis every few seconds, for `status`, `monitor` and the console on any machine.
//!
//! One small text per process in one hash, independent of the number of documents. Without Redis nothing is published; nothing else
//! depends on it.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tidewheel_core::metric;
use tidewheel_stores::redis::RedisStore;
use tidewheel_telemetry::recorder::Metrics;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Ready;
use crate::exit::Failure;
use crate::overview::{Report, ServiceState};

/// Report interval.
const INTERVAL: Duration = Duration::from_secs(3);

/// Window of the growth rates.
const MINUTE: Duration = Duration::from_secs(60);

/// Timeout of a Redis call.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Metrics in the report.
const MEASURED: &[&str] = &[
    metric::PROGRESS,
    metric::PRODUCER_SAVED,
    metric::PRODUCER_LAG,
    metric::SNAPSHOT_EXPECTED,
    metric::PROCESSOR_TOKENS_SAVED,
    metric::EMBEDDER_TOKENS,
    metric::EMBEDDER_QUEUE_TOKENS,
    metric::REJECTED_VECTORS,
    metric::DRIFT,
    metric::AUDITED,
    metric::ERRORS,
    metric::RETRIES,
];

/// Counters whose growth within a minute is reported.
const GROWING: &[&str] = &[metric::SEARCHABLE, metric::EMBEDDER_TOKENS, metric::ERRORS, metric::RETRIES];

pub(super) struct Reporter {
    pub(super) process: String,
    pub(super) operations: Option<String>,
    pub(super) services: Vec<(&'static str, Ready)>,
    pub(super) redis: RedisStore,
    pub(super) metrics: Metrics,
}

impl Reporter {
    /// Reports until `shutdown`, then removes the report.
    pub(super) async fn run(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut past: VecDeque<(Instant, BTreeMap<String, f64>)> = VecDeque::new();
        loop {
            let report = self.report(begun, &mut past);
            let text = serde_json::to_string(&report).expect("a report is plain data");
            match tokio::time::timeout(TIMEOUT, self.redis.publish(&self.process, &text)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!("failed to publish the status report: {error}"),
                Err(_) => debug!("failed to publish the status report: no answer"),
            }
            if tokio::time::timeout(INTERVAL, shutdown.cancelled()).await.is_ok() {
                break;
            }
        }
        // If this fails, the report expires within a minute.
        let _ = tokio::time::timeout(TIMEOUT, self.redis.withdraw(&self.process)).await;
        Ok(())
    }

    fn report(&self, begun: Instant, past: &mut VecDeque<(Instant, BTreeMap<String, f64>)>) -> Report {
        let now = Instant::now();
        let numbers = self.metrics.numbers();
        let growing: BTreeMap<String, f64> = of(&numbers, GROWING);
        while past.len() > 1 && past.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= MINUTE) {
            past.pop_front();
        }
        // A metric missing a minute ago was zero.
        let before = |name: &str| past.front().and_then(|(_, numbers)| numbers.get(name)).copied().unwrap_or(0.0);
        let minute = growing.iter().map(|(name, number)| (name.clone(), (number - before(name)).max(0.0))).collect();
        past.push_back((now, growing));
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            up_seconds: begun.elapsed().as_secs_f64(),
            operations: self.operations.clone(),
            services: self
                .services
                .iter()
                .map(|(name, readiness)| {
                    let readiness = readiness();
                    ServiceState { service: (*name).to_owned(), ready: readiness.ready, reasons: readiness.reasons }
                })
                .collect(),
            measured: of(&numbers, MEASURED),
            minute,
        }
    }
}

/// Selects metrics by name, without values that JSON cannot represent.
fn of(numbers: &BTreeMap<String, f64>, names: &[&str]) -> BTreeMap<String, f64> {
    let is_of = |key: &str, name: &str| {
        key.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('{') || rest.starts_with("_bucket{"))
    };
    numbers
        .iter()
        .filter(|(key, value)| value.is_finite() && names.iter().any(|name| is_of(key, name)))
        .map(|(key, value)| (key.clone(), *value))
        .collect()
}
