//! Owner, creation, change and deletion of the fake collection.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tidewheel_core::catalog::{CollectionSpec, PayloadIndex, TargetId, TargetRecord, VectorLayout};
use tidewheel_core::error::PortError;
use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_core::ports::{CollectionAdmin, Ownable, PortResult};

use super::{Collection, FakeIndex, missing};

/// The setting that is turned off when a specification no longer has it.
const QUANTIZATION: &str = "quantization";

#[async_trait]
impl Ownable for FakeIndex {
    fn collection(&self) -> &str {
        &self.name
    }

    async fn mark(&self) -> PortResult<CollectionMark> {
        let mark = || {
            Ok(match self.state().collection.as_ref().map(|collection| collection.mark.clone()) {
                None => CollectionMark::NoCollection,
                Some(None) => CollectionMark::Unmarked,
                Some(Some(installation)) => CollectionMark::Of(installation),
            })
        };
        self.faults.around("mark", mark).await
    }

    async fn set_mark(&self, installation: &Installation) -> PortResult<()> {
        let set = || {
            if let Some(collection) = &mut self.state().collection {
                collection.mark = Some(installation.clone());
            }
            Ok(())
        };
        self.faults.around("set_mark", set).await
    }
}

#[async_trait]
impl CollectionAdmin for FakeIndex {
    async fn create(&self, spec: &CollectionSpec, layout: &VectorLayout, dimension: usize) -> PortResult<bool> {
        drop(self.called("create"));
        let create = || {
            let mut state = self.state();
            if let Some(collection) = &state.collection {
                return collection.check_origin(&self.name).and_then(|()| collection.check_layout(layout, dimension));
            }
            let new = Collection::new(dimension);
            state.collection = Some(Collection { layout: layout.clone(), spec: Some(spec.clone()), ..new });
            Ok(true)
        };
        self.faults.around("create", create).await
    }

    async fn alter(&self, spec: &CollectionSpec) -> PortResult<()> {
        drop(self.called("alter"));
        let alter = || {
            let mut state = self.state();
            let collection = state.collection.as_mut().ok_or_else(missing)?;
            let recorded = collection.record.as_ref().map(|record| &record.declaration.collection.settings);
            let was_quantized = recorded.is_some_and(|settings| settings.contains_key(QUANTIZATION));
            let settings = &mut collection.spec.get_or_insert_default().settings;
            if was_quantized {
                settings.remove(QUANTIZATION);
            }
            settings.extend(spec.settings.clone());
            Ok(())
        };
        self.faults.around("alter", alter).await
    }

    async fn field_indexes(&self, wanted: &BTreeMap<String, PayloadIndex>) -> PortResult<()> {
        drop(self.called("field_indexes"));
        let change = || {
            let mut state = self.state();
            let collection = state.collection.as_mut().ok_or_else(missing)?;
            let Collection { indexes, listed, .. } = collection;
            let unwanted: Vec<String> = listed.keys().filter(|field| !wanted.contains_key(*field)).cloned().collect();
            for field in &unwanted {
                listed.remove(field);
                indexes.remove(field);
            }
            for (field, index) in wanted {
                let is_theirs = !listed.contains_key(field)
                    && index.options.is_empty()
                    && indexes.get(field).is_some_and(|present| present.kind == index.kind);
                if !is_theirs {
                    indexes.insert(field.clone(), index.clone());
                    listed.insert(field.clone(), index.clone());
                }
            }
            Ok(())
        };
        self.faults.around("field_indexes", change).await
    }

    async fn record(&self) -> PortResult<Option<TargetRecord>> {
        let record = || Ok(self.state().collection.as_ref().and_then(|collection| collection.record.clone()));
        self.faults.around("record", record).await
    }

    async fn set_record(&self, record: &TargetRecord) -> PortResult<()> {
        let set = || {
            self.state().collection.as_mut().ok_or_else(missing)?.record = Some(decoded(record));
            Ok(())
        };
        self.faults.around("set_record", set).await
    }

    async fn is_settled(&self) -> PortResult<bool> {
        let look = || Ok(self.state().collection.as_ref().is_some_and(|collection| !collection.is_busy));
        self.faults.around("is_settled", look).await
    }

    async fn drop_collection(&self) -> PortResult<()> {
        drop(self.called("drop_collection"));
        let delete = || {
            // The method of the fake.
            Self::drop_collection(self);
            Ok(())
        };
        self.faults.around("drop_collection", delete).await
    }
}

impl Collection {
    fn check_origin(&self, name: &str) -> PortResult<()> {
        let is_own = self.mark.is_some() || self.record.is_some() || self.spec.is_some();
        if is_own || name.parse::<TargetId>().is_err() {
            return Ok(());
        }
        Err(PortError::fatal(format!("collection {name:?} exists, and tidewheel has not created it"))
            .with_hint("delete it if its points are not needed"))
    }

    fn check_layout(&self, layout: &VectorLayout, dimension: usize) -> PortResult<bool> {
        if (&self.layout, self.dimension) == (layout, dimension) {
            return Ok(false);
        }
        let (found, found_dimension) = (&self.layout, self.dimension);
        Err(PortError::fatal(format!(
            "the collection has another layout: expected dimension {dimension} and {layout:?}, found dimension \
             {found_dimension} and {found:?}"
        ))
        .with_hint("delete this collection if its points are not needed"))
    }
}

/// The record as a server returns it, so that a test on fakes also tests its JSON.
fn decoded(record: &TargetRecord) -> TargetRecord {
    let json = serde_json::to_string(record).expect("a record is plain data");
    serde_json::from_str(&json).expect("a record reads its own JSON")
}
