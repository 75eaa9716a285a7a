//! Counts waiting and dropped spans, and logs outages of the collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use metrics::counter;
use tidewheel_core::health::{FailureReport, Health};
use tidewheel_core::metric;
use tracing::{debug, info, warn};

use super::collector::ExportError;

/// The operation in log messages: completes "failed to …".
const SEND: &str = "send traces";

/// The same for a full queue while the collector is reachable.
const KEEP_UP: &str = "send all traces";

/// A queue that has drained to this many spans keeps up again, divided by the limit.
const DRAINED: usize = 20;

/// Counters of the queue and its reader.
#[derive(Debug)]
pub(super) struct Counts {
    /// Maximum number of waiting spans.
    limit: usize,
    /// Spans queued and neither sent nor dropped.
    waiting: AtomicUsize,
    /// Spans dropped because the queue was full, and not logged yet.
    no_room: AtomicU64,
}

impl Counts {
    pub(super) fn new(limit: usize) -> Self {
        dropped(0);
        Self { limit, waiting: AtomicUsize::new(0), no_room: AtomicU64::new(0) }
    }

    /// Admits as many of these spans as fit; the caller drops the rest.
    pub(super) fn admit(&self, spans: usize) -> usize {
        let admitted = |waiting: usize| spans.min(self.limit.saturating_sub(waiting));
        let before = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| Some(waiting + admitted(waiting)))
            .unwrap_or(self.limit);
        let admitted = admitted(before);
        let excess = (spans - admitted) as u64;
        if excess > 0 {
            self.no_room.fetch_add(excess, Ordering::Relaxed);
            dropped(excess);
        }
        admitted
    }

    /// Counts and logs the spans that are left at shutdown.
    pub(super) fn finish(&self) {
        let left = self.waiting.load(Ordering::Relaxed) as u64;
        if left > 0 {
            dropped(left);
            warn!(dropped = left, "shutting down before all traces were sent");
        }
    }
}

/// Counts dropped spans.
fn dropped(spans: u64) {
    counter!(metric::SPANS_DROPPED).increment(spans);
}

/// The log lines about exports: few, whatever the number of requests.
pub(super) struct ExportLog {
    endpoint: String,
    counts: Arc<Counts>,
    /// Rate-limits failure logs.
    health: Health,
    /// Dropped spans not yet logged, without those in `counts.no_room`.
    unlogged: AtomicU64,
}

impl ExportLog {
    pub(super) fn new(endpoint: String, counts: Arc<Counts>) -> Self {
        info!(endpoint, "tracing enabled");
        Self { endpoint, counts, health: Health::of("traces"), unlogged: AtomicU64::new(0) }
    }

    /// Accounts for a batch that was sent or dropped.
    pub(super) fn settle(&self, spans: usize, sent: Result<(), ExportError>) {
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        match sent {
            Err(error) => {
                let lost = error.spans.unwrap_or(spans as u64);
                dropped(lost);
                self.unlogged.fetch_add(lost, Ordering::Relaxed);
                self.fails(&error.cause);
            }
            Ok(()) => {
                debug!(spans, "sent");
                if let Some((lasted, attempts)) = self.health.works(SEND) {
                    let dropped = self.dropped();
                    info!(dropped, attempts, seconds = lasted.as_secs(), "able to {SEND} again");
                }
                self.keeps_up();
            }
        }
    }

    /// Logs a failed attempt, rate-limited.
    pub(super) fn fails(&self, cause: &str) {
        let endpoint = &self.endpoint;
        match self.health.fails(SEND, cause) {
            FailureReport::First => warn!(endpoint, "failed to {SEND}; changes are processed without traces: {cause}"),
            FailureReport::Lasting(lasted, attempts) => {
                let dropped = self.dropped();
                warn!(endpoint, dropped, attempts, seconds = lasted.as_secs(), "still failing to {SEND}: {cause}");
            }
            FailureReport::Not => debug!("still failing to {SEND}: {cause}"),
        }
    }

    /// Logs when a full queue drops spans despite a reachable collector, and when that ends.
    fn keeps_up(&self) {
        let no_room = self.counts.no_room.swap(0, Ordering::Relaxed);
        self.unlogged.fetch_add(no_room, Ordering::Relaxed);
        if no_room > 0 {
            if self.health.fails(KEEP_UP, "the queue is full") != FailureReport::Not {
                let dropped = self.dropped();
                warn!(dropped, "failed to {KEEP_UP}: the queue is full; lower traces.share");
            }
            return;
        }
        // A nearly full queue drops spans intermittently: recovered only once the queue has drained.
        if self.counts.waiting.load(Ordering::Relaxed) < self.counts.limit.div_ceil(DRAINED)
            && let Some((lasted, _)) = self.health.works(KEEP_UP)
        {
            let dropped = self.dropped();
            info!(dropped, seconds = lasted.as_secs(), "able to {KEEP_UP} again");
        }
    }

    /// Takes the number of spans dropped since the last call.
    fn dropped(&self) -> u64 {
        self.unlogged.swap(0, Ordering::Relaxed) + self.counts.no_room.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

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
    fn queue_admits_spans_up_to_its_limit() {
        let counts = Counts::new(20_000);
        assert_eq!(counts.admit(19_000), 19_000);
        assert_eq!(counts.admit(2_001), 1_000);
        assert_eq!(counts.admit(1), 0);
        assert_eq!(counts.waiting.load(Ordering::Relaxed), 20_000);
        assert_eq!(counts.no_room.load(Ordering::Relaxed), 1_002);
    }

    #[test]
    fn dropped_spans_are_counted() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let counts = Arc::new(Counts::new(10));
            let exports = ExportLog::new("http://127.0.0.1:1".into(), counts.clone());
            counts.admit(13);
            let error = |spans| ExportError { cause: "full".into(), again: false, spans };
            exports.settle(4, Err(error(None)));
            exports.settle(4, Err(error(Some(1))));
            exports.settle(1, Ok(()));
            counts.finish();
        });
        let rendered = recorder.handle().render();
        assert!(rendered.contains(&format!("\n{} 9\n", metric::SPANS_DROPPED)), "3 + 4 + 1 + 1: {rendered}");
    }

    #[test]
    fn queue_overflow_is_logged_once_and_once_after_draining() {
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(log.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let counts = Arc::new(Counts::new(20_000));
        let exports = ExportLog::new("http://127.0.0.1:1".into(), counts.clone());
        log.lines();
        let sent = |no_room, waiting| {
            counts.no_room.store(no_room, Ordering::Relaxed);
            counts.waiting.store(waiting, Ordering::Relaxed);
            exports.settle(0, Ok(()));
            log.lines()
        };
        assert_eq!(sent(0, 0), [""; 0]);
        let first = sent(5, 1_000);
        assert!(
            matches!(&first[..], [line] if line.starts_with("WARN failed to send all traces") && line.ends_with("dropped=5"))
        );
        for (no_room, waiting) in [(2, 1_000), (0, 1_000), (1, 0)] {
            assert_eq!(sent(no_room, waiting), [""; 0]);
        }
        assert_eq!(sent(0, 999), ["INFO able to send all traces again dropped=3 seconds=0"]);
        assert_eq!(sent(0, 0), [""; 0]);
        let second = sent(7, 0);
        assert!(matches!(&second[..], [line] if line.starts_with("WARN") && line.ends_with("dropped=7")), "{second:?}");
    }
}
