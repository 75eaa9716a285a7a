//! Dequeues spans and sends them to the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidewheel_pipeline::health::{FailureReport, Health};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::collector::{Collector, ExportError};
use super::encode::{Process, request};
use super::{Batch, Counts, REQUEST};

/// Delay of a request's first span, to batch it with others.
const LINGER: Duration = Duration::from_secs(1);

/// Attempts for a retryable request.
const ATTEMPTS: u32 = 3;

/// Backoff after the first failure; doubled each time.
const BACKOFF: Duration = Duration::from_secs(1);

/// The operation in log messages: completes "cannot …".
const SEND: &str = "send traces";

/// The same for a full queue while the collector is reachable.
const KEEP_UP: &str = "send all traces";

/// The queue's reader.
pub(super) struct Sender {
    collector: Collector,
    process: Process,
    queue: mpsc::UnboundedReceiver<Batch>,
    counts: Arc<Counts>,
    /// Batches of the current request.
    taken: Vec<Batch>,
    /// Rate-limits failure logs.
    health: Health,
    /// Dropped spans not yet logged, without those in `counts.no_room`.
    unlogged: u64,
}

impl Sender {
    pub(super) fn new(
        collector: Collector,
        process: Process,
        queue: mpsc::UnboundedReceiver<Batch>,
        counts: Arc<Counts>,
    ) -> Self {
        info!(endpoint = collector.shown(), "tracing enabled");
        let health = Health::of("traces");
        Self { collector, process, queue, counts, taken: Vec::new(), health, unlogged: 0 }
    }

    /// Sends until `finish`, then sends the rest once.
    pub(super) async fn run(mut self, finish: CancellationToken) {
        loop {
            tokio::select! {
                () = finish.cancelled() => break,
                // Cancel-safe: unsent batches stay in `taken`.
                () = self.turn() => {}
            }
        }
        loop {
            while self.spans() < REQUEST
                && let Ok(batch) = self.queue.try_recv()
            {
                self.taken.push(batch);
            }
            if self.taken.is_empty() {
                break;
            }
            let sent = self.collector.post(self.body()).await;
            self.settle(sent);
        }
        let dropped = self.dropped();
        if dropped > 0 {
            warn!(dropped, "shutting down before all traces were sent");
        }
    }

    /// Gathers a request and sends it, or drops it.
    async fn turn(&mut self) {
        self.gather().await;
        let (body, mut backoff) = (self.body(), BACKOFF);
        for attempt in 1..=ATTEMPTS {
            let sent = self.collector.post(body.clone()).await;
            match sent {
                Err(refusal) if refusal.again && attempt < ATTEMPTS => self.log_failure(&refusal.cause),
                settled => return self.settle(settled),
            }
            tokio::time::sleep(backoff).await;
            backoff *= 2;
        }
    }

    /// Waits for spans, then lingers for more.
    async fn gather(&mut self) {
        if self.taken.is_empty() {
            match self.queue.recv().await {
                Some(batch) => self.taken.push(batch),
                None => return std::future::pending().await,
            }
        }
        let late = Instant::now() + LINGER;
        while self.spans() < REQUEST {
            tokio::select! {
                () = sleep_until(late) => return,
                batch = self.queue.recv() => match batch {
                    Some(batch) => self.taken.push(batch),
                    None => return,
                },
            }
        }
    }

    fn spans(&self) -> usize {
        self.taken.iter().map(|(_, spans)| spans.len()).sum()
    }

    fn body(&self) -> Bytes {
        request(&self.taken, &self.process).encode_to_vec().into()
    }

    /// Accounts for a sent or dropped request.
    fn settle(&mut self, sent: Result<(), ExportError>) {
        let spans = self.spans();
        self.taken.clear();
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        match sent {
            Err(refusal) => {
                self.unlogged += refusal.spans.unwrap_or(spans as u64);
                self.log_failure(&refusal.cause);
            }
            Ok(()) => {
                debug!(spans, "sent");
                if let Some((lasted, attempts)) = self.health.works(SEND) {
                    let dropped = self.dropped();
                    info!(dropped, attempts, seconds = lasted.as_secs(), "can {SEND} again");
                }
                self.keeps_up();
            }
        }
    }

    /// Logs when a full queue drops spans despite a reachable collector, and when that ends.
    fn keeps_up(&mut self) {
        let no_room = self.counts.no_room.swap(0, Ordering::Relaxed);
        self.unlogged += no_room;
        if no_room > 0 {
            if self.health.fails(KEEP_UP, "the queue is full") != FailureReport::Not {
                let dropped = self.dropped();
                warn!(dropped, "cannot {KEEP_UP}: the queue is full; lower traces.share");
            }
            return;
        }
        // A nearly full queue drops spans intermittently: recovered only once the queue has drained.
        if self.counts.waiting.load(Ordering::Relaxed) < REQUEST
            && let Some((lasted, _)) = self.health.works(KEEP_UP)
        {
            let dropped = self.dropped();
            info!(dropped, seconds = lasted.as_secs(), "can {KEEP_UP} again");
        }
    }

    /// Logs an export failure, rate-limited.
    fn log_failure(&mut self, cause: &str) {
        let endpoint = self.collector.shown();
        match self.health.fails(SEND, cause) {
            FailureReport::First => warn!(endpoint, "cannot {SEND}; changes are processed without traces: {cause}"),
            FailureReport::Lasting(lasted, attempts) => {
                let dropped = self.dropped();
                warn!(endpoint, dropped, attempts, seconds = lasted.as_secs(), "still cannot {SEND}: {cause}");
            }
            FailureReport::Not => debug!("still cannot {SEND}: {cause}"),
        }
    }

    /// Takes the number of spans dropped since the last call.
    fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.unlogged) + self.counts.no_room.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tidewheel_core::secret::Secret;
    use tidewheel_core::tls::ClientTls;
    use tidewheel_core::trace::Share;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::settings::Traces;

    /// A captured log.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(line)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Log {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Log {
        /// The lines since the last call.
        fn lines(&self) -> Vec<String> {
            let text = std::mem::take(&mut *self.0.lock().unwrap());
            String::from_utf8(text).unwrap().lines().map(|line| line.trim().to_owned()).collect()
        }
    }

    #[test]
    fn queue_overflow_is_logged_once_and_once_after_draining() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let traces = Traces {
            endpoint: Secret::new("http://127.0.0.1:1"),
            share: Share::ALL,
            headers: None,
            tls: ClientTls::default(),
        };
        let (_sender, queue) = mpsc::unbounded_channel();
        let counts = Arc::new(Counts::default());
        let process = Process { instance: "here-1".into() };
        let mut sender = Sender::new(Collector::new(&traces).unwrap(), process, queue, counts.clone());
        log.lines();
        let mut sent = |no_room, waiting| {
            counts.no_room.store(no_room, Ordering::Relaxed);
            counts.waiting.store(waiting, Ordering::Relaxed);
            sender.settle(Ok(()));
            log.lines()
        };
        assert_eq!(sent(0, 0), [""; 0]);
        let first = sent(5, REQUEST);
        assert!(
            matches!(&first[..], [line] if line.starts_with("WARN cannot send all traces") && line.ends_with("dropped=5"))
        );
        for (no_room, waiting) in [(2, REQUEST), (0, REQUEST), (1, 0)] {
            assert_eq!(sent(no_room, waiting), [""; 0]);
        }
        assert_eq!(sent(0, REQUEST - 1), ["INFO can send all traces again dropped=3 seconds=0"]);
        assert_eq!(sent(0, 0), [""; 0]);
        let second = sent(7, 0);
        assert!(matches!(&second[..], [line] if line.starts_with("WARN") && line.ends_with("dropped=7")), "{second:?}");
    }
}
