//! Exports the stages' spans to a collector as OTLP over HTTP.
//!
//! **Never blocks**: a stage enqueues its spans and continues. The queue holds at most [`WAITING`] spans; spans that do not fit, or
//! that the collector rejects, are dropped and counted.
//! **Rate-limited logs**: an outage of the collector is logged when it begins, less and less often while it lasts, and when it ends,
//! with the number of dropped spans.
//! **Shutdown**: queued spans are sent once, within [`FLUSH`].

mod collector;
mod encode;
mod sender;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tidewheel_core::ports::Spans;
use tidewheel_core::trace::{Span, Tracer};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Kind;
use crate::exit::Failure;
use crate::settings::{Settings, Traces};
use collector::Collector;
use encode::Process;
use sender::Sender;

/// Queue limit in spans: ten seconds of a busy pipeline. A span takes about a kilobyte of memory, and a few with the longest texts
/// ([`tidewheel_core::trace::TEXT`]): some 20 MB, and less than 100 MB for any `_id`s.
const WAITING: usize = 20_000;

/// Spans at which a request is full, and maximum batch size: the last batch may take a request to twice as many. At some hundred
/// bytes each that is about a megabyte, and a few with the longest texts.
const REQUEST: usize = 1_000;

/// Timeout for sending the queue at shutdown, after the services have stopped.
pub(super) const FLUSH: Duration = Duration::from_secs(1);

/// A batch of spans with its service.
type Batch = (&'static str, Vec<Span>);

/// Exports the spans of this process's services.
pub(super) struct Exporter {
    share: tidewheel_core::trace::Share,
    queue: Queue,
    finish: CancellationToken,
    sending: JoinHandle<()>,
}

impl Exporter {
    /// Starts the export, if traces are enabled and one of these services emits spans.
    pub(super) fn start(settings: &Settings, kinds: &[Kind], process: &str) -> Result<Option<Self>, Failure> {
        let Some(traces) = &settings.traces else { return Ok(None) };
        // The embedder processes texts, not changes, and emits no spans.
        if kinds.iter().all(|kind| *kind == Kind::Embedder) {
            return Ok(None);
        }
        Self::to(traces, process).map(Some)
    }

    fn to(traces: &Traces, process: &str) -> Result<Self, Failure> {
        let collector = Collector::new(traces)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let queue = Queue { sender, counts: Arc::default() };
        let process = Process { instance: process.to_owned() };
        let sender = Sender::new(collector, process, receiver, queue.counts.clone());
        let finish = CancellationToken::new();
        let sending = tokio::spawn(sender.run(finish.clone()));
        Ok(Self { share: traces.share, queue, finish, sending })
    }

    /// Returns the tracer of a service.
    pub(super) fn tracer(&self, kind: Kind) -> Tracer {
        let recorder = Recorder { service: kind.name(), queue: self.queue.clone() };
        Tracer::new(self.share, Arc::new(recorder))
    }

    /// Sends the queue within the timeout, and stops.
    pub(super) async fn finish(mut self, timeout: Duration) {
        self.finish.cancel();
        if tokio::time::timeout(timeout, &mut self.sending).await.is_err() {
            self.sending.abort();
        }
        let left = self.queue.counts.waiting.load(Ordering::Relaxed);
        if left > 0 {
            warn!(dropped = left, "shutting down before all traces were sent");
        }
    }
}

/// Sends the collector an empty request; returns its address, and why it rejected the request, if so.
pub(crate) async fn probe(traces: &Traces) -> Result<(String, Option<String>), Failure> {
    let collector = Collector::new(traces)?;
    // A request without spans is an empty message.
    let rejected = collector.post(bytes::Bytes::new()).await.err().map(|refusal| refusal.cause);
    Ok((collector.shown(), rejected))
}

/// The span queue.
#[derive(Clone)]
struct Queue {
    sender: mpsc::UnboundedSender<Batch>,
    counts: Arc<Counts>,
}

/// Counters shared by the queue and its reader.
#[derive(Default)]
struct Counts {
    /// Spans queued and neither sent nor dropped.
    waiting: AtomicUsize,
    /// Spans dropped because the queue was full.
    no_room: AtomicU64,
}

/// A service's sender of the queue.
struct Recorder {
    service: &'static str,
    queue: Queue,
}

impl Spans for Recorder {
    fn record(&self, mut spans: Vec<Span>) {
        while !spans.is_empty() {
            let rest = spans.split_off(spans.len().min(REQUEST));
            self.queue.push(self.service, spans);
            spans = rest;
        }
    }
}

impl Queue {
    fn push(&self, service: &'static str, spans: Vec<Span>) {
        let (count, counts) = (spans.len(), &self.counts);
        if counts.waiting.fetch_add(count, Ordering::Relaxed) + count > WAITING
            || self.sender.send((service, spans)).is_err()
        {
            counts.waiting.fetch_sub(count, Ordering::Relaxed);
            counts.no_room.fetch_add(count as u64, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tidewheel_core::trace::{SpanId, SpanKind, TraceId};

    use super::*;

    #[tokio::test]
    async fn queue_drops_spans_beyond_its_limit_and_never_waits() {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let queue = Queue { sender, counts: Arc::default() };
        let recorder = Recorder { service: "producer", queue: queue.clone() };
        let span = Span {
            trace: TraceId([1; 16]),
            id: SpanId([1; 8]),
            parent: None,
            name: "change",
            kind: SpanKind::Producer,
            began: SystemTime::UNIX_EPOCH,
            ended: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            error: None,
        };
        recorder.record(vec![span; WAITING + REQUEST + 1]);
        assert_eq!(queue.counts.waiting.load(Ordering::Relaxed), WAITING);
        assert_eq!(queue.counts.no_room.load(Ordering::Relaxed), REQUEST as u64 + 1);
        let mut taken = 0;
        while let Ok((service, spans)) = receiver.try_recv() {
            assert!(service == "producer" && spans.len() <= REQUEST);
            taken += spans.len();
        }
        assert_eq!(taken, WAITING);
    }
}
