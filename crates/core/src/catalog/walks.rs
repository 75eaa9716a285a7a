//! Random histories of an installation, for tests.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::json;

use super::samples::{declaration, name};
use super::world::World;
use super::{ApplyOptions, Catalog, Choice, Declaration, IndexName, Submitted, TargetId, submit};
use crate::ports::SourceFilter;

/// The indexes; the first one is that of the short form.
pub(super) const NAMES: [&str; 3] = ["documents", "notes", "tickets"];

/// Milliseconds of an hour.
const HOUR_MS: u64 = 3_600_000;

/// What happens to an installation.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Submit(Vec<Declaration>, ApplyOptions),
    Rollback(IndexName),
    /// Everything but the steps.
    Work,
    /// One step of an index.
    Step(IndexName),
    /// The end of the producer in the middle of a step of an index.
    Crash(IndexName),
    /// The late arrival of an earlier request of an alias, by its place.
    Repeat(usize),
    Settle,
    /// The loss of the collection of a routed target, by its place.
    Lose(usize),
    /// The result of the next comparison.
    Drift(u64, u64),
    Pass {
        hours: u64,
    },
}

impl World {
    pub(super) fn perform(&mut self, event: &Event) {
        match event {
            Event::Submit(declared, options) => self.apply(&self.submitted(declared, options)),
            Event::Rollback(name) => {
                let submitted = submit(&self.catalog, &[], &Choice::Rollback(name.clone()), self.now_ms);
                self.apply(&submitted);
            }
            Event::Work => {
                self.work();
            }
            Event::Step(name) => {
                self.step(name);
            }
            Event::Crash(name) => self.crash(name),
            Event::Repeat(place) => self.repeat(*place),
            Event::Settle => self.settle(),
            Event::Lose(place) => {
                let targets: Vec<TargetId> = self.catalog.routed().map(|(target, _)| target).collect();
                if !targets.is_empty() && !self.catalog.is_short_form() {
                    self.lose(&targets[place % targets.len()]);
                }
            }
            Event::Drift(drift, unexplained) => self.drift.push((*drift, *unexplained)),
            Event::Pass { hours } => self.now_ms += hours * HOUR_MS,
        }
    }

    pub(super) fn submitted(&self, declared: &[Declaration], options: &ApplyOptions) -> Submitted {
        let options = ApplyOptions { collections: self.collections.clone(), ..options.clone() };
        submit(&self.catalog, declared, &Choice::Declared(options), self.now_ms)
    }

    fn apply(&mut self, submitted: &Submitted) {
        if submitted.is_new() {
            self.save(submitted.clone());
        }
    }
}

/// A declaration of an index; each bit is a difference in one part.
pub(super) fn variant(index: &str, bits: u8) -> Declaration {
    let mut variant = declaration(index, index);
    let has = |bit: u8| bits & (1 << bit) != 0;
    if has(0) {
        "other".clone_into(&mut variant.embedding.model);
    }
    if has(1) {
        variant.filter = Some(SourceFilter(r#"{"status":"open"}"#.to_owned()));
    }
    if has(2) {
        variant.text.template = Some("{{ subject }}".to_owned());
    }
    if has(3) {
        variant.payload.exclude = vec!["secret".to_owned()];
    }
    if has(4) {
        variant.collection.settings.insert("on_disk_payload".to_owned(), json!(true));
    }
    variant
}

fn names() -> impl Strategy<Value = IndexName> {
    prop::sample::select(NAMES.to_vec()).prop_map(name)
}

/// Declarations of some of the indexes.
pub(super) fn declared() -> impl Strategy<Value = Vec<Declaration>> {
    let bits = || option::weighted(0.8, 0..32_u8);
    (bits(), bits(), bits()).prop_map(|(first, second, third)| {
        let variants = NAMES.iter().zip([first, second, third]);
        variants.filter_map(|(index, bits)| Some(variant(index, bits?))).collect()
    })
}

pub(super) fn options() -> impl Strategy<Value = ApplyOptions> {
    let only = prop_oneof![3 => Just(Vec::new()), 1 => vec(names(), 1..3)];
    let rarely = || prop::bool::weighted(0.2);
    (only, rarely(), rarely(), rarely(), option::of(0..4_u64), any::<bool>()).prop_map(
        |(only, forced, hold, drop_kept, accept_missing, adopt)| ApplyOptions {
            only: only.into_iter().collect(),
            forced,
            hold,
            drop_kept,
            accept_missing,
            adopt,
            ..ApplyOptions::default()
        },
    )
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (declared(), options()).prop_map(|(declared, options)| Event::Submit(declared, options)),
        2 => names().prop_map(Event::Rollback),
        6 => Just(Event::Work),
        12 => names().prop_map(Event::Step),
        2 => names().prop_map(Event::Crash),
        1 => (0..6_usize).prop_map(Event::Repeat),
        2 => Just(Event::Settle),
        1 => (0..9_usize).prop_map(Event::Lose),
        1 => (1..4_u64, 0..2_u64).prop_map(|(drift, unexplained)| Event::Drift(drift, unexplained)),
        1 => (1..30_u64).prop_map(|hours| Event::Pass { hours }),
    ];
    vec(event, 0..60)
}

/// Fewer cases than usual: each is a history of many steps.
pub(super) fn of_histories() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig { cases: usual.cases / 2, ..usual }
}

/// Installations in any state that a history leads to, from the short form or from nothing.
pub(super) fn worlds() -> impl Strategy<Value = World> {
    (any::<bool>(), events()).prop_map(|(has_short_form, events)| {
        let short_form = || Catalog::short_form(Arc::new(variant(NAMES[0], 0)));
        let mut world = World::new(if has_short_form { short_form() } else { Catalog::default() });
        for event in &events {
            world.perform(event);
        }
        world
    })
}
