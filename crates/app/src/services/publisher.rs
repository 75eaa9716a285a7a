//! Publishes this process's report in Redis every few seconds, for `status`, `monitor` and the console on any machine.
//!
//! One small text per process in one hash, independent of the number of documents. Without Redis nothing is published; nothing else
//! depends on it.

use std::time::Duration;

use tidewheel_core::report::{ProcessReport, ServiceReport, SettingsReport};
use tidewheel_stores::redis::RedisStore;
use tidewheel_stores::redis::layout::LAYOUT;
use tidewheel_telemetry::reporter::Reporter;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Ready;
use crate::exit::Failure;
use crate::settings::Settings;

/// Report interval.
const INTERVAL: Duration = Duration::from_secs(3);

/// Timeout of a Redis call.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What these settings declare. The short form declares an index only where the database is set: other services may have
/// parts of it.
pub(super) fn declared(settings: &Settings) -> SettingsReport {
    let declares = settings.is_declared() || settings.mongodb.database.is_some();
    let declarations = settings.declarations().into_iter().filter(|_| declares);
    SettingsReport {
        indexes: declarations.map(|one| (one.name.clone(), one.fingerprint().to_string())).collect(),
        embeddings: settings.embedding_names().map(str::to_owned).collect(),
    }
}

/// Publishes the reports of one process.
pub(super) struct Publisher {
    pub(super) process: String,
    pub(super) operations: Option<String>,
    pub(super) services: Vec<(&'static str, Ready)>,
    pub(super) redis: RedisStore,
    pub(super) reporter: Reporter,
}

impl Publisher {
    /// Publishes until `shutdown`, then withdraws the report.
    pub(super) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Failure> {
        loop {
            let text = serde_json::to_string(&self.report()).expect("a report is plain data");
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

    fn report(&mut self) -> ProcessReport {
        let services = self.services.iter().map(|(name, readiness)| {
            let readiness = readiness();
            ServiceReport { service: (*name).to_owned(), ready: readiness.ready, reasons: readiness.reasons }
        });
        let services = services.collect();
        self.reporter.report(LAYOUT, self.operations.as_deref(), services)
    }
}
