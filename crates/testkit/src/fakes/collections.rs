//! A Qdrant server with any number of collections, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Collection, Collections, Listed, PortResult};

use super::faults::Faults;
use super::index::{Aliases, FakeIndex};
use super::process::Process;

/// The collections and aliases of a server. Clones share them. Each collection has faults of its own.
///
/// An alias is resolved when it is opened, not at every call.
#[derive(Clone, Default)]
pub struct FakeCollections {
    indexes: Arc<Mutex<BTreeMap<String, FakeIndex>>>,
    aliases: Aliases,
    faults: Faults,
    process: Option<Process>,
}

impl FakeCollections {
    /// A server without collections.
    pub fn new() -> Self {
        Self::default()
    }

    /// The faults of `list` and `point`.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The same server, with the calls of this process.
    #[must_use]
    pub fn used_by(&self, process: &Process) -> Self {
        Self { faults: self.faults.used_by(process), process: Some(process.clone()), ..self.clone() }
    }

    /// The collection of this name, for a test: its calls belong to no process.
    pub fn index(&self, name: &str) -> FakeIndex {
        let mut indexes = self.indexes.lock().expect("no holder panics");
        let new = || FakeIndex::on(name, self.aliases.clone());
        indexes.entry(name.to_owned()).or_insert_with(new).clone()
    }

    /// The names of the collections that exist.
    pub fn names(&self) -> Vec<String> {
        let indexes = self.indexes.lock().expect("no holder panics");
        indexes.iter().filter(|(_, index)| index.is_there()).map(|(name, _)| name.clone()).collect()
    }

    /// The collection that an alias names.
    pub fn alias(&self, alias: &str) -> Option<String> {
        self.aliases().get(alias).cloned()
    }

    /// Moves or deletes an alias externally, as an operator may.
    pub fn set_alias(&self, alias: &str, to: Option<&str>) {
        match to {
            Some(collection) => self.aliases().insert(alias.to_owned(), collection.to_owned()),
            None => self.aliases().remove(alias),
        };
    }

    fn aliases(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.aliases.lock().expect("no holder panics")
    }
}

#[async_trait]
impl Collections for FakeCollections {
    fn open(&self, collection: &str) -> Arc<dyn Collection> {
        let named = self.alias(collection);
        let index = self.index(named.as_deref().unwrap_or(collection));
        match &self.process {
            Some(process) => Arc::new(index.used_by(process)),
            None => Arc::new(index),
        }
    }

    async fn list(&self) -> PortResult<Listed> {
        let list = || {
            let collections = self.names().into_iter().collect();
            Ok(Listed { collections, aliases: self.aliases().clone() })
        };
        self.faults.around("list", list).await
    }

    async fn point(&self, alias: &str, to: Option<&str>) -> PortResult<()> {
        let point = || {
            let names = self.names();
            let exists = |name: &str| names.iter().any(|known| known == name);
            if let Some(collection) = to {
                if exists(alias) {
                    return Err(PortError::fatal(format!("{alias:?} is a collection, not an alias"))
                        .with_hint("give the index another name"));
                }
                if !exists(collection) {
                    return Err(PortError::fatal(format!("the collection {collection:?} does not exist")));
                }
            }
            self.set_alias(alias, to);
            Ok(())
        };
        self.faults.around("point", point).await
    }
}
