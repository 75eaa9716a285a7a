//! The models that the embedder of these settings serves.

use std::collections::BTreeSet;
use std::path::PathBuf;

use tidewheel_core::catalog::{EmbeddingSpec, Rounding};
use tidewheel_embed::service::DEFAULT;
use tidewheel_engine::{ModelSource, ModelSpec, Precision};

use crate::exit::Failure;
use crate::settings::{Embedder, Embedding, Settings};

/// A model to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its names in requests, at least one.
    pub(super) names: Vec<String>,
    /// Id, `hash:DIM` or directory.
    pub(super) model: String,
    pub(super) precision: Precision,
    pub(super) query_prefix: Option<String>,
    pub(super) passage_prefix: Option<String>,
}

impl Wanted {
    /// `[embedder]`.
    fn of_embedder(settings: &Embedder, name: &str) -> Self {
        Self {
            names: vec![name.to_owned()],
            model: settings.model.clone(),
            precision: precision(&settings.precision),
            query_prefix: settings.query_prefix.clone(),
            passage_prefix: settings.passage_prefix.clone(),
        }
    }

    /// `[embedding]` or `[embedding.NAME]`.
    fn of_embedding(embedding: &Embedding) -> Self {
        Self {
            names: vec![embedding.name.clone()],
            model: embedding.model.clone(),
            precision: precision(&embedding.precision),
            query_prefix: embedding.query_prefix.clone(),
            passage_prefix: embedding.passage_prefix.clone(),
        }
    }

    /// The model of an applied declaration, under the first of its possible names that is not taken.
    pub(super) fn of_spec(spec: &EmbeddingSpec, settings: &Embedder, is_taken: impl Fn(&str) -> bool) -> Self {
        let names = [spec.name.clone(), spec.model.clone()].into_iter();
        let numbered = (2..).map(|number: u32| format!("{}-{number}", spec.name));
        let name = names.chain(numbered).find(|name| !is_taken(name));
        let pinned = pinned(&spec.model).filter(|pinned| name.as_ref() != Some(pinned) && !is_taken(pinned));
        let exact = Some(precision(&settings.precision)).filter(|precision| *precision != Precision::Int8);
        Self {
            names: name.into_iter().chain(pinned).collect(),
            model: spec.model.clone(),
            precision: match spec.rounding {
                Rounding::Int8 => Precision::Int8,
                Rounding::Exact => exact.unwrap_or(Precision::Auto),
            },
            query_prefix: spec.query_prefix.clone(),
            passage_prefix: spec.passage_prefix.clone(),
        }
    }

    /// Whether both are the same model, whatever their names.
    fn is_same(&self, other: &Self) -> bool {
        let key = |one: &Self| {
            let Self { names: _, model, precision, query_prefix, passage_prefix } = one.clone();
            (model, precision, query_prefix, passage_prefix)
        };
        key(self) == key(other)
    }

    /// Checks the name of the model without looking for its files.
    pub(super) fn validate(&self) -> Result<(), Failure> {
        ModelSpec::hash_dimension(&self.model).map(drop).map_err(|error| Failure::new(error.to_string()))
    }

    /// What to load.
    pub(super) fn spec(&self, source: ModelSource, threads: usize) -> ModelSpec {
        ModelSpec {
            name: name(&self.model),
            precision: self.precision,
            threads,
            query_prefix: self.query_prefix.clone(),
            passage_prefix: self.passage_prefix.clone(),
            ..ModelSpec::new(source)
        }
    }
}

/// Returns the models to serve: first that of requests that name none, then those of the other embeddings that this
/// installation serves, and `embedder.model`. A model with several names is loaded once.
pub(super) fn wanted(settings: &Settings) -> Vec<Wanted> {
    let is_own = |embedding: &&Embedding| embedding.is_own() && !embedding.url_is_set;
    let own: Vec<&Embedding> = embeddings(settings).filter(is_own).collect();
    let mut all = Vec::new();
    if !is_own(&&settings.embedding) {
        add(&mut all, Wanted::of_embedder(&settings.embedder, DEFAULT));
    }
    own.into_iter().for_each(|embedding| add(&mut all, Wanted::of_embedding(embedding)));
    let embedder = Wanted::of_embedder(&settings.embedder, &settings.embedder.model);
    if !all.iter().any(|wanted| wanted.is_same(&embedder)) {
        add(&mut all, embedder);
    }
    all
}

/// The embeddings that have a URL: another installation may serve them.
pub(super) fn elsewhere(settings: &Settings) -> BTreeSet<String> {
    embeddings(settings).filter(|embedding| embedding.url_is_set).map(|embedding| embedding.name.clone()).collect()
}

fn embeddings(settings: &Settings) -> impl Iterator<Item = &Embedding> {
    settings.embedding_names().filter_map(move |name| settings.embedding_of(name))
}

/// Adds a model, or its names to the same model. A pinned model is also named by its whole specification.
fn add(all: &mut Vec<Wanted>, wanted: Wanted) {
    let taken = |name: &String| all.iter().any(|other| other.names.contains(name));
    let pinned = pinned(&wanted.model).filter(|pinned| !wanted.names.contains(pinned));
    let names: Vec<String> = wanted.names.iter().cloned().chain(pinned).filter(|name| !taken(name)).collect();
    match all.iter_mut().find(|other| other.is_same(&wanted)) {
        Some(same) => same.names.extend(names),
        None => all.push(Wanted { names, ..wanted }),
    }
}

/// The name by which clients find the pinned revision of a model: its id has none.
fn pinned(model: &str) -> Option<String> {
    model.contains('@').then(|| model.to_owned())
}

/// Returns the model's name: empty for a directory, otherwise its id without the revision, so that pinning a revision alone does
/// not change fingerprints; different weights do.
fn name(model: &str) -> String {
    if PathBuf::from(model).is_dir() {
        return String::new();
    }
    model.split_once('@').map_or(model, |(id, _)| id).to_owned()
}

/// Maps the validated setting to a precision.
fn precision(word: &str) -> Precision {
    [Precision::F32, Precision::Bf16, Precision::Int8]
        .into_iter()
        .find(|precision| precision.name() == word)
        .unwrap_or(Precision::Auto)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given, load};

    fn settings(assignments: &[&str]) -> Settings {
        let assignments = assignments.iter().map(|text| (*text).to_owned()).collect();
        let config = Some("/dev/null".into());
        load(&Given { config, assignments, ..Given::default() }).unwrap().settings
    }

    fn served(assignments: &[&str]) -> Vec<(String, String)> {
        let all = wanted(&settings(assignments));
        all.into_iter().map(|wanted| (wanted.names.join(" "), wanted.model)).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(names, model)| ((*names).to_owned(), (*model).to_owned())).collect()
    }

    #[test]
    fn one_model_is_served_without_other_embeddings() {
        assert_eq!(served(&["embedder.model=hash:8"]), pairs(&[("default", "hash:8")]));
        let paid = ["embedder.model=hash:8", "embedding.provider=openai", "embedding.model=text-embedding-3-small"];
        assert_eq!(served(&paid), pairs(&[("default", "hash:8")]));
        let own = ["embedder.model=hash:8", "embedding.model=hash:9"];
        assert_eq!(served(&own), pairs(&[("default", "hash:9"), ("hash:8", "hash:8")]));
    }

    #[test]
    fn embeddings_with_an_address_are_served_elsewhere() {
        let of = |assignments: &[&str]| elsewhere(&settings(assignments)).into_iter().collect::<Vec<_>>();
        assert!(of(&[]).is_empty());
        assert_eq!(of(&["embedding.url=http://embedder:8080"]), ["default"]);
    }

    #[test]
    fn pinned_model_is_also_named_by_its_specification() {
        assert_eq!(served(&["embedder.model=org/a@1"]), pairs(&[("default org/a@1", "org/a@1")]));
        let two = ["embedder.model=org/a@1", "embedding.model=org/a@2"];
        assert_eq!(served(&two), pairs(&[("default org/a@2", "org/a@2"), ("org/a@1", "org/a@1")]));
        let embedder = settings(&[]).embedder;
        let spec = EmbeddingSpec::new("default", "tidewheel", "org/a@1");
        let of = |taken: &[&str]| Wanted::of_spec(&spec, &embedder, |name| taken.contains(&name)).names;
        assert_eq!(of(&[]), ["default", "org/a@1"]);
        assert_eq!(of(&["default"]), ["org/a@1"]);
        assert_eq!(of(&["default", "org/a@1"]), ["default-2"]);
    }

    #[test]
    fn model_of_an_applied_declaration_gets_a_free_name() {
        let embedder = settings(&["embedder.precision=int8"]).embedder;
        let spec = EmbeddingSpec::new("default", "tidewheel", "org/a");
        let of = |spec: &EmbeddingSpec, taken: &[&str]| {
            let wanted = Wanted::of_spec(spec, &embedder, |name| taken.contains(&name));
            (wanted.names.concat(), wanted.precision)
        };
        assert_eq!(of(&spec, &[]), ("default".to_owned(), Precision::Auto), "int8 would be another model");
        assert_eq!(of(&spec, &["default"]).0, "org/a");
        assert_eq!(of(&spec, &["default", "org/a", "default-2"]).0, "default-3");
        let rounded = EmbeddingSpec { rounding: Rounding::Int8, ..spec };
        assert_eq!(of(&rounded, &[]).1, Precision::Int8);
    }

    #[test]
    fn equal_models_are_loaded_once_and_names_stay_unique() {
        let embedder = settings(&["embedder.model=hash:8"]).embedder;
        let of = |name: &str| Wanted::of_embedder(&embedder, name);
        let other = Wanted { model: "hash:9".to_owned(), ..of("b") };
        let mut all = Vec::new();
        for wanted in [of("a"), other.clone(), of("b"), of("c")] {
            add(&mut all, wanted);
        }
        let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(all, [Wanted { names: named(&["a", "c"]), ..of("a") }, other]);
    }
}
