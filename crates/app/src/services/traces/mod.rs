//! Traces: what the stages tell of each change, sent to a collector as OTLP over HTTP.
//!
//! **Never in the way**: a stage hands its spans over and goes on. They wait in a queue of [`WAITING`] spans at most; what does not
//! fit, and what the collector does not take, is dropped and counted.
//! **Not a flood**: a collector that is away is a line in the log when it begins, less and less often while it lasts, and one
//! when it is over, with the number of spans that were dropped.
//! **At the end** what waits is sent once more, within [`FLUSH`].

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

/// Most spans that wait to be sent: ten seconds of a busy pipeline. A span is about a kilobyte in memory, and a few more if it has
/// the longest texts there are ([`tidewheel_core::trace::TEXT`]): some 20 MB, and less than 100 MB whatever the `_id`s.
const WAITING: usize = 20_000;

/// Spans at which a request is full, and most that are handed over together: what comes last may take it to twice as many. With some
/// hundred bytes for each it is about a megabyte then, and with the longest texts a few.
const REQUEST: usize = 1_000;

/// How long the end of the process waits for what is still to be sent. The services have stopped by then.
pub(super) const FLUSH: Duration = Duration::from_secs(1);

/// Spans that were handed over together, with the service that tells them.
type Batch = (&'static str, Vec<Span>);

/// Sends what the services of this process tell.
pub(super) struct Exporter {
    share: tidewheel_core::trace::Share,
    queue: Queue,
    finish: CancellationToken,
    sending: JoinHandle<()>,
}

impl Exporter {
    /// Starts to send, if traces are on and one of these services has something to tell.
    pub(super) fn start(settings: &Settings, kinds: &[Kind], process: &str) -> Result<Option<Self>, Failure> {
        let Some(traces) = &settings.traces else { return Ok(None) };
        // The embedder sees texts, not changes.
        if kinds.iter().all(|kind| *kind == Kind::Embedder) {
            return Ok(None);
        }
        Self::to(traces, process).map(Some)
    }

    fn to(traces: &Traces, process: &str) -> Result<Self, Failure> {
        let collector = Collector::new(traces)?;
        let (sender, told) = mpsc::unbounded_channel();
        let queue = Queue { told: sender, counts: Arc::default() };
        let process = Process { instance: process.to_owned() };
        let sender = Sender::new(collector, process, told, queue.counts.clone());
        let finish = CancellationToken::new();
        let sending = tokio::spawn(sender.run(finish.clone()));
        Ok(Self { share: traces.share, queue, finish, sending })
    }

    /// Takes what this service tells.
    pub(super) fn tracer(&self, kind: Kind) -> Tracer {
        let recorder = Recorder { service: kind.name(), queue: self.queue.clone() };
        Tracer::new(self.share, Arc::new(recorder))
    }

    /// Sends what waits, for so long at most, and ends.
    pub(super) async fn finish(mut self, patience: Duration) {
        self.finish.cancel();
        if tokio::time::timeout(patience, &mut self.sending).await.is_err() {
            self.sending.abort();
        }
        let left = self.queue.counts.waiting.load(Ordering::Relaxed);
        if left > 0 {
            warn!(dropped = left, "the end comes before a collector has taken all traces");
        }
    }
}

/// Asks the collector to take nothing; says where it is and why it refused, if it did.
pub(crate) async fn probe(traces: &Traces) -> Result<(String, Option<String>), Failure> {
    let collector = Collector::new(traces)?;
    // No spans make an empty message.
    let refused = collector.post(bytes::Bytes::new()).await.err().map(|refusal| refusal.cause);
    Ok((collector.shown(), refused))
}

/// Where spans wait.
#[derive(Clone)]
struct Queue {
    told: mpsc::UnboundedSender<Batch>,
    counts: Arc<Counts>,
}

/// What the queue and its reader share.
#[derive(Default)]
struct Counts {
    /// Spans that have been told and neither sent nor dropped.
    waiting: AtomicUsize,
    /// Spans for which there was no room.
    no_room: AtomicU64,
}

/// One service's end of the queue.
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
            || self.told.send((service, spans)).is_err()
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
    async fn the_queue_takes_what_there_is_room_for_and_never_waits() {
        let (sender, mut told) = mpsc::unbounded_channel();
        let queue = Queue { told: sender, counts: Arc::default() };
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
        while let Ok((service, spans)) = told.try_recv() {
            assert!(service == "producer" && spans.len() <= REQUEST);
            taken += spans.len();
        }
        assert_eq!(taken, WAITING);
    }
}
