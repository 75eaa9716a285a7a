//! Tracks which problems have begun or been resolved since the previous observation. Pure.

use std::collections::BTreeMap;

use tidewheel_core::catalog::IndexName;
use tidewheel_core::stage::Stage;
use tidewheel_ops::overview::{Overview, Problem};

/// The open problems.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<Key, Problem>);

/// Code, subject and index of a problem.
type Key = (&'static str, String, Option<IndexName>);

/// Changes since the previous observation.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) begun: Vec<Problem>,
    pub(super) over: Vec<Problem>,
}

impl Known {
    /// Compares an overview with the open problems.
    pub(super) fn look(&mut self, overview: &Overview) -> Changes {
        let key = |problem: &Problem| (problem.code, problem.subject.clone(), problem.index.clone());
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
        ("drift", _) => redis_is_away || !is_audited(problem, overview),
        ("collection-unhealthy", _) => overview.collection.error().is_some(),
        ("alias-moved", _) => redis_is_away || overview.collection.error().is_some(),
        ("service-not-ready" | "no-producer" | "history-damaged" | "redis-memory" | "latency", _) => redis_is_away,
        ("declaration-differs" | "generation-stuck" | "index-lost" | "embedding-missing", _) => redis_is_away,
        (_, subject) if Stage::ALL.iter().any(|stage| stage.name() == subject) => redis_is_away,
        _ => false,
    }
}

/// Whether the producer has audited the index of a problem.
fn is_audited(problem: &Problem, overview: &Overview) -> bool {
    let first = overview.indexes.first().map(|index| &index.name);
    match &problem.index {
        Some(name) if Some(name) != first => {
            overview.indexes.iter().any(|index| index.name == *name && index.drift.is_some())
        }
        _ => overview.audit.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_ops::Probe;
    use tidewheel_ops::overview::Audit;
    use tidewheel_ops::overview::samples::{declared, healthy, outage, syncing, thresholds};

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

    #[test]
    fn problem_of_each_index_begins_and_is_resolved_alone() {
        let drifted = |names: &[&str]| {
            let mut overview = declared();
            for index in overview.indexes.iter_mut().filter(|index| names.contains(&index.name.as_str())) {
                index.drift = Some(Audit { seconds_ago: 60.0, missing: 1, stale: 0, extra: 0, surplus: 0 });
            }
            overview.judged(&thresholds())
        };
        let indexes = |problems: &[Problem]| {
            problems.iter().filter_map(|problem| Some(problem.index.as_ref()?.to_string())).collect::<Vec<_>>()
        };
        let mut known = Known::default();
        assert_eq!(indexes(&known.look(&drifted(&["tickets"])).begun), ["tickets"]);
        assert_eq!(indexes(&known.look(&drifted(&["tickets", "users"])).begun), ["users"]);
        // An index without an audit may still differ.
        let changes = known.look(&declared());
        assert_eq!((indexes(&changes.over), changes.begun.len()), (vec!["tickets".to_owned()], 0));
    }
}
