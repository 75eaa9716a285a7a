//! The single thread that changes a collection.
//!
//! It takes all queued writes, applies them in order, appends them to the log, syncs once and then replies to all:
//! group commit without a delay for a single writer. Because only this thread changes the collection, a condition that
//! was checked still holds when the points are written.
//!
//! ```text
//! queue ─▶ resolve ─▶ apply ─▶ log ─┐ (for all queued writes)
//!                                   └─▶ sync once ─▶ reply to all ─▶ periodically: flush the engine, truncate the log
//! ```
//!
//! Changes that the engine has applied but the log lacks are not confirmed: see `oplog`. While the log cannot be
//! written no further write is applied. After the engine has failed during a write, no write is confirmed until the
//! engine was flushed, because it may have applied a part of that write.
//!
//! The thread also starts the index build, on a separate thread, when enough unindexed points have accumulated.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use qdrant_edge::{EdgeShard, UpdateOperation};
use tokio::sync::{mpsc, oneshot};

use super::error::ApiError;
use super::oplog::OpLog;
use super::record;
use super::shared::Shared;
use super::wal::EngineWal;
use super::write::Write;

/// Maximum writes that share one sync. More would delay the first of them without a cheaper sync.
const GROUP: usize = 32;

/// Log size that triggers a flush of the engine: bounds the startup time (about a second for 64 MiB) and is large
/// enough that a bulk load flushes only about every 30,000 points.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// A collection without writes for this long is flushed, so that a start has nothing to replay.
const CHECKPOINT_IDLE: Duration = Duration::from_secs(3);

/// A collection without writes for this long gets its index built.
const INDEX_IDLE: Duration = Duration::from_secs(3);

/// Under constant writes the index is built when this multiple of the threshold is unindexed: less often would slow
/// down searches, and more often would take CPU from the writers.
const FAR_BEHIND: usize = 8;

/// A message to the thread.
pub(crate) enum Message {
    /// Applies a write. Without `reply` the request did not wait for durability.
    Write { write: Box<Write>, reply: Option<oneshot::Sender<Result<(), ApiError>>> },
    /// Triggers maintenance of the log and the index.
    Tick,
    /// Drains the queue, flushes and ends.
    Stop,
}

/// State of the thread.
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) inbox: mpsc::Receiver<Message>,
    pub(crate) log: OpLog,
    pub(crate) engine_wal: EngineWal,
    pub(crate) last_write: Instant,
    /// The engine failed during a write and was not flushed since: it may have applied a part of the write.
    pub(crate) suspect: bool,
    /// Whether there were writes since the last optimisation.
    pub(crate) unoptimized: bool,
    pub(crate) buffer: Vec<u8>,
}

impl Writer {
    pub(crate) fn run(mut self) {
        while let Some(first) = self.inbox.blocking_recv() {
            let mut messages = vec![first];
            while messages.len() < GROUP
                && let Ok(next) = self.inbox.try_recv()
            {
                messages.push(next);
            }
            if !self.group(messages) {
                break;
            }
        }
        self.checkpoint();
    }

    /// Handles a group of messages. `false`: the thread should end.
    fn group(&mut self, messages: Vec<Message>) -> bool {
        let mut answers = Vec::with_capacity(messages.len());
        let (mut tick, mut stop, mut wrote) = (false, false, false);
        let sound = self.restore();
        for message in messages {
            match message {
                Message::Write { write, reply } => {
                    let outcome = match &sound {
                        Ok(()) => {
                            wrote = true;
                            self.apply(*write)
                        }
                        Err(error) => Err(error.clone()),
                    };
                    match reply {
                        Some(reply) => answers.push((reply, outcome)),
                        None => log_unwatched(&self.shared.name, outcome),
                    }
                }
                Message::Tick => tick = true,
                Message::Stop => stop = true,
            }
        }
        if wrote {
            self.last_write = Instant::now();
            self.unoptimized = true;
        }
        // A tick also syncs writes without `wait`.
        let committed = if sound.is_ok() { self.commit(!answers.is_empty() || tick || stop) } else { sound };
        for (reply, outcome) in answers {
            let outcome = outcome.and_then(|()| committed.clone());
            // The request may have been cancelled; the write remains.
            let _ = reply.send(outcome);
        }
        let idle = self.last_write.elapsed();
        if committed.is_err() {
            return !stop;
        }
        if self.log.len() >= CHECKPOINT_BYTES || (tick && self.log.len() > 0 && idle >= CHECKPOINT_IDLE) {
            self.checkpoint();
        }
        if tick {
            self.optimize_if_due(idle);
        }
        !stop
    }

    /// Recovers from an earlier failure; fails while no write may be confirmed.
    fn restore(&mut self) -> Result<(), ApiError> {
        if self.log.has_failed() {
            self.commit(true)?;
        }
        if self.suspect && !self.checkpoint() {
            let reason = "an earlier write failed in the engine, which could not be flushed since";
            return Err(ApiError::Internal(reason.to_owned()));
        }
        Ok(())
    }

    fn commit(&mut self, sync: bool) -> Result<(), ApiError> {
        self.log.commit(sync).map_err(|error| {
            tracing::error!(collection = %self.shared.name, %error, "failed to write the operation log");
            ApiError::Internal(format!("failed to write the operation log: {error}"))
        })
    }

    /// Resolves the write, applies it, and appends it to the log.
    fn apply(&mut self, write: Write) -> Result<(), ApiError> {
        let shard = &self.shared.shard;
        let buffer = &mut self.buffer;
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            let Some(operation) = write.resolve(shard)? else { return Ok(false) };
            record::encode(&operation, buffer).map_err(|error| ApiError::Internal(error.to_string()))?;
            shard.update(operation)?;
            Ok(true)
        }));
        match attempt {
            Ok(Ok(true)) => {
                self.log.append(&self.buffer);
                self.buffer.shrink_to(1 << 20);
                Ok(())
            }
            Ok(Ok(false)) => Ok(()),
            Ok(Err(error)) => {
                self.suspect |= matches!(error, ApiError::Internal(_));
                Err(error)
            }
            Err(panic) => {
                self.suspect = true;
                let reason = panic_text(&*panic);
                tracing::error!(collection = %self.shared.name, reason, "engine panicked while applying a write");
                Err(ApiError::Internal(format!("engine panicked: {reason}")))
            }
        }
    }

    /// Flushes the engine and truncates the log. Skipped while an index build runs: the build swaps segments, and the
    /// engine does not flush at the same time. Returns whether the engine was flushed.
    fn checkpoint(&mut self) -> bool {
        if self.shared.optimizing.load(Ordering::Acquire) {
            return false;
        }
        let started = Instant::now();
        let bytes = self.log.len();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.shared.shard.flush())) {
            let reason = panic_text(&*panic);
            tracing::error!(collection = %self.shared.name, reason, "failed to flush the engine");
            return false;
        }
        self.suspect = false;
        if let Err(error) = self.log.clear() {
            tracing::error!(collection = %self.shared.name, %error, "failed to truncate the operation log");
        }
        self.engine_wal.release(false);
        tracing::debug!(collection = %self.shared.name, bytes, seconds = started.elapsed().as_secs_f64(), "flushed");
        true
    }

    fn optimize_if_due(&mut self, idle: Duration) {
        if !self.unoptimized || !index_is_due(self.shared.unindexed_over_threshold(), idle) {
            return;
        }
        if self.shared.builds.swap(true, Ordering::AcqRel) {
            return;
        }
        // Flush first to keep the log short: it cannot be truncated during the build.
        self.checkpoint();
        self.unoptimized = false;
        self.shared.optimizing.store(true, Ordering::Release);
        let shared = Arc::clone(&self.shared);
        let spawned = std::thread::Builder::new().name("qdrant-index".to_owned()).spawn(move || optimize(&shared));
        if let Err(error) = spawned {
            tracing::warn!(%error, "failed to start a thread for the index build");
            self.shared.optimizing.store(false, Ordering::Release);
            self.shared.builds.store(false, Ordering::Release);
        }
    }
}

/// Whether an optimisation is due, given the size of the unindexed points in multiples of the threshold.
fn index_is_due(times_over: usize, idle: Duration) -> bool {
    idle >= INDEX_IDLE || times_over >= FAR_BEHIND
}

fn optimize(shared: &Shared) {
    let started = Instant::now();
    match catch_unwind(AssertUnwindSafe(|| shared.shard.optimize())) {
        Ok(Ok(changed)) if changed => {
            tracing::info!(collection = %shared.name, seconds = started.elapsed().as_secs_f64(), "index built");
        }
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(collection = %shared.name, %error, "index build failed"),
        Err(panic) => {
            let reason = panic_text(&*panic);
            tracing::error!(collection = %shared.name, reason, "index build panicked");
        }
    }
    shared.optimizing.store(false, Ordering::Release);
    shared.builds.store(false, Ordering::Release);
}

fn log_unwatched(collection: &str, outcome: Result<(), ApiError>) {
    if let Err(error) = outcome {
        tracing::warn!(collection, %error, "a write without `wait` failed");
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("unknown")
}

/// Replays one record of the log.
pub(crate) fn replay(shard: &EdgeShard, record: &[u8]) -> Result<(), ApiError> {
    let operation: UpdateOperation =
        record::decode(record).map_err(|error| ApiError::Internal(format!("operation log: {error}")))?;
    shard.update(super::write::without_missing(shard, operation)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_is_built_when_idle_or_far_behind() {
        assert!(!index_is_due(1, Duration::from_millis(100)), "busy, little unindexed");
        assert!(index_is_due(0, INDEX_IDLE), "idle: the engine decides what to optimise");
        assert!(index_is_due(FAR_BEHIND, Duration::ZERO), "busy, much unindexed");
    }
}
