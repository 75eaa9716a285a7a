//! The applied catalog in memory.

use async_trait::async_trait;
use tidewheel_core::catalog::{Catalog, Declaration, Index, IndexName, TargetId};
use tidewheel_core::ports::{Appended, CatalogStore, PortResult};
use uuid::Uuid;

use super::state::FakeStreams;

/// The catalog of a [`FakeStreams`]. Its faults are those of the streams: the calls `load` and `save` are named
/// `load_catalog` and `save_catalog`, because a journal has calls of these names too.
#[derive(Clone)]
pub struct FakeCatalog(FakeStreams);

impl FakeStreams {
    /// The catalog.
    pub fn catalog(&self) -> FakeCatalog {
        FakeCatalog(self.clone())
    }

    /// The layout of the keys that the catalog requires; `None` if it requires none.
    pub fn required_layout(&self) -> Option<u32> {
        self.state().catalog_layout
    }
}

#[async_trait]
impl CatalogStore for FakeCatalog {
    async fn load(&self) -> PortResult<(Catalog, u64)> {
        let load = || {
            let state = self.0.state();
            Ok((state.catalog.clone(), state.now()))
        };
        self.0.faults().around("load_catalog", load).await
    }

    async fn revision(&self) -> PortResult<u64> {
        self.0.faults().around("revision", || Ok(self.0.state().catalog.revision)).await
    }

    async fn save(
        &self,
        change: Uuid,
        expected: u64,
        next: u64,
        indexes: &[(IndexName, Option<Index>)],
        layout: Option<u32>,
    ) -> PortResult<Appended> {
        let save = || {
            let mut state = self.0.state();
            if state.catalog.revision == next && state.catalog_change == Some(change) {
                return Ok(Appended::Saved);
            }
            if state.catalog.revision != expected {
                return Ok(Appended::Conflict);
            }
            for (name, index) in indexes {
                if let Some(index) = index {
                    state.catalog.insert(name.clone(), decoded(index));
                } else {
                    state.catalog.indexes.remove(name);
                    state.catalog.dropped.remove(name);
                }
            }
            state.catalog.revision = next;
            state.catalog_change = Some(change);
            state.catalog_layout = state.catalog_layout.max(layout);
            Ok(Appended::Saved)
        };
        self.0.faults().around("save_catalog", save).await
    }

    async fn plain(&self) -> PortResult<Option<Declaration>> {
        self.0.faults().around("plain", || Ok(self.0.state().plain_declaration.clone())).await
    }

    async fn set_plain(&self, declaration: &Declaration) -> PortResult<()> {
        let set = || {
            self.0.state().plain_declaration = Some(declaration.clone());
            Ok(())
        };
        self.0.faults().around("set_plain", set).await
    }

    async fn lost(&self) -> PortResult<Vec<(TargetId, String)>> {
        let lost = || {
            let state = self.0.state();
            Ok(state.lost.iter().map(|(target, text)| (target.clone(), text.clone())).collect())
        };
        self.0.faults().around("lost", lost).await
    }

    async fn found(&self, target: &TargetId, text: &str) -> PortResult<()> {
        let found = || {
            let mut state = self.0.state();
            if state.lost.get(target).is_some_and(|known| known == text) {
                state.lost.remove(target);
            }
            Ok(())
        };
        self.0.faults().around("found", found).await
    }

    async fn forget(&self, target: &TargetId) -> PortResult<bool> {
        let forget = || {
            self.0.state().forget(target);
            Ok(false)
        };
        self.0.faults().around("forget", forget).await
    }
}

/// The index as a store returns it, so that a test on fakes also tests its JSON.
fn decoded(index: &Index) -> Index {
    let json = serde_json::to_string(index).expect("an index is plain data");
    serde_json::from_str(&json).expect("an index reads its own JSON")
}
