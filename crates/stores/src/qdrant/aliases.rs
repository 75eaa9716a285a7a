//! Collection aliases.

use std::collections::BTreeMap;

use async_trait::async_trait;
use qdrant_client::qdrant::alias_operations::Action;
use qdrant_client::qdrant::{
    AliasOperations, ChangeAliases, CollectionExistsRequest, CreateAlias, DeleteAlias, ListAliasesRequest,
};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Aliases, Named, PortResult};
use tonic::Status;

use super::QdrantIndex;

impl QdrantIndex {
    /// The name of the collection itself, which may be known by an alias; `None` if there is neither.
    pub(super) async fn real_name(&self) -> PortResult<Option<String>> {
        Ok(match self.resolve(&self.collection).await? {
            Named::Nothing => None,
            Named::Collection => Some(self.collection.clone()),
            Named::Alias(collection) => Some(collection),
        })
    }

    /// All aliases, each with its collection.
    pub(super) async fn aliases(&self) -> PortResult<BTreeMap<String, String>> {
        let response = self.connection.collections().list_aliases(ListAliasesRequest {}).await;
        let aliases = response.map_err(|status| self.failed("list the aliases", &status))?.into_inner().aliases;
        Ok(aliases.into_iter().map(|alias| (alias.alias_name, alias.collection_name)).collect())
    }

    /// Applies actions on aliases. Qdrant applies all actions of one request atomically.
    pub(super) async fn change_aliases(&self, actions: impl IntoIterator<Item = Action>) -> Result<(), Status> {
        let operation = |action| AliasOperations { action: Some(action) };
        let actions = actions.into_iter().map(operation).collect();
        let request = ChangeAliases { actions, ..ChangeAliases::default() };
        self.connection.collections().update_aliases(request).await.map(drop)
    }
}

/// Deletes the alias.
pub(super) fn delete(alias: &str) -> Action {
    Action::DeleteAlias(DeleteAlias { alias_name: alias.to_owned() })
}

/// Creates the alias.
pub(super) fn create(alias: &str, collection: &str) -> Action {
    Action::CreateAlias(CreateAlias { alias_name: alias.to_owned(), collection_name: collection.to_owned() })
}

#[async_trait]
impl Aliases for QdrantIndex {
    async fn resolve(&self, name: &str) -> PortResult<Named> {
        if let Some(collection) = self.aliases().await?.remove(name) {
            return Ok(Named::Alias(collection));
        }
        let request = CollectionExistsRequest { collection_name: name.to_owned() };
        let response = self.connection.collections().collection_exists(request).await;
        let response =
            response.map_err(|status| self.failed("check whether a collection exists", &status))?.into_inner();
        Ok(if response.result.is_some_and(|result| result.exists) { Named::Collection } else { Named::Nothing })
    }

    async fn switch(&self, alias: &str, collection: &str) -> PortResult<()> {
        let deleted = match self.resolve(alias).await? {
            Named::Collection => {
                return Err(PortError::fatal(format!("{alias:?} is a collection in Qdrant, not an alias"))
                    .with_hint(format!("set qdrant.collection to {collection:?} instead")));
            }
            Named::Alias(_) => Some(delete(alias)),
            Named::Nothing => None,
        };
        let moved = self.change_aliases(deleted.into_iter().chain([create(alias, collection)])).await;
        moved.map_err(|status| self.failed(&format!("switch the alias {alias:?}"), &status))
    }
}
