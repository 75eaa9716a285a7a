//! Records the process's metrics and renders them for Prometheus.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tidewheel_core::metric::{self, Kind};
use tokio_util::sync::CancellationToken;

/// Interval at which the recorder aggregates histogram samples.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder; at most one per process.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Why the recorder was not installed.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up metrics: {0}")]
pub struct InstallError(#[from] BuildError);

/// A handle to the recorded metrics.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder, once. With `recording` off nothing is recorded, and `/metrics` is empty.
    ///
    /// # Errors
    /// If another recorder has been installed.
    pub fn install(recording: bool) -> Result<Self, InstallError> {
        if let Some(handle) = RECORDER.get() {
            return Ok(Self(handle.clone()));
        }
        let mut builder = PrometheusBuilder::new();
        for metric in metric::ALL.iter().filter(|metric| metric.kind == Kind::Histogram) {
            builder =
                builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric::buckets(metric.name))?;
        }
        let handle = if recording { builder.install_recorder()? } else { builder.build_recorder().handle() };
        for metric in metric::ALL {
            match metric.kind {
                Kind::Counter => describe_counter!(metric.name, metric.help),
                Kind::Gauge => describe_gauge!(metric.name, metric.help),
                Kind::Histogram => describe_histogram!(metric.name, metric.help),
            }
        }
        Ok(Self(RECORDER.get_or_init(|| handle).clone()))
    }

    /// Renders the exposition text.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Returns every sample: name and labels → value.
    pub fn numbers(&self) -> BTreeMap<String, f64> {
        numbers(&self.0.render())
    }

    /// Runs the recorder's upkeep until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        while tokio::time::timeout(UPKEEP, shutdown.cancelled()).await.is_err() {
            self.0.run_upkeep();
        }
    }

    /// Records whether a service is ready.
    pub fn ready(service: &'static str, ready: bool) {
        gauge!(metric::READY, "service" => service).set(if ready { 1.0 } else { 0.0 });
    }
}

/// Parses the Prometheus text format: name and labels → value.
pub fn numbers(text: &str) -> BTreeMap<String, f64> {
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
