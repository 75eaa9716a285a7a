//! A process that can die at any of its calls.
//!
//! Fakes obtained through `used_by` attribute a service's calls to a process. Once the process is dead, none of its
//! calls takes effect or returns, from any task of the service: as after SIGKILL, only the effects of earlier calls
//! remain.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

/// The point where a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// The name of the call, as in [`Faults`](super::faults::Faults).
    pub call: &'static str,
    /// The number of the call, from 1.
    pub number: u64,
    /// Before or after the call's effect.
    pub moment: Moment,
}

/// Whether a process dies before or after a call's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The call has no effect.
    Before,
    /// The call takes effect, and its response never arrives.
    After,
}

/// One run of a service. Clones share the process.
#[derive(Clone, Debug, Default)]
pub struct Process(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    crash: Option<CrashPoint>,
    calls: Mutex<HashMap<&'static str, u64>>,
    dead: watch::Sender<bool>,
}

impl Process {
    /// A process that dies at this point.
    pub fn crashing(at: CrashPoint) -> Self {
        Self(Arc::new(Inner { crash: Some(at), ..Inner::default() }))
    }

    /// Number of started calls by name.
    pub fn calls(&self) -> HashMap<&'static str, u64> {
        self.counted().clone()
    }

    /// Kills the process.
    pub fn die(&self) {
        self.0.dead.send_replace(true);
    }

    /// Waits until the process is dead.
    pub async fn died(&self) {
        // The sender lives as long as this process.
        let _ = self.0.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Runs a call if the process is alive before it, and returns if it is alive after it.
    pub(super) async fn call<T>(&self, call: &'static str, work: impl Future<Output = T>) -> T {
        self.lives().await;
        let number = {
            let mut calls = self.counted();
            let number = calls.entry(call).or_default();
            *number += 1;
            *number
        };
        self.passes(CrashPoint { call, number, moment: Moment::Before }).await;
        let answer = work.await;
        self.passes(CrashPoint { call, number, moment: Moment::After }).await;
        answer
    }

    async fn passes(&self, point: CrashPoint) {
        if self.0.crash == Some(point) {
            self.die();
        }
        self.lives().await;
    }

    /// Never returns in a dead process.
    async fn lives(&self) {
        if *self.0.dead.borrow() {
            pending::<()>().await;
        }
    }

    fn counted(&self) -> MutexGuard<'_, HashMap<&'static str, u64>> {
        self.0.calls.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::super::faults::Faults;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn process_dies_at_its_crash_point_and_has_no_later_effect() {
        for (moment, effects) in [(Moment::Before, 2), (Moment::After, 3)] {
            let process = Process::crashing(CrashPoint { call: "append", number: 2, moment });
            let (faults, done) = (Faults::default(), Arc::new(AtomicU64::new(0)));
            let task = tokio::spawn({
                let (own, done) = (faults.used_by(&process), done.clone());
                async move {
                    for call in ["append", "load", "append", "load"] {
                        own.around(call, || Ok(done.fetch_add(1, Ordering::Relaxed)))
                            .await
                            .expect("no fault is planned");
                    }
                }
            });
            process.died().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!((done.load(Ordering::Relaxed), task.is_finished()), (effects, false));
            assert_eq!(process.calls(), HashMap::from([("append", 2), ("load", 1)]));
            assert!(faults.around("load", || Ok(())).await.is_ok(), "other processes are unaffected");
        }
    }
}
