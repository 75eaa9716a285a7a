//! Random moments: indexes of any content with any facts.

use std::sync::Arc;

use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::catalog::Due;
use crate::catalog::samples::{checkpoint, declaration, identity};
use crate::catalog::world::check;
use crate::ports::SnapshotState;

prop_compose! {
    fn generations()(
        states in prop::collection::vec(prop::sample::select(State::ALL.to_vec()), 3),
        numbers in prop::collection::vec((0..4_u64, 0..4_u64, 0..4_u64), 3),
        flags in prop::collection::vec((any::<bool>(), any::<bool>(), 0..4_u8), 3),
    ) -> BTreeMap<u32, Generation> {
        let generation = |at: usize| {
            let number = u32::try_from(at).unwrap() + 1;
            let ((since, due, filled), (known, hold, rounds)) = (numbers[at], flags[at]);
            let declaration = Arc::new(declaration("tickets", "tickets"));
            let generation = Generation {
                state: states[at],
                embedder: known.then(|| identity("minilm")),
                since,
                due,
                filled: filled.min(due),
                hold,
                rounds,
                until_ms: Some(due * 1_000),
                ..Generation::new(&tickets().target(number), declaration, since)
            };
            (number, generation)
        };
        (0..3).map(generation).collect()
    }
}

prop_compose! {
    /// An index of any content, of which one generation serves at most.
    fn indexes()(
        mut generations in generations(),
        serving in option::weighted(0.9, 1..4_u32),
        switching in option::of((option::of(1..4_u32), 1..4_u32)),
        plain in prop::bool::weighted(0.2),
    ) -> Index {
        for (number, generation) in &mut generations {
            if Some(*number) == serving {
                generation.state = State::Serving;
            } else if generation.state == State::Serving {
                generation.state = State::Kept;
            }
        }
        if plain && let Some(serving) = serving.and_then(|serving| generations.get_mut(&serving)) {
            serving.collection = "tickets".to_owned();
        }
        let switching = switching.map(|(from, to)| {
            let from = from.filter(|from| *from != to);
            Switch { from, to, plain: plain && from.is_some() }
        });
        Index { plain, serving, switching, generations, ..Index::default() }
    }
}

/// The facts of a random moment.
#[derive(Debug)]
struct Moment {
    current: Checkpoint,
    applied: Option<Checkpoint>,
    lost: Vec<Lost>,
    collections: BTreeSet<String>,
    alias: Option<String>,
    records: BTreeMap<u32, TargetRecord>,
    audit: Option<Compared>,
    deleted: BTreeSet<u32>,
    flags: [bool; 4],
    now_ms: u64,
}

impl Moment {
    fn facts(&self) -> Facts<'_> {
        Facts {
            revision: 3,
            now_ms: self.now_ms,
            current: &self.current,
            applied: self.applied.as_ref(),
            lost: &self.lost,
            damaged: self.flags[0],
            backlog: 0,
            quiet: self.flags[1],
            expired: self.flags[2],
            collections: &self.collections,
            alias: self.alias.as_deref(),
            records: &self.records,
            settled: self.flags[3],
            audit: self.audit.as_ref(),
            deleted: &self.deleted,
        }
    }
}

fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    let scope = prop::collection::vec((1..4_u32, 0..4_u64), 1..4);
    (1..4_u64, scope, any::<bool>()).prop_map(|(revision, scope, is_running)| {
        let mut checkpoint = checkpoint(revision);
        checkpoint.scope =
            scope.into_iter().map(|(number, due)| Due { target: tickets().target(number), due }).collect();
        // A snapshot begins after its targets' revisions were adopted.
        checkpoint.scope.retain(|due| due.due <= revision);
        if is_running {
            let time = checkpoint.through;
            checkpoint.snapshot = SnapshotState::Running { time, after: None, rows: 0 };
        }
        checkpoint
    })
}

prop_compose! {
    fn moments(index: Index)(
        current in checkpoints(),
        applied in option::of(checkpoints()),
        lost in prop::collection::btree_set(1..4_u32, 0..2),
        existing in prop::collection::vec(prop::bool::weighted(0.8), 3),
        recorded in prop::collection::vec(any::<bool>(), 3),
        alias in option::of(0..4_u32),
        audit in option::of((1..4_u64, 0..2_u64, 0..2_u64)),
        deleted in prop::collection::btree_set(1..4_u32, 0..2),
        flags in any::<[bool; 4]>(),
        now_ms in 0..5_000_u64,
    ) -> (Index, Moment) {
        let all = || index.generations.iter().zip(0_usize..);
        let collections = all().filter(|(_, at)| existing[*at]).map(|((_, generation), _)| generation.collection.clone());
        let records = all()
            .filter(|(_, at)| recorded[*at])
            .map(|((number, _), _)| (*number, index.record(&tickets(), *number, 1).unwrap()));
        let alias = alias.filter(|_| !index.plain || index.switching.is_some());
        let named = |number| index.generations.get(&number).map_or("elsewhere".to_owned(), |named| named.collection.clone());
        let deleted = deleted.into_iter().filter(|number| index.generations[number].state == State::Retiring).collect();
        let moment = Moment {
            current,
            applied,
            lost: lost.into_iter().map(|number| Lost { target: tickets().target(number), recent: false }).collect(),
            collections: collections.collect(),
            alias: alias.map(named),
            records: records.collect(),
            audit: audit.map(|(revision, drift, unexplained)| Compared { drift, unexplained, revision, ..Compared::default() }),
            deleted,
            flags,
            now_ms,
        };
        (index.clone(), moment)
    }
}

/// More cases than usual: each is one step.
fn of_moments() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: 16 * usual.cases, ..usual }
}

proptest! {
    #![proptest_config(of_moments())]

    #[test]
    fn every_step_keeps_alias_routing_and_collections_safe(
        (index, moment) in indexes().prop_flat_map(moments)
    ) {
        let facts = moment.facts();
        if let Some(step) = advance(&tickets(), &index, &facts) {
            check(&tickets(), &index, &facts, &step);
        }
    }
}
