//! All collections and aliases of a server.

use std::sync::Arc;

use async_trait::async_trait;
use qdrant_client::qdrant::ListCollectionsRequest;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Aliases, Collection, Collections, Listed, Named, PortResult};

use super::{QdrantIndex, QdrantOptions, aliases, error};

/// The collections of a Qdrant server. Cheap to clone; clones, and the collections that they open, share the connection.
#[derive(Clone, Debug)]
pub struct QdrantCollections {
    /// Without the name of a collection.
    server: QdrantIndex,
}

impl QdrantCollections {
    /// Checks the options, of which the collection is not used; the first call connects. Must be called within a Tokio
    /// runtime.
    ///
    /// # Errors
    /// Fatal, if the address or the API key is invalid.
    pub fn connect(options: QdrantOptions) -> PortResult<Self> {
        QdrantIndex::connect(QdrantOptions { collection: String::new(), ..options }).map(|server| Self { server })
    }

    /// The collection of this name; calls nothing.
    pub fn index(&self, collection: &str) -> QdrantIndex {
        QdrantIndex { collection: collection.to_owned(), ..self.server.clone() }
    }
}

impl From<&QdrantIndex> for QdrantCollections {
    /// The collections of the same server, over the same connection.
    fn from(index: &QdrantIndex) -> Self {
        Self { server: QdrantIndex { collection: String::new(), ..index.clone() } }
    }
}

#[async_trait]
impl Collections for QdrantCollections {
    fn open(&self, collection: &str) -> Arc<dyn Collection> {
        Arc::new(self.index(collection))
    }

    async fn list(&self) -> PortResult<Listed> {
        let server = &self.server;
        let response = server.connection.collections().list(ListCollectionsRequest {}).await;
        let listed = response.map_err(|status| server.failed("list the collections", &status))?.into_inner();
        Ok(Listed {
            collections: listed.collections.into_iter().map(|collection| collection.name).collect(),
            aliases: server.aliases().await?,
        })
    }

    async fn point(&self, alias: &str, to: Option<&str>) -> PortResult<()> {
        let is_alias = match self.server.resolve(alias).await? {
            Named::Alias(_) => true,
            Named::Nothing => false,
            Named::Collection if to.is_none() => return Ok(()),
            Named::Collection => {
                return Err(PortError::fatal(format!("{alias:?} is a collection in Qdrant, not an alias"))
                    .with_hint("delete this collection if its points are not needed, or give the index another name"));
            }
        };
        let deleted = is_alias.then(|| aliases::delete(alias));
        let created = to.map(|collection| aliases::create(alias, collection));
        if deleted.is_none() && created.is_none() {
            return Ok(());
        }
        match (self.server.change_aliases(deleted.into_iter().chain(created)).await, to) {
            (Ok(()), _) => Ok(()),
            (Err(status), Some(collection)) if error::is_missing(&status) => Err(PortError::fatal(format!(
                "failed to point the alias {alias:?} to Qdrant collection {collection:?}: the collection does not exist"
            ))),
            (Err(status), _) => Err(self.server.failed(&format!("move the alias {alias:?}"), &status)),
        }
    }
}
