//! Compares the declarations in the settings of this process with the applied ones. Services work from the applied ones:
//! what differs is logged, once, until it is applied.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewheel_core::catalog::{Catalog, Declaration, IndexName};
use tidewheel_ops::indexes::declared;
use tidewheel_ops::overview::Declared;
use tidewheel_stores::redis::RedisStore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::compose;
use crate::exit::Failure;
use crate::settings::Settings;

/// Interval between two looks, each of which reads one number from Redis.
const EVERY: Duration = Duration::from_secs(5);

/// Follows the catalog until `shutdown`.
pub(super) async fn watch(settings: Settings, redis: RedisStore, shutdown: CancellationToken) -> Result<(), Failure> {
    let (declarations, catalog) = (settings.declarations(), compose::catalog(&settings, &redis));
    let (mut known, mut compared) = (BTreeMap::new(), None);
    loop {
        match catalog.read().await {
            Ok(catalog) if compared == Some(catalog.revision) => {}
            Ok(catalog) => {
                known = log(&known, differences(&catalog, &declarations));
                compared = Some(catalog.revision);
            }
            Err(error) => debug!("failed to follow the catalog: {error}"),
        }
        if tokio::time::timeout(EVERY, shutdown.cancelled()).await.is_ok() {
            return Ok(());
        }
    }
}

/// The indexes whose declaration is not the applied one. Before a catalog is applied, the settings are in effect.
fn differences(catalog: &Catalog, declarations: &[Declaration]) -> BTreeMap<IndexName, Declared> {
    if catalog.is_short_form() {
        return BTreeMap::new();
    }
    let all = declared(catalog, declarations).into_iter();
    all.filter(|(_, declared)| *declared != Declared::Applied).collect()
}

/// Logs what has changed, and returns it.
fn log(known: &BTreeMap<IndexName, Declared>, found: BTreeMap<IndexName, Declared>) -> BTreeMap<IndexName, Declared> {
    if found.is_empty() && !known.is_empty() {
        info!("the declarations of these settings are applied");
    }
    for (name, declared) in found.iter().filter(|(name, declared)| known.get(*name) != Some(*declared)) {
        let what = match declared {
            Declared::Absent => "is not declared in these settings, and is kept up",
            _ => "is not applied as these settings declare it; the services continue with what was applied",
        };
        warn!(index = name.as_str(), hint = "run `tidewheel plan`, then `tidewheel apply`", "index {name} {what}");
    }
    found
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidewheel_core::catalog::{EmbeddingSpec, Generation, Index, Selector, State};

    use super::*;

    fn declaration(name: &str) -> Declaration {
        let source = Selector::of_database::<&str>("shop", &[]);
        Declaration::new(IndexName::new(name).unwrap(), source, EmbeddingSpec::new("default", "tidewheel", "m"))
    }

    #[test]
    fn only_differences_from_an_applied_catalog_count() {
        let applied = declaration("tickets");
        let name = applied.name.clone();
        let generation = Generation::new(&name.target(1), Arc::new(applied.clone()), 7);
        let generation = Generation { state: State::Serving, ..generation };
        let index = Index { serving: Some(1), generations: [(1, generation)].into(), ..Index::default() };
        let catalog = Catalog { revision: 7, indexes: [(name.clone(), index)].into(), ..Catalog::default() };
        assert!(differences(&catalog, std::slice::from_ref(&applied)).is_empty());
        let mut changed = applied;
        changed.payload.full = true;
        let found = differences(&catalog, &[changed.clone(), declaration("notes")]);
        let notes = IndexName::new("notes").unwrap();
        assert_eq!(found, [(notes, Declared::Differs), (name.clone(), Declared::Differs)].into());
        assert_eq!(differences(&catalog, &[]), [(name, Declared::Absent)].into());
        let short_form = Catalog::short_form(Arc::new(changed));
        assert!(differences(&short_form, &[declaration("notes")]).is_empty());
    }
}
