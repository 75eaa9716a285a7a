//! Exhaustive exploration of the protocol of generations.
//!
//! One document goes through every short history of operations in the source: it is written so that it matches the filter
//! of an index or not, leaves the filter by an update, and is deleted. Meanwhile the index gets a new generation, returns
//! to an earlier one, is edited, dropped, or created. The explorer walks through every interleaving of:
//!
//! - the producer, which adopts a catalog, appends changes, begins, reads, sweeps and abandons snapshots, confirms what is
//!   applied, and rests before a move;
//! - processors and upserters, which work in any order, some of them with an earlier catalog;
//! - the controller, whose steps are executed apart from their decision;
//! - one or two commands, at any time;
//! - a crash of the producer between any two steps, any number of times, which loses what the session remembers;
//! - and what else goes wrong in a scenario: a skipped record, a write that arrives again after its acknowledgement, a
//!   deleted collection, a lost entry, a request for the alias that outlives its producer.
//!
//! The decisions are the real ones: [`submit`](tidewheel_core::catalog::submit()),
//! [`routes`](tidewheel_core::catalog::routes()), [`next_scope`](tidewheel_core::catalog::next_scope) and
//! [`advance`](tidewheel_core::catalog::advance()). The rest is modelled by what it guarantees:
//!
//! - of two changes of the document the newer one wins in a collection, and a tombstone counts as one: `protocol.rs` shows
//!   that for each collection;
//! - a checkpoint is saved together with the entries that it covers, and a catalog only in place of the one that it was
//!   made from;
//! - the index rejects an alias for a collection that does not exist, and deletes the aliases of a collection with it;
//! - a snapshot begins at a time after everything appended and after the snapshot before it.
//!
//! In every state searches find a collection; an alias moves only to a generation that has the document as the source had
//! it at the position of the producer, or later; when nothing is in flight, every whole generation holds what the source
//! has, made as declared; and when nothing is left to do, what is declared is reached, and nothing else exists.
//!
//! The explorer finds a violation as soon as one of the [safeguards](safeguard::Safeguard) is removed, which shows that it
//! would detect a broken one.
//!
//! **Not covered**: several documents, collections of the source, or indexes; ordinals within one time; histories of more
//! than two operations while a generation changes; two kinds of mishaps at once; tombstones that are collected; records of
//! collections, which always agree with the catalog here; a collection that is lost between the controller's last look at
//! losses and its request for the alias; a write or a deletion that arrives after another collection has got the same
//! name. A barrier passes, and a comparison begins, only when nothing is in flight. That loses no state but those with an
//! older applied checkpoint: what was appended later can as well be appended after it.

mod controller;
mod explore;
mod invariants;
mod model;
mod producer;
mod safeguard;
mod scenario;
mod stages;
mod state;

use explore::{Explored, explore};
use safeguard::Safeguard;
use scenario::Command::{Apply, Drop, RollBack};
use scenario::Write::{Delete, In, Leave, Out};
use scenario::{Command, EVERYTHING, MATCHING, Scenario, Start, Write, histories};
use state::Mishaps;

const NONE: Mishaps = Mishaps { gaps: 0, duplicates: 0, losses: 0, damages: 0, late_requests: 0 };
const A_LOST_ENTRY: Mishaps = Mishaps { damages: 1, ..NONE };
const A_SKIPPED_RECORD: Mishaps = Mishaps { gaps: 1, ..NONE };
const A_LATE_WRITE: Mishaps = Mishaps { duplicates: 1, ..NONE };
const A_LOST_COLLECTION: Mishaps = Mishaps { losses: 1, ..NONE };
const A_LATE_REQUEST: Mishaps = Mishaps { late_requests: 1, ..NONE };

/// A new model.
const REMODEL: Command = Apply(MATCHING.remodelled());

/// The return of a new model to the one before.
const WITHDRAW: Command = Apply(MATCHING);

/// An index without a command.
fn steady() -> Scenario {
    Scenario::new(Start::Serving(MATCHING), &[]).with(A_LOST_ENTRY)
}

/// A new index.
fn created() -> Scenario {
    Scenario::new(Start::Nothing, &[Apply(MATCHING)])
}

/// A filter that is added.
fn narrowed() -> Scenario {
    Scenario::new(Start::Serving(EVERYTHING), &[Apply(MATCHING)])
}

/// A filter that is removed.
fn widened() -> Scenario {
    Scenario::new(Start::Serving(MATCHING), &[Apply(EVERYTHING)])
}

/// Another text, while a processor is slow to follow.
fn rewritten() -> Scenario {
    Scenario::new(Start::Serving(MATCHING), &[Apply(MATCHING.rewritten("title"))]).with_stale_services()
}

/// Another text, and then another one.
fn rewritten_twice() -> Scenario {
    let commands = [Apply(EVERYTHING.rewritten("title")), Apply(EVERYTHING.rewritten("body"))];
    Scenario::new(Start::Serving(EVERYTHING), &commands)
}

/// Another model.
fn remodelled(then: &[Command]) -> Scenario {
    let commands: Vec<Command> = [REMODEL].iter().chain(then).copied().collect();
    Scenario::new(Start::Serving(MATCHING), &commands)
}

/// Another model together with a filter.
fn remodelled_and_narrowed() -> Scenario {
    Scenario::new(Start::Serving(EVERYTHING), &[REMODEL])
}

/// The same, once the new generation exists.
fn filling() -> Scenario {
    Scenario::new(Start::Filling(EVERYTHING, MATCHING.remodelled()), &[])
}

/// A generation that was given up, while processors and upserters are slow to follow.
fn retiring() -> Scenario {
    let start = Start::Retiring(MATCHING, MATCHING.remodelled());
    Scenario::new(start, &[]).with(A_LATE_WRITE).with_stale_services()
}

/// A generation that is ready for the alias.
fn ready(commands: &[Command]) -> Scenario {
    Scenario::new(Start::Ready(MATCHING, MATCHING.remodelled()), commands)
}

/// A rollback to a generation that may lose its collection.
fn rolled_back() -> Scenario {
    Scenario::new(Start::Switched(MATCHING, MATCHING.remodelled()), &[RollBack]).with(A_LOST_COLLECTION)
}

/// The short form with another model.
fn plain() -> Scenario {
    Scenario::new(Start::ShortForm(MATCHING), &[REMODEL])
}

/// An index that is dropped, and declared again with another model.
fn declared_again() -> Scenario {
    Scenario::new(Start::Serving(EVERYTHING), &[Drop, Apply(EVERYTHING.remodelled())])
}

/// Explores these histories, which must violate nothing; returns the number of states.
fn holds(scenario: &Scenario, histories: &[&[Write]]) -> usize {
    let mut seen = 0;
    for history in histories {
        let Explored { states, counterexample } = explore(scenario, history, None);
        if let Some(counterexample) = counterexample {
            panic!("{scenario:?}: {counterexample}");
        }
        seen += states;
    }
    seen
}

#[test]
fn documents_enter_and_leave_a_generation_although_entries_are_lost() {
    let histories = histories(3);
    let histories: Vec<&[Write]> = histories.iter().map(Vec::as_slice).collect();
    let states = holds(&steady(), &histories);
    assert!(histories.len() == 28 && states > 5_000, "only {states} states were explored");
}

#[test]
fn index_that_is_created_or_edited_in_place_ends_as_declared() {
    let pairs: [&[Write]; 4] = [&[In, Leave], &[In, Out], &[In, Delete], &[Out, In]];
    let mut states = 0;
    for scenario in [created(), narrowed(), widened()] {
        states += holds(&scenario, &pairs);
        states += holds(&scenario.with(A_LOST_ENTRY), &[&[In]]);
    }
    states += holds(&rewritten(), &[&[In, In], &[In, Leave], &[Out, In]]);
    states += holds(&rewritten().with(A_LOST_ENTRY), &[&[In]]);
    states += holds(&rewritten_twice(), &[&[In]]);
    assert!(states > 30_000, "only {states} states were explored");
}

#[test]
fn new_generation_is_filled_compared_and_served() {
    let mut states = holds(&remodelled_and_narrowed(), &[&[Out, In]]);
    states += holds(&remodelled(&[]).with(A_SKIPPED_RECORD), &[&[In]]);
    states += holds(&remodelled(&[]).with_time(), &[&[Out, In]]);
    states += holds(&plain(), &[&[Out, In]]);
    assert!(states > 30_000, "only {states} states were explored");
}

#[test]
fn command_during_a_change_of_generations_is_obeyed() {
    let mut states = holds(&remodelled(&[WITHDRAW]), &[&[In]]);
    states += holds(&remodelled(&[RollBack]), &[&[In]]);
    states += holds(&remodelled(&[Drop]), &[&[In]]);
    states += holds(&declared_again(), &[&[In]]);
    states += holds(&retiring(), &[&[In, Leave]]);
    assert!(states > 20_000, "only {states} states were explored");
}

#[test]
fn alias_returns_from_where_a_late_request_or_a_loss_leaves_it() {
    let mut states = holds(&remodelled(&[WITHDRAW]).with(A_LATE_REQUEST), &[&[In]]);
    states += holds(&ready(&[WITHDRAW]).with(A_LATE_REQUEST), &[&[In]]);
    states += holds(&ready(&[]).with(A_SKIPPED_RECORD), &[&[Out, In]]);
    states += holds(&rolled_back(), &[&[In, Leave]]);
    assert!(states > 20_000, "only {states} states were explored");
}

/// A safeguard, and the scenario and the history that violate an invariant without it.
type Needed = (Safeguard, fn() -> Scenario, &'static [Write]);

/// Those that keep the content of a generation.
const OF_CONTENT: [Needed; 10] = [
    (Safeguard::AdoptionFirst, created, &[In]),
    (Safeguard::RoutesInCheckpoint, created, &[In]),
    (Safeguard::LaterRows, rewritten_twice, &[In]),
    (Safeguard::SettledComparison, rewritten_twice, &[In]),
    (Safeguard::AppliedEnd, || rewritten().with(A_LOST_ENTRY), &[In]),
    (Safeguard::StampCheck, rewritten, &[In]),
    (Safeguard::LeaveTombstone, steady, &[In, Leave]),
    (Safeguard::Replacements, steady, &[In, Out]),
    (Safeguard::OwnTombstones, filling, &[In, Out]),
    (Safeguard::Barrier, declared_again, &[In]),
];

/// Those that keep the alias and the collections.
const OF_MOVES: [Needed; 6] = [
    (Safeguard::Rest, || ready(&[]), &[In]),
    (Safeguard::RecordedGap, || ready(&[]).with(A_SKIPPED_RECORD), &[In]),
    (Safeguard::WholeRollback, rolled_back, &[In]),
    (Safeguard::Intent, plain, &[In]),
    (Safeguard::UndisturbedMove, plain, &[In]),
    (Safeguard::ReadAgain, retiring, &[In]),
];

/// Shows that each safeguard is needed: nothing is violated with it, and something without it.
fn are_needed(safeguards: &[Needed]) {
    for (safeguard, scenario, history) in safeguards {
        holds(&scenario(), &[*history]);
        let explored = explore(&scenario(), history, Some(*safeguard));
        let Some(counterexample) = explored.counterexample else {
            panic!("without {safeguard:?} nothing is violated in {} states", explored.states);
        };
        assert!(counterexample.lines().count() > 3, "{counterexample}");
    }
}

#[test]
fn without_a_safeguard_of_the_content_a_generation_differs_from_the_source() {
    are_needed(&OF_CONTENT);
}

#[test]
fn without_a_safeguard_of_the_moves_searches_find_less_or_collections_stay() {
    are_needed(&OF_MOVES);
}

/// A generation is filled only when a checkpoint is applied that knows it. So a return to an older revision begins its
/// snapshot again: keeping the current revision saves that work.
#[test]
fn rewind_to_an_older_revision_would_lose_nothing() {
    for scenario in [created(), narrowed(), widened(), rewritten()] {
        let explored = explore(&scenario.with(A_LOST_ENTRY), &[In], Some(Safeguard::CurrentRewind));
        assert!(explored.counterexample.is_none(), "{}", explored.counterexample.unwrap_or_default());
    }
}
