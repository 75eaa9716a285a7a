//! Publishes the progress and the result of a replay in Redis, for the console.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tidewheel_ops::replay::ReplayPlan;
use tidewheel_pipeline::replay::{Progress, Report};
use tidewheel_stores::redis::RedisStore;
use tokio_util::sync::CancellationToken;

use crate::times;

/// Publishing interval: smooth enough for a progress bar, with negligible load on Redis.
const EVERY: Duration = Duration::from_secs(2);

/// Result of a replay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ended<'a> {
    Done,
    Interrupted,
    Failed(&'a str),
}

/// Publishes one replay until it ends.
pub(super) struct Publisher {
    record: Record,
    progress: Arc<Mutex<Progress>>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Record {
    redis: RedisStore,
    name: String,
    from: String,
    into: String,
    began: Instant,
    began_ms: u64,
}

impl Publisher {
    /// Starts publishing. `name` is unique.
    pub(super) fn start(redis: RedisStore, name: String, plan: &ReplayPlan) -> Self {
        let [(_, from), _, (_, into)] = plan.lines();
        let (from, into) = (from.to_owned(), into.to_owned());
        let record = Record { redis, name, from, into, began: Instant::now(), began_ms: times::now_ms() };
        let (progress, stop) = (Arc::new(Mutex::new(Progress::default())), CancellationToken::new());
        let (published, shown, stopped) = (record.clone(), progress.clone(), stop.clone());
        let task = tokio::spawn(async move {
            loop {
                let now = *shown.lock().unwrap_or_else(PoisonError::into_inner);
                published.publish(now, "running", None).await;
                if tokio::time::timeout(EVERY, stopped.cancelled()).await.is_ok() {
                    return;
                }
            }
        });
        Self { record, progress, stop, task }
    }

    /// Returns a report that records the progress and forwards it to `then`.
    pub(super) fn report(&self, then: Report) -> Report {
        let progress = self.progress.clone();
        Arc::new(move |now: Progress| {
            *progress.lock().unwrap_or_else(PoisonError::into_inner) = now;
            then(now);
        })
    }

    /// Publishes the result.
    pub(super) async fn end(self, ended: Ended<'_>) {
        self.stop.cancel();
        // The task must not overwrite the result with `running`.
        let _ = self.task.await;
        let (state, problem) = match ended {
            Ended::Done => ("done", None),
            Ended::Interrupted => ("interrupted", None),
            Ended::Failed(why) => ("failed", Some(why)),
        };
        let last = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        self.record.publish(last, state, problem).await;
    }
}

impl Record {
    async fn publish(&self, progress: Progress, state: &str, problem: Option<&str>) {
        let seconds = self.began.elapsed().as_secs_f64();
        let text = json!({
            "from": self.from, "into": self.into, "process": self.name, "state": state, "progress": progress,
            "began_ms": self.began_ms, "seconds": seconds, "per_second": progress.read as f64 / seconds.max(0.001),
            "problem": problem,
        });
        // The replay does not depend on its published progress.
        if let Err(error) = self.redis.say_of_replay(&self.name, &text.to_string()).await {
            tracing::debug!("{error}");
        }
    }
}
