//! Plans changes of the declarations from the seed.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::declarations::{Declarations, FILTERED, FILTERS, MODELS, NAMES, PAYLOADS, TEXTS, Variant};

/// Accepts every dead letter of a generation before the switch to it: some documents cannot be indexed. What else is
/// missing shows at the end.
pub(super) const ACCEPTED: &str = "--accept-missing=1000000";

/// A change of the declarations, and the command that makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Its row in the report.
    pub(super) kind: &'static str,
    /// What is declared from now on.
    pub(super) declarations: Declarations,
    /// The command with its arguments.
    pub(super) arguments: Vec<String>,
    /// The pause before it.
    pub(super) pause: Duration,
    /// When the command is killed, if it is still running.
    pub(super) lasts: Duration,
    /// When all producers are killed, and for how long.
    pub(super) kill: Option<(Duration, Duration)>,
    /// Whether the faults of the connections hit the command too.
    pub(super) is_through_proxies: bool,
}

/// Draws changes.
pub(super) struct Planner {
    rng: StdRng,
    declarations: Declarations,
    /// The index whose model was changed last: it can be rolled back.
    moved: Option<usize>,
}

impl Planner {
    pub(super) fn new(seed: u64) -> Self {
        // A different random stream than those of the writer and of the faults.
        Self { rng: StdRng::seed_from_u64(seed ^ 0x1dec), declarations: Declarations::first(), moved: None }
    }

    /// The next change.
    pub(super) fn next(&mut self) -> Change {
        let (kind, arguments) = self.change();
        let kill = self.rng.random_bool(0.4).then(|| (self.millis(0..4_000), self.millis(0..1_500)));
        Change {
            kind,
            declarations: self.declarations,
            arguments,
            pause: self.millis(500..5_000),
            lasts: self.millis(2_000..12_000),
            kill,
            is_through_proxies: self.rng.random_bool(0.3),
        }
    }

    fn change(&mut self) -> (&'static str, Vec<String>) {
        let missing = self.declarations.0.iter().position(Option::is_none);
        let place = self.rng.random_range(0..NAMES.len());
        let place = missing.filter(|_| self.rng.random_bool(0.3)).unwrap_or(place);
        let Some(variant) = self.declarations.0[place] else {
            let variant = self.any();
            self.declarations.0[place] = Some(variant);
            return ("re-create an index", self.apply(place));
        };
        let (kind, next) = match self.rng.random_range(0..100) {
            0..18 => ("change a text", Variant { text: self.other(variant.text, TEXTS.len()), ..variant }),
            18..32 => ("change a payload", Variant { payload: self.other(variant.payload, PAYLOADS.len()), ..variant }),
            32..50 if place == FILTERED => {
                ("change a filter", Variant { filter: self.other(variant.filter, FILTERS.len()), ..variant })
            }
            32..68 => {
                self.moved = Some(place);
                ("change a model", Variant { model: self.other(variant.model, MODELS.len()), ..variant })
            }
            68..84 => {
                let place = self.moved.take().unwrap_or(place);
                return ("roll back", vec!["rollback".into(), NAMES[place].into(), "--yes".into()]);
            }
            // Without any index there would be nothing left to run.
            84..94 if missing.is_none() => {
                self.declarations.0[place] = None;
                return ("drop an index", self.apply(place));
            }
            _ => ("apply again", variant),
        };
        self.declarations.0[place] = Some(next);
        (kind, self.apply(place))
    }

    /// The command that applies a change of this index. Sometimes it also takes along what was declared before and not
    /// applied, or switched back.
    fn apply(&mut self, place: usize) -> Vec<String> {
        let mut arguments = vec!["apply".to_owned(), "--yes".to_owned()];
        for (probability, argument) in [
            (0.5, format!("--index={}", NAMES[place])),
            (0.5, "--detach".to_owned()),
            (0.7, ACCEPTED.to_owned()),
            (0.1, "--generation".to_owned()),
            (0.1, "--hold".to_owned()),
            (0.15, "--drop-kept".to_owned()),
        ] {
            if self.rng.random_bool(probability) {
                arguments.push(argument);
            }
        }
        arguments
    }

    fn any(&mut self) -> Variant {
        Variant {
            text: self.rng.random_range(0..TEXTS.len()),
            payload: self.rng.random_range(0..PAYLOADS.len()),
            filter: self.rng.random_range(0..FILTERS.len()),
            model: self.rng.random_range(0..MODELS.len()),
        }
    }

    /// Another one of this many.
    fn other(&mut self, current: usize, count: usize) -> usize {
        (current + self.rng.random_range(1..count)) % count
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seed_determines_changes_and_every_kind_occurs() {
        let plan = |seed| {
            let mut planner = Planner::new(seed);
            (0..2_000).map(|_| planner.next()).collect::<Vec<_>>()
        };
        let changes = plan(1);
        assert_eq!(changes, plan(1));
        assert_ne!(changes, plan(2));
        let kinds: BTreeSet<_> = changes.iter().map(|change| change.kind).collect();
        assert_eq!(kinds.len(), 8, "{kinds:?}");
        let arguments: BTreeSet<_> = changes.iter().flat_map(|change| &change.arguments).collect();
        // Two commands with --yes, five flags, three indexes by name and as argument.
        assert_eq!(arguments.len(), 3 + 5 + 3 + 3, "{arguments:?}");
    }

    #[test]
    fn two_indexes_are_always_declared() {
        let mut planner = Planner::new(1);
        for _ in 0..2_000 {
            let declared = planner.next().declarations.indexes().count();
            assert!(declared >= NAMES.len() - 1, "{declared}");
        }
    }
}
