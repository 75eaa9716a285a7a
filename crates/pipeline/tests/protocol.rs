//! The protocol of the upserter, explored exhaustively.
//!
//! One document lives through every short history of writes (of one to three chunks) and deletes. Every change is
//! delivered, one of them twice, to workers that all act at once; one of them may crash after any step and start again.
//! The explorer walks through every interleaving of their steps and looks at the index when all are done: it must hold
//! exactly the chunks of the newest change. The decision after a write is the real one, [`aftermath`]; Qdrant and the
//! tombstones are modelled by what they promise:
//!
//! - a conditional upsert is atomic, overwrites only older points, and inserts missing points whatever its condition;
//! - a delete by filter is atomic and removes what is older than its version;
//! - a tombstone keeps the greatest version.
//!
//! The same explorer finds a violation as soon as one of the three safeguards is taken away, which shows that it would
//! notice if one of them did not work.

use std::collections::HashSet;

use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::ports::{DocumentPoints, Point, Stored};
use tidewheel_core::version::{ClusterTime, Version};
use tidewheel_pipeline::upserter::{Aftermath, aftermath};

/// Most chunks of a change in the model.
const CHUNKS: usize = 3;

/// A change: the number of its chunks, 0 for a delete. Its version is its place in the history, from 1.
type History = Vec<usize>;

/// Which safeguards are in place.
#[derive(Clone, Copy)]
struct Safeguards {
    fence: bool,
    check: bool,
    tombstone: bool,
}

const ALL: Safeguards = Safeguards { fence: true, check: true, tombstone: true };

/// Where a worker is with its change.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Step {
    /// Upsert (A), or raise the tombstone.
    Write,
    /// Read what is stored (half of B).
    ReadStored,
    /// Read the tombstone (the other half).
    ReadTombstone { stored: u8, surplus: bool },
    /// Delete what is older than this version (C).
    Delete { older_than: u8 },
    /// Acknowledged (D).
    Done,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    /// The version at each chunk; 0 for no point.
    points: [u8; CHUNKS],
    tombstone: u8,
    /// Each worker's change (its place in the history, from 1) and step.
    workers: Vec<(u8, Step)>,
    crashes_left: u8,
}

fn version(number: u8) -> Version {
    Version { epoch: 0, time: ClusterTime { seconds: u32::from(number), increment: 1 }, ordinal: 1, replay: 0 }
}

fn some(number: u8) -> Option<Version> {
    (number > 0).then(|| version(number))
}

/// The state after a worker's next step.
fn step(state: &State, worker: usize, history: &History, safe: Safeguards) -> State {
    let mut next = state.clone();
    let (change, at) = state.workers[worker];
    let chunks = history[usize::from(change) - 1];
    let after = match at {
        Step::Write if chunks == 0 => {
            if safe.tombstone {
                next.tombstone = next.tombstone.max(change);
            }
            Step::Delete { older_than: change }
        }
        Step::Write => {
            for point in &mut next.points[..chunks] {
                if *point == 0 || *point < change || !safe.fence {
                    *point = change;
                }
            }
            if safe.check { Step::ReadStored } else { Step::Done }
        }
        Step::ReadStored => {
            let surplus = state.points.get(chunks).is_some_and(|point| *point > 0);
            // The version of a single chunk is not read.
            Step::ReadTombstone { stored: if chunks > 1 { state.points[0] } else { 0 }, surplus }
        }
        Step::ReadTombstone { stored, surplus } => {
            let document = DocumentId::new(&Namespace::new("shop", "tickets"), "1");
            let point =
                |chunk| Point { id: document.point(chunk), vector: Vec::new(), payload: serde_json::Map::new() };
            let points = (0..chunks as u32).map(point).collect();
            let fields = serde_json::Map::new();
            let written = DocumentPoints { document, version: version(change), fields, points };
            match aftermath(&written, Stored { version: some(stored), surplus }, some(state.tombstone), None) {
                Aftermath::Clean => Step::Done,
                Aftermath::Rewrite => Step::Write,
                Aftermath::Sweep(fence) => Step::Delete { older_than: fence.version.time.seconds as u8 },
            }
        }
        Step::Delete { older_than } => {
            for point in &mut next.points {
                if *point < older_than {
                    *point = 0;
                }
            }
            Step::Done
        }
        Step::Done => unreachable!("a worker that is done takes no step"),
    };
    next.workers[worker].1 = after;
    next
}

/// The first final state that is wrong, if any interleaving leads to one; and how many states were seen.
fn explore(history: &History, duplicate: u8, safe: Safeguards) -> (Option<State>, usize) {
    let mut changes: Vec<u8> = (1..=history.len() as u8).collect();
    changes.push(duplicate);
    let workers = changes.into_iter().map(|change| (change, Step::Write)).collect();
    let start = State { points: [0; CHUNKS], tombstone: 0, workers, crashes_left: 1 };
    let newest = history.len() as u8;
    let mut expected = [0; CHUNKS];
    expected[..history[history.len() - 1]].fill(newest);

    let mut seen = HashSet::from([start.clone()]);
    let mut todo = vec![start];
    while let Some(state) = todo.pop() {
        let mut visit = |next: State| {
            if seen.insert(next.clone()) {
                todo.push(next);
            }
        };
        let mut all_done = true;
        for worker in 0..state.workers.len() {
            if state.workers[worker].1 == Step::Done {
                continue;
            }
            all_done = false;
            visit(step(&state, worker, history, safe));
            if state.crashes_left > 0 && state.workers[worker].1 != Step::Write {
                let mut crashed = state.clone();
                crashed.workers[worker].1 = Step::Write;
                crashed.crashes_left -= 1;
                visit(crashed);
            }
        }
        if all_done && state.points != expected {
            return (Some(state), seen.len());
        }
    }
    (None, seen.len())
}

/// Every history of up to `length` changes that begins with a write; a delete is never followed by another.
fn histories(length: usize) -> Vec<History> {
    let mut all: Vec<History> = Vec::new();
    let mut last: Vec<History> = vec![Vec::new()];
    for _ in 0..length {
        last = last
            .iter()
            .flat_map(|history| (0..=CHUNKS).map(|chunks| history.iter().copied().chain([chunks]).collect::<History>()))
            .filter(|history| history[0] > 0 && history.windows(2).all(|pair| pair != [0, 0]))
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

fn violations(safe: Safeguards) -> usize {
    histories(3)
        .iter()
        .flat_map(|history| (1..=history.len() as u8).map(move |duplicate| explore(history, duplicate, safe)))
        .filter(|(wrong, _)| wrong.is_some())
        .count()
}

#[test]
fn no_interleaving_of_late_duplicated_or_crashed_work_leaves_the_index_wrong() {
    let mut states = 0;
    for history in histories(3) {
        for duplicate in 1..=history.len() as u8 {
            let (wrong, seen) = explore(&history, duplicate, ALL);
            states += seen;
            if let Some(state) = wrong {
                panic!(
                    "history {history:?}, change {duplicate} twice: {:?}, tombstone {}",
                    state.points, state.tombstone
                );
            }
        }
    }
    assert!(states > 50_000, "only {states} states were explored");
}

#[test]
fn without_the_fence_an_old_write_wins() {
    assert!(violations(Safeguards { fence: false, ..ALL }) > 0);
}

#[test]
fn without_the_check_a_late_write_resurrects_a_document_or_a_chunk() {
    assert!(violations(Safeguards { check: false, ..ALL }) > 0);
}

#[test]
fn without_the_tombstone_a_late_write_resurrects_a_deleted_document() {
    assert!(violations(Safeguards { tombstone: false, ..ALL }) > 0);
}
