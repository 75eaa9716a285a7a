//! What has begun and what is over since the look before. Pure.

use std::collections::BTreeMap;

use tidewheel_core::streams::{EMBEDDED, RAW};

use crate::overview::{Overview, Problem};

/// The problems that have begun and are not over.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<(&'static str, String), Problem>);

/// What is new.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) begun: Vec<Problem>,
    pub(super) over: Vec<Problem>,
}

impl Known {
    /// Takes a look.
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

/// Whether the server that would tell about this problem does not answer.
fn hidden(problem: &Problem, overview: &Overview) -> bool {
    let redis_is_away = overview.redis.error().is_some() || overview.stages.iter().any(|stage| stage.error().is_some());
    match (problem.code, problem.subject.as_str()) {
        ("redis-unreachable", _) => false,
        // It is told by what the producer has left in Redis, and by MongoDB.
        ("oplog-window", _) => redis_is_away || overview.source.known().is_none_or(|source| source.error.is_some()),
        ("collection-unhealthy", _) => overview.collection.error().is_some(),
        ("service-not-ready" | "no-producer" | "history-damaged" | "redis-memory" | "latency", _) => redis_is_away,
        (_, RAW | EMBEDDED) => redis_is_away,
        _ => false,
    }
}
