//! A process that can die at any of its calls.
//!
//! The fakes that a service is given through `used_by` do its calls in the name of a process. When that dies, none of its
//! calls does anything or is answered any more, whichever of the service's tasks makes it: as after SIGKILL, all that is left
//! of it is what its calls did before.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

/// Where a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPoint {
    /// At calls of this name, as in [`Faults`](super::faults::Faults).
    pub call: &'static str,
    /// At which of them, from 1.
    pub number: u64,
    /// On which side of its effect.
    pub moment: Moment,
}

/// On which side of a call's effect a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The call has done nothing.
    Before,
    /// The call has done its work, and its answer never arrives.
    After,
}

/// One run of a service. Clones are the same process.
#[derive(Clone, Debug, Default)]
pub struct Process(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    crash: Option<CrashPoint>,
    calls: Mutex<HashMap<&'static str, u64>>,
    dead: watch::Sender<bool>,
}

impl Process {
    /// A process that dies there.
    pub fn crashing(at: CrashPoint) -> Self {
        Self(Arc::new(Inner { crash: Some(at), ..Inner::default() }))
    }

    /// How many calls of each name it has begun.
    pub fn calls(&self) -> HashMap<&'static str, u64> {
        self.counted().clone()
    }

    /// It dies now.
    pub fn die(&self) {
        self.0.dead.send_replace(true);
    }

    /// Waits until it is dead.
    pub async fn died(&self) {
        // The sender lives as long as this process.
        let _ = self.0.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Does the work of a call, if the process lives to do it and to see the answer.
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

    /// Never returns to a dead process.
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
    async fn a_process_dies_at_its_point_and_does_nothing_after_it() {
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
            assert!(faults.around("load", || Ok(())).await.is_ok(), "others live on");
        }
    }
}
