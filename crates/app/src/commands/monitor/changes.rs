//! Tracks which problems have begun or been resolved since the previous observation. Pure.

use std::collections::BTreeMap;

use tidewheel_core::stage::Stage;

use tidewheel_ops::overview::{Overview, Problem};

/// The open problems.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<(&'static str, String), Problem>);

/// Changes since the previous observation.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) begun: Vec<Problem>,
    pub(super) over: Vec<Problem>,
}

impl Known {
    /// Compares an overview with the open problems.
    pub(super) fn look(&mut self, overview: &Overview) -> Changes {
        let key = |problem: &Problem| (problem.code, problem.subject.clone());
        let mut changes = Changes::default();
        let now: BTreeMap<_, _> = overview.problems.iter().map(|problem| (key(problem), problem)).collect();
        self.0.retain(|key, problem| {
            let stays = now.contains_key(key) || hidden(problem, overview);
            if !stays {
                changes.over.push(problem.clone());
            }
            stays
        });
        for (key, problem) in now {
            if self.0.insert(key, problem.clone()).is_none() {
                changes.begun.push(problem.clone());
            }
        }
        changes
    }
}

/// Whether the problem cannot be observed because the server that reports it does not answer.
fn hidden(problem: &Problem, overview: &Overview) -> bool {
    let redis_is_away = overview.redis.error().is_some() || overview.stages.iter().any(|stage| stage.error().is_some());
    match (problem.code, problem.subject.as_str()) {
        ("redis-unreachable", _) => false,
        ("nothing-selected", _) => overview.source.known().is_none_or(|source| source.error.is_some()),
        // Derived from the producer's record in Redis and from MongoDB.
        ("oplog-window", _) => redis_is_away || overview.source.known().is_none_or(|source| source.error.is_some()),
        // Unknown after a restart until the producer has finished an audit.
        ("drift", _) => redis_is_away || overview.audit.is_none(),
        ("collection-unhealthy", _) => overview.collection.error().is_some(),
        ("service-not-ready" | "no-producer" | "history-damaged" | "redis-memory" | "latency", _) => redis_is_away,
        (_, subject) if Stage::ALL.iter().any(|stage| stage.name() == subject) => redis_is_away,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_ops::Probe;
    use tidewheel_ops::overview::samples::{healthy, outage, syncing, thresholds};

    use super::*;

    fn codes(problems: &[Problem]) -> Vec<&'static str> {
        problems.iter().map(|problem| problem.code).collect()
    }

    #[test]
    fn problem_is_reported_when_it_begins_and_when_it_is_resolved() {
        let mut known = Known::default();
        assert!(known.look(&healthy()).begun.is_empty());
        let begun = known.look(&syncing());
        assert_eq!((codes(&begun.begun), codes(&begun.over)), (vec!["stage-1-behind"], vec![]));
        let lasting = known.look(&syncing());
        assert!(lasting.begun.is_empty() && lasting.over.is_empty());
        let over = known.look(&healthy());
        assert_eq!((codes(&over.begun), codes(&over.over)), (vec![], vec!["stage-1-behind"]));
    }

    #[test]
    fn unobservable_problem_is_not_resolved() {
        let mut known = Known::default();
        known.look(&outage());
        let mut blind = healthy();
        blind.redis = Probe::Unknown("refused".into());
        blind.stages = [Probe::Unknown("refused".into()), Probe::Unknown("refused".into())];
        let changes = known.look(&blind.judged(&thresholds()));
        assert_eq!(codes(&changes.begun), ["redis-unreachable"]);
        assert_eq!(
            codes(&changes.over),
            ["qdrant-unreachable"],
            "Qdrant answers; problems reported by Redis stay open"
        );
        let changes = known.look(&healthy());
        let mut over = codes(&changes.over);
        over.sort_unstable();
        assert_eq!(over, ["dead-letters", "no-progress", "redis-unreachable", "service-not-ready", "stage-2-behind"]);
    }
}
