use super::super::samples::{catalog, checkpoint, declaration, name};
use super::*;
use crate::catalog::Selector;

/// Serves `small`, `large` and `next`, which covers the collection of `small`.
fn sample() -> Catalog {
    catalog(5, [declaration("large", "large"), declaration("next", "small"), declaration("small", "small")])
}

fn change(catalog: &mut Catalog, index: &str, change: impl FnOnce(&mut Generation)) {
    change(catalog.indexes.get_mut(&name(index)).unwrap().generations.get_mut(&1).unwrap());
}

fn make_due(catalog: &mut Catalog, index: &str, due: u64) {
    change(catalog, index, |generation| generation.due = due);
}

fn due(index: &str, due: u64) -> Due {
    Due { target: name(index).target(1), due }
}

fn lost(index: &str) -> Lost {
    Lost { target: name(index).target(1), recent: false }
}

fn running(catalog: u64, scope: &[Due]) -> Checkpoint {
    let saved = checkpoint(catalog);
    let snapshot = SnapshotState::Running { time: saved.through, after: None, rows: 3 };
    Checkpoint { snapshot, scope: scope.to_vec(), ..saved }
}

fn ended(catalog: u64, scope: &[Due]) -> Checkpoint {
    Checkpoint { scope: scope.to_vec(), ..checkpoint(catalog) }
}

fn documents(index: &IndexName) -> Option<u64> {
    match index.as_str() {
        "small" | "next" => Some(10),
        "large" => Some(1_000_000),
        _ => None,
    }
}

fn next(catalog: &Catalog, checkpoint: &Checkpoint) -> Option<Vec<Due>> {
    next_scope(catalog, checkpoint, &[], documents)
}

#[test]
fn snapshot_begins_after_its_revision_is_adopted() {
    let mut catalog = sample();
    assert_eq!(next(&catalog, &checkpoint(9)), None);
    make_due(&mut catalog, "large", 6);
    assert_eq!(next(&catalog, &checkpoint(5)), None);
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("large", 6)]));
}

#[test]
fn serving_targets_precede_generations_and_small_ones_precede_large_ones() {
    let mut catalog = sample();
    for index in ["small", "large"] {
        make_due(&mut catalog, index, 6);
    }
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("small", 6)]));
    change(&mut catalog, "small", |generation| generation.state = State::Kept);
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("large", 6)]));
    change(&mut catalog, "large", |generation| generation.state = State::Filling);
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("small", 6)]));
    change(&mut catalog, "small", |generation| generation.state = State::Creating);
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("large", 6)]));
}

#[test]
fn targets_of_the_same_collections_share_a_snapshot() {
    let mut catalog = sample();
    for index in ["large", "next", "small"] {
        make_due(&mut catalog, index, 6);
    }
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("next", 6), due("small", 6)]));
    change(&mut catalog, "next", |generation| generation.state = State::Filling);
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("small", 6)]));
}

#[test]
fn small_targets_of_different_collections_share_a_snapshot() {
    let names = ["a", "b", "c", "d"];
    let mut catalog = catalog(5, names.map(|name| declaration(name, name)));
    for index in names {
        make_due(&mut catalog, index, 6);
    }
    let scope = |catalog: &Catalog, documents: fn(&IndexName) -> Option<u64>| {
        let scope = next_scope(catalog, &checkpoint(6), &[], documents).unwrap();
        scope.into_iter().map(|due| due.target.index.to_string()).collect::<Vec<_>>()
    };
    let sizes = |name: &IndexName| match name.as_str() {
        "a" => Some(60_000),
        "b" => Some(30_000),
        "c" => Some(20_000),
        _ => None,
    };
    assert_eq!(scope(&catalog, sizes), ["b", "c"], "together with the largest they are not small");
    assert_eq!(scope(&catalog, |_| None), ["a"], "as long as no size is known");
    assert_eq!(scope(&catalog, |_| Some(0)), ["a", "b", "c", "d"]);
    change(&mut catalog, "c", |generation| generation.state = State::Filling);
    assert_eq!(scope(&catalog, |_| Some(0)), ["a", "b", "d"], "serving ones precede it");
}

#[test]
fn next_snapshot_waits_until_the_last_one_is_recorded() {
    let mut catalog = sample();
    for index in ["large", "small"] {
        make_due(&mut catalog, index, 6);
    }
    let done = ended(6, &[due("small", 6)]);
    assert_eq!(next(&catalog, &done), None);
    assert_eq!(next_scope(&catalog, &done, &[lost("small")], documents), Some(vec![due("large", 6)]));
    change(&mut catalog, "small", |generation| generation.filled = 6);
    assert_eq!(next(&catalog, &done), Some(vec![due("large", 6)]));
}

#[test]
fn running_snapshot_is_replaced_only_if_a_target_of_it_is_due_again() {
    let mut catalog = sample();
    for index in ["large", "small"] {
        make_due(&mut catalog, index, 6);
    }
    let both = running(6, &[due("large", 6), due("small", 6)]);
    assert_eq!(next(&catalog, &both), None);
    make_due(&mut catalog, "next", 7);
    make_due(&mut catalog, "small", 7);
    assert_eq!(next(&catalog, &both), None);
    let adopted = Checkpoint { catalog: 7, ..both };
    assert_eq!(next(&catalog, &adopted), Some(vec![due("large", 6), due("small", 7)]));
    assert_eq!(next_scope(&catalog, &adopted, &[lost("small")], documents), None);
}

#[test]
fn snapshot_of_the_short_form_continues_beside_new_indexes() {
    let mut catalog = sample();
    change(&mut catalog, "small", |generation| generation.since = 0);
    make_due(&mut catalog, "large", 6);
    let all = running(6, &[]);
    assert_eq!(next(&catalog, &all), None);
    make_due(&mut catalog, "small", 6);
    assert_eq!(next(&catalog, &all), Some(vec![due("small", 6)]));
    catalog.revision = 0;
    assert_eq!(next(&catalog, &checkpoint(0)), None);
}

#[test]
fn snapshot_is_futile_if_each_of_its_targets_is_lost_or_gone() {
    let mut catalog = sample();
    let both = running(6, &[due("large", 6), due("small", 6)]);
    assert!(!is_futile(&catalog, &both, &[lost("small")]));
    change(&mut catalog, "large", |generation| generation.state = State::Retiring);
    assert!(!is_futile(&catalog, &both, &[]));
    assert!(is_futile(&catalog, &both, &[lost("small")]));
    assert!(!is_futile(&catalog, &running(6, &[]), &[lost("small")]));
    assert!(!is_futile(&catalog, &ended(6, &both.scope), &[lost("small")]));
}

#[test]
fn unknown_sizes_come_last() {
    let mut catalog = catalog(5, [declaration("a", "a"), declaration("large", "large")]);
    for index in ["a", "large"] {
        make_due(&mut catalog, index, 6);
    }
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("large", 6)]));
    change(&mut catalog, "a", |generation| {
        let mut declaration = declaration("a", "a");
        declaration.source = Selector::of_database("shop", &["large"]);
        generation.declaration = declaration.into();
    });
    assert_eq!(next(&catalog, &checkpoint(6)), Some(vec![due("a", 6), due("large", 6)]));
}
