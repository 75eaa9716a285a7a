//! The threads that compute, and how requests reach them.
//!
//! Guarantees:
//! - a free thread takes work at once: it never waits for a tile to fill up;
//! - what waits is bounded in tokens and in requests; beyond it [`Scheduler::submit`] refuses;
//! - a request whose caller hung up costs nothing once it is seen in the queue;
//! - a text on which the engine fails costs its own request, not its neighbours and not the thread.
//!
//! ```text
//!  submit ──▶ queue ──take a tile──▶ thread ──▶ the request's vectors ──last text──▶ its caller
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::{Refusal, ServiceError};
use super::meters::Meters;
use super::queue::{Piece, Queue, Tile};
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, Text, Workspace};

/// The vectors of a request, one after another, or why there are none.
pub(super) type Outcome = Result<Vec<f32>, Refusal>;

/// How long work may lie without any tile being finished before the service no longer calls itself ready. The slowest tile
/// on the slowest machine takes a few seconds.
const STALLED: Duration = Duration::from_secs(30);

/// Weight of the newest tile in the measured speed: the last few dozen tiles count.
const SPEED_WEIGHT: f64 = 0.05;

/// Longest `Retry-After` in seconds: by then a queue of any size has moved on.
const LONGEST_RETRY: f64 = 60.0;

/// A request in the queue or in the works.
struct Job {
    texts: Vec<Encoding>,
    entered: Instant,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Empty until the first tile is done, so that what only waits holds no room.
    vectors: Vec<f32>,
    left: usize,
    started: bool,
    /// Gone once the answer was given.
    reply: Option<oneshot::Sender<Outcome>>,
}

impl Job {
    fn abandoned(&self) -> bool {
        lock(&self.progress).reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) tokens: usize,
    pub(super) requests: usize,
}

struct Waiting {
    queue: Queue<Arc<Job>>,
    /// Threads without work.
    idle: usize,
    /// The threads end once the queue is empty.
    ending: bool,
    /// When a tile was last begun or finished, or work came to an empty queue.
    moved: Instant,
    /// Tokens per second of one thread; `None` before the first tile.
    speed: Option<f64>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    meters: Arc<Meters>,
    limits: QueueLimits,
    workers: usize,
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

/// The queue with its threads. They end when it is dropped.
pub(super) struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    pub(super) fn start(
        engine: Arc<dyn Engine>,
        meters: Arc<Meters>,
        workers: usize,
        limits: QueueLimits,
    ) -> Result<Self, ServiceError> {
        let waiting = Waiting { queue: Queue::new(), idle: 0, ending: false, moved: Instant::now(), speed: None };
        let shared =
            Arc::new(Shared { engine, meters, limits, workers, waiting: Mutex::new(waiting), wake: Condvar::new() });
        let scheduler = Self { shared: Arc::clone(&shared) };
        for number in 0..workers {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name(format!("embed-{number}"))
                .spawn(move || shared.work())
                .map_err(ServiceError::Thread)?;
        }
        Ok(scheduler)
    }

    /// Whether a request of at least one text would be refused now. Cheap, to be asked before the texts are tokenised.
    pub(super) fn admits(&self) -> Result<(), Refusal> {
        self.shared.admits(&self.shared.waiting(), 1)
    }

    /// Queues a request of at least one text. Dropping the receiver abandons it.
    pub(super) fn submit(&self, texts: Vec<Encoding>) -> Result<oneshot::Receiver<Outcome>, Refusal> {
        let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
        let (reply, answer) = oneshot::channel();
        let progress = Progress { vectors: Vec::new(), left: texts.len(), started: false, reply: Some(reply) };
        let job = Arc::new(Job { texts, entered: Instant::now(), progress: Mutex::new(progress) });
        {
            let mut waiting = self.shared.waiting();
            self.shared.admits(&waiting, lengths.iter().sum())?;
            if waiting.queue.tokens() == 0 {
                waiting.moved = job.entered;
            }
            waiting.queue.push(job, &lengths);
            self.shared.show(&waiting);
        }
        self.shared.wake.notify_one();
        Ok(answer)
    }

    /// Whether work gets done.
    pub(super) fn moves(&self) -> bool {
        let waiting = self.shared.waiting();
        let at_rest = waiting.queue.tokens() == 0 && waiting.idle == self.shared.workers;
        at_rest || waiting.moved.elapsed() < STALLED
    }

    /// Answers everything that waits with 503.
    pub(super) fn abort(&self) {
        let jobs = {
            let mut waiting = self.shared.waiting();
            let jobs = waiting.queue.clear();
            self.shared.show(&waiting);
            jobs
        };
        for job in jobs {
            if let Some(reply) = lock(&job.progress).reply.take() {
                // A caller that is gone needs no answer.
                let _ = reply.send(Err(Refusal::closing()));
            }
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.waiting().ending = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }

    fn show(&self, waiting: &Waiting) {
        self.meters.queue(waiting.queue.tokens(), waiting.queue.requests());
    }

    fn admits(&self, waiting: &Waiting, tokens: usize) -> Result<(), Refusal> {
        let (queued, requests) = (waiting.queue.tokens(), waiting.queue.requests());
        if queued == 0 || (queued + tokens <= self.limits.tokens && requests < self.limits.requests) {
            return Ok(());
        }
        let excess = (queued + tokens).saturating_sub(self.limits.tokens).max(queued / 4);
        let retry_after = seconds_for(excess, waiting.speed, self.workers);
        let message = format!("the embedder is full: {queued} tokens in {requests} requests wait");
        Err(Refusal::busy(message, retry_after))
    }

    fn work(&self) {
        let mut workspace = Workspace::default();
        let mut vectors = Vec::new();
        while let Some((tile, room, alone)) = self.next() {
            let started = Instant::now();
            let failed = self.compute(&tile, alone, &mut workspace, &mut vectors);
            let took = started.elapsed();
            self.meters.computed(tile.pieces.len(), tile.tokens, room, took);
            self.finished(tile.tokens, took);
            deliver(&tile.pieces, &vectors, self.engine.info().dimension, &failed);
        }
    }

    /// Waits for the next tile: what to compute, how much room it had, and whether this machine has nothing else to do.
    fn next(&self) -> Option<(Tile<Arc<Job>>, usize, bool)> {
        let whole = self.engine.info().tile_tokens.max(1);
        let mut waiting = self.waiting();
        loop {
            if waiting.queue.tokens() > 0 {
                // What is left is shared among the free threads, so that the last one does not compute alone.
                let room = whole.min(waiting.queue.tokens().div_ceil(waiting.idle + 1));
                let tile = waiting.queue.take(room, whole, |job| job.abandoned());
                self.meters.abandoned(tile.abandoned);
                self.show(&waiting);
                if tile.pieces.is_empty() {
                    continue;
                }
                let now = Instant::now();
                waiting.moved = now;
                let more = waiting.queue.tokens() > 0;
                let alone = tile.pieces.len() == 1 && !more && waiting.idle + 1 == self.workers;
                drop(waiting);
                if more {
                    self.wake.notify_one();
                }
                for piece in &tile.pieces {
                    let mut progress = lock(&piece.ticket.progress);
                    if !std::mem::replace(&mut progress.started, true) {
                        self.meters.waited(now.saturating_duration_since(piece.ticket.entered));
                    }
                }
                return Some((tile, room, alone));
            }
            if waiting.ending {
                return None;
            }
            waiting.idle += 1;
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }

    /// Computes the tile into `vectors` and names the places on which the engine panicked.
    fn compute(
        &self,
        tile: &Tile<Arc<Job>>,
        alone: bool,
        workspace: &mut Workspace,
        vectors: &mut Vec<f32>,
    ) -> Vec<usize> {
        let dimension = self.engine.info().dimension;
        let texts: Vec<Text<'_>> = tile.pieces.iter().map(|piece| piece.ticket.texts[piece.index].text()).collect();
        vectors.clear();
        vectors.resize(texts.len() * dimension, 0.0);
        // The engine owns nothing that a panic could leave half written but the workspace, which is thrown away then.
        let result = catch_unwind(AssertUnwindSafe(|| {
            if alone {
                self.engine.embed_one(texts[0], vectors);
            } else {
                self.engine.embed_tile(&texts, workspace, vectors);
            }
        }));
        if result.is_ok() {
            return Vec::new();
        }
        let mut failed = Vec::new();
        for (place, (text, vector)) in texts.iter().zip(vectors.chunks_exact_mut(dimension)).enumerate() {
            *workspace = Workspace::default();
            let result = catch_unwind(AssertUnwindSafe(|| self.engine.embed_tile(&[*text], workspace, vector)));
            if result.is_err() {
                failed.push(place);
            }
        }
        *workspace = Workspace::default();
        failed
    }

    fn finished(&self, tokens: usize, took: Duration) {
        let mut waiting = self.waiting();
        waiting.moved = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a tile has hundreds of tokens")]
        let speed = tokens as f64 / took.as_secs_f64().max(1e-9);
        waiting.speed = Some(waiting.speed.map_or(speed, |old| old + SPEED_WEIGHT * (speed - old)));
    }
}

/// Gives each job its vectors, and its caller the answer if they were the last.
fn deliver(pieces: &[Piece<Arc<Job>>], vectors: &[f32], dimension: usize, failed: &[usize]) {
    let mut place = 0;
    for run in pieces.chunk_by(|a, b| Arc::ptr_eq(&a.ticket, &b.ticket)) {
        let job = &run[0].ticket;
        let mut progress = lock(&job.progress);
        for piece in run {
            let vector = &vectors[place * dimension..][..dimension];
            let cause = if failed.contains(&place) {
                Some("the engine failed on it")
            } else if vector.iter().all(|value| value.is_finite()) {
                None
            } else {
                Some("its vector is not finite")
            };
            place += 1;
            if let Some(cause) = cause {
                if let Some(reply) = progress.reply.take() {
                    let message = format!("the text at index {} cannot be embedded: {cause}", piece.index);
                    let _ = reply.send(Err(Refusal::unusable(message)));
                }
                continue;
            }
            if progress.vectors.is_empty() {
                progress.vectors = vec![0.0; job.texts.len() * dimension];
            }
            progress.vectors[piece.index * dimension..][..dimension].copy_from_slice(vector);
            progress.left -= 1;
        }
        if progress.left == 0
            && let Some(reply) = progress.reply.take()
        {
            let _ = reply.send(Ok(std::mem::take(&mut progress.vectors)));
        }
    }
}

/// Whole seconds in which this many tokens are computed at the measured speed, at least 1.
fn seconds_for(tokens: usize, speed: Option<f64>, workers: usize) -> u64 {
    let Some(speed) = speed.filter(|speed| *speed > 0.0) else { return 1 };
    #[expect(clippy::cast_precision_loss, reason = "the queue is bounded far below 2^52")]
    let seconds = tokens as f64 / (speed * workers.max(1) as f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 60")]
    let whole = seconds.ceil().clamp(1.0, LONGEST_RETRY) as u64;
    whole
}

/// Nothing here is left half done by a panic: the engine's are caught.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_follows_the_measured_speed() {
        assert_eq!(seconds_for(10_000, None, 2), 1);
        assert_eq!(seconds_for(10_000, Some(1_000.0), 2), 5);
        assert_eq!(seconds_for(1, Some(1_000.0), 2), 1);
        assert_eq!(seconds_for(usize::MAX, Some(1_000.0), 2), 60);
    }
}
