//! Saves what the embedder of each generation reports.
//!
//! A generation is created once its model and dimension are known. The producer, which creates it, reaches no embedder:
//! so every processor looks for generations whose model is unknown, asks their embedders, and saves the answers in the
//! catalog. Several processors may do so at the same time; one of them succeeds, and the others find the generation
//! known. If an embedder will not compute what was declared until a person acts, the catalog names that as the problem of
//! the generation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, EmbedderIdentity, Index, IndexName, State, TargetId};
use tidewheel_core::error::{Cause, ErrorClass, PortError};
use tidewheel_core::health::Health;
use tidewheel_core::ports::{Appended, CatalogStore, PortResult};
use tokio_util::sync::CancellationToken;
use tracing::info;
use uuid::Uuid;

use super::NAME;
use crate::retry::{report_failure, report_recovery};
use crate::targets::Targets;

/// The operation in log messages: completes "failed to …".
const IDENTIFY: &str = "identify the model of a new generation";

/// How long an unavailable embedder is not asked.
const RETRY: Duration = Duration::from_secs(5);

/// Saves the models of generations until `stop`. Its failures do not affect the readiness of the processor.
pub(super) async fn save_identities(targets: Arc<Targets>, stop: CancellationToken) {
    let Some(store) = targets.ports().map(|ports| ports.store.clone()) else { return };
    let outage = Health::of(NAME);
    let mut changes = targets.subscribe();
    loop {
        let is_open = !unidentified(changes.borrow_and_update().catalog()).is_empty();
        if is_open {
            match identify(&targets, &*store).await {
                Ok(()) => report_recovery(&outage, IDENTIFY),
                Err(error) => report_failure(&outage, IDENTIFY, &error),
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changes.changed() => {}
            () = tokio::time::sleep(RETRY), if is_open => {}
        }
    }
}

/// What an embedder reported, or why the generation waits for a person.
type Answer = Result<EmbedderIdentity, String>;

/// Asks the embedders of all generations whose model is unknown, and saves the answers in one step.
///
/// # Errors
/// Those of the store, and of the last embedder that did not answer.
async fn identify(targets: &Targets, store: &dyn CatalogStore) -> PortResult<()> {
    let applied = targets.reload().await?;
    let open = unidentified(applied.catalog());
    let (mut found, mut failure) = (BTreeMap::new(), None);
    for target in applied.every().filter(|target| open.contains(&target.id)) {
        let info = match &target.ports.embedder {
            Ok(embedder) => embedder.info().await,
            Err(error) => Err(error.clone()),
        };
        match info {
            Ok(info) => {
                found.insert(target.id.clone(), Ok(EmbedderIdentity::from(&info)));
            }
            Err(error) => {
                if let Some(problem) = problem(&error) {
                    found.insert(target.id.clone(), Err(problem));
                }
                failure = Some(error);
            }
        }
    }
    let (catalog, now_ms) = store.load().await?;
    let indexes = identified(&catalog, &found);
    if !indexes.is_empty() {
        let next = catalog.next_revision(now_ms);
        let saved = store.save(Uuid::new_v4(), catalog.revision, next, &indexes, None).await?;
        let known = found.iter().filter(|(_, answer)| answer.is_ok());
        let names: Vec<String> = known.map(|(target, _)| target.to_string()).collect();
        if saved == Appended::Saved && !names.is_empty() {
            info!(revision = next, targets = names.join(" "), "identified the models of new generations");
        }
        targets.reload().await?;
    }
    failure.map_or(Ok(()), Err)
}

/// The generations whose model is unknown, unless they are about to be deleted.
fn unidentified(catalog: &Catalog) -> Vec<TargetId> {
    if catalog.is_short_form() {
        return Vec::new();
    }
    let open = catalog
        .targets()
        .filter(|(_, generation)| generation.embedder.is_none() && generation.state != State::Retiring);
    open.map(|(target, _)| target).collect()
}

/// What a person has to do about a failure; `None` if it may end without that.
fn problem(error: &PortError) -> Option<String> {
    let is_lasting = error.class == ErrorClass::Fatal || error.cause == Cause::Refused;
    is_lasting.then(|| match &error.hint {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    })
}

/// The indexes that these answers change.
fn identified(catalog: &Catalog, found: &BTreeMap<TargetId, Answer>) -> Vec<(IndexName, Option<Index>)> {
    let mut indexes: BTreeMap<IndexName, Index> = BTreeMap::new();
    for target in unidentified(catalog) {
        let (Some(answer), Some(generation)) = (found.get(&target), catalog.generation(&target)) else { continue };
        let (embedder, problem) = match answer {
            Ok(identity) => (Some(identity.clone()), None),
            Err(problem) => (None, Some(problem.clone())),
        };
        // Processors that reach an embedder by different addresses would replace each other's problem.
        if embedder.is_none() && generation.problem.is_some() {
            continue;
        }
        let index = indexes.entry(target.index.clone()).or_insert_with(|| catalog.indexes[&target.index].clone());
        if let Some(generation) = index.generations.get_mut(&target.generation) {
            (generation.embedder, generation.problem) = (embedder, problem);
        }
    }
    indexes.into_iter().map(|(name, index)| (name, Some(index))).collect()
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::Server;
    use tidewheel_core::ports::Embedder as _;
    use tidewheel_testkit::fakes::embedder::FakeEmbedder;
    use tidewheel_testkit::fakes::faults::Fault;

    use super::*;
    use crate::targets::samples::{DIMENSION, Servers, catalog, declare_model, first};

    async fn saved(servers: &Servers) -> Catalog {
        servers.streams.catalog().load().await.unwrap().0
    }

    /// Runs several processors until nothing changes any more.
    async fn run(servers: &Servers) {
        let targets = Arc::new(servers.targets());
        targets.reload().await.unwrap();
        let stop = CancellationToken::new();
        let running: Vec<_> = (0..3).map(|_| tokio::spawn(save_identities(targets.clone(), stop.clone()))).collect();
        tokio::time::sleep(10 * RETRY).await;
        stop.cancel();
        for running in running {
            running.await.unwrap();
        }
        assert_eq!(targets.current().revision(), saved(servers).await.revision);
    }

    #[tokio::test(start_paused = true)]
    async fn models_of_all_generations_are_saved() {
        for lost in [false, true] {
            let servers = Servers::new();
            let states =
                [("new", State::Creating, false), ("plain", State::Serving, true), ("old", State::Retiring, true)];
            servers.apply(&catalog(7, &states)).await;
            if lost {
                servers.streams.faults().once("save_catalog", Fault::answer_lost());
            }
            run(&servers).await;
            let info = FakeEmbedder::new(DIMENSION).info().await.unwrap();
            let catalog = saved(&servers).await;
            for name in ["new", "plain"] {
                let generation = catalog.generation(&first(name)).unwrap();
                assert_eq!(generation.embedder, Some(EmbedderIdentity::from(&info)), "{name}");
                assert_eq!((generation.since, generation.due), (7, 7), "{name}");
            }
            assert_eq!(catalog.generation(&first("old")).unwrap().embedder, None);
            // Nothing is saved again.
            run(&servers).await;
            assert_eq!(saved(&servers).await.revision, catalog.revision);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unavailable_embedder_does_not_delay_the_others() {
        let servers = Servers::new();
        let other = FakeEmbedder::named("other", DIMENSION);
        other.faults().always("info", Fault::unreachable());
        servers.embedders.serve(other.clone());
        let mut declared = catalog(7, &[("down", State::Creating, false), ("up", State::Creating, false)]);
        declare_model(&mut declared, "down", "other");
        servers.apply(&declared).await;
        run(&servers).await;
        let model = |catalog: &Catalog, name: &str| {
            let embedder = &catalog.generation(&first(name)).unwrap().embedder;
            embedder.as_ref().map(|identity| identity.model.clone())
        };
        let catalog = saved(&servers).await;
        assert_eq!(model(&catalog, "down"), None);
        assert!(model(&catalog, "up").is_some());
        other.faults().heal();
        run(&servers).await;
        assert_eq!(model(&saved(&servers).await, "down"), Some("other".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn embedder_that_rounds_otherwise_is_the_problem_of_the_generation() {
        let servers = Servers::new();
        let other = FakeEmbedder::named("other", DIMENSION);
        let refusal = PortError::transient("computes other in f32").because(Server::EMBEDDER, Cause::Refused);
        other.faults().always("info", Fault::Refused(refusal.with_hint("set the precision to \"auto\"")));
        servers.embedders.serve(other.clone());
        let mut declared = catalog(7, &[("tickets", State::Creating, false)]);
        declare_model(&mut declared, "tickets", "other");
        servers.apply(&declared).await;
        run(&servers).await;
        let waiting = saved(&servers).await;
        let generation = waiting.generation(&first("tickets")).unwrap();
        assert_eq!(generation.problem.as_deref(), Some("computes other in f32; set the precision to \"auto\""));
        run(&servers).await;
        assert_eq!(saved(&servers).await.revision, waiting.revision, "it is saved once");

        other.faults().always("info", Fault::unreachable());
        run(&servers).await;
        assert_eq!(saved(&servers).await.revision, waiting.revision, "an outage says nothing about the problem");
        other.faults().heal();
        run(&servers).await;
        let known = saved(&servers).await;
        let generation = known.generation(&first("tickets")).unwrap();
        assert!(generation.embedder.is_some() && generation.problem.is_none(), "{generation:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_saved_before_a_catalog_is_applied() {
        let servers = Servers::new();
        run(&servers).await;
        assert_eq!(saved(&servers).await, Catalog::default());
    }
}
