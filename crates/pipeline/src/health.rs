//! Whether a service can do its work right now, and makes progress with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// For how long there may be work without any of it getting done before a service is not ready. A single call that takes longer
/// is not progress: the slowest one, an embedding of 256 long texts on two cores, takes seconds.
const STALLED: Duration = Duration::from_secs(60);

/// After how long a failure that lasts is told again; twice as long each time, up to [`TOLD_AT_LEAST`].
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// How often a failure that lasts is told at least: an outage of a night is some thirty lines.
const TOLD_AT_LEAST: Duration = Duration::from_secs(15 * 60);

/// What a service says of itself. Cloning gives another handle on the same report.
#[derive(Clone, Debug)]
pub struct Health {
    service: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    started: bool,
    /// Pieces of work that are under way.
    busy: usize,
    /// When the last of them got further, or the first one began.
    progressed: Instant,
    failing: BTreeMap<&'static str, Failure>,
}

#[derive(Debug)]
struct Failure {
    reason: String,
    since: Instant,
    attempts: u64,
    /// When it is to be told again.
    tell: Instant,
    pause: Duration,
}

/// The answer to "is it ready?".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whether it can do its work.
    pub ready: bool,
    /// If not, why; one entry for each thing that does not work.
    pub reasons: Vec<String>,
}

/// Whether a failure is worth a line in the log. Of several calls that fail alike, one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It has just begun.
    First,
    /// It has lasted for so long, over so many attempts.
    Lasting(Duration, u64),
    /// It was told not long ago.
    Not,
}

impl Default for Health {
    fn default() -> Self {
        Self::of("other")
    }
}

impl Health {
    /// That of this service.
    pub fn of(service: &'static str) -> Self {
        let state = State { started: false, busy: 0, progressed: Instant::now(), failing: BTreeMap::new() };
        Self { service, state: Arc::new(Mutex::new(state)) }
    }

    /// Whose it is.
    pub fn service(&self) -> &'static str {
        self.service
    }

    /// Says that the service has reached everything it needs once, and works from here on.
    pub fn started(&self) {
        self.state().started = true;
    }

    /// Says that a piece of work begins. From here on something has to get done.
    pub fn begins(&self) {
        let mut state = self.state();
        if state.busy == 0 {
            state.progressed = Instant::now();
        }
        state.busy += 1;
    }

    /// Says that a piece of work has ended, in whatever way.
    pub fn ends(&self) {
        let mut state = self.state();
        state.busy = state.busy.saturating_sub(1);
    }

    /// Says that something got done.
    pub fn progresses(&self) {
        self.state().progressed = Instant::now();
    }

    /// Says that `what` works; for how long it did not, if so, and over how many attempts.
    pub fn works(&self, what: &'static str) -> Option<(Duration, u64)> {
        self.state().failing.remove(what).map(|failure| (failure.since.elapsed(), failure.attempts))
    }

    /// Says that `what` fails for `reason`.
    pub fn fails(&self, what: &'static str, reason: &str) -> Telling {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(failure) = state.failing.get_mut(what) {
            reason.clone_into(&mut failure.reason);
            failure.attempts += 1;
            if now < failure.tell {
                return Telling::Not;
            }
            failure.pause = (failure.pause * 2).min(TOLD_AT_LEAST);
            failure.tell = now + failure.pause;
            return Telling::Lasting(now - failure.since, failure.attempts);
        }
        let reason = reason.to_owned();
        let failure = Failure { reason, since: now, attempts: 1, tell: now + TOLD_AGAIN, pause: TOLD_AGAIN };
        state.failing.insert(what, failure);
        Telling::First
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
        let stalled = state.progressed.elapsed();
        if state.busy > 0 && stalled >= STALLED && reasons.is_empty() {
            reasons.push(format!("there is work, and none of it got done for {} s", stalled.as_secs()));
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
        /// Everything is so much longer ago.
        fn pass(&self, time: Duration) {
            let mut state = self.state();
            state.progressed -= time;
            for failure in state.failing.values_mut() {
                failure.since -= time;
                failure.tell -= time;
            }
        }
    }

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

    #[test]
    fn ready_means_that_work_gets_done_if_there_is_any() {
        let health = Health::of("upserter");
        health.started();
        health.pass(STALLED * 2);
        assert!(health.readiness().ready, "an idle service is ready");
        health.begins();
        assert!(health.readiness().ready, "it has just begun");
        health.pass(STALLED);
        let readiness = health.readiness();
        assert_eq!(readiness.reasons, ["there is work, and none of it got done for 60 s"]);
        health.progresses();
        assert!(health.readiness().ready, "it got further");
        health.pass(STALLED);
        health.ends();
        assert!(health.readiness().ready, "there is no work");
    }

    #[test]
    fn an_outage_is_told_when_it_begins_then_less_and_less_often_and_when_it_is_over() {
        let health = Health::of("upserter");
        let mut lines = 0;
        // Four batches fail twice a second for an hour.
        assert_eq!(health.fails("write to Qdrant", "connection refused"), Telling::First);
        for _ in 0..7_200 {
            for _ in 0..4 {
                lines += u32::from(health.fails("write to Qdrant", "connection refused") != Telling::Not);
            }
            health.pass(Duration::from_millis(500));
        }
        assert!((5..=9).contains(&lines), "{lines} lines for an hour");
        let (lasted, attempts) = health.works("write to Qdrant").unwrap();
        assert!(lasted >= Duration::from_secs(3_600) && attempts > 28_000);
        assert_eq!(health.works("write to Qdrant"), None, "told once");
        assert_eq!(health.fails("write to Qdrant", "again"), Telling::First);
    }
}
