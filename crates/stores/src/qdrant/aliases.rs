//! Collection aliases.

use async_trait::async_trait;
use qdrant_client::qdrant::alias_operations::Action;
use qdrant_client::qdrant::{
    AliasOperations, ChangeAliases, CollectionExistsRequest, CreateAlias, DeleteAlias, ListAliasesRequest,
};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Aliases, Named, PortResult};

use super::QdrantIndex;

#[async_trait]
impl Aliases for QdrantIndex {
    async fn resolve(&self, name: &str) -> PortResult<Named> {
        let response = self.connection.collections().list_aliases(ListAliasesRequest {}).await;
        let aliases = response.map_err(|status| self.failed("list the aliases", &status))?.into_inner().aliases;
        if let Some(alias) = aliases.into_iter().find(|alias| alias.alias_name == name) {
            return Ok(Named::Alias(alias.collection_name));
        }
        let request = CollectionExistsRequest { collection_name: name.to_owned() };
        let response = self.connection.collections().collection_exists(request).await;
        let response =
            response.map_err(|status| self.failed("check whether a collection exists", &status))?.into_inner();
        Ok(if response.result.is_some_and(|result| result.exists) { Named::Collection } else { Named::Nothing })
    }

    async fn switch(&self, alias: &str, collection: &str) -> PortResult<()> {
        let delete = match self.resolve(alias).await? {
            Named::Collection => {
                return Err(PortError::fatal(format!("{alias:?} is a collection in Qdrant, not an alias"))
                    .with_hint(format!("set qdrant.collection to {collection:?} instead")));
            }
            Named::Alias(_) => Some(Action::DeleteAlias(DeleteAlias { alias_name: alias.to_owned() })),
            Named::Nothing => None,
        };
        let create = CreateAlias { alias_name: alias.to_owned(), collection_name: collection.to_owned() };
        // Qdrant applies all actions of one request atomically.
        let actions = delete.into_iter().chain([Action::CreateAlias(create)]);
        let request = ChangeAliases {
            actions: actions.map(|action| AliasOperations { action: Some(action) }).collect(),
            ..ChangeAliases::default()
        };
        let response = self.connection.collections().update_aliases(request).await;
        response.map(drop).map_err(|status| self.failed(&format!("switch the alias {alias:?}"), &status))
    }
}
