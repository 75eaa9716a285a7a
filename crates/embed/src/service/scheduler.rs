//! The compute threads and their queue.
//!
//! Guarantees:
//! - a free thread takes work immediately, of any model: it never waits for a tile to fill up;
//! - a tile has texts of one model, which computes it;
//! - the queue is bounded in tokens and in requests; beyond it [`Scheduler::submit`] rejects;
//! - a request whose client disconnected is dropped from the queue without being computed;
//! - a text on which the engine fails fails only its own request: other requests and the thread continue.
//!
//! ```text
//!  submit ──▶ queue ──next tile──▶ thread ──▶ vectors of the request ──last text──▶ caller
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::error::{ApiError, ServiceError};
use super::metric::ServiceMetrics;
use super::models::Model;
use super::queue::{Kind, Piece, Queue, Tile};
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, Text, Workspace};

/// The concatenated vectors of a request, or its error.
pub(super) type Outcome = Result<Vec<f32>, ApiError>;

/// Time without progress on queued work before the service reports itself not ready. The slowest tile on the slowest
/// machine takes a few seconds.
const STALLED: Duration = Duration::from_secs(30);

/// Weight of the newest tile in the moving average of the speed, which spans a few dozen tiles.
const SPEED_WEIGHT: f64 = 0.05;

/// Maximum `Retry-After` in seconds.
const LONGEST_RETRY: f64 = 60.0;

/// A request in the queue or being computed.
struct Job {
    model: Arc<Model>,
    texts: Vec<Encoding>,
    entered: Instant,
    progress: Mutex<Progress>,
}

struct Progress {
    /// Empty until the first tile is done: queued requests hold no memory for vectors.
    vectors: Vec<f32>,
    left: usize,
    started: bool,
    /// `None` once the reply was sent.
    reply: Option<oneshot::Sender<Outcome>>,
}

impl Job {
    fn abandoned(&self) -> bool {
        lock(&self.progress).reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// Queue limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    pub(super) tokens: usize,
    pub(super) requests: usize,
}

struct Waiting {
    queue: Queue<Arc<Job>>,
    /// Threads without work.
    idle: usize,
    /// Threads exit once the queue is empty.
    ending: bool,
    /// When a tile last began or finished, or a request entered an empty queue.
    moved: Instant,
    /// Tokens per second of one thread; `None` before the first tile.
    speed: Option<f64>,
}

struct Shared {
    metrics: Arc<ServiceMetrics>,
    limits: QueueLimits,
    workers: usize,
    waiting: Mutex<Waiting>,
    wake: Condvar,
}

/// The queue and its compute threads, which end on drop.
pub(super) struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    pub(super) fn start(
        metrics: Arc<ServiceMetrics>,
        workers: usize,
        limits: QueueLimits,
    ) -> Result<Self, ServiceError> {
        let waiting = Waiting { queue: Queue::new(), idle: 0, ending: false, moved: Instant::now(), speed: None };
        let shared = Arc::new(Shared { metrics, limits, workers, waiting: Mutex::new(waiting), wake: Condvar::new() });
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

    /// Checks whether a request of at least one text would be accepted now. Cheap enough to run before tokenization.
    pub(super) fn admits(&self) -> Result<(), ApiError> {
        self.shared.admits(&self.shared.waiting(), 1)
    }

    /// Queues a request of at least one text for a model. Dropping the receiver abandons it.
    pub(super) fn submit(
        &self,
        model: Arc<Model>,
        texts: Vec<Encoding>,
    ) -> Result<oneshot::Receiver<Outcome>, ApiError> {
        let kind = Kind { model: model.number, tile: model.engine.info().tile_tokens.max(1) };
        let lengths: Vec<usize> = texts.iter().map(|text| text.ids.len()).collect();
        let (reply, answer) = oneshot::channel();
        let progress = Progress { vectors: Vec::new(), left: texts.len(), started: false, reply: Some(reply) };
        let job = Arc::new(Job { model, texts, entered: Instant::now(), progress: Mutex::new(progress) });
        {
            let mut waiting = self.shared.waiting();
            self.shared.admits(&waiting, lengths.iter().sum())?;
            if waiting.queue.tokens() == 0 {
                waiting.moved = job.entered;
            }
            waiting.queue.push(job, kind, &lengths);
            self.shared.show(&waiting);
        }
        self.shared.wake.notify_one();
        Ok(answer)
    }

    /// Whether queued work makes progress.
    pub(super) fn moves(&self) -> bool {
        let waiting = self.shared.waiting();
        let at_rest = waiting.queue.tokens() == 0 && waiting.idle == self.shared.workers;
        at_rest || waiting.moved.elapsed() < STALLED
    }

    /// Answers all queued requests with 503.
    pub(super) fn abort(&self) {
        let jobs = {
            let mut waiting = self.shared.waiting();
            let jobs = waiting.queue.clear();
            self.shared.show(&waiting);
            jobs
        };
        for job in jobs {
            if let Some(reply) = lock(&job.progress).reply.take() {
                // The client may have disconnected.
                let _ = reply.send(Err(ApiError::closing()));
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
        self.metrics.queue(waiting.queue.tokens(), waiting.queue.requests());
    }

    fn admits(&self, waiting: &Waiting, tokens: usize) -> Result<(), ApiError> {
        let (queued, requests) = (waiting.queue.tokens(), waiting.queue.requests());
        if queued == 0 || (queued + tokens <= self.limits.tokens && requests < self.limits.requests) {
            return Ok(());
        }
        let excess = (queued + tokens).saturating_sub(self.limits.tokens).max(queued / 4);
        let retry_after = seconds_for(excess, waiting.speed, self.workers);
        let message = format!("embedder is overloaded: {queued} tokens in {requests} requests queued");
        Err(ApiError::busy(message, retry_after))
    }

    fn work(&self) {
        let mut workspace = Workspace::default();
        let mut vectors = Vec::new();
        while let Some((tile, alone)) = self.next() {
            let model = &tile.pieces[0].ticket.model;
            let started = Instant::now();
            let failed = compute(&*model.engine, &tile.pieces, alone, &mut workspace, &mut vectors);
            let took = started.elapsed();
            self.metrics.computed(&model.counters, &tile, took);
            self.finished(tile.tokens, took);
            deliver(&tile.pieces, &vectors, model.dimension(), &failed);
        }
    }

    /// Waits for the next tile. Returns it, and whether it is the only work on this machine.
    fn next(&self) -> Option<(Tile<Arc<Job>>, bool)> {
        let mut waiting = self.waiting();
        loop {
            if waiting.queue.tokens() > 0 {
                // Remaining work is split among idle threads, so that the last tile does not run on one thread alone.
                let share = waiting.queue.tokens().div_ceil(waiting.idle + 1);
                let tile = waiting.queue.take(|whole| whole.min(share), |job| job.abandoned());
                self.metrics.abandoned(tile.abandoned);
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
                        self.metrics.waited(now.saturating_duration_since(piece.ticket.entered));
                    }
                }
                return Some((tile, alone));
            }
            if waiting.ending {
                return None;
            }
            waiting.idle += 1;
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }

    fn finished(&self, tokens: usize, took: Duration) {
        let mut waiting = self.waiting();
        waiting.moved = Instant::now();
        #[expect(clippy::cast_precision_loss, reason = "a tile has hundreds of tokens")]
        let speed = tokens as f64 / took.as_secs_f64().max(1e-9);
        waiting.speed = Some(waiting.speed.map_or(speed, |old| old + SPEED_WEIGHT * (speed - old)));
    }
}

/// Computes the texts of a tile into `vectors`. Returns the positions on which the engine panicked.
fn compute(
    engine: &dyn Engine,
    pieces: &[Piece<Arc<Job>>],
    alone: bool,
    workspace: &mut Workspace,
    vectors: &mut Vec<f32>,
) -> Vec<usize> {
    let dimension = engine.info().dimension;
    let texts: Vec<Text<'_>> = pieces.iter().map(|piece| piece.ticket.texts[piece.index].text()).collect();
    vectors.clear();
    vectors.resize(texts.len() * dimension, 0.0);
    // Only the workspace can be left inconsistent by a panic, and it is replaced in that case.
    let result = catch_unwind(AssertUnwindSafe(|| {
        if alone {
            engine.embed_one(texts[0], vectors);
        } else {
            engine.embed_tile(&texts, workspace, vectors);
        }
    }));
    if result.is_ok() {
        return Vec::new();
    }
    let mut failed = Vec::new();
    for (place, (text, vector)) in texts.iter().zip(vectors.chunks_exact_mut(dimension)).enumerate() {
        *workspace = Workspace::default();
        let result = catch_unwind(AssertUnwindSafe(|| engine.embed_tile(&[*text], workspace, vector)));
        if result.is_err() {
            failed.push(place);
        }
    }
    *workspace = Workspace::default();
    failed
}

/// Stores each job's vectors, and replies to the caller after the last one.
fn deliver(pieces: &[Piece<Arc<Job>>], vectors: &[f32], dimension: usize, failed: &[usize]) {
    let mut place = 0;
    for run in pieces.chunk_by(|a, b| Arc::ptr_eq(&a.ticket, &b.ticket)) {
        let job = &run[0].ticket;
        let mut progress = lock(&job.progress);
        for piece in run {
            let vector = &vectors[place * dimension..][..dimension];
            let cause = if failed.contains(&place) {
                Some("engine failure")
            } else if vector.iter().all(|value| value.is_finite()) {
                None
            } else {
                Some("vector is not finite")
            };
            place += 1;
            if let Some(cause) = cause {
                if let Some(reply) = progress.reply.take() {
                    let message = format!("failed to embed text at index {}: {cause}", piece.index);
                    let _ = reply.send(Err(ApiError::unusable(message)));
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

/// Returns the seconds to compute this many tokens at the measured speed, from 1 to [`LONGEST_RETRY`].
fn seconds_for(tokens: usize, speed: Option<f64>, workers: usize) -> u64 {
    let Some(speed) = speed.filter(|speed| *speed > 0.0) else { return 1 };
    #[expect(clippy::cast_precision_loss, reason = "the queue is bounded far below 2^52")]
    let seconds = tokens as f64 / (speed * workers.max(1) as f64);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 60")]
    let whole = seconds.ceil().clamp(1.0, LONGEST_RETRY) as u64;
    whole
}

/// Locks a mutex. A poisoned one is consistent: engine panics are caught before they unwind through here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_follows_measured_speed() {
        assert_eq!(seconds_for(10_000, None, 2), 1);
        assert_eq!(seconds_for(10_000, Some(1_000.0), 2), 5);
        assert_eq!(seconds_for(1, Some(1_000.0), 2), 1);
        assert_eq!(seconds_for(usize::MAX, Some(1_000.0), 2), 60);
    }
}
