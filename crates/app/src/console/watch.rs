//! Takes overviews for all viewers: every second while there are any, otherwise just often enough for the history.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tidewheel_ops::overview::{Looker, Overview};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::history::{History, IDLE_INTERVAL, SERIES};
use crate::compose;
use crate::settings::Settings;

/// Sampling interval with viewers.
const INTERVAL: Duration = Duration::from_secs(1);

/// The latest overview and the last hour.
#[derive(Clone)]
pub(super) struct Watch(Arc<Inner>);

/// An overview.
pub(super) struct Look {
    pub(super) overview: Overview,
    /// As it is sent to browsers, with the newest sample of the history.
    pub(super) text: String,
}

struct Inner {
    history: Mutex<History>,
    /// `None` before the first.
    last: watch::Receiver<Option<Arc<Look>>>,
    viewers: AtomicUsize,
    viewer_joined: Notify,
}

impl Watch {
    /// Starts sampling, until `shutdown`.
    pub(super) fn start(settings: &Settings, shutdown: CancellationToken) -> Self {
        let (sender, last) = watch::channel(None);
        let inner =
            Inner { history: Mutex::default(), last, viewers: AtomicUsize::new(0), viewer_joined: Notify::new() };
        let watch = Self(Arc::new(inner));
        let (sampler, looker) = (watch.clone(), compose::looker(settings));
        tokio::spawn(async move {
            tokio::select! {
                () = sampler.sample(&looker, &sender) => {}
                () = shutdown.cancelled() => {}
            }
        });
        watch
    }

    async fn sample(&self, looker: &Looker, sender: &watch::Sender<Option<Arc<Look>>>) {
        loop {
            let overview = looker.look().await;
            let sample = {
                let mut history = self.0.history.lock().unwrap_or_else(PoisonError::into_inner);
                history.add(&overview);
                history.newest()
            };
            let text = json!({"overview": overview, "sample": sample, "names": SERIES}).to_string();
            // Sending fails only without receivers, and `self` holds one.
            let _ = sender.send(Some(Arc::new(Look { overview, text })));
            if self.0.viewers.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(INTERVAL).await;
            } else {
                let _ = tokio::time::timeout(IDLE_INTERVAL, self.0.viewer_joined.notified()).await;
            }
        }
    }

    /// The last hour.
    pub(super) fn history(&self) -> Value {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Adds a viewer until it is dropped; `None` if there are `max` already.
    pub(super) fn join(&self, max: usize) -> Option<Viewer> {
        let before = self.0.viewers.fetch_add(1, Ordering::Relaxed);
        let viewer = Viewer { watch: self.clone(), last: self.0.last.clone() };
        if before >= max {
            return None;
        }
        self.0.viewer_joined.notify_one();
        Some(viewer)
    }
}

/// A viewer.
pub(super) struct Viewer {
    watch: Watch,
    last: watch::Receiver<Option<Arc<Look>>>,
}

impl Viewer {
    /// Returns the next overview, or with `first` the latest one. `None` at shutdown.
    pub(super) async fn next(&mut self, first: bool) -> Option<Arc<Look>> {
        if first && let Some(last) = self.last.borrow_and_update().clone() {
            return Some(last);
        }
        self.last.changed().await.ok()?;
        self.last.borrow_and_update().clone()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.watch.0.viewers.fetch_sub(1, Ordering::Relaxed);
    }
}
