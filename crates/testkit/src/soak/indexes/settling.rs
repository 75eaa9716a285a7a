//! Whether every index is what it was declared to be, after healing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use qdrant_client::Qdrant;
use tidewheel_core::catalog::{Index, State};

use super::changes::ACCEPTED;
use super::declarations::Declarations;
use super::operator::run;
use crate::oracle::OracleError;
use crate::soak::world::World;
use crate::soak::{SoakError, redis};

/// Delay before the declarations are applied again, because a comparison of generations has to be accepted.
const AGAIN: Duration = Duration::from_secs(3);

/// Timeout of one command.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Applies the last declarations until the catalog states that every index conforms to them.
pub(in crate::soak) struct Settling<'a> {
    world: &'a World,
    declarations: Declarations,
    is_applied: bool,
    next: Instant,
}

impl<'a> Settling<'a> {
    pub(in crate::soak) fn new(world: &'a World, declarations: Declarations) -> Self {
        Self { world, declarations, is_applied: false, next: Instant::now() }
    }

    /// Whether nothing is left to do. Continues otherwise.
    pub(in crate::soak) async fn is_done(&mut self) -> Result<bool, SoakError> {
        if self.is_applied && self.is_settled().await {
            return Ok(true);
        }
        if self.next <= Instant::now() {
            let arguments = ["apply", "--yes", "--detach", ACCEPTED].map(str::to_owned);
            self.is_applied = run(self.world, &arguments, false, TIMEOUT).await?;
            self.next = Instant::now() + AGAIN;
        }
        Ok(false)
    }

    async fn is_settled(&self) -> bool {
        let indexes = redis::indexes(&self.world.stack.redis_url()).await.unwrap_or_default();
        self.declarations.indexes().all(|(name, _)| indexes.get(name).is_some_and(is_settled))
    }

    /// Describes indexes that are not settled, collections that the catalog does not name, and aliases that do not name
    /// what it serves.
    pub(in crate::soak) async fn findings(&self) -> Result<Vec<String>, OracleError> {
        let failed = |error: qdrant_client::QdrantError| OracleError::Index(error.to_string());
        let url = self.world.stack.qdrant_grpc_url().unwrap_or_default();
        let qdrant = Qdrant::from_url(&url).skip_compatibility_check().build().map_err(failed)?;
        let collections = qdrant.list_collections().await.map_err(failed)?.collections;
        let aliases = qdrant.list_aliases().await.map_err(failed)?.aliases;
        let indexes = redis::indexes(&self.world.stack.redis_url()).await;
        let indexes = indexes.map_err(|error| OracleError::Index(format!("failed to read the catalog: {error}")))?;
        let collections: BTreeSet<String> = collections.into_iter().map(|collection| collection.name).collect();
        let aliases: BTreeMap<String, String> =
            aliases.into_iter().map(|alias| (alias.alias_name, alias.collection_name)).collect();
        let unsettled = self.declarations.indexes().filter_map(|(name, _)| unsettled(name, indexes.get(name)));
        Ok(unsettled.chain(strays(&indexes, &collections, &aliases)).collect())
    }
}

/// Whether an index serves a filled generation, and none is coming.
fn is_settled(index: &Index) -> bool {
    let serves = index.serving_generation().is_some_and(|(_, serving)| serving.is_filled());
    let may_stay = |state| matches!(state, State::Serving | State::Kept | State::Retiring);
    serves && index.switching.is_none() && index.generations.values().all(|generation| may_stay(generation.state))
}

/// Describes an index that is not settled; `None` if it is.
fn unsettled(name: &str, index: Option<&Index>) -> Option<String> {
    let Some(index) = index else { return Some(format!("index {name}, which is not applied")) };
    if is_settled(index) {
        return None;
    }
    let generations = index.generations.iter().map(|(number, generation)| {
        let problem = generation.problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default();
        format!("{number} {}, due {}, filled {}{problem}", generation.state, generation.due, generation.filled)
    });
    let generations: Vec<String> = generations.collect();
    Some(format!("index {name}, which is not settled: switching {:?}; {}", index.switching, generations.join("; ")))
}

fn strays(
    indexes: &BTreeMap<String, Index>,
    collections: &BTreeSet<String>,
    aliases: &BTreeMap<String, String>,
) -> Vec<String> {
    let known: BTreeSet<&String> = indexes
        .values()
        .flat_map(|index| index.generations.values().map(|generation| &generation.collection))
        .collect();
    let unknown = collections.iter().filter(|collection| !known.contains(collection));
    let mut strays: Vec<String> =
        unknown.map(|collection| format!("collection {collection}, which the catalog does not name")).collect();
    let serving = |index: &Index| index.serving_generation().map(|(_, serving)| serving.collection.clone());
    let names: BTreeSet<&String> = indexes.keys().chain(aliases.keys()).collect();
    for name in names {
        let (found, expected) = (aliases.get(name), indexes.get(name).and_then(serving));
        if found != expected.as_ref() {
            strays.push(format!("alias {name}, which names {found:?} instead of {expected:?}"));
        }
    }
    strays
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidewheel_core::catalog::{Declaration, EmbeddingSpec, Generation, IndexName, Selector};

    use super::*;

    /// An index that serves its first generation, with a second one in this state.
    fn index(second: State) -> Index {
        let (name, spec) = (IndexName::new("all").unwrap(), EmbeddingSpec::new("default", "tidewheel", "hash:4"));
        let source = Selector::of_database::<&str>("soak", &[]);
        let declaration = Arc::new(Declaration::new(name.clone(), source, spec));
        let generation = |number: u32, state| {
            let new = Generation::new(&name.target(number), declaration.clone(), 7);
            (number, Generation { state, filled: 7, ..new })
        };
        let generations = [generation(1, State::Serving), generation(2, second)].into();
        Index { serving: Some(1), generations, ..Index::default() }
    }

    #[test]
    fn coming_generation_is_waited_for_and_a_kept_one_is_not() {
        assert!(is_settled(&index(State::Kept)) && is_settled(&index(State::Retiring)));
        assert!(!is_settled(&index(State::Creating)) && !is_settled(&index(State::Comparing)));
        let mut unfilled = index(State::Kept);
        unfilled.generations.get_mut(&1).unwrap().filled = 0;
        assert!(!is_settled(&unfilled) && !is_settled(&Index::default()));
        assert_eq!(unsettled("all", Some(&index(State::Kept))), None);
        let text = unsettled("all", Some(&unfilled)).unwrap();
        assert!(text.ends_with("1 serving, due 7, filled 0; 2 kept, due 7, filled 7"), "{text}");
        assert_eq!(unsettled("all", None).unwrap(), "index all, which is not applied");
    }

    #[test]
    fn stray_collections_and_aliases_are_described() {
        let indexes = BTreeMap::from([("all".to_owned(), index(State::Kept))]);
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let alias = |name: &str, collection: &str| BTreeMap::from([(name.to_owned(), collection.to_owned())]);
        let both = names(&["all.g1", "all.g2"]);
        assert!(strays(&indexes, &both, &alias("all", "all.g1")).is_empty());
        assert_eq!(strays(&indexes, &both, &alias("all", "all.g2")).len(), 1);
        assert_eq!(strays(&indexes, &both, &alias("open", "open.g1")).len(), 2);
        let found = strays(&indexes, &names(&["all.g1", "all.g7"]), &alias("all", "all.g1"));
        assert_eq!(found, ["collection all.g7, which the catalog does not name"]);
    }
}
