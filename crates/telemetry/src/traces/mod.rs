//! Exports the stages' spans to a collector as OTLP over HTTP, through the OpenTelemetry SDK.
//!
//! **Never blocks**: a stage hands its spans to the SDK's batch processor and continues. At most
//! [`TracesOptions::queue`] spans wait; spans that do not fit, or that the collector rejects, are dropped and counted.
//! The SDK does not report what it drops, so that the limit is enforced here, before its queue of the same size.
//! **Rate-limited logs**: an outage of the collector is logged when it begins, less and less often while it lasts, and
//! when it ends, with the number of dropped spans.
//! **Shutdown**: waiting spans are sent once, within the caller's timeout, such as [`FLUSH`].
//!
//! ```text
//!  stage ──record──▶ Queue ──▶ BatchSpanProcessor ──thread──▶ CollectorExporter ──▶ Collector
//! ```

mod collector;
mod encode;
mod export_log;
mod exporter;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SpanProcessor as _};
use tidewheel_core::ports::PortResult;
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tidewheel_core::trace::{SamplingRatio, Span, Spans, Tracer};
use tokio_util::sync::CancellationToken;

use collector::Collector;
use encode::{Resources, scope, span_data};
use export_log::{Counts, ExportLog};
use exporter::CollectorExporter;

/// Timeout for sending the waiting spans at shutdown, after the services have stopped.
pub const FLUSH: Duration = Duration::from_secs(1);

/// Where and how to export traces.
#[derive(Clone, Debug)]
pub struct TracesOptions {
    /// The collector's base URL, to which `/v1/traces` is added.
    pub endpoint: Secret,
    /// Whether the endpoint is the whole URL instead, to which nothing is added.
    pub endpoint_is_whole: bool,
    /// Sampling ratio of changes.
    pub ratio: SamplingRatio,
    /// Headers for the collector, as comma-separated `name=value`.
    pub headers: Option<Secret>,
    /// Whether a value is one of the standard variables, which may be meant for another program: if it is invalid, this
    /// process has no traces.
    pub is_ambient: bool,
    /// Whether the values of the headers are percent-encoded.
    pub headers_are_encoded: bool,
    /// Private CA and client certificate.
    pub tls: ClientTls,
    /// Timeout of one request.
    pub timeout: Duration,
    /// `service.name`; `tidewheel-` and the service's name by default.
    pub service_name: Option<String>,
    /// More attributes of the resource, as comma-separated `name=value` with percent-encoded values.
    pub resource_attributes: Option<String>,
    /// Maximum number of waiting spans. A span takes about a kilobyte of memory.
    pub queue: usize,
    /// Maximum number of spans in a request.
    pub batch: usize,
    /// Longest time from the end of a span to its first request, while the collector is reachable.
    pub interval: Duration,
    /// Timeout of a batch with its retries.
    pub export_timeout: Duration,
}

/// Exports the spans of this process's services.
pub struct Exporter {
    ratio: SamplingRatio,
    queue: Queue,
    finish: CancellationToken,
}

impl Exporter {
    /// Starts the export. `process` is this process's unique name. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If the endpoint, the headers or the TLS files are invalid.
    pub fn start(options: &TracesOptions, process: &str) -> PortResult<Self> {
        let collector = Collector::new(options)?;
        let finish = CancellationToken::new();
        let counts = Arc::new(Counts::new(options.queue));
        let log = ExportLog::new(collector.shown(), counts.clone());
        let resources = Resources::new(options, process);
        let exporter = CollectorExporter::new(collector, resources, log, options.export_timeout, finish.clone());
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(options.queue)
            .with_max_export_batch_size(options.batch)
            .with_scheduled_delay(options.interval)
            .build();
        let processor = Arc::new(BatchSpanProcessor::new(exporter, config));
        Ok(Self { ratio: options.ratio, queue: Queue { processor, counts }, finish })
    }

    /// Returns the tracer of a service.
    pub fn tracer(&self, service: &'static str) -> Tracer {
        Tracer::new(self.ratio, Arc::new(Recorder { scope: scope(service), queue: self.queue.clone() }))
    }

    /// Sends the waiting spans within the timeout, and stops.
    pub async fn finish(self, timeout: Duration) {
        self.finish.cancel();
        let processor = self.queue.processor.clone();
        // Returns within the timeout, also if the collector does not answer.
        let stopping = tokio::task::spawn_blocking(move || processor.shutdown_with_timeout(timeout));
        let _ = stopping.await;
        self.queue.counts.finish();
    }
}

/// Sends the collector an empty request; returns its address, and why it rejected the request, if so.
///
/// # Errors
/// If the endpoint, the headers or the TLS files are invalid.
pub async fn probe(options: &TracesOptions) -> PortResult<(String, Option<String>)> {
    let collector = Collector::new(options)?;
    // A request without spans is an empty message.
    let rejected = collector.post(bytes::Bytes::new()).await.err().map(|error| error.cause);
    Ok((collector.shown(), rejected))
}

/// The SDK's queue, with a limit that counts.
#[derive(Clone)]
struct Queue {
    processor: Arc<BatchSpanProcessor>,
    counts: Arc<Counts>,
}

/// A service's end of the queue.
struct Recorder {
    scope: InstrumentationScope,
    queue: Queue,
}

impl Spans for Recorder {
    fn record(&self, mut spans: Vec<Span>) {
        spans.truncate(self.queue.counts.admit(spans.len()));
        for span in spans {
            self.queue.processor.on_end(span_data(span, &self.scope));
        }
    }
}
