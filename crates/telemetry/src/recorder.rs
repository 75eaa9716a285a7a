//! Records the process's metrics and renders them for Prometheus.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tidewheel_core::metric::{self, Kind};
use tokio_util::sync::CancellationToken;

use crate::registry::{Recording, Registry};
use crate::reporter::Reporter;

/// Interval at which the recorder aggregates histogram samples.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder; at most one per process.
static RECORDER: OnceLock<Metrics> = OnceLock::new();

/// Why the recorder was not installed.
#[derive(Debug, thiserror::Error)]
#[error("failed to set up metrics: {0}")]
pub struct InstallError(String);

/// A handle to the recorded metrics.
#[derive(Clone)]
pub struct Metrics {
    prometheus: PrometheusHandle,
    registry: Arc<Registry>,
}

impl Metrics {
    /// Installs the recorder, once. With `recording` off nothing is recorded, and `/metrics` is empty.
    ///
    /// # Errors
    /// If another recorder has been installed.
    pub fn install(recording: bool) -> Result<Self, InstallError> {
        if let Some(installed) = RECORDER.get() {
            return Ok(installed.clone());
        }
        let failed = |error: &dyn std::fmt::Display| InstallError(error.to_string());
        let mut builder = PrometheusBuilder::new();
        for metric in metric::ALL.iter().filter(|metric| metric.kind == Kind::Histogram) {
            builder = builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), metric::buckets(metric.name))
                .map_err(|error| failed(&error))?;
        }
        let inner = builder.build_recorder();
        let installed = Self { prometheus: inner.handle(), registry: Arc::new(Registry::new()) };
        if recording {
            let recorder = Recording { inner, registry: installed.registry.clone() };
            metrics::set_global_recorder(recorder).map_err(|error| failed(&error))?;
        }
        for metric in metric::ALL {
            match metric.kind {
                Kind::Counter => describe_counter!(metric.name, metric.help),
                Kind::Gauge => describe_gauge!(metric.name, metric.help),
                Kind::Histogram => describe_histogram!(metric.name, metric.help),
            }
        }
        Ok(RECORDER.get_or_init(|| installed).clone())
    }

    /// Renders the exposition text.
    pub fn render(&self) -> String {
        self.prometheus.render()
    }

    /// Returns the maker of this process's reports.
    pub fn reporter(&self) -> Reporter {
        Reporter::new(self.registry.clone())
    }

    /// Runs the recorder's upkeep until `shutdown`.
    pub async fn keep(self, shutdown: CancellationToken) {
        while tokio::time::timeout(UPKEEP, shutdown.cancelled()).await.is_err() {
            self.prometheus.run_upkeep();
        }
    }

    /// Records whether a service is ready.
    pub fn ready(service: &'static str, ready: bool) {
        gauge!(metric::READY, "service" => service).set(if ready { 1.0 } else { 0.0 });
    }
}
