//! Creation, change and deletion of the collection, and the record of its target.
//!
//! The collection's metadata tells tidewheel's collections from others: it has an entry from the moment of creation.
//! Qdrant merges metadata by entry, so that the owner, the record and the list of payload indexes do not replace each
//! other.

use std::collections::BTreeMap;

use async_trait::async_trait;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    CollectionInfo, CollectionStatus, CreateCollection, DeleteCollection, DeleteFieldIndexCollection, StrictModeConfig,
    UpdateCollection,
};
use serde_json::{Map, Value, json};
use tidewheel_core::catalog::{CollectionSpec, PayloadIndex, TargetId, TargetRecord, VectorLayout};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{CollectionAdmin, PortResult};
use tonic::Status;

use super::collection::CollectionFacts;
use super::field_indexes::{self, Changes, Indexes};
use super::{QdrantIndex, completed, error, ownership, spec, value};

/// The metadata entry with the record of the target.
const TARGET: &str = "tidewheel_index";

/// The metadata entry with the payload indexes that tidewheel has created for a declaration, by path.
const FIELDS: &str = "tidewheel_fields";

impl QdrantIndex {
    /// Changes the collection; an update does not accept an alias.
    async fn update(&self, what: &str, request: UpdateCollection) -> PortResult<()> {
        let Some(collection_name) = self.real_name().await? else {
            let missing = format!("collection {:?} does not exist", self.collection);
            return Err(self.failed(what, &Status::not_found(missing)));
        };
        let request = UpdateCollection { collection_name, ..request };
        let response = self.connection.collections().update(request).await;
        response.map(drop).map_err(|status| self.failed(what, &status))
    }

    async fn set_entry(&self, what: &str, entry: &str, value: Value) -> PortResult<()> {
        let metadata = value::to_payload(&Map::from_iter([(entry.to_owned(), value)]));
        self.update(what, UpdateCollection { metadata, ..UpdateCollection::default() }).await
    }

    /// The collection, for a change that needs its current state.
    async fn existing_info(&self, what: &str) -> PortResult<CollectionInfo> {
        let missing = || Status::not_found(format!("collection {:?} does not exist", self.collection));
        self.info().await?.ok_or_else(|| self.failed(what, &missing()))
    }

    fn unreadable(&self, what: &str, cause: &serde_json::Error) -> PortError {
        PortError::fatal(format!("failed to read {what} of the Qdrant collection {:?}: {cause}", self.collection))
            .with_hint("delete the collection: tidewheel creates and fills it again")
    }

    /// The payload indexes that tidewheel has created for a declaration.
    fn listed_indexes(&self, metadata: &Map<String, Value>) -> PortResult<Indexes> {
        let Some(listed) = metadata.get(FIELDS) else { return Ok(Indexes::new()) };
        serde_json::from_value(listed.clone()).map_err(|cause| self.unreadable("the payload indexes", &cause))
    }

    async fn delete_index(&self, field: &str) -> PortResult<()> {
        let request = DeleteFieldIndexCollection {
            collection_name: self.collection.clone(),
            wait: Some(true),
            field_name: field.to_owned(),
            ..DeleteFieldIndexCollection::default()
        };
        completed(self.connection.points().delete_field_index(request).await)
            .map_err(|status| self.failed(&format!("delete the index of payload field {field:?}"), &status))
    }
}

#[async_trait]
impl CollectionAdmin for QdrantIndex {
    async fn create(&self, spec: &CollectionSpec, layout: &VectorLayout, dimension: usize) -> PortResult<bool> {
        let request = spec::creation(&self.collection, spec, layout, dimension)?;
        let marked = Map::from_iter([(FIELDS.to_owned(), json!({}))]);
        let request = CreateCollection { metadata: value::to_payload(&marked), ..request };
        let (info, created) = match self.info().await? {
            Some(info) => (info, false),
            None => self.create_by(request).await?,
        };
        if !created {
            check_origin(&self.collection, &metadata(&info))?;
        }
        check_layout(&self.collection, &info, layout, dimension)?;
        self.index_own_fields(&CollectionFacts::from(&info)).await?;
        Ok(created)
    }

    async fn alter(&self, spec: &CollectionSpec) -> PortResult<()> {
        const WHAT: &str = "alter the collection";
        let info = self.existing_info(WHAT).await?;
        let was_quantized = is_quantized_by_record(&metadata(&info));
        let Some(request) = spec::alteration(&self.collection, spec, was_quantized)? else { return Ok(()) };
        if let Some(strict) = &request.strict_mode_config {
            // Before strict mode rejects requests without them.
            let mut facts = CollectionFacts::from(&info);
            let present = info.config.and_then(|config| config.strict_mode_config).unwrap_or_default();
            facts.indexes_required |= requires_indexes(&present, strict);
            self.index_own_fields(&facts).await?;
        }
        self.update(WHAT, request).await
    }

    async fn field_indexes(&self, wanted: &BTreeMap<String, PayloadIndex>) -> PortResult<()> {
        let info = self.existing_info("index payload fields").await?;
        let listed = self.listed_indexes(&metadata(&info))?;
        let changes = Changes::between(wanted, &listed, &CollectionFacts::from(&info).payload_indexes);
        // Checked before the first change.
        let create = field_indexes::creations(&self.collection, &changes.create)?;
        for field in &changes.delete {
            self.delete_index(field).await?;
        }
        if changes.listed != listed {
            self.set_entry("list the payload indexes", FIELDS, json!(changes.listed)).await?;
        }
        for request in create {
            self.index_field(request).await?;
        }
        Ok(())
    }

    async fn record(&self) -> PortResult<Option<TargetRecord>> {
        let Some(info) = self.info().await? else { return Ok(None) };
        match metadata(&info).remove(TARGET) {
            None | Some(Value::Null) => Ok(None),
            Some(record) => serde_json::from_value(record)
                .map(Some)
                .map_err(|cause| self.unreadable("the record of the index", &cause)),
        }
    }

    async fn set_record(&self, record: &TargetRecord) -> PortResult<()> {
        self.set_entry("record the index", TARGET, json!(record)).await
    }

    async fn is_settled(&self) -> PortResult<bool> {
        Ok(self.info().await?.is_some_and(|info| info.status() == CollectionStatus::Green))
    }

    async fn drop_collection(&self) -> PortResult<()> {
        tracing::info!(collection = %self.collection, "deleting the Qdrant collection");
        let request = DeleteCollection { collection_name: self.collection.clone(), ..DeleteCollection::default() };
        match self.connection.collections().delete(request).await {
            Ok(_) => Ok(()),
            Err(status) if error::is_missing(&status) => Ok(()),
            Err(status) => Err(self.failed("delete the collection", &status)),
        }
    }
}

fn metadata(info: &CollectionInfo) -> Map<String, Value> {
    info.config.as_ref().map(|config| value::from_payload(config.metadata.clone())).unwrap_or_default()
}

/// Whether the record's declaration quantizes vectors.
fn is_quantized_by_record(metadata: &Map<String, Value>) -> bool {
    let quantization =
        metadata.get(TARGET).and_then(|record| record.pointer("/declaration/collection/settings/quantization"));
    quantization.is_some_and(|quantization| !quantization.is_null())
}

/// Fails if the collection has the name of a target and another client has created it.
fn check_origin(collection: &str, metadata: &Map<String, Value>) -> PortResult<()> {
    let is_own = [ownership::ENTRY, TARGET, FIELDS].iter().any(|entry| metadata.contains_key(*entry));
    if is_own || collection.parse::<TargetId>().is_err() {
        return Ok(());
    }
    Err(PortError::fatal(format!("Qdrant collection {collection:?} exists, and tidewheel has not created it"))
        .with_hint("delete it if its points are not needed, or give the index another name"))
}

/// Fails unless the collection has the one unnamed vector that the layout asks for.
fn check_layout(collection: &str, info: &CollectionInfo, layout: &VectorLayout, dimension: usize) -> PortResult<()> {
    let config = info.config.as_ref().and_then(|config| config.params.as_ref());
    let vectors = config.and_then(|params| params.vectors_config.as_ref()).and_then(|vectors| vectors.config.as_ref());
    let describe = |dimension: u64, distance: &str, datatype: &str| {
        format!("an unnamed vector of dimension {dimension} with {distance} distance and datatype {datatype}")
    };
    let (distance, datatype) = (spec::distance(layout.distance), spec::datatype(layout.datatype));
    let expected = describe(dimension as u64, distance.as_str_name(), datatype.as_str_name());
    let found = match vectors {
        Some(Config::Params(found)) => {
            describe(found.size, found.distance().as_str_name(), spec::or_default(found.datatype()).as_str_name())
        }
        Some(Config::ParamsMap(named)) => {
            let mut names: Vec<&str> = named.map.keys().map(String::as_str).collect();
            names.sort_unstable();
            format!("only named vectors ({})", names.join(", "))
        }
        None => "no vector".to_owned(),
    };
    if found == expected {
        return Ok(());
    }
    Err(PortError::fatal(format!(
        "Qdrant collection {collection:?} has another layout: expected {expected}, found {found}"
    ))
    .with_hint("delete this collection if its points are not needed, or run `tidewheel apply --generation`"))
}

/// Whether strict mode with these changes rejects writes that filter on a field without an index.
fn requires_indexes(present: &StrictModeConfig, changes: &StrictModeConfig) -> bool {
    let enabled = changes.enabled.or(present.enabled);
    let unindexed = changes.unindexed_filtering_update.or(present.unindexed_filtering_update);
    enabled == Some(true) && unindexed == Some(false)
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::{
        CollectionConfig, CollectionParams, Datatype as Stored, Distance, VectorParams, VectorParamsMap, VectorsConfig,
    };
    use tidewheel_core::catalog::Datatype;
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn info(vectors: Config) -> CollectionInfo {
        let params = CollectionParams {
            vectors_config: Some(VectorsConfig { config: Some(vectors) }),
            ..CollectionParams::default()
        };
        let config = CollectionConfig { params: Some(params), ..CollectionConfig::default() };
        CollectionInfo { config: Some(config), ..CollectionInfo::default() }
    }

    fn vector(size: u64, distance: Distance, datatype: Option<Stored>) -> VectorParams {
        VectorParams { size, distance: distance.into(), datatype: datatype.map(Into::into), ..VectorParams::default() }
    }

    #[test]
    fn layout_check_compares_dimension_distance_datatype_and_name() {
        let plain = VectorLayout::default();
        let half = VectorLayout { datatype: Datatype::Float16, ..VectorLayout::default() };
        for datatype in [None, Some(Stored::Default), Some(Stored::Float32)] {
            let found = info(Config::Params(vector(4, Distance::Cosine, datatype)));
            check_layout("tickets.g1", &found, &plain, 4).unwrap();
            assert!(check_layout("tickets.g1", &found, &half, 4).is_err());
        }
        let found = info(Config::Params(vector(4, Distance::Cosine, Some(Stored::Float16))));
        check_layout("tickets.g1", &found, &half, 4).unwrap();

        let named = VectorParamsMap { map: [("text".to_owned(), vector(4, Distance::Cosine, None))].into() };
        for (vectors, part) in [
            (
                Config::Params(vector(8, Distance::Cosine, None)),
                "dimension 8 with Cosine distance and datatype Float32",
            ),
            (Config::Params(vector(4, Distance::Dot, None)), "with Dot distance"),
            (Config::Params(vector(4, Distance::Cosine, Some(Stored::Uint8))), "datatype Uint8"),
            (Config::ParamsMap(named), "only named vectors (text)"),
        ] {
            let error = check_layout("tickets.g1", &info(vectors), &plain, 4).unwrap_err();
            assert_eq!(error.class, ErrorClass::Fatal);
            assert!(error.message.contains(part) && error.message.contains("dimension 4"), "{error}");
        }
    }

    #[test]
    fn collection_of_another_client_is_refused_only_under_the_name_of_a_target() {
        let metadata = |entry: &str| Map::from_iter([(entry.to_owned(), json!({}))]);
        for entry in [ownership::ENTRY, TARGET, FIELDS] {
            check_origin("tickets.g1", &metadata(entry)).unwrap();
        }
        check_origin("documents", &Map::new()).unwrap();
        let error = check_origin("tickets.g1", &metadata("team")).unwrap_err();
        assert!(error.class == ErrorClass::Fatal && error.message.contains("\"tickets.g1\""), "{error}");
    }

    #[test]
    fn record_shows_whether_vectors_were_quantized_by_declaration() {
        let settings = |settings: Value| {
            Map::from_iter([(TARGET.to_owned(), json!({"declaration": {"collection": {"settings": settings}}}))])
        };
        assert!(is_quantized_by_record(&settings(json!({"quantization": {"scalar": {"type": "int8"}}}))));
        assert!(!is_quantized_by_record(&settings(json!({"hnsw": {"m": 4}}))));
        assert!(!is_quantized_by_record(&Map::new()));
    }

    #[test]
    fn strict_mode_requires_indexes_once_both_settings_are_in_effect() {
        let strict = |enabled, unindexed_filtering_update| StrictModeConfig {
            enabled,
            unindexed_filtering_update,
            ..StrictModeConfig::default()
        };
        let nothing = strict(None, None);
        assert!(requires_indexes(&nothing, &strict(Some(true), Some(false))));
        assert!(requires_indexes(&strict(None, Some(false)), &strict(Some(true), None)));
        assert!(!requires_indexes(&strict(Some(true), Some(false)), &strict(Some(false), None)));
        assert!(!requires_indexes(&nothing, &strict(Some(true), None)));
    }
}
