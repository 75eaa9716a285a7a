//! Problems of single indexes. Pure.
//!
//! The messages name the index only if there are several.

use tidewheel_core::catalog::{IndexName, State};
use tidewheel_core::stage::Stage;

use super::problems::{Found, Severity};
use super::{Audit, Declared, IndexOverview, Latency, MovedAlias, Overview, Probe, Thresholds};
use crate::indexes::Step;
use crate::text::{documents, duration, entries, thousands};

/// Seconds without progress after which an operation counts as stuck.
const STUCK_SECONDS: f64 = 600.0;

/// Documents that differ from the source.
pub(super) fn drift(overview: &Overview, found: &mut Found) {
    let parked = overview.parked();
    for (index, audit) in overview.audits().filter(|(_, audit)| audit.drift() > 0) {
        let Audit { missing, stale, extra, surplus, .. } = *audit;
        let counts = [(missing, "missing"), (stale, "stale"), (extra, "extra"), (surplus, "with surplus points")];
        let counts =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, kind)| format!("{} {kind}", thousands(*count)));
        let named = index.filter(|_| overview.indexes.len() > 1);
        let what = named.map_or_else(|| "the index".to_owned(), |index| format!("index {}", index.name));
        let message = format!(
            "{what} differs from MongoDB in {}, found by the audit {} ago: {}",
            documents(audit.drift()),
            duration(audit.seconds_ago),
            counts.collect::<Vec<_>>().join(", ")
        );
        let only = named.map_or_else(String::new, |index| format!(" --index {}", index.name));
        let action = if audit.unexplained(parked) == 0 {
            format!(
                "parked changes count as missing or stale: retry or drop the dead letters first; `tidewheel verify{only}` lists \
                 the differences"
            )
        } else {
            format!("repair with `tidewheel verify{only} --repair`; find out what else writes to the collection")
        };
        found.add(Severity::Warning, "drift", "qdrant", message, action).index = index.map(name);
    }
}

/// Slow changes: of each index, or of the only one.
pub(super) fn latency(overview: &Overview, thresholds: &Thresholds, found: &mut Found) {
    let objective = thresholds.latency.as_secs_f64();
    let mut check = |latency: &Latency, of: &str, index: Option<&IndexOverview>| {
        if latency.p95_seconds > objective {
            let (p95, objective) = (duration(latency.p95_seconds), duration(objective));
            let message = format!("p95 commit-to-searchable latency{of} of {p95} exceeds the objective of {objective}");
            let action = "check which stage has a backlog; latency recovers automatically after an outage";
            let problem = found.add(Severity::Warning, "latency", Stage::Embedded.name(), message, action);
            problem.index = index.map(name);
        }
    };
    let by_index = || overview.indexes.iter().filter_map(|index| Some((index, index.latency.as_ref()?)));
    // Services of an earlier release report one latency for all.
    if overview.indexes.len() > 1 && by_index().next().is_some() {
        for (index, latency) in by_index() {
            check(latency, &format!(" of index {}", index.name), Some(index));
        }
    } else if let Some(latency) = &overview.latency {
        check(latency, "", overview.indexes.first().filter(|_| overview.indexes.len() == 1));
    }
}

/// Collections that the server reports as broken.
pub(super) fn collections(overview: &Overview, found: &mut Found) {
    let mut check = |collection: &str, status: Option<&str>, index: Option<&IndexOverview>| {
        if status == Some("red") {
            let message = format!("Qdrant reports status red for collection {collection}");
            let action = "check Qdrant's log; `curl QDRANT/collections/NAME` shows the optimiser's error";
            let problem = found.add(Severity::Critical, "collection-unhealthy", "qdrant", message, action);
            problem.index = index.map(name);
        }
    };
    let mut first = None;
    if let Probe::Known(collection) = &overview.collection {
        first = overview.indexes.iter().find(|index| index.is_read_by(&collection.name));
        check(&collection.name, collection.status.as_deref(), first);
    }
    // The overview's collection is that of the first applied index.
    let described = first.and_then(|index| index.serving.as_ref()).map(|serving| serving.collection.as_str());
    for index in &overview.indexes {
        for generation in index.generations.iter().filter(|one| Some(one.collection.as_str()) != described) {
            check(&generation.collection, generation.status.as_deref(), Some(index));
        }
    }
}

/// Problems that only a declared index has.
pub(super) fn of_index(index: &IndexOverview, overview: &Overview, found: &mut Found) {
    declaration(index, found);
    stuck(index, overview, found);
    lost(index, found);
    alias(index, found);
    embedding(index, found);
}

fn declaration(index: &IndexOverview, found: &mut Found) {
    let called = &index.name;
    let is_dropped = index.generations.iter().all(|generation| generation.state == State::Retiring);
    let (message, action) = match index.declared {
        Declared::Differs if index.generations.is_empty() => (
            format!("index {called} is declared, but not applied"),
            "run `tidewheel plan`, then `tidewheel apply`, or remove its declaration",
        ),
        Declared::Differs => (
            format!("the declaration of index {called} differs from the applied one, which stays in effect"),
            "run `tidewheel plan`, then `tidewheel apply`, or restore the declaration",
        ),
        Declared::Absent if !is_dropped => (
            format!("index {called} is not declared any more, and is still kept up"),
            "run `tidewheel apply` to drop it, or restore its declaration",
        ),
        _ => return,
    };
    let problem = found.add(Severity::Warning, "declaration-differs", "settings", message, action);
    problem.index = Some(called.clone());
}

fn stuck(index: &IndexOverview, overview: &Overview, found: &mut Found) {
    let Some(operation) = &index.operation else { return };
    let (number, called) = (operation.generation, &index.name);
    let since = duration(operation.stalled_seconds);
    let is_waiting = matches!(operation.step, Step::Ready | Step::Switching);
    let cause = match &operation.problem {
        Some(problem) => format!("does not advance: {problem}"),
        None if operation.stalled_seconds < STUCK_SECONDS => return,
        None if is_waiting => {
            let backlog = overview.stages.iter().filter_map(Probe::known).map(|stage| stage.backlog).sum();
            format!("has waited for an empty pipeline for {since}: {} waiting", entries(backlog))
        }
        None => format!("has made no progress for {since}: {}", operation.step.text()),
    };
    let is_compared = operation.step == Step::Comparing && operation.problem.is_some();
    let action = if is_compared {
        "retry or drop the dead letters; `tidewheel apply` compares again, `tidewheel apply --accept-missing N` switches anyway"
    } else if is_waiting {
        "let the backlog drain; the alias moves automatically"
    } else {
        "fix the cause; the producer's log names it, and the operation continues automatically"
    };
    let message = format!("generation {number} of index {called} {cause}");
    found.add(Severity::Warning, "generation-stuck", "producer", message, action).index = Some(called.clone());
}

fn lost(index: &IndexOverview, found: &mut Found) {
    for generation in &index.generations {
        let Some(lost) = &generation.lost else { continue };
        let message = format!("generation {} of index {} is filled again: {lost}", generation.number, index.name);
        let action = "keep the producer running; find the cause of the loss";
        let problem = found.add(Severity::Warning, "index-lost", &generation.collection, message, action);
        problem.index = Some(index.name.clone());
    }
}

fn alias(index: &IndexOverview, found: &mut Found) {
    let Some(MovedAlias { to }) = &index.alias_moved else { return };
    let called = &index.name;
    let message = match to {
        None => format!("searches of index {called} fail: its alias is missing"),
        Some(collection) => format!("searches of index {called} read collection {collection}: its alias was moved"),
    };
    let action = "keep the producer running, it restores the alias; find out what else changes aliases in Qdrant";
    found.add(Severity::Critical, "alias-moved", "qdrant", message, action).index = Some(called.clone());
}

fn embedding(index: &IndexOverview, found: &mut Found) {
    let Some(missing) = &index.embedding_missing else { return };
    let (embedding, processes) = (&missing.name, missing.processes.join(", "));
    let called = &index.name;
    let message = format!("index {called} needs embedding {embedding:?}, which the settings of {processes} lack");
    let action = format!("set `[embedding.{embedding}]` in the settings of the processors, and restart them");
    let severity = if missing.blocks { Severity::Critical } else { Severity::Warning };
    found.add(severity, "embedding-missing", "embedder", message, action).index = Some(called.clone());
}

fn name(index: &IndexOverview) -> IndexName {
    index.name.clone()
}
