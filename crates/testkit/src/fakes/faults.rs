//! Injected faults in the calls of a fake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tidewheel_core::error::PortError;
use tidewheel_core::ports::PortResult;
use tokio::sync::Semaphore;

use super::process::Process;

/// A fault of a call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It fails without effect.
    Refused(PortError),
    /// It takes effect and fails: its response is lost.
    AnswerLost(PortError),
    /// It takes effect after this delay.
    Slow(Duration),
    /// It takes effect once the gate is opened.
    Held(Gate),
}

impl Fault {
    /// A call that fails without a connection and without effect.
    pub fn unreachable() -> Self {
        Self::Refused(PortError::transient("injected: unreachable"))
    }

    /// A call that takes effect and whose response is lost with the connection.
    pub fn answer_lost() -> Self {
        Self::AnswerLost(PortError::transient("injected: the connection broke before the response arrived"))
    }
}

/// Holds calls until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A closed gate.
    pub fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Releases all waiting and future calls.
    pub fn open(&self) {
        self.0.close();
    }

    async fn passed(&self) {
        // A closed semaphore is an open gate.
        let _ = self.0.acquire().await;
    }
}

/// The faults of one fake. Calls are named like the methods of the port. Clones share their faults.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    planned: Arc<Mutex<Planned>>,
    /// The calling process, if relevant.
    process: Option<Process>,
}

#[derive(Debug, Default)]
struct Planned {
    next: HashMap<&'static str, Vec<Fault>>,
    every: HashMap<&'static str, Fault>,
    hits: HashMap<&'static str, u64>,
}

impl Faults {
    /// The same faults, for the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { process: Some(process.clone()), ..self.clone() }
    }

    /// Plans a fault for the next call of this name; several faults for one name hit one call each, in order.
    pub fn once(&self, call: &'static str, fault: Fault) {
        self.planned().next.entry(call).or_default().push(fault);
    }

    /// Plans a fault for every call of this name until [`Faults::heal`].
    pub fn always(&self, call: &'static str, fault: Fault) {
        self.planned().every.insert(call, fault);
    }

    /// Removes all planned faults.
    pub fn heal(&self) {
        let mut planned = self.planned();
        planned.next.clear();
        planned.every.clear();
    }

    /// How many calls of this name were hit by a fault.
    pub fn hits(&self, call: &str) -> u64 {
        self.planned().hits.get(call).copied().unwrap_or(0)
    }

    /// Runs a call under its planned fault.
    pub async fn around<T>(&self, call: &'static str, work: impl FnOnce() -> PortResult<T>) -> PortResult<T> {
        match &self.process {
            None => self.suffer(call, work).await,
            Some(process) => process.call(call, self.suffer(call, work)).await,
        }
    }

    async fn suffer<T>(&self, call: &'static str, work: impl FnOnce() -> PortResult<T>) -> PortResult<T> {
        match self.take(call) {
            None => work(),
            Some(Fault::Refused(error)) => Err(error),
            Some(Fault::AnswerLost(error)) => {
                work()?;
                Err(error)
            }
            Some(Fault::Slow(time)) => {
                tokio::time::sleep(time).await;
                work()
            }
            Some(Fault::Held(gate)) => {
                gate.passed().await;
                work()
            }
        }
    }

    fn take(&self, call: &'static str) -> Option<Fault> {
        let mut planned = self.planned();
        let next = planned.next.get_mut(call).filter(|faults| !faults.is_empty()).map(|faults| faults.remove(0));
        let fault = next.or_else(|| planned.every.get(call).cloned())?;
        *planned.hits.entry(call).or_default() += 1;
        Some(fault)
    }

    fn planned(&self) -> std::sync::MutexGuard<'_, Planned> {
        self.planned.lock().expect("no holder panics")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn faults_hit_the_calls_they_are_planned_for() {
        let faults = Faults::default();
        let done = AtomicU32::new(0);
        let call = || faults.around("append", || Ok(done.fetch_add(1, Ordering::Relaxed)));
        faults.once("append", Fault::unreachable());
        faults.once("append", Fault::answer_lost());
        assert!(call().await.is_err());
        assert_eq!(done.load(Ordering::Relaxed), 0);
        assert!(call().await.is_err());
        assert_eq!(done.load(Ordering::Relaxed), 1);
        assert!(call().await.is_ok());
        assert_eq!((faults.hits("append"), faults.hits("load")), (2, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn held_call_waits_for_its_gate() {
        let faults = Faults::default();
        let gate = Gate::closed();
        faults.always("read", Fault::Held(gate.clone()));
        let held = tokio::spawn({
            let faults = faults.clone();
            async move { faults.around("read", || Ok(())).await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!held.is_finished());
        gate.open();
        held.await.unwrap().unwrap();
    }
}
