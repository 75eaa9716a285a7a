//! Readiness and progress of a service.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time without progress despite pending work after which a service is not ready. The slowest single call, embedding
/// 256 long texts on two cores, takes seconds.
const STALLED: Duration = Duration::from_secs(60);

/// First interval at which a lasting failure is logged again; it doubles up to [`LONGEST_INTERVAL`].
const FIRST_INTERVAL: Duration = Duration::from_secs(30);

/// Longest interval between log lines of a lasting failure: an outage of a night is some thirty lines.
const LONGEST_INTERVAL: Duration = Duration::from_secs(15 * 60);

/// The health of a service. Clones share the same state.
#[derive(Clone, Debug)]
pub struct Health {
    service: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    started: bool,
    /// Units of work in progress.
    busy: usize,
    /// Time of the last progress, or of the start of the first unit.
    progressed: Instant,
    failing: BTreeMap<&'static str, Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    since: Instant,
    attempts: u64,
    /// When it is logged next.
    log_at: Instant,
    interval: Duration,
}

/// The readiness of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it is ready.
    pub ready: bool,
    /// If not, the reasons; one for each failing operation.
    pub reasons: Vec<String>,
}

/// Whether to log a failure. Of several calls with the same failure, one is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReport {
    /// The first failure.
    First,
    /// A lasting failure, with its duration and number of attempts.
    Lasting(Duration, u64),
    /// Logged recently: skip it.
    Not,
}

impl Default for Health {
    fn default() -> Self {
        Self::of("other")
    }
}

impl Health {
    /// The health of this service.
    pub fn of(service: &'static str) -> Self {
        let state = State { started: false, busy: 0, progressed: Instant::now(), failing: BTreeMap::new() };
        Self { service, state: Arc::new(Mutex::new(state)) }
    }

    /// The service's name.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Reports that the service has reached all its dependencies once and is working.
    pub fn started(&self) {
        self.state().started = true;
    }

    /// Reports the start of a unit of work. From here on progress is expected.
    pub fn begins(&self) {
        let mut state = self.state();
        if state.busy == 0 {
            state.progressed = Instant::now();
        }
        state.busy += 1;
    }

    /// Reports the end of a unit of work, successful or not.
    pub fn ends(&self) {
        let mut state = self.state();
        state.busy = state.busy.saturating_sub(1);
    }

    /// Reports progress.
    pub fn progresses(&self) {
        self.state().progressed = Instant::now();
    }

    /// Reports that `what` succeeds; returns the duration and number of attempts of a failure that ends.
    pub fn works(&self, what: &'static str) -> Option<(Duration, u64)> {
        self.state().failing.remove(what).map(|failure| (failure.since.elapsed(), failure.attempts))
    }

    /// Reports that `what` fails with `reason`.
    pub fn fails(&self, what: &'static str, reason: &str) -> FailureReport {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(failure) = state.failing.get_mut(what) {
            reason.clone_into(&mut failure.reason);
            failure.attempts += 1;
            if now < failure.log_at {
                return FailureReport::Not;
            }
            failure.interval = (failure.interval * 2).min(LONGEST_INTERVAL);
            failure.log_at = now + failure.interval;
            return FailureReport::Lasting(now - failure.since, failure.attempts);
        }
        let reason = reason.to_owned();
        let failure =
            Failure { reason, since: now, attempts: 1, log_at: now + FIRST_INTERVAL, interval: FIRST_INTERVAL };
        state.failing.insert(what, failure);
        FailureReport::First
    }

    /// Whether the service is ready.
    pub fn readiness(&self) -> Readiness {
        let state = self.state();
        let mut reasons: Vec<String> = state
            .failing
            .iter()
            .map(|(what, failure)| {
                format!("failing to {what} for {} s: {}", failure.since.elapsed().as_secs(), failure.reason)
            })
            .collect();
        if !state.started && reasons.is_empty() {
            reasons.push("still starting".into());
        }
        let stalled = state.progressed.elapsed();
        if state.busy > 0 && stalled >= STALLED && reasons.is_empty() {
            reasons.push(format!("no progress despite pending work for {} s", stalled.as_secs()));
        }
        Readiness { ready: state.started && reasons.is_empty(), reasons }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Health {
        /// Moves all times into the past.
        fn pass(&self, time: Duration) {
            let mut state = self.state();
            state.progressed -= time;
            for failure in state.failing.values_mut() {
                failure.since -= time;
                failure.log_at -= time;
            }
        }
    }

    #[test]
    fn service_is_ready_when_started_without_failures() {
        let health = Health::default();
        assert_eq!(health.readiness().reasons, ["still starting"]);
        health.started();
        assert!(health.readiness().ready);
        health.fails("reach Qdrant", "connection refused");
        let readiness = health.clone().readiness();
        assert!(!readiness.ready);
        assert_eq!(readiness.reasons, ["failing to reach Qdrant for 0 s: connection refused"]);
        health.works("reach Qdrant");
        assert!(health.readiness().ready);
    }

    #[test]
    fn service_is_not_ready_without_progress_on_pending_work() {
        let health = Health::of("upserter");
        health.started();
        health.pass(STALLED * 2);
        assert!(health.readiness().ready, "an idle service is ready");
        health.begins();
        assert!(health.readiness().ready, "work has just begun");
        health.pass(STALLED);
        let readiness = health.readiness();
        assert_eq!(readiness.reasons, ["no progress despite pending work for 60 s"]);
        health.progresses();
        assert!(health.readiness().ready, "it made progress");
        health.pass(STALLED);
        health.ends();
        assert!(health.readiness().ready, "no pending work");
    }

    #[test]
    fn outage_is_logged_at_start_at_growing_intervals_and_at_end() {
        let health = Health::of("upserter");
        let mut lines = 0;
        // Four batches fail twice a second for an hour.
        assert_eq!(health.fails("write to Qdrant", "connection refused"), FailureReport::First);
        for _ in 0..7_200 {
            for _ in 0..4 {
                lines += u32::from(health.fails("write to Qdrant", "connection refused") != FailureReport::Not);
            }
            health.pass(Duration::from_millis(500));
        }
        assert!((5..=9).contains(&lines), "{lines} lines for an hour");
        let (lasted, attempts) = health.works("write to Qdrant").unwrap();
        assert!(lasted >= Duration::from_secs(3_600) && attempts > 28_000);
        assert_eq!(health.works("write to Qdrant"), None, "reported once");
        assert_eq!(health.fails("write to Qdrant", "again"), FailureReport::First);
    }
}
