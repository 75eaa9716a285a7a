//! The process's metrics and their Prometheus exposition.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidewheel_core::metric::{self, Kind};
use tidewheel_core::stage;
use tidewheel_embed::service::Render;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use crate::overview::{CODES, Overview, Stage};

/// Interval at which the recorder aggregates histogram samples.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder; at most one per process.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// A handle to the recorded metrics.
#[derive(Clone)]
pub(super) struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder, once.
    pub(super) fn install() -> Result<Self, Failure> {
        if let Some(handle) = RECORDER.get() {
            return Ok(Self(handle.clone()));
        }
        let failed = |error: &dyn std::fmt::Display| Failure::new(format!("failed to set up metrics: {error}"));
        let mut builder = PrometheusBuilder::new();
        for meter in metric::ALL.iter().filter(|meter| meter.kind == Kind::Histogram) {
            let buckets = metric::buckets(meter.name);
            builder = builder
                .set_buckets_for_metric(Matcher::Full(meter.name.to_owned()), buckets)
                .map_err(|error| failed(&error))?;
        }
        let handle = if cfg!(feature = "unmeasured") {
            builder.build_recorder().handle()
        } else {
            builder.install_recorder().map_err(|error| failed(&error))?
        };
        for meter in metric::ALL {
            match meter.kind {
                Kind::Counter => describe_counter!(meter.name, meter.help),
                Kind::Gauge => describe_gauge!(meter.name, meter.help),
                Kind::Histogram => describe_histogram!(meter.name, meter.help),
            }
        }
        Ok(Self(RECORDER.get_or_init(|| handle).clone()))
    }

    /// Returns a function that renders the exposition text.
    pub(super) fn render(&self) -> Render {
        let handle = self.0.clone();
        Arc::new(move || handle.render())
    }

    /// Returns every sample: name and labels → value.
    pub(super) fn numbers(&self) -> BTreeMap<String, f64> {
        numbers(&self.0.render())
    }

    /// Runs the recorder's upkeep until `shutdown`.
    pub(super) async fn keep(self, shutdown: CancellationToken) -> Result<(), Failure> {
        while tokio::time::timeout(UPKEEP, shutdown.cancelled()).await.is_err() {
            self.0.run_upkeep();
        }
        Ok(())
    }

    /// Records the servers' numbers from an overview. Unknown values become NaN instead of keeping the last value.
    pub(super) fn overview(overview: &Overview) {
        for (stage, stream) in overview.stages.iter().zip(STREAMS) {
            Self::stage(stream, stage.known());
        }
        let redis = overview.redis.known();
        gauge!(metric::REDIS_MEMORY).set(redis.map_or(f64::NAN, |redis| redis.memory_bytes as f64));
        let limit = redis.map_or(f64::NAN, |redis| redis.memory_limit_bytes.unwrap_or(0) as f64);
        gauge!(metric::REDIS_MEMORY_LIMIT).set(limit);
        let source = overview.source.known();
        let oplog = |name: &'static str, seconds: Option<u64>| {
            gauge!(name).set(seconds.map_or(f64::NAN, |seconds| seconds as f64));
        };
        oplog(metric::OPLOG_WINDOW, source.and_then(|source| source.oplog_window_seconds));
        oplog(metric::OPLOG_TIME_TO_LOSS, source.and_then(|source| source.oplog_time_to_loss_seconds));
        for code in CODES {
            let is_there = overview.problems.iter().any(|problem| problem.code == *code);
            gauge!(metric::PROBLEM, "code" => *code).set(if is_there { 1.0 } else { 0.0 });
        }
    }

    fn stage(stream: &'static str, stage: Option<&Stage>) {
        let set =
            |name: &'static str, value: Option<f64>| gauge!(name, "stream" => stream).set(value.unwrap_or(f64::NAN));
        set(metric::STREAM_ENTRIES, stage.map(|stage| stage.status.length as f64));
        // Redis does not always know the lag; unknown must not appear as zero.
        set(metric::STREAM_LAG, stage.and_then(|stage| stage.status.lag).map(|lag| lag as f64));
        set(metric::STREAM_PENDING, stage.map(|stage| stage.status.pending as f64));
        set(metric::STREAM_BACKLOG, stage.map(|stage| stage.backlog as f64));
        let oldest = stage.map(|stage| stage.status.oldest_age_ms.map_or(0.0, |millis| millis as f64 / 1000.0));
        set(metric::STREAM_OLDEST, oldest);
        set(metric::STREAM_CONSUMERS, stage.map(|stage| stage.alive as f64));
        set(metric::DEAD_LETTERS, stage.map(|stage| stage.status.dead_letters as f64));
        if let Some(stage) = stage {
            counter!(metric::STREAM_APPENDED, "stream" => stream).absolute(stage.status.appended);
        }
    }

    /// Records whether a service is ready.
    pub(super) fn ready(service: &'static str, ready: bool) {
        gauge!(metric::READY, "service" => service).set(if ready { 1.0 } else { 0.0 });
    }
}

const STREAMS: [&str; 2] = [stage::Stage::Raw.name(), stage::Stage::Embedded.name()];

/// Parses the Prometheus text format: name and labels → value.
pub(crate) fn numbers(text: &str) -> BTreeMap<String, f64> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_format_is_parsed() {
        let text = "# TYPE a gauge\na 1\n\nb_bucket{le=\"+Inf\"} 2.5\nc{x=\"y z\"} NaN\n";
        let numbers = numbers(text);
        assert_eq!(numbers["a"], 1.0);
        assert_eq!(numbers["b_bucket{le=\"+Inf\"}"], 2.5);
        assert!(numbers["c{x=\"y z\"}"].is_nan());
        assert_eq!(numbers.len(), 3);
    }
}
