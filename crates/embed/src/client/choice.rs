//! Which model of a server a client uses. Pure.

use tidewheel_core::catalog::{EmbeddingSpec, Rounding};
use tidewheel_engine::Precision;

use crate::service::{ServedModel, same_model};

/// Returns the place of the model that fits the specification, of those that a server lists, the default one first. `None`
/// if none fits: vectors of another model, revision, rounding or prefix must not be mixed with its vectors.
///
/// A specification without a model fits the default model. If several models fit, the one named like the specified model
/// precedes, then one with the specified prefix of queries, then the one named like the specification.
pub(super) fn choose(spec: &EmbeddingSpec, served: &[ServedModel]) -> Option<usize> {
    if spec.model.is_empty() {
        return Some(0);
    }
    let pin = Pin::of(spec, served);
    let fitting = served.iter().enumerate().filter(|(_, model)| fits(spec, model) && pin.admits(model));
    let rank = |model: &ServedModel| {
        let query = spec.query_prefix.as_ref().is_none_or(|prefix| *prefix == model.query_prefix);
        (model.name != spec.model, !query, model.name != spec.name)
    };
    fitting.min_by_key(|(_, model)| rank(model)).map(|(place, _)| place)
}

/// The revision that a specification pins, as far as the server reports it. Ids have no revision: the embedder gives a
/// pinned model its whole specification as a further name.
enum Pin<'a> {
    /// None is pinned, or the server reports none.
    Any,
    /// The model with this fingerprint.
    Is(&'a str),
    /// One that the server does not serve.
    Unknown,
}

impl<'a> Pin<'a> {
    fn of(spec: &EmbeddingSpec, served: &'a [ServedModel]) -> Self {
        if !spec.model.contains('@') {
            return Self::Any;
        }
        let of_id: Vec<&'a ServedModel> = served.iter().filter(|model| is_model(&spec.model, &model.model)).collect();
        match of_id.iter().find(|model| model.name == spec.model) {
            Some(pinned) => Self::Is(&pinned.revision),
            // The embedder of the installation reports every pin; that of another one may be of an earlier release.
            None if spec.url.is_none() || of_id.iter().any(|model| model.name.contains('@')) => Self::Unknown,
            None => Self::Any,
        }
    }

    fn admits(&self, model: &ServedModel) -> bool {
        match self {
            Self::Any => true,
            Self::Is(revision) => model.revision == *revision,
            Self::Unknown => false,
        }
    }
}

/// Whether one of the models that a server lists, the default one first, fits the specification.
pub fn serves(served: &[ServedModel], spec: &EmbeddingSpec) -> bool {
    choose(spec, served).is_some()
}

fn fits(spec: &EmbeddingSpec, model: &ServedModel) -> bool {
    is_model(&spec.model, &model.model)
        && rounding(model.precision) == spec.rounding
        && spec.passage_prefix.as_ref().is_none_or(|prefix| *prefix == model.passage_prefix)
}

/// Returns how a precision rounds.
pub(super) fn rounding(precision: Precision) -> Rounding {
    if precision == Precision::Int8 { Rounding::Int8 } else { Rounding::Exact }
}

/// Whether a specified model is the one with this id. The id has no pinned revision, and the id of a directory is its name.
fn is_model(specified: &str, id: &str) -> bool {
    let unpinned = specified.split_once('@').map_or(specified, |(model, _)| model);
    let last = specified.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    same_model(specified, id) || same_model(unpinned, id) || last == id
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINI: &str = "sentence-transformers/all-MiniLM-L6-v2";

    fn served(name: &str, model: &str, precision: Precision) -> ServedModel {
        ServedModel {
            name: name.to_owned(),
            model: model.to_owned(),
            revision: "1".to_owned(),
            dimension: 8,
            precision,
            query_prefix: "query: ".to_owned(),
            passage_prefix: "passage: ".to_owned(),
        }
    }

    fn spec(model: &str) -> EmbeddingSpec {
        EmbeddingSpec::new("default", "tidewheel", model)
    }

    #[test]
    fn specified_model_is_chosen_by_id() {
        let models = [
            served("default", MINI, Precision::Bf16),
            served("small", "org/bge-small", Precision::F32),
            served("own", "tuned", Precision::F32),
        ];
        for (model, expected) in [
            ("", Some(0)),
            (MINI, Some(0)),
            ("all-MiniLM-L6-v2", Some(0)),
            ("/models/tuned/", Some(2)),
            ("./tuned", Some(2)),
            ("fork/bge-small", None),
            ("bge-base", None),
        ] {
            assert_eq!(choose(&spec(model), &models), expected, "{model:?}");
        }
        assert_eq!(choose(&spec(MINI), &[]), None);
    }

    #[test]
    fn pinned_revision_must_be_the_served_one() {
        let of = |name: &str, precision, revision: &str| ServedModel {
            revision: revision.to_owned(),
            ..served(name, "org/bge-small", precision)
        };
        let unpinned = [of("default", Precision::F32, "1")];
        let pinned = [
            of("default", Precision::F32, "1"),
            of("org/bge-small@5c38", Precision::F32, "1"),
            of("rounded", Precision::Int8, "1"),
            of("org/bge-small@77aa", Precision::F32, "2"),
        ];
        let foreign = |model: &str| EmbeddingSpec { url: Some("http://gpu:8080".to_owned()), ..spec(model) };
        let rounded = EmbeddingSpec { rounding: Rounding::Int8, ..spec("org/bge-small@5c38") };
        for (spec, models, expected) in [
            (spec("org/bge-small@5c38"), &pinned[..], Some(1)),
            (spec("org/bge-small@77aa"), &pinned[..], Some(3)),
            (spec("org/bge-small@0000"), &pinned[..], None),
            (rounded, &pinned[..], Some(2)),
            (spec("org/bge-small"), &pinned[..], Some(0)),
            (spec("org/bge-small@5c38"), &unpinned[..], None),
            (foreign("org/bge-small@5c38"), &unpinned[..], Some(0)),
            (foreign("org/bge-small@0000"), &pinned[..], None),
        ] {
            assert_eq!(choose(&spec, models), expected, "{spec:?}");
        }
    }

    #[test]
    fn rounding_and_passage_prefix_must_fit() {
        let models = [served("default", MINI, Precision::Int8), served("exact", MINI, Precision::Bf16)];
        assert_eq!(choose(&spec(MINI), &models), Some(1));
        assert_eq!(choose(&EmbeddingSpec { rounding: Rounding::Int8, ..spec(MINI) }, &models), Some(0));
        let prefixed = |prefix: &str| EmbeddingSpec { passage_prefix: Some(prefix.to_owned()), ..spec(MINI) };
        assert_eq!(choose(&prefixed("passage: "), &models), Some(1));
        assert_eq!(choose(&prefixed("doc: "), &models), None);
    }

    #[test]
    fn names_decide_between_models_that_fit() {
        let models = [
            served("default", MINI, Precision::F32),
            served("other", MINI, Precision::F32),
            served("all-MiniLM-L6-v2@5c38", MINI, Precision::F32),
        ];
        let named = |name: &str, model: &str| EmbeddingSpec::new(name, "tidewheel", model);
        assert_eq!(choose(&named("default", MINI), &models), Some(0));
        assert_eq!(choose(&named("other", MINI), &models), Some(1));
        assert_eq!(choose(&named("unlisted", MINI), &models), Some(0));
        assert_eq!(choose(&named("default", "all-MiniLM-L6-v2@5c38"), &models), Some(2));
        let other = ServedModel { query_prefix: "q: ".to_owned(), ..models[1].clone() };
        let query = EmbeddingSpec { query_prefix: Some("q: ".to_owned()), ..named("default", MINI) };
        assert_eq!(choose(&query, &[models[0].clone(), other]), Some(1));
        assert_eq!(choose(&query, &models), Some(0), "a prefix of queries decides no vector of a document");
    }
}
