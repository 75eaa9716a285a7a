//! Takes spans out of the queue and posts them to the collector.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tidewheel_pipeline::health::{Health, Telling};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::collector::{Collector, Refusal};
use super::encode::{Process, request};
use super::{Batch, Counts, REQUEST};

/// How long the first span of a request waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// How often a request is tried that the collector may take another time.
const ATTEMPTS: u32 = 3;

/// How long after the first failure it is tried again; twice as long each time.
const PAUSE: Duration = Duration::from_secs(1);

/// What this does, for the log: completes "cannot …".
const SEND: &str = "send traces";

/// The same for a queue that is full although the collector answers.
const KEEP_UP: &str = "send all traces";

/// The queue's reader.
pub(super) struct Sender {
    collector: Collector,
    process: Process,
    told: mpsc::UnboundedReceiver<Batch>,
    counts: Arc<Counts>,
    /// What is being sent.
    taken: Vec<Batch>,
    /// Decides which failures are worth a line in the log.
    health: Health,
    /// Spans that were dropped since the log last said so; those without room only once they are looked for.
    untold: u64,
}

impl Sender {
    pub(super) fn new(
        collector: Collector,
        process: Process,
        told: mpsc::UnboundedReceiver<Batch>,
        counts: Arc<Counts>,
    ) -> Self {
        info!(endpoint = collector.shown(), "changes are traced");
        let health = Health::of("traces");
        Self { collector, process, told, counts, taken: Vec::new(), health, untold: 0 }
    }

    /// Sends until `finish`, and then what is left, once.
    pub(super) async fn run(mut self, finish: CancellationToken) {
        loop {
            tokio::select! {
                () = finish.cancelled() => break,
                // Dropped anywhere, it leaves in `taken` what it has not sent.
                () = self.turn() => {}
            }
        }
        loop {
            while self.spans() < REQUEST
                && let Ok(told) = self.told.try_recv()
            {
                self.taken.push(told);
            }
            if self.taken.is_empty() {
                break;
            }
            let sent = self.collector.post(self.body()).await;
            self.settle(sent);
        }
        let dropped = self.dropped();
        if dropped > 0 {
            warn!(dropped, "the end comes before a collector has taken all traces");
        }
    }

    /// Gathers a request and sends it, or gives it up.
    async fn turn(&mut self) {
        self.gather().await;
        let (body, mut pause) = (self.body(), PAUSE);
        for attempt in 1..=ATTEMPTS {
            let sent = self.collector.post(body.clone()).await;
            match sent {
                Err(refusal) if refusal.again && attempt < ATTEMPTS => self.tell(&refusal.cause),
                settled => return self.settle(settled),
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Waits for spans, and a moment longer for more of them.
    async fn gather(&mut self) {
        if self.taken.is_empty() {
            match self.told.recv().await {
                Some(told) => self.taken.push(told),
                None => return std::future::pending().await,
            }
        }
        let late = Instant::now() + LINGER;
        while self.spans() < REQUEST {
            tokio::select! {
                () = sleep_until(late) => return,
                told = self.told.recv() => match told {
                    Some(told) => self.taken.push(told),
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

    /// What was taken is sent, or given up.
    fn settle(&mut self, sent: Result<(), Refusal>) {
        let spans = self.spans();
        self.taken.clear();
        self.counts.waiting.fetch_sub(spans, Ordering::Relaxed);
        match sent {
            Err(refusal) => {
                self.untold += refusal.spans.unwrap_or(spans as u64);
                self.tell(&refusal.cause);
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

    /// Says that the collector answers and spans are dropped nevertheless, if they are; and when that is over.
    fn keeps_up(&mut self) {
        let no_room = self.counts.no_room.swap(0, Ordering::Relaxed);
        self.untold += no_room;
        if no_room > 0 {
            if self.health.fails(KEEP_UP, "the queue is full") != Telling::Not {
                let dropped = self.dropped();
                warn!(dropped, "cannot {KEEP_UP}, more come than the collector takes; a smaller traces.share helps");
            }
            return;
        }
        // A queue that is always almost full loses something now and then: it is over when what waited has been sent.
        if self.counts.waiting.load(Ordering::Relaxed) < REQUEST
            && let Some((lasted, _)) = self.health.works(KEEP_UP)
        {
            let dropped = self.dropped();
            info!(dropped, seconds = lasted.as_secs(), "can {KEEP_UP} again");
        }
    }

    /// Says that the collector does not take spans, from time to time.
    fn tell(&mut self, cause: &str) {
        let endpoint = self.collector.shown();
        match self.health.fails(SEND, cause) {
            Telling::First => warn!(endpoint, "cannot {SEND}, changes go on without: {cause}"),
            Telling::Lasting(lasted, attempts) => {
                let dropped = self.dropped();
                warn!(endpoint, dropped, attempts, seconds = lasted.as_secs(), "still cannot {SEND}: {cause}");
            }
            Telling::Not => debug!("still cannot {SEND}: {cause}"),
        }
    }

    /// Spans that were dropped since this was last asked.
    fn dropped(&mut self) -> u64 {
        std::mem::take(&mut self.untold) + self.counts.no_room.swap(0, Ordering::Relaxed)
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

    /// The log of a test.
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
    fn a_queue_that_overflows_is_told_once_and_once_when_it_has_drained() {
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
        let (_told, queue) = mpsc::unbounded_channel();
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
