//! Looks again and again, for everybody who watches: often while somebody does, else just often enough for the history.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::history::{History, SELDOM, SERIES};
use crate::overview::Looker;
use crate::settings::Settings;

/// How often it is looked while somebody watches.
const OFTEN: Duration = Duration::from_secs(1);

/// The last look and the hour before it.
#[derive(Clone)]
pub(super) struct Watch(Arc<Inner>);

struct Inner {
    history: Mutex<History>,
    /// The last look as browsers get it; `None` before the first.
    last: watch::Receiver<Option<Arc<str>>>,
    viewers: AtomicUsize,
    somebody_came: Notify,
}

impl Watch {
    /// Begins to look, until `shutdown`.
    pub(super) fn start(settings: &Settings, shutdown: CancellationToken) -> Self {
        let (sender, last) = watch::channel(None);
        let inner =
            Inner { history: Mutex::default(), last, viewers: AtomicUsize::new(0), somebody_came: Notify::new() };
        let watch = Self(Arc::new(inner));
        let (looking, looker) = (watch.clone(), Looker::new(settings));
        tokio::spawn(async move {
            tokio::select! {
                () = looking.keep_looking(&looker, &sender) => {}
                () = shutdown.cancelled() => {}
            }
        });
        watch
    }

    async fn keep_looking(&self, looker: &Looker, sender: &watch::Sender<Option<Arc<str>>>) {
        loop {
            let overview = looker.look().await;
            let sample = {
                let mut history = self.0.history.lock().unwrap_or_else(PoisonError::into_inner);
                history.add(&overview);
                history.newest()
            };
            let text = json!({"overview": overview, "sample": sample, "names": SERIES}).to_string();
            // Fails only if nobody is left to look for, and one is kept here.
            let _ = sender.send(Some(text.into()));
            if self.0.viewers.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(OFTEN).await;
            } else {
                let _ = tokio::time::timeout(SELDOM, self.0.somebody_came.notified()).await;
            }
        }
    }

    /// The last hour.
    pub(super) fn history(&self) -> Value {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner).all()
    }

    /// Somebody who watches, until it is dropped; `None` if there are `most` already.
    pub(super) fn join(&self, most: usize) -> Option<Viewer> {
        let before = self.0.viewers.fetch_add(1, Ordering::Relaxed);
        let viewer = Viewer { watch: self.clone(), last: self.0.last.clone() };
        if before >= most {
            return None;
        }
        self.0.somebody_came.notify_one();
        Some(viewer)
    }
}

/// Somebody who watches.
pub(super) struct Viewer {
    watch: Watch,
    last: watch::Receiver<Option<Arc<str>>>,
}

impl Viewer {
    /// The next look; the last one at the first call. `None` when no more will come.
    pub(super) async fn next(&mut self, first: bool) -> Option<Arc<str>> {
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
