//! Waits until everything up to a time is in the index, or in one of several.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidewheel_core::catalog::{Catalog, Generation, IndexName, Rows};
use tidewheel_core::error::ErrorClass;
use tidewheel_core::ports::{
    Checkpoint, Journal, PortResult, Registry, SnapshotState, SourceInspector, StageInspector, StageStatus,
};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::ClusterTime;
use tidewheel_pipeline::NO_PRODUCER;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::catalog::CatalogReader;
use crate::{selection, times};

/// Polling interval of the applied checkpoint, shared by all waiting callers.
const LOOK: Duration = Duration::from_millis(25);

/// Delay before a server that did not answer is queried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Result of a wait.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Waited {
    /// Whether everything committed up to `until` is searchable, except parked or refused changes.
    pub searchable: bool,
    /// The requested cluster time, as `seconds.increment`.
    pub until: String,
    /// The cluster time up to which everything is known to be searchable; `None` while an index is being filled.
    pub searchable_through: Option<String>,
    /// Duration of the wait in milliseconds.
    pub waited_ms: u64,
    /// Why the wait timed out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The time to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Everything that the source has committed by now.
    Now,
    /// A cluster time.
    Cluster(ClusterTime),
    /// A wall-clock time: everything up to the end of its second.
    Wall(ClusterTime),
}

/// The ports of a wait.
#[derive(Clone)]
pub struct WaitPorts {
    /// The installation.
    pub registry: Arc<dyn Registry>,
    /// The catalog.
    pub catalog: Arc<CatalogReader>,
    /// The checkpoints.
    pub journal: Arc<dyn Journal>,
    /// The stages, to explain a timeout.
    pub stages: Arc<dyn StageInspector>,
    /// The source, for its cluster time.
    pub source: Arc<dyn SourceInspector>,
}

/// Waits for any number of callers at once.
pub struct Waiter {
    ports: WaitPorts,
    /// What was last seen and when, shared by all waiting callers.
    seen: Mutex<Option<(Instant, Arc<Seen>)>>,
}

/// What decides up to which time everything is searchable.
struct Seen {
    /// The applied checkpoint.
    checkpoint: Option<Checkpoint>,
    /// Read after the checkpoint: what a later catalog states to be filled, the checkpoint's time covers.
    catalog: Arc<Catalog>,
}

impl Waiter {
    /// Creates a waiter.
    pub fn new(ports: WaitPorts) -> Self {
        Self { ports, seen: Mutex::default() }
    }

    /// Waits until everything committed up to `since` is searchable in this index, or else in all, or until the timeout.
    ///
    /// # Errors
    /// If this release cannot use the keys, a server fails permanently, the cluster time is unknown, the streams are
    /// unreachable until the timeout, or there is no such index.
    pub async fn wait(&self, since: Since, timeout: Duration, index: Option<&IndexName>) -> PortResult<Waited> {
        let begun = Instant::now();
        let until = match since {
            Since::Cluster(time) => time,
            Since::Now => self.ports.source.cluster_time().await?,
            // The cluster time of an idle source can lag behind, and nothing was committed in between.
            Since::Wall(time) => time.min(self.ports.source.cluster_time().await?),
        };
        let ended = |searchable, through: Option<ClusterTime>, why| Waited {
            searchable,
            until: show(until),
            searchable_through: through.map(show),
            waited_ms: times::milliseconds(begun.elapsed()),
            why,
        };
        let mut through = None;
        loop {
            let seen = self.look().await;
            let pause = match seen.as_deref() {
                Ok(Seen { checkpoint, catalog }) => {
                    if index.is_some() {
                        selection::indexes(catalog, index)?;
                    }
                    let checkpoint = checkpoint.as_ref();
                    through = checkpoint.and_then(|checkpoint| searchable_through(checkpoint, catalog, index));
                    if through.is_some_and(|through| through >= until) {
                        return Ok(ended(true, through, None));
                    }
                    LOOK
                }
                Err(error) if error.class == ErrorClass::Transient && begun.elapsed() < timeout => AGAIN,
                Err(error) => return Err(error.clone()),
            };
            let left = timeout.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let why = self.why(until, index).await?;
                return Ok(ended(false, through, Some(why)));
            }
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    /// What decides, cached for [`LOOK`]: what an applied checkpoint covers stays in the index.
    async fn look(&self) -> PortResult<Arc<Seen>> {
        let mut seen = self.seen.lock().await;
        if let Some((when, last)) = &*seen
            && when.elapsed() < LOOK
        {
            return Ok(last.clone());
        }
        // Fails if this release cannot use the keys: it could misread the checkpoint.
        self.ports.registry.installation().await?;
        let checkpoint = self.ports.journal.applied().await?;
        let last = Arc::new(Seen { checkpoint, catalog: self.ports.catalog.read().await? });
        *seen = Some((Instant::now(), last.clone()));
        Ok(last)
    }

    /// Explains a timeout.
    async fn why(&self, until: ClusterTime, index: Option<&IndexName>) -> PortResult<String> {
        let Some(checkpoint) = self.ports.journal.load().await? else {
            return Ok(NO_PRODUCER.into());
        };
        if self.ports.stages.leader().await?.is_none() {
            return Ok("no producer is running".into());
        }
        if let Some(damage) = self.ports.journal.positions().await?.damage {
            return Ok(format!("repair in progress: {damage}"));
        }
        let seen = self.look().await?;
        let catalog = &seen.catalog;
        match &checkpoint.snapshot {
            _ if !is_delayed_by_snapshot(&checkpoint, catalog, index) => {}
            SnapshotState::Running { rows, .. } => {
                return Ok(format!("snapshot in progress: {rows} documents read"));
            }
            SnapshotState::Sweeping { .. } => return Ok("snapshot in progress: sweeping orphaned points".into()),
            SnapshotState::Done { .. } => {}
        }
        if let Some(name) = unfilled(catalog, index) {
            return Ok(format!("index {:?} is not filled yet", name.as_str()));
        }
        let stages = &self.ports.stages;
        let (one, two) = tokio::try_join!(stages.status(Stage::Raw), stages.status(Stage::Embedded))?;
        let waiting = |stage: &StageStatus| stage.lag.unwrap_or(stage.length) + stage.pending;
        Ok(match (waiting(&one), waiting(&two)) {
            (0, 0) if checkpoint.through < until => {
                format!("the producer has read the change stream up to {}", show(checkpoint.through))
            }
            (one, two) => format!("backlog of {one} entries in stage 1 and {two} in stage 2"),
        })
    }
}

/// The time up to which everything is searchable in this index, or else in all, given the applied checkpoint. While an
/// index is being filled, changes from before the start of its snapshot may be missing, whatever was applied since. A
/// snapshot that fills only generations that do not serve, or that changes what is in place already, delays nothing.
fn searchable_through(applied: &Checkpoint, catalog: &Catalog, index: Option<&IndexName>) -> Option<ClusterTime> {
    let delayed = is_delayed_by_snapshot(applied, catalog, index) || unfilled(catalog, index).is_some();
    (!delayed).then_some(applied.through)
}

/// Whether the checkpoint's snapshot may still have to add what searches of this index, or else of any, should find.
fn is_delayed_by_snapshot(checkpoint: &Checkpoint, catalog: &Catalog, index: Option<&IndexName>) -> bool {
    if matches!(checkpoint.snapshot, SnapshotState::Done { .. }) {
        return false;
    }
    let delays = |name: &IndexName, number: u32, generation: &Generation| {
        let in_scope = checkpoint.scope.iter().any(|due| due.target == name.target(number));
        // The catalog requires nothing: it repairs a loss.
        in_scope && generation.is_filled()
    };
    // Without targets, it is a snapshot of everything.
    catalog.is_short_form()
        || checkpoint.scope.is_empty()
        || serving(catalog, index).any(|(name, serving)| {
            serving.is_none_or(|(number, generation)| delays(name, number, generation) || lacks_documents(generation))
        })
}

/// The first selected index that lacks documents, because a snapshot that adds them has not begun or not ended.
fn unfilled<'a>(catalog: &'a Catalog, index: Option<&IndexName>) -> Option<&'a IndexName> {
    if catalog.is_short_form() {
        return None;
    }
    let lacks = |serving: Option<(u32, &Generation)>| serving.is_none_or(|(_, generation)| lacks_documents(generation));
    serving(catalog, index).find(|(_, serving)| lacks(*serving)).map(|(name, _)| name)
}

/// Whether documents that were committed long ago may be missing: it was never whole, or what it lost has not been added
/// again. Another declaration is applied to documents that are in place.
fn lacks_documents(generation: &Generation) -> bool {
    let compares = generation.needs.rows >= Rows::Text && generation.needs.sweep;
    generation.filled == 0 || (!generation.is_filled() && compares)
}

/// The selected indexes with their serving generations.
fn serving<'a>(
    catalog: &'a Catalog,
    index: Option<&IndexName>,
) -> impl Iterator<Item = (&'a IndexName, Option<(u32, &'a Generation)>)> {
    let indexes = catalog.indexes.iter().filter(move |(name, _)| index.is_none_or(|wanted| wanted == *name));
    indexes.map(|(name, index)| (name, index.serving_generation()))
}

fn show(time: ClusterTime) -> String {
    format!("{}.{}", time.seconds, time.increment)
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::{Due, Needs, State};
    use tidewheel_core::error::Cause;
    use tidewheel_testkit::contracts::samples::{change, checkpoint};
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::ownership::FakeRegistry;
    use tidewheel_testkit::fakes::source::FakeSource;
    use tidewheel_testkit::fakes::streams::FakeStreams;

    use super::*;
    use crate::samples::{Servers, catalog, declaration, index, target};

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn waiter(streams: &FakeStreams, source: &FakeSource) -> Waiter {
        registered_waiter(&FakeRegistry::default(), streams, source)
    }

    fn registered_waiter(registry: &FakeRegistry, streams: &FakeStreams, source: &FakeSource) -> Waiter {
        Waiter::new(WaitPorts {
            registry: Arc::new(registry.clone()),
            catalog: Arc::new(CatalogReader::new(Arc::new(streams.catalog()), Some(declaration("documents")))),
            journal: Arc::new(streams.journal()),
            stages: Arc::new(streams.inspector()),
            source: Arc::new(source.clone()),
        })
    }

    /// Streams with two changes in stage 1, of which the first is in the index.
    async fn streams() -> FakeStreams {
        let streams = FakeStreams::new();
        let journal = streams.journal();
        journal.append(None, &[change(1), change(2)], &checkpoint(2)).await.unwrap();
        journal.confirm(&checkpoint(2), &checkpoint(1)).await.unwrap();
        assert!(journal.lease("anna", Duration::from_secs(3_600)).await.unwrap());
        streams
    }

    fn cluster(number: u32) -> Since {
        Since::Cluster(checkpoint(number).through)
    }

    #[tokio::test(start_paused = true)]
    async fn wait_ends_once_the_applied_checkpoint_reaches_the_time() {
        let streams = streams().await;
        let waiter = Arc::new(waiter(&streams, &FakeSource::new("shop")));
        let waited = waiter.wait(cluster(1), TIMEOUT, None).await.unwrap();
        assert!(waited.searchable && waited.waited_ms == 0, "{waited:?}");
        let waiting = tokio::spawn({
            let waiter = waiter.clone();
            async move { waiter.wait(cluster(2), TIMEOUT, None).await }
        });
        tokio::time::sleep(Duration::from_secs(3)).await;
        streams.journal().confirm(&checkpoint(2), &checkpoint(2)).await.unwrap();
        let waited = waiting.await.unwrap().unwrap();
        assert!(waited.searchable && (3_000..3_100).contains(&waited.waited_ms), "{waited:?}");
        assert_eq!(waited.searchable_through.as_deref(), Some("1700000000.2"));
    }

    #[tokio::test(start_paused = true)]
    async fn wait_is_rejected_if_a_newer_release_has_written_the_keys() {
        let (registry, streams) = (FakeRegistry::default(), streams().await);
        let waiter = Arc::new(registered_waiter(&registry, &streams, &FakeSource::new("shop")));
        assert!(waiter.wait(cluster(1), TIMEOUT, None).await.unwrap().searchable);
        let waiting = tokio::spawn({
            let waiter = waiter.clone();
            async move { waiter.wait(cluster(2), TIMEOUT, None).await }
        });
        tokio::time::sleep(Duration::from_secs(3)).await;
        registry.set_newer_layout();
        let errors = [waiting.await.unwrap().unwrap_err(), waiter.wait(cluster(1), TIMEOUT, None).await.unwrap_err()];
        for error in errors {
            assert_eq!((error.class, error.cause), (ErrorClass::Fatal, Cause::Newer), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_names_the_cause() {
        let (streams, source) = (streams().await, FakeSource::new("shop"));
        let waited = waiter(&streams, &source).wait(cluster(2), TIMEOUT, None).await.unwrap();
        assert_eq!(waited.why.as_deref(), Some("backlog of 2 entries in stage 1 and 0 in stage 2"));
        streams.journal().release("anna").await.unwrap();
        let waited = waiter(&streams, &source).wait(cluster(2), TIMEOUT, None).await.unwrap();
        assert_eq!(waited.why.as_deref(), Some("no producer is running"));
        let waited = waiter(&FakeStreams::new(), &source).wait(Since::Now, TIMEOUT, None).await.unwrap();
        assert_eq!(waited.why.as_deref(), Some(NO_PRODUCER));
        assert!(!waited.searchable);
    }

    #[tokio::test(start_paused = true)]
    async fn short_outage_of_the_streams_is_waited_out() {
        let streams = streams().await;
        streams.faults().once("applied", Fault::unreachable());
        let waited = waiter(&streams, &FakeSource::new("shop")).wait(cluster(1), TIMEOUT, None).await.unwrap();
        assert!(waited.searchable && (500..600).contains(&waited.waited_ms), "{waited:?}");
        streams.faults().always("applied", Fault::unreachable());
        assert!(waiter(&streams, &FakeSource::new("shop")).wait(cluster(1), TIMEOUT, None).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn unreachable_source_fails_only_if_its_time_is_needed() {
        let (streams, source) = (streams().await, FakeSource::new("shop"));
        source.faults().always("now", Fault::unreachable());
        let waiter = waiter(&streams, &source);
        assert!(waiter.wait(Since::Now, TIMEOUT, None).await.is_err());
        assert!(waiter.wait(cluster(1), TIMEOUT, None).await.unwrap().searchable);
    }

    /// A snapshot that fills these targets.
    fn running(scope: &[&str]) -> Checkpoint {
        let scope = scope.iter().map(|name| Due { target: target(name), due: 7 }).collect();
        let snapshot = SnapshotState::Running { time: ClusterTime::default(), after: None, rows: 3 };
        Checkpoint { snapshot, scope, catalog: 7, ..checkpoint(2) }
    }

    /// The indexes `tickets` and `notes`, of which the serving generation of `tickets` is due.
    fn due(needs: Needs, filled: u64) -> Catalog {
        let mut catalog = catalog(7, &[("notes", State::Serving), ("tickets", State::Serving)]);
        let tickets = catalog.indexes.get_mut(&index("tickets")).unwrap();
        let generation = tickets.generations.get_mut(&1).unwrap();
        (generation.due, generation.filled, generation.needs) = (9, filled, needs);
        catalog
    }

    #[test]
    fn snapshot_without_targets_delays_everything() {
        let whole = catalog(7, &[("tickets", State::Serving)]);
        for catalog in [&Catalog::default(), &whole] {
            assert_eq!(searchable_through(&checkpoint(2), catalog, None), Some(checkpoint(2).through));
            assert_eq!(searchable_through(&running(&[]), catalog, None), None);
        }
    }

    #[test]
    fn snapshot_delays_only_what_lacks_documents() {
        let through = |checkpoint: &Checkpoint, catalog: &Catalog, name: Option<&str>| {
            searchable_through(checkpoint, catalog, name.map(index).as_ref()).is_some()
        };
        let text = Needs { rows: Rows::Text, sweep: false };
        let filter = Needs { rows: Rows::Missing, sweep: true };
        for needs in [text, filter] {
            assert!(through(&running(&["tickets.g1"]), &due(needs, 7), None), "{needs:?}: its documents are in place");
        }
        let lost = Needs { rows: Rows::All, sweep: true };
        for catalog in [due(filter, 0), due(Needs::COMPARISON, 7), due(lost, 7)] {
            for checkpoint in [checkpoint(2), running(&["notes.g2"]), running(&["tickets.g1"])] {
                assert!(!through(&checkpoint, &catalog, None) && !through(&checkpoint, &catalog, Some("tickets")));
                assert!(through(&checkpoint, &catalog, Some("notes")), "{checkpoint:?}");
            }
        }
        let whole = due(text, 9);
        assert!(!through(&running(&["tickets.g1"]), &whole, None), "a loss that the catalog does not know");
        assert!(through(&running(&["tickets.g2"]), &whole, None), "a generation that does not serve");
        let mut new = whole;
        new.indexes.get_mut(&index("tickets")).unwrap().serving = None;
        assert!(!through(&checkpoint(2), &new, None) && through(&checkpoint(2), &new, Some("notes")));
        assert_eq!(unfilled(&new, None), Some(&index("tickets")));
    }

    #[tokio::test(start_paused = true)]
    async fn wait_concerns_one_index_or_all() {
        let servers = Servers { streams: streams().await, ..Servers::new() };
        let short_form = waiter(&servers.streams, &FakeSource::new("shop"));
        assert!(short_form.wait(cluster(1), TIMEOUT, Some(&index("documents"))).await.unwrap().searchable);
        servers.apply(&due(Needs::COMPARISON, 0)).await;
        let waiter = waiter(&servers.streams, &FakeSource::new("shop"));
        let waited = waiter.wait(cluster(1), TIMEOUT, Some(&index("notes"))).await.unwrap();
        assert!(waited.searchable, "{waited:?}");
        let waited = waiter.wait(cluster(1), TIMEOUT, None).await.unwrap();
        assert_eq!(waited.why.as_deref(), Some("index \"tickets\" is not filled yet"));
        let error = waiter.wait(cluster(1), TIMEOUT, Some(&index("users"))).await.unwrap_err();
        assert!(error.message.contains("expected one of notes, tickets"), "{error}");
    }
}
