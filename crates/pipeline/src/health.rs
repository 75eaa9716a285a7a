//! Whether a service can do its work right now.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a service says of itself. Cloning gives another handle on the same report.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    started: bool,
    failing: BTreeMap<&'static str, Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    since: Instant,
}

/// The answer to "is it ready?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it can do its work.
    pub ready: bool,
    /// If not, why; one entry for each thing that does not work.
    pub reasons: Vec<String>,
}

impl Health {
    /// Says that the service has reached everything it needs once, and works from here on.
    pub fn started(&self) {
        self.state().started = true;
    }

    /// Says that `what` works.
    pub fn works(&self, what: &'static str) {
        self.state().failing.remove(what);
    }

    /// Says that `what` fails for `reason`.
    pub fn fails(&self, what: &'static str, reason: &str) {
        let mut state = self.state();
        let failure =
            state.failing.entry(what).or_insert_with(|| Failure { reason: String::new(), since: Instant::now() });
        reason.clone_into(&mut failure.reason);
    }

    /// Whether the service is ready.
    pub fn readiness(&self) -> Readiness {
        let state = self.state();
        let mut reasons: Vec<String> = state
            .failing
            .iter()
            .map(|(what, failure)| {
                format!("cannot {what} for {} s: {}", failure.since.elapsed().as_secs(), failure.reason)
            })
            .collect();
        if !state.started && reasons.is_empty() {
            reasons.push("still starting".into());
        }
        Readiness { ready: state.started && reasons.is_empty(), reasons }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_started_and_nothing_fails() {
        let health = Health::default();
        assert_eq!(health.readiness().reasons, ["still starting"]);
        health.started();
        assert!(health.readiness().ready);
        health.fails("reach Qdrant", "connection refused");
        let readiness = health.clone().readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.reasons, ["cannot reach Qdrant for 0 s: connection refused"]);
        health.works("reach Qdrant");
        assert!(health.readiness().ready);
    }
}
