//! Declared indexes: plans what a change of declarations does and costs, submits it, and watches its progress.
//!
//! ```text
//!  declarations ──plan──▶ actions, costs, refusals ──submit──▶ catalog ──watch──▶ progress, until everything is done
//!                                                                 │
//!                                              the active producer advances it
//! ```
//!
//! Guarantees:
//! - **A plan changes nothing.** It may embed some of the sampled texts, with an embedder of this installation.
//! - **Nothing by halves**: one compare-and-set submits everything that was planned, or nothing. What was planned from
//!   another catalog has to be planned again.
//! - **An earlier release stops before it misreads the keys**: the first submission raises their layout, and is refused
//!   while a process that cannot use it reports.

mod declared;
mod details;
mod estimate;
mod plan;
mod planner;
mod progress;
mod report;
mod sample;
#[cfg(test)]
mod samples;
mod watch;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, Choice, IndexName, State, Submitted, submit as submitted};
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::ports::{
    Appended, CatalogStore, Collections, Journal, PortResult, Registry, ReportReader, StageInspector,
};
use uuid::Uuid;

pub use declared::declared;
pub(crate) use declared::intended;
pub use planner::{EstimatePorts, PlanRequest, plan};
pub use progress::{Progress, Step};
pub use report::{Cost, IndexPlan, Plan, RateSource, Refused, Searches};
pub use watch::{Watch, Watched, watch};

use self::plan::{Known, index_plan};
use self::watch::Look;
use crate::selection;

/// Attempts to save a catalog, before an outage is an error.
const ATTEMPTS: u32 = 3;

/// Delay before the next attempt.
const AGAIN: Duration = Duration::from_millis(500);

/// A process that reported within this time runs, in milliseconds.
const RECENT_MS: u64 = 60_000;

/// The ports of plans, submissions and watches.
#[derive(Clone)]
pub struct IndexesPorts {
    /// The installation.
    pub registry: Arc<dyn Registry>,
    /// The checkpoints.
    pub journal: Arc<dyn Journal>,
    /// The active producer.
    pub stages: Arc<dyn StageInspector>,
    /// The reports of processes.
    pub reports: Arc<dyn ReportReader>,
    /// The applied catalog.
    pub store: Arc<dyn CatalogStore>,
    /// The collections of the index.
    pub collections: Arc<dyn Collections>,
}

/// A plan, with what it submits.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan, for operators.
    pub plan: Plan,
    /// The catalog that it was made from.
    current: Catalog,
    /// The catalog that it leads to.
    submitted: Submitted,
}

impl Planned {
    /// Whether it does the same as another plan, whatever has happened to the catalog in between.
    pub fn is_same(&self, other: &Self) -> bool {
        let all = |planned: &Self| -> Vec<_> {
            let actions = planned.submitted.actions.iter();
            actions.map(|one| (one.index.clone(), one.action, one.generation, one.ended.clone())).collect()
        };
        all(self) == all(other)
    }

    /// Whether it raises the layout of the keys, so that processes of an earlier release stop.
    pub fn raises_layout(&self) -> bool {
        self.current.is_short_form() && self.submitted.is_new()
    }

    /// What to watch after its submission: its indexes.
    pub fn watched(&self) -> Watch {
        let planned = self.submitted.actions.iter().map(|action| action.index.clone());
        let running = self.plan.running.iter().map(|progress| progress.index.clone());
        Watch { indexes: planned.chain(running).collect(), revision: self.submitted.catalog.revision }
    }
}

/// The outcome of a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submission {
    /// The catalog is saved, or nothing had to be.
    Saved,
    /// The catalog has changed since the plan. Nothing was saved.
    Changed,
}

/// Plans the return of an index to its kept generation.
///
/// # Errors
/// Fatal, if there is no such index, or this release cannot use the keys. If a server fails.
pub async fn plan_rollback(ports: &IndexesPorts, name: &IndexName) -> PortResult<Planned> {
    // Fails if this release cannot use the keys.
    ports.registry.installation().await?;
    let look = Look::at(ports).await?;
    let current = look.catalog.clone();
    selection::indexes(&current, Some(name))?;
    let submitted = submitted(&current, &[], &Choice::Rollback(name.clone()), look.now_ms);
    let plan = Plan {
        revision: current.revision,
        todo: submitted.is_new(),
        indexes: submitted
            .actions
            .iter()
            .map(|action| index_plan(action, Known { exists: true, ..Known::default() }))
            .collect(),
        running: running(&look, &[name.clone()].into()),
        refused: submitted.refused.iter().cloned().map(Refused::from).collect(),
        warnings: no_producer(ports).await?.into_iter().collect(),
    };
    Ok(Planned { plan, current, submitted })
}

/// Whether an index has a generation to return to.
///
/// # Errors
/// If the store fails.
pub async fn has_kept_generation(ports: &IndexesPorts, name: &IndexName) -> PortResult<bool> {
    let (catalog, _) = ports.store.load().await?;
    let index = catalog.indexes.get(name);
    let mut generations = index.into_iter().flat_map(|index| index.generations.values());
    Ok(generations.any(|generation| generation.state == State::Kept))
}

/// Submits a plan. `forced` submits it even if processes of an earlier release are running, which then stop.
///
/// # Errors
/// Fatal, if the plan is refused, or such processes are running. If the store fails.
pub async fn submit(ports: &IndexesPorts, planned: &Planned, forced: bool) -> PortResult<Submission> {
    let Planned { plan, current, submitted } = planned;
    if let Some(refused) = plan.refused.first() {
        return Err(PortError::fatal(&refused.reason).with_hint(&refused.hint));
    }
    if !submitted.is_new() {
        return Ok(Submission::Saved);
    }
    if planned.raises_layout() && !forced {
        let outdated = outdated(ports).await?;
        if !outdated.is_empty() {
            return Err(PortError::fatal(format!(
                "processes of an earlier release are running, and would stop: {}",
                outdated.join(", ")
            ))
            .with_hint("upgrade them first, or wait a minute if they are stopped; --force applies nevertheless"));
        }
    }
    let (change, changes) = (Uuid::new_v4(), submitted.changes(current));
    let mut attempt = 1;
    loop {
        let next = submitted.catalog.revision;
        let saved = ports.store.save(change, submitted.expected, next, &changes, Some(Catalog::LAYOUT)).await;
        match saved {
            Ok(Appended::Saved) => return Ok(Submission::Saved),
            Ok(Appended::Conflict) => return Ok(Submission::Changed),
            // A repeated call finds out whether the earlier one was executed.
            Err(error) if error.class == ErrorClass::Transient && attempt < ATTEMPTS => {
                attempt += 1;
                tokio::time::sleep(AGAIN).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// The processes that cannot use the keys of an applied catalog, by name.
async fn outdated(ports: &IndexesPorts) -> PortResult<Vec<String>> {
    let reports = ports.reports.reports().await?.into_iter();
    let outdated = reports.filter(|published| {
        published.age_ms < RECENT_MS && published.report.layout.is_none_or(|layout| layout < Catalog::LAYOUT)
    });
    let mut outdated: Vec<String> = outdated.map(|published| published.process).collect();
    outdated.sort_unstable();
    Ok(outdated)
}

/// The indexes at which something is being done, of these; of all if none is named.
fn running(look: &Look, only: &BTreeSet<IndexName>) -> Vec<Progress> {
    let names = look.catalog.indexes.keys().filter(|name| only.is_empty() || only.contains(*name));
    names.map(|name| look.progress(name, None)).filter(|progress| !progress.step.is_last()).collect()
}

/// What it means that no producer is running; `None` if one is.
async fn no_producer(ports: &IndexesPorts) -> PortResult<Option<String>> {
    let is_running = ports.stages.leader().await?.is_some();
    Ok((!is_running).then(|| "no producer is running: nothing advances until one starts".to_owned()))
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::Generation;
    use tidewheel_testkit::fakes::faults::Fault;

    use super::*;
    use crate::samples::{Servers, catalog, declaration, index, target};

    /// Serves generation 2 of `tickets`, and keeps generation 1.
    fn switched() -> Catalog {
        let mut catalog = catalog(7, &[("tickets", State::Kept)]);
        let tickets = catalog.indexes.get_mut(&index("tickets")).unwrap();
        let mut second = Generation::new(&target("tickets.g2"), Arc::new(declaration("tickets")), 7);
        (second.state, second.filled) = (State::Serving, 7);
        tickets.generations.insert(2, second);
        tickets.serving = Some(2);
        catalog
    }

    #[tokio::test(start_paused = true)]
    async fn rollback_is_planned_and_submitted_once() {
        let servers = Servers::new();
        servers.apply(&switched()).await;
        let ports = samples::ports(&servers);
        assert!(has_kept_generation(&ports, &index("tickets")).await.unwrap());
        let planned = plan_rollback(&ports, &index("tickets")).await.unwrap();
        assert_eq!(planned.plan.indexes[0].lines()[0], "switch to generation 1");
        assert_eq!(planned.plan.warnings, ["no producer is running: nothing advances until one starts"]);
        assert!(planned.plan.todo && !planned.raises_layout());
        servers.streams.faults().once("save_catalog", Fault::answer_lost());
        assert_eq!(submit(&ports, &planned, false).await.unwrap(), Submission::Saved);
        assert_eq!(submit(&ports, &planned, false).await.unwrap(), Submission::Changed);
        let again = plan_rollback(&ports, &index("tickets")).await.unwrap();
        assert!(!again.plan.todo && again.plan.running[0].step == Step::Switching, "{again:?}");
        assert_eq!(again.watched().indexes, [index("tickets")].into());
    }

    #[tokio::test]
    async fn rollback_without_a_kept_generation_is_refused() {
        let servers = Servers::new();
        let ports = samples::ports(&servers);
        assert!(plan_rollback(&ports, &index("tickets")).await.is_err(), "nothing was applied");
        servers.apply(&catalog(7, &[("tickets", State::Serving)])).await;
        assert!(!has_kept_generation(&ports, &index("tickets")).await.unwrap());
        let planned = plan_rollback(&ports, &index("tickets")).await.unwrap();
        assert_eq!(planned.plan.refused[0].reason, "index \"tickets\" has no kept generation");
        let error = submit(&ports, &planned, true).await.unwrap_err();
        assert_eq!(error.message, planned.plan.refused[0].reason);
        let unknown = plan_rollback(&ports, &index("notes")).await.unwrap_err();
        assert!(unknown.message.contains("expected tickets"), "{}", unknown.message);
    }
}
