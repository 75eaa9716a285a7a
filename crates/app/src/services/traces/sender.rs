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
use super::{Counts, REQUEST, Told};

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
    told: mpsc::UnboundedReceiver<Told>,
    counts: Arc<Counts>,
    /// What is being sent.
    taken: Vec<Told>,
    /// Decides which failures are worth a line in the log.
    health: Health,
    /// Spans that the collector did not take, since the log last said so.
    refused: u64,
}

impl Sender {
    pub(super) fn new(
        collector: Collector,
        process: Process,
        told: mpsc::UnboundedReceiver<Told>,
        counts: Arc<Counts>,
    ) -> Self {
        info!(endpoint = collector.shown(), "changes are traced");
        let health = Health::of("traces");
        Self { collector, process, told, counts, taken: Vec::new(), health, refused: 0 }
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
                self.refused += refusal.spans.unwrap_or(spans as u64);
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

    /// Says that the collector answers and spans are dropped nevertheless, if they are.
    fn keeps_up(&mut self) {
        let dropped = self.dropped();
        if dropped == 0 {
            return;
        }
        match self.health.fails(KEEP_UP, "the queue is full") {
            Telling::First | Telling::Lasting(..) => {
                warn!(dropped, "cannot {KEEP_UP}, more come than the collector takes; a smaller traces.share helps");
            }
            Telling::Not => self.refused += dropped,
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
        std::mem::take(&mut self.refused) + self.counts.no_room.swap(0, Ordering::Relaxed)
    }
}
