//! The record of the collection in use, in memory.

use async_trait::async_trait;
use tidewheel_core::ports::{CollectionRegistry, Damage, PortResult};

use super::state::FakeStreams;

/// Records the collection in use.
#[derive(Clone)]
pub struct FakeCollectionRegistry(FakeStreams);

impl FakeCollectionRegistry {
    pub(super) fn new(streams: FakeStreams) -> Self {
        Self(streams)
    }
}

#[async_trait]
impl CollectionRegistry for FakeCollectionRegistry {
    async fn collection(&self, name: &str, exists: bool) -> PortResult<()> {
        let record = || {
            let mut state = self.0.state();
            let known = state.collection.clone();
            match known {
                Some(known) if !exists => {
                    let what = if known == name {
                        format!("collection {name} in Qdrant is missing")
                    } else {
                        format!("collection {name} in Qdrant replaced {known}")
                    };
                    state.damage = Some(Damage::Collection(what));
                    state.collection = None;
                }
                Some(known) if exists && known != name => {
                    let what = format!("collection {name} in Qdrant replaced {known}");
                    state.damage = Some(Damage::Collection(what));
                    state.collection = Some(name.to_owned());
                }
                None if exists => state.collection = Some(name.to_owned()),
                _ => {}
            }
            Ok(())
        };
        self.0.faults().around("collection", record).await
    }
}
