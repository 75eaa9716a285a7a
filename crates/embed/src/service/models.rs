//! The models of one process, and which of them a request selects.
//!
//! Guarantees:
//! - a request that names no model uses the default model, and takes no lock for it;
//! - a model keeps its name while the service runs, and no two models have the same name;
//! - an unknown or ambiguous name is an error that lists the served models: a vector of another model would be worse.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::http::HeaderValue;
use tidewheel_core::ports::Purpose;
use tidewheel_engine::Engine;

use super::error::{ApiError, ServiceError};
use super::info::{Info, Limits, ServedModel};
use super::metric::ModelCounters;
use super::vectors;

/// The name of the default model, unless it has another one.
pub const DEFAULT: &str = "default";

/// The models to serve: the default one, and others by name.
#[derive(Clone)]
pub struct Models {
    default: (String, Arc<dyn Engine>),
    by_name: BTreeMap<String, Arc<dyn Engine>>,
}

impl Models {
    /// One model, which requests without `model` use.
    pub fn new(name: impl Into<String>, engine: Arc<dyn Engine>) -> Self {
        Self { default: (name.into(), engine), by_name: BTreeMap::new() }
    }

    /// Adds another model. It replaces an earlier one of the same name.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, engine: Arc<dyn Engine>) -> Self {
        let name = name.into();
        if name == self.default.0 {
            self.default.1 = engine;
        } else {
            self.by_name.insert(name, engine);
        }
        self
    }
}

/// A served model.
pub(super) struct Model {
    /// Distinguishes it from the other models of this process; 0 for the default one.
    pub(super) number: usize,
    name: String,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) info: Info,
    /// Identifies it in binary responses.
    pub(super) header: HeaderValue,
    pub(super) counters: ModelCounters,
    /// Tokens of the passage and query prefixes that are not pooled.
    unpooled: [usize; 2],
}

impl Model {
    /// Runs the engine's self-test, which also warms it up.
    fn start(
        name: String,
        engine: Arc<dyn Engine>,
        counters: ModelCounters,
        workers: usize,
        limits: Limits,
    ) -> Result<Self, ServiceError> {
        probe(&*engine)?;
        let info = Info::new(&*engine, workers, limits);
        Ok(Self {
            header: HeaderValue::from_str(&vectors::header_form(&info.engine.model, &info.engine.revision))
                .unwrap_or_else(|_| HeaderValue::from_static("?")),
            unpooled: [&info.engine.passage_prefix, &info.engine.query_prefix].map(|prefix| engine.unpooled(prefix)),
            number: 0,
            name,
            engine,
            counters,
            info,
        })
    }

    /// Returns the dimension of its vectors.
    pub(super) fn dimension(&self) -> usize {
        self.info.engine.dimension
    }

    /// Returns the prefix of a text with this purpose, and the number of its tokens that are not pooled.
    pub(super) fn prefix(&self, purpose: Purpose) -> (&str, usize) {
        match purpose {
            Purpose::Passage => (self.info.engine.passage_prefix.as_str(), self.unpooled[0]),
            Purpose::Query => (self.info.engine.query_prefix.as_str(), self.unpooled[1]),
        }
    }

    fn listed(&self) -> ServedModel {
        let engine = &self.info.engine;
        ServedModel {
            name: self.name.clone(),
            model: engine.model.clone(),
            revision: engine.revision.clone(),
            dimension: engine.dimension,
            precision: engine.precision,
            query_prefix: engine.query_prefix.clone(),
            passage_prefix: engine.passage_prefix.clone(),
        }
    }
}

/// The models that the service serves.
pub(super) struct Served {
    default: Arc<Model>,
    /// Numbered from 1, in the order in which they were added.
    others: RwLock<Vec<Arc<Model>>>,
}

impl Served {
    pub(super) fn start(models: Models, workers: usize, limits: Limits) -> Result<Self, ServiceError> {
        let Models { default: (name, engine), by_name } = models;
        let default = Model::start(name, engine, ModelCounters::of_default(), workers, limits)?;
        let served = Self { default: Arc::new(default), others: RwLock::default() };
        for (name, engine) in by_name {
            served.add(name, engine)?;
        }
        Ok(served)
    }

    /// Adds a model. Blocks while the engine's self-test runs; requests go on meanwhile.
    pub(super) fn add(&self, name: String, engine: Arc<dyn Engine>) -> Result<(), ServiceError> {
        let Info { workers, limits, .. } = &self.default.info;
        let counters = ModelCounters::of(&name);
        let model = Model::start(name, engine, counters, *workers, limits.clone())?;
        let mut others = self.others.write().unwrap_or_else(PoisonError::into_inner);
        if model.name == self.default.name || others.iter().any(|other| other.name == model.name) {
            return Err(ServiceError::DuplicateModel { name: model.name });
        }
        let number = others.len() + 1;
        others.push(Arc::new(Model { number, ..model }));
        Ok(())
    }

    /// Returns the model of requests that name none.
    pub(super) fn default_model(&self) -> &Arc<Model> {
        &self.default
    }

    /// Returns the model that a request selects: by its name, by its full id, or by the last segment of its id.
    pub(super) fn select(&self, asked: Option<&str>) -> Result<Arc<Model>, ApiError> {
        let Some(asked) = asked else { return Ok(Arc::clone(&self.default)) };
        let all = self.all();
        if let Some(named) = all.iter().find(|model| model.name == asked) {
            return Ok(Arc::clone(named));
        }
        let models = distinct(&all);
        match select(asked, &names(models.iter().copied())) {
            Selected::One(place) => Ok(Arc::clone(models[place])),
            Selected::Several => Err(unknown("ambiguous", asked, &names(&all))),
            Selected::Nothing => Err(unknown("unknown", asked, &names(&all))),
        }
    }

    /// Lists the models, the default one first.
    pub(super) fn list(&self) -> Vec<ServedModel> {
        self.all().iter().map(|model| model.listed()).collect()
    }

    fn all(&self) -> Vec<Arc<Model>> {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        std::iter::once(&self.default).chain(others.iter()).map(Arc::clone).collect()
    }
}

/// The models without further names of one: a model may have several.
fn distinct(all: &[Arc<Model>]) -> Vec<&Arc<Model>> {
    let mut distinct: Vec<&Arc<Model>> = Vec::with_capacity(all.len());
    for model in all {
        if !distinct.iter().any(|known| Arc::ptr_eq(&known.engine, &model.engine)) {
            distinct.push(model);
        }
    }
    distinct
}

/// The names and ids of models.
fn names<'a>(models: impl IntoIterator<Item = &'a Arc<Model>>) -> Vec<(&'a str, &'a str)> {
    models.into_iter().map(|model| (&*model.name, &*model.info.engine.model)).collect()
}

fn unknown(what: &str, asked: &str, names: &[(&str, &str)]) -> ApiError {
    let served: Vec<_> = names.iter().map(|(name, id)| format!("{name:?} ({id})")).collect();
    let message = format!("{what} model {asked:?}: this embedder serves {}", served.join(", "));
    ApiError::not_found("model_not_found", message)
}

/// What a requested name matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Selected {
    /// The model at this place.
    One(usize),
    /// Several models equally well.
    Several,
    /// No model.
    Nothing,
}

/// Finds a requested model among names and ids, of which the first is the default model. A name precedes an id, and an id
/// precedes its last segment. An id of several models selects the default model, if it is one of them.
fn select(asked: &str, models: &[(&str, &str)]) -> Selected {
    if let Some(place) = models.iter().position(|(name, _)| *name == asked) {
        return Selected::One(place);
    }
    let places = |matches: fn(&str, &str) -> bool| -> Vec<usize> {
        models.iter().enumerate().filter(|(_, (_, id))| matches(asked, id)).map(|(place, _)| place).collect()
    };
    let full = places(str::eq_ignore_ascii_case);
    let places = if full.is_empty() { places(same_model) } else { full };
    let one_id = places.windows(2).all(|pair| models[pair[0]].1.eq_ignore_ascii_case(models[pair[1]].1));
    match *places {
        [] => Selected::Nothing,
        [place] => Selected::One(place),
        [0, ..] if one_id => Selected::One(0),
        _ => Selected::Several,
    }
}

/// Whether a requested name matches a model's id: in full, or as the part after the last slash. Letter case is ignored.
pub(crate) fn same_model(asked: &str, id: &str) -> bool {
    asked.eq_ignore_ascii_case(id) || (!asked.contains('/') && last_segment(id).eq_ignore_ascii_case(asked))
}

fn last_segment(id: &str) -> &str {
    id.rsplit('/').next().unwrap_or_default()
}

/// Runs one text through the engine.
fn probe(engine: &dyn Engine) -> Result<(), ServiceError> {
    let info = engine.info();
    let broken = |cause: &str| ServiceError::Engine { model: info.model.clone(), cause: cause.to_owned() };
    if info.dimension == 0 {
        return Err(broken("vectors have dimension 0"));
    }
    let mut vector = vec![0.0; info.dimension];
    engine.embed_one(engine.tokenize("tidewheel").text(), &mut vector);
    if vector.iter().any(|value| !value.is_finite()) || vector.iter().all(|value| *value == 0.0) {
        return Err(broken("vector of the text \"tidewheel\" is zero or not finite"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewheel_engine::{ModelSource, ModelSpec, load};

    use super::super::options::ServiceOptions;
    use super::*;

    const MINI: &str = "sentence-transformers/all-MiniLM-L6-v2";

    #[test]
    fn model_matches_by_full_name_or_last_segment() {
        assert!(same_model(MINI, MINI));
        assert!(same_model("all-minilm-l6-v2", MINI));
        assert!(!same_model("text-embedding-3-small", MINI));
        assert!(!same_model("other/all-MiniLM-L6-v2", MINI));
    }

    #[test]
    fn name_precedes_id_and_id_precedes_last_segment() {
        use Selected::{Nothing, One, Several};
        let models = [("default", MINI), ("small", "org/bge-small"), ("fork", "fork/bge-small"), ("bge", "bge-base")];
        for (asked, expected) in [
            ("default", One(0)),
            ("small", One(1)),
            (MINI, One(0)),
            ("ALL-MINILM-L6-V2", One(0)),
            ("Org/BGE-small", One(1)),
            ("bge-small", Several),
            ("fork/bge-small", One(2)),
            ("bge-base", One(3)),
            ("Default", Nothing),
            ("other/bge-base", Nothing),
            ("", Nothing),
        ] {
            assert_eq!(select(asked, &models), expected, "{asked:?}");
        }
        // A name that is another model's id.
        assert_eq!(select("org/a", &[("default", "org/a"), ("org/a", "org/b")]), One(1));
        // The same model in two precisions.
        assert_eq!(select("org/a", &[("default", "org/a"), ("exact", "org/a")]), One(0));
        assert_eq!(select("org/a", &[("default", MINI), ("int8", "org/a"), ("exact", "org/a")]), Several);
        assert_eq!(select("a", &[("default", "org/a"), ("exact", "org/a")]), One(0));
        assert_eq!(select("a", &[("default", "org/a"), ("fork", "fork/a")]), Several);
    }

    fn hash(dimension: usize) -> Arc<dyn Engine> {
        load(&ModelSpec::new(ModelSource::Hash(dimension))).unwrap()
    }

    #[test]
    fn models_keep_their_names_and_numbers() {
        let models = Models::new(DEFAULT, hash(2)).with("b", hash(3)).with("a", hash(4)).with(DEFAULT, hash(5));
        let served = Served::start(models, 1, Limits::new(&ServiceOptions::default())).unwrap();
        served.add("c".to_owned(), hash(6)).unwrap();
        for taken in [DEFAULT, "a", "c"] {
            let error = served.add(taken.to_owned(), hash(7)).unwrap_err();
            assert_eq!(error.to_string(), format!("the embedder already serves a model named {taken:?}"));
        }
        let listed: Vec<_> = served.list().into_iter().map(|model| (model.name, model.dimension)).collect();
        let expected = [(DEFAULT, 5), ("a", 4), ("b", 3), ("c", 6)].map(|(name, size)| (name.to_owned(), size));
        assert_eq!(listed, expected);
        let numbers = [None, Some("a"), Some("hash:3"), Some("c")].map(|asked| served.select(asked).unwrap().number);
        assert_eq!(numbers, [0, 1, 2, 3]);
        let Err(error) = served.select(Some("d")) else { panic!("no model is named \"d\"") };
        let expected = "unknown model \"d\": this embedder serves \
             \"default\" (hash:5), \"a\" (hash:4), \"b\" (hash:3), \"c\" (hash:6)";
        assert_eq!((error.code, error.message.as_str()), ("model_not_found", expected));
    }

    #[test]
    fn model_with_several_names_is_one_model() {
        let shared = hash(3);
        let models = Models::new(DEFAULT, hash(2)).with("a", Arc::clone(&shared)).with("b", shared);
        let served = Served::start(models, 1, Limits::new(&ServiceOptions::default())).unwrap();
        let numbers = ["a", "b", "hash:3"].map(|asked| served.select(Some(asked)).unwrap().number);
        assert_eq!(numbers, [1, 2, 1]);
        served.add("c".to_owned(), hash(3)).unwrap();
        let Err(error) = served.select(Some("hash:3")) else { panic!("two models have this id") };
        assert!(error.message.starts_with("ambiguous model \"hash:3\""), "{}", error.message);
    }

    #[test]
    fn broken_model_is_not_added() {
        let served = Served::start(Models::new(DEFAULT, hash(2)), 1, Limits::new(&ServiceOptions::default())).unwrap();
        assert!(matches!(served.add("broken".to_owned(), Arc::new(Silent(hash(2)))), Err(ServiceError::Engine { .. })));
        assert_eq!(served.list().len(), 1);
    }

    /// An engine whose vectors are all zero.
    struct Silent(Arc<dyn Engine>);

    impl Engine for Silent {
        fn info(&self) -> &tidewheel_engine::EngineInfo {
            self.0.info()
        }

        fn tokenize(&self, text: &str) -> tidewheel_engine::tokens::Encoding {
            self.0.tokenize(text)
        }

        fn token_spans(&self, text: &str) -> Vec<std::ops::Range<usize>> {
            self.0.token_spans(text)
        }

        fn embed_tile(&self, _: &[tidewheel_engine::Text<'_>], _: &mut tidewheel_engine::Workspace, out: &mut [f32]) {
            out.fill(0.0);
        }

        fn embed_one(&self, _: tidewheel_engine::Text<'_>, out: &mut [f32]) {
            out.fill(0.0);
        }
    }
}
