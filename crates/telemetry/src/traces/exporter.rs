//! The SDK's exporter: encodes a batch and sends it, with retries.
//!
//! The exporter of `opentelemetry-otlp` is not used: its headers from the environment override explicit ones, and it
//! reports neither the cause of a failure nor the spans that a collector rejects.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prost::Message as _;
use tidewheel_core::error::no_answer_within;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::collector::{Collector, ExportError};
use super::encode::Resources;
use super::export_log::ExportLog;

/// Attempts for a retryable request.
const ATTEMPTS: u32 = 3;

/// Backoff after the first failure; doubled each time.
const BACKOFF: Duration = Duration::from_secs(1);

/// Exports batches of spans to a collector.
pub(super) struct CollectorExporter {
    sender: Arc<Sender>,
    runtime: Handle,
}

struct Sender {
    collector: Collector,
    resources: Resources,
    log: ExportLog,
    timeout: Duration,
    /// Cancelled at shutdown: from then on each batch is sent once.
    finish: CancellationToken,
}

impl CollectorExporter {
    pub(super) fn new(
        collector: Collector,
        resources: Resources,
        log: ExportLog,
        timeout: Duration,
        finish: CancellationToken,
    ) -> Self {
        let sender = Sender { collector, resources, log, timeout, finish };
        Self { sender: Arc::new(sender), runtime: Handle::current() }
    }
}

impl fmt::Debug for CollectorExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorExporter").finish_non_exhaustive()
    }
}

impl SpanExporter for CollectorExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let (sender, spans) = (self.sender.clone(), batch.len());
        // The processor's thread is not one of the runtime.
        let sent = self.runtime.spawn(async move { sender.export(batch).await }).await;
        sent.map_err(|error| {
            let cause = error.to_string();
            self.sender.log.settle(spans, Err(ExportError { cause: cause.clone(), again: false, spans: None }));
            OTelSdkError::InternalFailure(cause)
        })
    }
}

impl Sender {
    async fn export(&self, batch: Vec<SpanData>) {
        let spans = batch.len();
        let body = Bytes::from(self.resources.request(batch).encode_to_vec());
        let sent = tokio::time::timeout(self.timeout, self.send(body))
            .await
            .unwrap_or_else(|_| Err(ExportError { cause: no_answer_within(self.timeout), again: true, spans: None }));
        self.log.settle(spans, sent);
    }

    async fn send(&self, body: Bytes) -> Result<(), ExportError> {
        let mut backoff = BACKOFF;
        for _ in 1..ATTEMPTS {
            match self.collector.post(body.clone()).await {
                Err(error) if error.again && !self.finish.is_cancelled() => self.log.fails(&error.cause),
                settled => return settled,
            }
            tokio::select! {
                () = tokio::time::sleep(backoff) => {}
                () = self.finish.cancelled() => {}
            }
            backoff *= 2;
        }
        self.collector.post(body).await
    }
}
