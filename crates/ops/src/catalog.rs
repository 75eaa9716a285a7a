//! The catalog of use cases that need no target: the applied one, or that of local settings before one is applied.

use std::sync::{Arc, Mutex, PoisonError};

use tidewheel_core::catalog::{Catalog, Declaration};
use tidewheel_core::ports::{CatalogStore, PortResult};

/// Reads the catalog.
pub struct CatalogReader {
    store: Arc<dyn CatalogStore>,
    known: Mutex<Arc<Catalog>>,
}

impl CatalogReader {
    /// Without an applied catalog, it is the one of this short form, or an empty one.
    pub fn new(store: Arc<dyn CatalogStore>, short_form: Option<Declaration>) -> Self {
        let local = short_form.map(|declaration| Catalog::short_form(Arc::new(declaration))).unwrap_or_default();
        Self { store, known: Mutex::new(Arc::new(local)) }
    }

    /// The catalog. Loads it only if its revision has changed. One that vanished is lost, not withdrawn: it stays in
    /// effect.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn read(&self) -> PortResult<Arc<Catalog>> {
        let revision = self.store.revision().await?;
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if revision == 0 || revision == known.revision {
            return Ok(known);
        }
        let (loaded, _) = self.store.load().await?;
        if loaded.is_short_form() {
            return Ok(known);
        }
        let loaded = Arc::new(loaded);
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&loaded);
        Ok(loaded)
    }

    /// The catalog as it was last read; before that, local settings.
    pub fn known(&self) -> Arc<Catalog> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::State;

    use super::*;
    use crate::samples::{Servers, catalog, declaration, index};

    #[tokio::test]
    async fn applied_catalog_replaces_local_settings_and_stays_if_it_vanishes() {
        let servers = Servers::new();
        let store = || Arc::new(servers.streams.catalog());
        assert!(CatalogReader::new(store(), None).read().await.unwrap().indexes.is_empty());
        let reader = CatalogReader::new(store(), Some(declaration("documents")));
        let local = reader.read().await.unwrap();
        assert!(local.is_short_form() && local.indexes.contains_key(&index("documents")));
        servers.apply(&catalog(7, &[("tickets", State::Serving)])).await;
        assert_eq!(reader.read().await.unwrap().revision, 7);
        servers.apply(&catalog(9, &[("tickets", State::Serving)])).await;
        assert_eq!(reader.read().await.unwrap().revision, 9);
        servers.streams.wipe();
        assert_eq!(reader.read().await.unwrap().revision, 9);
    }
}
