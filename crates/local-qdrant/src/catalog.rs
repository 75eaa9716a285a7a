//! All collections and aliases of one data directory.
//!
//! A name in a request is an alias or a collection; aliases are resolved first. The alias file is replaced atomically,
//! so a request that changes several aliases changes all of them or none, also across a kill.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Mutex;

use super::collection::Collection;
use super::config::{CollectionConfig, ConfigChanges};
use super::error::ApiError;
use super::files::write_atomically;
use super::shared::BuildSlot;

/// Characters that Qdrant rejects in a collection's name; they are also unsafe in a path.
const FORBIDDEN: &[char] = &['<', '>', ':', '"', '/', '\\', '|', '?', '*', '\0', '\u{1F}'];

/// Maximum length of a collection's name, in bytes.
const MAX_NAME: usize = 255;

/// One step of a request that changes aliases.
#[derive(Debug, Clone)]
pub(crate) enum AliasChange {
    Create { alias: String, collection: String },
    Delete { alias: String },
    Rename { from: String, to: String },
}

#[derive(Default)]
struct State {
    collections: BTreeMap<String, Arc<Collection>>,
    aliases: BTreeMap<String, String>,
}

/// The collections of one data directory, served exclusively by this process.
pub(crate) struct Catalog {
    root: PathBuf,
    state: RwLock<State>,
    /// Held while collections or aliases change, to serialise changes.
    change: Mutex<()>,
    builds: BuildSlot,
    /// Locked while the process serves the directory.
    _lock: File,
}

impl Catalog {
    /// Loads all collections in `root`, which is created if missing. Blocking.
    pub(crate) fn open(root: &Path) -> Result<Self, ApiError> {
        let collections_dir = root.join("collections");
        fs::create_dir_all(&collections_dir)?;
        let lock = File::create(root.join("lock"))?;
        lock.try_lock().map_err(|_| {
            ApiError::Internal(format!("another process serves {}; stop it or set another directory", root.display()))
        })?;
        let builds: BuildSlot = Arc::new(AtomicBool::new(false));
        let mut collections = BTreeMap::new();
        for entry in fs::read_dir(&collections_dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !entry.file_type()?.is_dir() {
                continue;
            }
            match Collection::load(&entry.path(), &name, Arc::clone(&builds))? {
                Some(collection) => {
                    collections.insert(name, Arc::new(collection));
                }
                // A creation or deletion that a kill interrupted.
                None => fs::remove_dir_all(entry.path())?,
            }
        }
        let mut aliases: BTreeMap<String, String> = match fs::read(root.join(ALIASES_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| ApiError::Internal(format!("invalid {ALIASES_FILE}: {error}")))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error.into()),
        };
        aliases.retain(|_, collection| collections.contains_key(collection));
        Ok(Self {
            root: root.to_owned(),
            state: RwLock::new(State { collections, aliases }),
            change: Mutex::new(()),
            builds,
            _lock: lock,
        })
    }

    fn with_state<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_state<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Resolves a collection or alias name.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Collection>, ApiError> {
        self.with_state(|state| {
            let name = state.aliases.get(name).map_or(name, String::as_str);
            state.collections.get(name).cloned()
        })
        .ok_or_else(|| ApiError::no_collection(name))
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.with_state(|state| state.collections.keys().cloned().collect())
    }

    /// Returns pairs of alias and collection, sorted by alias; of one collection or of all.
    pub(crate) fn aliases(&self, of: Option<&str>) -> Vec<(String, String)> {
        self.with_state(|state| {
            let wanted = |collection: &str| of.is_none_or(|of| of == collection);
            state.aliases.iter().filter(|(_, to)| wanted(to)).map(|(from, to)| (from.clone(), to.clone())).collect()
        })
    }

    pub(crate) async fn create(self: &Arc<Self>, name: &str, config: CollectionConfig) -> Result<(), ApiError> {
        check_name(name)?;
        let _change = self.change.lock().await;
        self.with_state(|state| {
            if state.collections.contains_key(name) {
                return Err(ApiError::AlreadyExists(format!("Collection `{name}` already exists!")));
            }
            if state.aliases.contains_key(name) {
                return Err(ApiError::BadInput(format!("Alias `{name}` already exists!")));
            }
            Ok(())
        })?;
        let directory = self.root.join("collections").join(name);
        let (owned, builds) = (name.to_owned(), Arc::clone(&self.builds));
        let collection = blocking(move || Collection::create(&directory, &owned, config, builds)).await?;
        self.change_state(|state| state.collections.insert(name.to_owned(), Arc::new(collection)));
        Ok(())
    }

    /// Changes the parameters of a collection.
    pub(crate) async fn update(self: &Arc<Self>, name: &str, changes: ConfigChanges) -> Result<(), ApiError> {
        let _change = self.change.lock().await;
        let collection = self.get(name)?;
        blocking(move || collection.update_config(changes)).await
    }

    /// Deletes a collection and the aliases that point to it. `false`: it does not exist.
    pub(crate) async fn delete(self: &Arc<Self>, name: &str) -> Result<bool, ApiError> {
        let _change = self.change.lock().await;
        let (collection, aliases) = self.with_state(|state| {
            let mut aliases = state.aliases.clone();
            aliases.retain(|_, to| to != name);
            (state.collections.get(name).cloned(), aliases)
        });
        let Some(collection) = collection else { return Ok(false) };
        let deleted = Arc::clone(&collection);
        blocking(move || deleted.delete_config()).await?;
        self.change_state(|state| state.collections.remove(name));
        self.replace_aliases(aliases).await?;
        tokio::spawn(collection.remove_files());
        Ok(true)
    }

    /// Applies all changes or none.
    pub(crate) async fn change_aliases(self: &Arc<Self>, changes: &[AliasChange]) -> Result<(), ApiError> {
        let _change = self.change.lock().await;
        let aliases = self.with_state(|state| {
            let mut aliases = state.aliases.clone();
            changes.iter().try_for_each(|change| apply_alias(&mut aliases, &state.collections, change))?;
            Ok::<_, ApiError>(aliases)
        })?;
        self.replace_aliases(aliases).await
    }

    async fn replace_aliases(&self, aliases: BTreeMap<String, String>) -> Result<(), ApiError> {
        if self.with_state(|state| state.aliases == aliases) {
            return Ok(());
        }
        let json = serde_json::to_vec_pretty(&aliases).map_err(|error| ApiError::Internal(error.to_string()))?;
        let path = self.root.join(ALIASES_FILE);
        blocking(move || Ok(write_atomically(&path, &json)?)).await?;
        self.change_state(|state| state.aliases = aliases);
        Ok(())
    }

    /// Triggers the periodic maintenance of every collection.
    pub(crate) fn tick(&self) {
        self.with_state(|state| state.collections.values().for_each(|collection| collection.tick()));
    }

    /// Drains and flushes all collections.
    pub(crate) async fn stop(&self) {
        let collections: Vec<_> = self.with_state(|state| state.collections.values().cloned().collect());
        for collection in collections {
            collection.stop().await;
        }
    }
}

const ALIASES_FILE: &str = "aliases.json";

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| ApiError::Internal(format!("engine panicked: {error}")))?
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let invalid = |reason: String| Err(ApiError::BadInput(format!("Validation error in path: name: {reason}")));
    if name.is_empty() || name.len() > MAX_NAME {
        return invalid(format!("must be 1 to {MAX_NAME} bytes long"));
    }
    if let Some(character) = name.chars().find(|character| FORBIDDEN.contains(character)) {
        return invalid(format!("collection name cannot contain \"{}\" char", character.escape_default()));
    }
    // Both are existing directories.
    if name == "." || name == ".." {
        return invalid(format!("collection name cannot be \"{name}\""));
    }
    Ok(())
}

fn apply_alias<C>(
    aliases: &mut BTreeMap<String, String>,
    collections: &BTreeMap<String, C>,
    change: &AliasChange,
) -> Result<(), ApiError> {
    let missing = |alias: &str| ApiError::NotFound(format!("Alias {alias} does not exists!"));
    match change {
        AliasChange::Create { alias, collection } => {
            check_name(alias)?;
            if !collections.contains_key(collection) {
                return Err(ApiError::no_collection(collection));
            }
            if collections.contains_key(alias) {
                return Err(ApiError::BadInput(format!("Collection `{alias}` already exists!")));
            }
            aliases.insert(alias.clone(), collection.clone());
        }
        // Deleting a missing alias succeeds.
        AliasChange::Delete { alias } => {
            aliases.remove(alias);
        }
        AliasChange::Rename { from, to } => {
            check_name(to)?;
            if collections.contains_key(to) {
                return Err(ApiError::BadInput(format!("Collection `{to}` already exists!")));
            }
            let collection = aliases.remove(from).ok_or_else(|| missing(from))?;
            aliases.insert(to.clone(), collection);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_name_rejects_unsafe_paths() {
        for name in ["", ".", "..", "a/b", "a\\b", "x\0", "a:b", &"x".repeat(256)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["documents", "ünïcode name", "a.b-c_d", ".hidden"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn alias_changes_apply_in_order_and_invalid_ones_fail() {
        let collections = BTreeMap::from([("v1".to_owned(), ()), ("v2".to_owned(), ())]);
        let create = |alias: &str, collection: &str| AliasChange::Create {
            alias: alias.to_owned(),
            collection: collection.to_owned(),
        };
        let mut aliases = BTreeMap::new();
        for change in [
            create("live", "v1"),
            AliasChange::Delete { alias: "live".to_owned() },
            create("live", "v2"),
            AliasChange::Rename { from: "live".to_owned(), to: "now".to_owned() },
        ] {
            apply_alias(&mut aliases, &collections, &change).unwrap();
        }
        assert_eq!(aliases, BTreeMap::from([("now".to_owned(), "v2".to_owned())]));

        assert!(apply_alias(&mut aliases, &collections, &create("x", "v3")).is_err(), "no such collection");
        assert!(apply_alias(&mut aliases, &collections, &create("v1", "v2")).is_err(), "name of a collection");
        let gone = AliasChange::Rename { from: "gone".to_owned(), to: "y".to_owned() };
        assert!(apply_alias(&mut aliases, &collections, &gone).is_err());
    }
}
