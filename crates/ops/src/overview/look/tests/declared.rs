//! Overviews of declared indexes.

use tidewheel_core::catalog::{Catalog, Due, Generation, State, Switch};
use tidewheel_core::ports::{Journal as _, TargetStates as _};
use tidewheel_core::report::SettingsReport;

use super::*;
use crate::indexes::Step;
use crate::overview::{Declared, MovedAlias, Severity};
use crate::samples::{catalog, index, target};

impl World {
    /// Applies a catalog, and creates its collections and aliases.
    async fn apply(&self, catalog: &Catalog) {
        self.servers.apply(catalog).await;
        for (name, index) in &catalog.indexes {
            for generation in index.generations.values() {
                self.servers.collections.index(&generation.collection).prepare(4).await.unwrap();
            }
            let serving = index.serving_generation().map(|(_, serving)| serving.collection.as_str());
            self.servers.collections.set_alias(name.as_str(), serving);
        }
    }

    /// Publishes what the settings of a processor declare.
    fn declare(&self, indexes: &[(&str, &str)], embeddings: &[&str]) {
        let settings = SettingsReport {
            indexes: indexes.iter().map(|(name, fingerprint)| (index(name), (*fingerprint).to_owned())).collect(),
            embeddings: embeddings.iter().map(|name| (*name).to_owned()).collect(),
        };
        self.publish("host-1", &["processor"], Figures { settings: Some(settings), ..Figures::default() });
    }
}

/// The catalog, with a second generation of `tickets` in this state.
fn with_second(mut catalog: Catalog, state: State) -> Catalog {
    let generation = Generation::new(&target("tickets.g2"), Arc::new(declaration("tickets")), catalog.revision);
    let tickets = catalog.indexes.get_mut(&index("tickets")).unwrap();
    tickets.generations.insert(2, Generation { state, ..generation });
    catalog
}

/// The indexes that have a problem with this code.
fn affected<'a>(overview: &'a Overview, code: &str) -> Vec<&'a str> {
    let problems = overview.problems.iter().filter(|problem| problem.code == code);
    problems.map(|problem| problem.index.as_ref().unwrap().as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn short_form_has_one_index_and_lists_no_collections() {
    let world = World::new().await;
    world.servers.collections.faults().always("list", Fault::Slow(Duration::ZERO));
    world.declare(&[("documents", "other"), ("tickets", "other")], &[]);
    let overview = world.looker().look().await;
    let [only] = &overview.indexes[..] else { panic!("{:?}", overview.indexes) };
    let serving = only.serving.as_ref().unwrap();
    assert_eq!((only.name.as_str(), serving.collection.as_str(), only.points), ("documents", "documents", Some(0)));
    assert_eq!((only.state, only.declared), (overview.verdict.state, Declared::Applied));
    assert_eq!(affected(&overview, "declaration-differs"), [""; 0], "settings are in effect as they are");
    assert_eq!(world.servers.collections.faults().hits("list"), 0);
}

#[tokio::test(start_paused = true)]
async fn each_applied_or_declared_index_is_described() {
    let world = World::new().await;
    let names = [("articles", State::Serving), ("notes", State::Serving), ("tickets", State::Serving)];
    world.apply(&catalog(7, &names)).await;
    let looker = world.looker();
    let declared = |overview: &Overview| {
        let indexes = overview.indexes.iter();
        indexes.map(|index| (index.name.to_string(), index.points, index.declared)).collect::<Vec<_>>()
    };
    let first = looker.look().await;
    assert!(first.complete() && first.collection.known().unwrap().exists, "{first:?}");
    let unknown = ["articles", "notes", "tickets"].map(|name| (name.to_owned(), Some(0), Declared::Unknown));
    assert_eq!(declared(&first), unknown);

    let fingerprint = declaration("notes").fingerprint().to_string();
    world.declare(&[("notes", &fingerprint), ("tickets", "other"), ("users", "new")], &["default"]);
    let second = looker.look().await;
    let expected = [
        ("articles".to_owned(), Some(0), Declared::Absent),
        ("notes".to_owned(), Some(0), Declared::Applied),
        ("tickets".to_owned(), Some(0), Declared::Differs),
        ("users".to_owned(), None, Declared::Differs),
    ];
    assert_eq!(declared(&second), expected);
    assert_eq!(affected(&second, "declaration-differs"), ["articles", "tickets", "users"]);
}

#[tokio::test(start_paused = true)]
async fn overview_reads_at_most_five_more_collections_and_remembers_the_others() {
    let world = World::new().await;
    let names: Vec<String> = (0..12).map(|number| format!("index-{number:02}")).collect();
    let indexes: Vec<(&str, State)> = names.iter().map(|name| (name.as_str(), State::Serving)).collect();
    world.apply(&catalog(7, &indexes)).await;
    let collections: Vec<FakeIndex> =
        names.iter().map(|name| world.servers.collections.index(&format!("{name}.g1"))).collect();
    for collection in &collections {
        collection.faults().always("index_state", Fault::Slow(Duration::ZERO));
    }
    let reads = || collections.iter().map(|collection| collection.faults().hits("index_state")).sum::<u64>();
    let known = |overview: &Overview| overview.indexes.iter().filter(|index| index.points.is_some()).count();
    let looker = world.looker();
    for (look, expected) in [(1, 6), (2, 11), (3, 12), (4, 12)] {
        let overview = looker.look().await;
        assert_eq!((reads(), known(&overview)), (look * 6, expected));
    }
}

#[tokio::test(start_paused = true)]
async fn moved_alias_is_a_problem_unless_it_is_being_moved() {
    let world = World::new().await;
    let applied = catalog(7, &[("tickets", State::Serving)]);
    world.apply(&applied).await;
    let looker = world.looker();
    assert_eq!(affected(&looker.look().await, "alias-moved"), [""; 0]);

    for to in [Some("other"), None] {
        world.servers.collections.set_alias("tickets", to);
        let overview = looker.look().await;
        assert_eq!(overview.indexes[0].alias_moved, Some(MovedAlias { to: to.map(str::to_owned) }));
        assert_eq!(affected(&overview, "alias-moved"), ["tickets"]);
        let problem = overview.problems.iter().find(|problem| problem.code == "alias-moved").unwrap();
        assert_eq!(problem.severity, Severity::Critical);
    }
    let mut switching = Catalog { revision: 8, ..with_second(applied, State::Ready) };
    let tickets = switching.indexes.get_mut(&index("tickets")).unwrap();
    tickets.switching = Some(Switch { from: Some(1), to: 2, plain: false });
    world.servers.apply(&switching).await;
    assert_eq!(affected(&looker.look().await, "alias-moved"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn operation_without_progress_is_stuck_after_ten_minutes() {
    let world = World::new().await;
    world.apply(&with_second(catalog(7, &[("tickets", State::Serving)]), State::Creating)).await;
    let looker = world.looker();
    let operation = looker.look().await.indexes[0].operation.clone().unwrap();
    assert_eq!((operation.generation, operation.step), (2, Step::Creating));
    tokio::time::sleep(Duration::from_secs(599)).await;
    assert_eq!(affected(&looker.look().await, "generation-stuck"), [""; 0]);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let overview = looker.look().await;
    assert_eq!(affected(&overview, "generation-stuck"), ["tickets"]);
    let problem = overview.problems.iter().find(|problem| problem.code == "generation-stuck").unwrap();
    assert_eq!(problem.message, "generation 2 of index tickets has made no progress for 10 min: creating");
}

#[tokio::test(start_paused = true)]
async fn generation_that_is_filled_shows_the_snapshot() {
    let world = World::new().await;
    world.apply(&with_second(catalog(7, &[("tickets", State::Serving)]), State::Filling)).await;
    let journal = world.streams.journal();
    let looker = world.looker();
    let waiting = looker.look().await.indexes[0].operation.clone().unwrap();
    assert_eq!((waiting.step, waiting.rows), (Step::Queued, None));

    let snapshot = SnapshotState::Running { time: ClusterTime::default(), after: None, rows: 300 };
    let scope = vec![Due { target: target("tickets.g2"), due: 7 }];
    let running = Checkpoint { snapshot, catalog: 7, scope, ..checkpoint(2) };
    journal.append(Some(&checkpoint(2)), &[], &running).await.unwrap();
    let overview = looker.look().await;
    let tickets = &overview.indexes[0];
    let operation = tickets.operation.as_ref().unwrap();
    assert_eq!((operation.generation, operation.step, operation.rows), (2, Step::Filling, Some(300)));
    assert!(!tickets.is_being_filled(), "searches read the other generation");
    let snapshot = overview.source.known().unwrap().snapshot.as_ref().unwrap();
    assert_eq!((snapshot.state, &snapshot.scope[..]), ("running", &[target("tickets.g2")][..]));
}

#[tokio::test(start_paused = true)]
async fn lost_target_and_missing_embedding_are_problems_of_their_index() {
    let world = World::new().await;
    world.apply(&catalog(7, &[("notes", State::Serving), ("tickets", State::Serving)])).await;
    let registry = world.streams.target(&target("tickets.g1"), false);
    registry.collection("tickets.g1", true).await.unwrap();
    registry.collection("tickets.g1", false).await.unwrap();
    world.declare(&[], &["small"]);
    let overview = world.looker().look().await;
    assert_eq!(affected(&overview, "index-lost"), ["tickets"]);
    let lost = overview.indexes[1].generations[0].lost.as_ref().unwrap();
    assert!(lost.contains("collection tickets.g1 in Qdrant is missing"), "{lost}");

    assert_eq!(affected(&overview, "embedding-missing"), ["notes", "tickets"]);
    let missing = overview.indexes[0].embedding_missing.as_ref().unwrap();
    assert_eq!((missing.name.as_str(), &missing.processes[..]), ("default", &["host-1".to_owned()][..]));
    assert!(missing.blocks, "changes wait for a serving generation");
}
