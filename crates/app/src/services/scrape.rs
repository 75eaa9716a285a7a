//! What the process measures, and how it is handed out.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use metrics::{describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tidewheel_core::ports::StageStatus;
use tidewheel_embed::service::Render;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

/// Entries in a stream, confirmed ones included.
const LENGTH: &str = "tidewheel_stream_entries";
/// Entries that the group has not been given yet.
const LAG: &str = "tidewheel_stream_lag_entries";
/// Entries given to a consumer and not confirmed.
const PENDING: &str = "tidewheel_stream_pending_entries";
/// Age of the oldest entry that is not confirmed.
const OLDEST: &str = "tidewheel_stream_oldest_unconfirmed_seconds";
/// Entries given up.
const DEAD_LETTERS: &str = "tidewheel_dead_letters_entries";
/// Whether a service is ready.
const READY: &str = "tidewheel_ready";

/// Histograms collect samples that have to be folded from time to time.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder of this process; there can be only one.
static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// A handle to what the process has recorded.
#[derive(Clone)]
pub(super) struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the recorder, once.
    pub(super) fn install() -> Result<Self, Failure> {
        if let Some(handle) = RECORDER.get() {
            return Ok(Self(handle.clone()));
        }
        let handle = PrometheusBuilder::new()
            .install_recorder()
            .map_err(|error| Failure::new(format!("cannot record metrics: {error}")))?;
        describe_gauge!(LENGTH, "Entries in the stream, confirmed ones that are kept for replay included");
        describe_gauge!(LAG, "Entries that the group has not been given yet");
        describe_gauge!(PENDING, "Entries given to a consumer and not yet confirmed");
        describe_gauge!(OLDEST, "Age of the oldest entry that is not confirmed, in seconds");
        describe_gauge!(DEAD_LETTERS, "Entries given up, with their reason");
        describe_gauge!(READY, "Whether the service can do its work: 1 or 0");
        Ok(Self(RECORDER.get_or_init(|| handle).clone()))
    }

    /// For whoever shows the text.
    pub(super) fn render(&self) -> Render {
        let handle = self.0.clone();
        Arc::new(move || handle.render())
    }

    /// Keeps the recorder small until `shutdown`.
    pub(super) async fn keep(self, shutdown: CancellationToken) -> Result<(), Failure> {
        while tokio::time::timeout(UPKEEP, shutdown.cancelled()).await.is_err() {
            self.0.run_upkeep();
        }
        Ok(())
    }

    /// Records a stage as it is now.
    pub(super) fn stage(status: &StageStatus) {
        let set = |name: &'static str, value: f64| gauge!(name, "stream" => status.stream.clone()).set(value);
        set(LENGTH, status.length as f64);
        // Redis cannot always tell; a number that is not known is not shown as zero.
        set(LAG, status.lag.map_or(f64::NAN, |lag| lag as f64));
        set(PENDING, status.pending as f64);
        set(OLDEST, status.oldest_age_ms.map_or(0.0, |millis| millis as f64 / 1000.0));
        set(DEAD_LETTERS, status.dead_letters as f64);
    }

    /// Records whether a service is ready.
    pub(super) fn ready(service: &'static str, ready: bool) {
        gauge!(READY, "service" => service).set(if ready { 1.0 } else { 0.0 });
    }
}
