//! Describes the actions of a submission and their costs, without I/O.

use tidewheel_core::catalog::{Action, Datatype, Declaration, IndexAction};

use super::details::{Identities, details};
use super::estimate::Estimate;
use super::report::{Cost, IndexPlan, RateSource, Searches, whole};
use super::sample::Model;

/// What is known about an action beside itself.
#[derive(Default)]
pub(super) struct Known<'a> {
    /// The models of the serving and of the declared generation.
    pub(super) identities: Identities<'a>,
    /// Whether the generation exists already.
    pub(super) exists: bool,
    /// Points in the collections that are deleted.
    pub(super) points: Option<u64>,
    /// What is read, embedded and written.
    pub(super) cost: Option<Cost>,
}

/// Describes an action.
pub(super) fn index_plan(action: &IndexAction, known: Known<'_>) -> IndexPlan {
    let moves_alias = match action.action {
        Action::Generation | Action::Switch => action.switches,
        _ => false,
    };
    let deletes = matches!(action.action, Action::Drop | Action::Discard);
    IndexPlan {
        index: action.index.clone(),
        action: action.action,
        parts: action.difference.parts().collect(),
        generation: action.generation,
        details: details(action, &known.identities),
        cost: known.cost,
        searches: moves_alias.then_some(Searches { interrupted_ms: (!action.interrupts).then_some(0) }),
        rollback: moves_alias.then(|| match action.keep {
            Some(keep) => format!("{} after the switch", whole(keep, "")),
            None => "not possible".to_owned(),
        }),
        collections: action.deleted.clone(),
        points: known.points.filter(|_| deletes),
        exists: known.exists,
        keep: action.keep,
    }
}

/// The cost of an action, given the throughput in tokens per second and where it comes from, and the pace of a snapshot in
/// documents per second.
pub(super) fn cost(
    estimate: &Estimate,
    after: &Declaration,
    model: &Model,
    (tokens_per_second, rate): (Option<f64>, RateSource),
    pace: Option<u64>,
) -> Cost {
    let documents_per_second = pace.filter(|pace| estimate.texts == 0 && *pace > 0);
    let (seconds, rate) = match documents_per_second {
        Some(pace) => (Some(estimate.read.div_ceil(pace)), RateSource::Measured),
        None => (tokens_per_second.map(|rate| (estimate.tokens as f64 / rate).ceil() as u64), rate),
    };
    let dimension = model.identity().map(|identity| identity.dimension).or(after.embedding.dimensions);
    let bytes = |dimension: usize| dimension as u64 * width(after.vectors.datatype);
    Cost {
        documents: estimate.documents,
        texts: estimate.texts,
        tokens: estimate.tokens,
        points: estimate.points,
        sampled: estimate.sampled,
        seconds,
        rate,
        documents_per_second,
        tokens_per_second,
        removed: estimate.removed,
        vector_bytes: dimension.map(|dimension| estimate.points.saturating_mul(bytes(dimension))),
    }
}

/// Bytes of one number of a vector.
fn width(datatype: Datatype) -> u64 {
    match datatype {
        Datatype::Float32 => 4,
        Datatype::Float16 => 2,
        Datatype::Uint8 => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tidewheel_core::catalog::{
        ApplyOptions, Catalog, Choice, EmbedderIdentity, Generation, State, Submitted, submit,
    };
    use tidewheel_core::ports::Embedder;
    use tidewheel_core::tokens::Words;
    use tidewheel_testkit::fakes::embedder::FakeEmbedder;

    use super::*;
    use crate::samples::{catalog, declaration, index, target};

    const NOW: u64 = 1_000;

    fn submitted(current: &Catalog, declared: &[Declaration]) -> Submitted {
        submit(current, declared, &Choice::Declared(ApplyOptions::default()), NOW)
    }

    fn changed(change: impl Fn(&mut Declaration)) -> Declaration {
        let mut declaration = declaration("tickets");
        change(&mut declaration);
        declaration
    }

    fn only(submitted: &Submitted) -> IndexPlan {
        let [action] = submitted.actions.as_slice() else { panic!("{submitted:?}") };
        index_plan(action, Known::default())
    }

    fn serving() -> Catalog {
        catalog(7, &[("tickets", State::Serving)])
    }

    #[test]
    fn new_generation_names_the_switch_and_the_rollback() {
        let plan =
            only(&submitted(&serving(), &[changed(|declaration| declaration.embedding.model = "hash:64".into())]));
        assert_eq!((plan.action, plan.generation, plan.exists), (Action::Generation, Some(2), false));
        assert_eq!(plan.searches, Some(Searches { interrupted_ms: Some(0) }));
        assert_eq!(
            (plan.rollback.as_deref(), plan.keep),
            (Some("24h after the switch"), Some(Duration::from_secs(86_400)))
        );
        assert!(plan.collections.is_empty(), "the kept generation is not deleted yet");
    }

    #[test]
    fn first_switch_of_the_short_form_interrupts_searches() {
        let short = Catalog::short_form(Arc::new(declaration("tickets")));
        let plan = only(&submitted(&short, &[changed(|declaration| declaration.embedding.model = "hash:64".into())]));
        assert_eq!(plan.searches, Some(Searches { interrupted_ms: None }));
        assert_eq!(plan.rollback.as_deref(), Some("not possible"));
        assert_eq!(plan.collections, ["tickets"]);
    }

    #[test]
    fn change_in_place_moves_no_alias() {
        let plan = only(&submitted(&serving(), &[changed(|declaration| declaration.payload.full = true)]));
        assert_eq!((plan.action, plan.searches, plan.rollback), (Action::Payload, None, None));
        let none = only(&submitted(&serving(), &[declaration("tickets")]));
        assert_eq!(none.lines(), ["no change"]);
    }

    #[test]
    fn drop_and_switch_are_described() {
        let mut current = serving();
        let old = current.indexes.get_mut(&index("tickets")).unwrap();
        let mut kept = Generation::new(&target("tickets.g2"), Arc::new(changed(|one| one.payload.full = true)), 7);
        (kept.state, kept.filled) = (State::Kept, 7);
        old.generations.insert(2, kept);
        let switch = submitted(&current, &[changed(|declaration| declaration.payload.full = true)]);
        let switch = only(&switch);
        assert_eq!((switch.action, switch.generation), (Action::Switch, Some(2)));
        assert!(switch.searches.is_some() && switch.keep.is_some(), "{switch:?}");
        let dropped = submitted(&current, &[]);
        let dropped = index_plan(&dropped.actions[0], Known { points: Some(9), ..Known::default() });
        assert_eq!((dropped.index.clone(), dropped.points), (index("tickets"), Some(9)));
        assert_eq!(dropped.lines(), ["drop: collections tickets.g1, tickets.g2 with 9 points"]);
    }

    #[test]
    fn cost_has_the_time_and_the_size_of_vectors() {
        let identity = EmbedderIdentity { model: String::new(), revision: String::new(), dimension: 64 };
        let embedder: Arc<dyn Embedder> = Arc::new(FakeEmbedder::new(64));
        let unknown = || Model { reported: None, refusal: None, tokens: Arc::new(Words), max_tokens: 32 };
        let known = Model { reported: Some((embedder, identity)), ..unknown() };
        let unknown = unknown();
        let estimate = Estimate { tokens: 101, points: 10, ..Estimate::default() };
        let mut half = declaration("tickets");
        half.vectors.datatype = Datatype::Float16;
        let measured = cost(&estimate, &half, &known, (Some(50.0), RateSource::Measured), None);
        assert_eq!((measured.seconds, measured.vector_bytes), (Some(3), Some(10 * 64 * 2)));
        let nothing = Estimate { documents: 10, read: 101, ..Estimate::default() };
        let payload = cost(&nothing, &half, &known, (None, RateSource::Unknown), Some(10));
        assert_eq!((payload.seconds, payload.rate), (Some(11), RateSource::Measured));
        let embeds = Estimate { texts: 1, ..nothing.clone() };
        assert_eq!(cost(&embeds, &half, &known, (None, RateSource::Unknown), Some(10)).seconds, None);
        let unknown = cost(&nothing, &half, &unknown, (None, RateSource::Unknown), None);
        assert_eq!((unknown.seconds, unknown.rate, unknown.vector_bytes), (None, RateSource::Unknown, None));
    }
}
