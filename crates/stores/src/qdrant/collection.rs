//! The collection: its required schema, its current state and its creation.

use std::collections::BTreeMap;

use qdrant_client::qdrant::quantization_config::Quantization;
use qdrant_client::qdrant::vectors_config::Config;
use qdrant_client::qdrant::{
    CollectionInfo, CreateCollection, CreateFieldIndexCollection, Distance, FieldType, GetCollectionInfoRequest,
    VectorParams, VectorsConfig,
};
use serde::Serialize;
use tidewheel_core::error::PortError;
use tidewheel_core::payload::{DOCUMENT, NAMESPACE, VERSION_HIGH, VERSION_LOW, VERSION_REPLAY};
use tidewheel_core::ports::PortResult;

use super::{QdrantIndex, completed, error, existing};

/// A collection as Qdrant reports it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CollectionFacts {
    /// `green` (all segments ready), `yellow` (being optimised), `grey` (optimisation pending), `red` (broken).
    pub status: String,
    /// The optimiser's error, if any.
    pub optimizer_error: Option<String>,
    /// Dimension of the unnamed default vector; `None` if the collection has none.
    pub dimension: Option<u64>,
    /// Distance: `Cosine`, `Dot`, `Euclid` or `Manhattan`.
    pub distance: Option<String>,
    /// Names of named vectors; empty in a collection for tidewheel.
    pub named_vectors: Vec<String>,
    /// Approximate number of points.
    pub points: u64,
    /// Approximate number of indexed vectors; the others are scanned.
    pub indexed_vectors: u64,
    /// Segments on disk.
    pub segments: u64,
    /// Quantization method, if vectors are quantized.
    pub quantization: Option<String>,
    /// Whether strict mode rejects writes that filter on an unindexed field.
    pub indexes_required: bool,
    /// Indexed payload fields and their index types.
    pub payload_indexes: BTreeMap<String, String>,
}

impl From<&CollectionInfo> for CollectionFacts {
    fn from(info: &CollectionInfo) -> Self {
        let config = info.config.as_ref();
        let vectors = config
            .and_then(|config| config.params.as_ref())
            .and_then(|params| params.vectors_config.as_ref())
            .and_then(|vectors| vectors.config.as_ref());
        let (unnamed, named_vectors) = match vectors {
            Some(Config::Params(params)) => (Some(params), Vec::new()),
            Some(Config::ParamsMap(named)) => (None, named.map.keys().cloned().collect()),
            None => (None, Vec::new()),
        };
        let strict = config.and_then(|config| config.strict_mode_config.as_ref());
        let quantization = config
            .and_then(|config| config.quantization_config.as_ref())
            .or_else(|| unnamed.and_then(|params| params.quantization_config.as_ref()))
            .and_then(|config| config.quantization.as_ref());
        Self {
            status: lower(info.status().as_str_name()),
            optimizer_error: info
                .optimizer_status
                .as_ref()
                .filter(|status| !status.ok)
                .map(|status| status.error.clone()),
            dimension: unnamed.map(|params| params.size),
            distance: unnamed.map(|params| params.distance().as_str_name().to_owned()),
            named_vectors,
            points: info.points_count.unwrap_or(0),
            indexed_vectors: info.indexed_vectors_count.unwrap_or(0),
            segments: info.segments_count,
            quantization: quantization.map(|kind| quantization_name(kind).to_owned()),
            indexes_required: strict
                .is_some_and(|strict| strict.enabled == Some(true) && strict.unindexed_filtering_update == Some(false)),
            payload_indexes: info
                .payload_schema
                .iter()
                .map(|(field, schema)| (field.clone(), lower(schema.data_type().as_str_name())))
                .collect(),
        }
    }
}

fn lower(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn quantization_name(kind: &Quantization) -> &'static str {
    match kind {
        Quantization::Scalar(_) => "scalar",
        Quantization::Product(_) => "product",
        Quantization::Binary(_) => "binary",
        Quantization::Turboquant(_) => "turbo",
    }
}

impl QdrantIndex {
    /// The collection as Qdrant reports it; `None` if it does not exist.
    pub(super) async fn info(&self) -> PortResult<Option<CollectionInfo>> {
        let request = GetCollectionInfoRequest { collection_name: self.collection.clone() };
        let response = existing(self.connection.collections().get(request).await)
            .map_err(|status| self.failed("read the collection's state", &status))?;
        Ok(response.and_then(|response| response.result))
    }

    pub(super) async fn facts(&self) -> PortResult<Option<CollectionFacts>> {
        Ok(self.info().await?.as_ref().map(CollectionFacts::from))
    }

    /// Creates the collection; returns it, and whether this call created it.
    pub(super) async fn create_by(&self, request: CreateCollection) -> PortResult<(CollectionInfo, bool)> {
        tracing::info!(collection = %self.collection, "creating the Qdrant collection");
        let created = match self.connection.collections().create(request).await {
            Ok(_) => true,
            // Another service created it first; it is checked like any other.
            Err(status) if error::already_exists(&status) => false,
            Err(status) => return Err(self.failed("create the collection", &status)),
        };
        let gone =
            || PortError::transient(format!("Qdrant collection {:?} was deleted after its creation", self.collection));
        Ok((self.info().await?.ok_or_else(gone)?, created))
    }

    /// Creates the missing payload indexes that tidewheel's own requests need.
    pub(super) async fn index_own_fields(&self, facts: &CollectionFacts) -> PortResult<()> {
        for request in missing_indexes(&self.collection, facts) {
            self.index_field(request).await?;
        }
        Ok(())
    }

    /// Creates a payload index; returns once it is built.
    pub(super) async fn index_field(&self, request: CreateFieldIndexCollection) -> PortResult<()> {
        let what = format!("index payload field {:?}", request.field_name);
        completed(self.connection.points().create_field_index(request).await)
            .map_err(|status| self.failed(&what, &status))
    }
}

/// The request that creates a collection with one unnamed vector and cosine distance.
pub(super) fn creation(collection: &str, dimension: usize) -> CreateCollection {
    let params = VectorParams { size: dimension as u64, distance: Distance::Cosine.into(), ..VectorParams::default() };
    CreateCollection {
        collection_name: collection.to_owned(),
        vectors_config: Some(VectorsConfig { config: Some(Config::Params(params)) }),
        ..CreateCollection::default()
    }
}

/// Fails unless the collection has one unnamed vector of this dimension with cosine distance.
pub(super) fn check(collection: &str, facts: &CollectionFacts, dimension: usize) -> Result<(), PortError> {
    let found = match (facts.dimension, facts.distance.as_deref()) {
        (Some(size), Some("Cosine")) if size == dimension as u64 => return Ok(()),
        (Some(size), Some(distance)) => format!("vectors of dimension {size} with {distance} distance"),
        _ => format!("only named vectors ({})", facts.named_vectors.join(", ")),
    };
    Err(PortError::fatal(format!(
        "Qdrant collection {collection:?} does not match the model: expected one unnamed vector of dimension {dimension} \
         with Cosine distance, found {found}"
    ))
    .with_hint(
        "set qdrant.collection to a new name (tidewheel creates it), delete this collection and replay, or switch back \
         to its original model",
    ))
}

/// The requests that create missing payload indexes.
///
/// Deletes find their points by document or by namespace. Versions are only compared on points already found, so
/// indexing them would slow every write without benefit; they are indexed where strict mode requires it.
pub(super) fn missing_indexes(collection: &str, facts: &CollectionFacts) -> Vec<CreateFieldIndexCollection> {
    let mut wanted = vec![(DOCUMENT, FieldType::Uuid), (NAMESPACE, FieldType::Keyword)];
    if facts.indexes_required {
        wanted.extend([VERSION_HIGH, VERSION_LOW, VERSION_REPLAY].map(|field| (field, FieldType::Integer)));
    }
    wanted
        .into_iter()
        .filter(|(field, _)| !facts.payload_indexes.contains_key(*field))
        .map(|(field, kind)| CreateFieldIndexCollection {
            collection_name: collection.to_owned(),
            wait: Some(true),
            field_name: field.to_owned(),
            field_type: Some(kind.into()),
            ..CreateFieldIndexCollection::default()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use qdrant_client::qdrant::{
        CollectionConfig, CollectionParams, PayloadSchemaInfo, PayloadSchemaType, StrictModeConfig, VectorParamsMap,
    };
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn info(
        vectors: Config,
        strict: Option<StrictModeConfig>,
        indexes: &[(&str, PayloadSchemaType)],
    ) -> CollectionFacts {
        let params = CollectionParams {
            vectors_config: Some(VectorsConfig { config: Some(vectors) }),
            ..CollectionParams::default()
        };
        let schema = |(field, kind): &(&str, PayloadSchemaType)| {
            ((*field).to_owned(), PayloadSchemaInfo { data_type: (*kind).into(), ..PayloadSchemaInfo::default() })
        };
        let config =
            CollectionConfig { params: Some(params), strict_mode_config: strict, ..CollectionConfig::default() };
        CollectionFacts::from(&CollectionInfo {
            config: Some(config),
            payload_schema: indexes.iter().map(schema).collect(),
            ..CollectionInfo::default()
        })
    }

    fn vector(size: u64, distance: Distance) -> VectorParams {
        VectorParams { size, distance: distance.into(), ..VectorParams::default() }
    }

    #[test]
    fn collection_check_accepts_only_matching_unnamed_vector() {
        let fits = info(Config::Params(vector(384, Distance::Cosine)), None, &[]);
        assert_eq!(check("documents", &fits, 384), Ok(()));
        let named = VectorParamsMap { map: [("text".to_owned(), vector(384, Distance::Cosine))].into() };
        for (found, part) in [
            (Config::Params(vector(768, Distance::Cosine)), "dimension 768 with Cosine distance"),
            (Config::Params(vector(384, Distance::Dot)), "dimension 384 with Dot distance"),
            (Config::ParamsMap(named), "only named vectors (text)"),
        ] {
            let error = check("documents", &info(found, None, &[]), 384).unwrap_err();
            assert_eq!(error.class, ErrorClass::Fatal);
            assert!(error.message.contains(part) && error.message.contains("dimension 384"), "{error}");
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn versions_are_indexed_only_in_strict_mode() {
        let fields = |facts: &CollectionFacts| -> Vec<String> {
            missing_indexes("documents", facts).into_iter().map(|request| request.field_name).collect()
        };
        let vectors = || Config::Params(vector(4, Distance::Cosine));
        assert_eq!(fields(&info(vectors(), None, &[])), [DOCUMENT, NAMESPACE]);
        let present = [(DOCUMENT, PayloadSchemaType::Uuid), (NAMESPACE, PayloadSchemaType::Keyword)];
        assert!(fields(&info(vectors(), None, &present)).is_empty());
        let strict = StrictModeConfig {
            enabled: Some(true),
            unindexed_filtering_update: Some(false),
            ..StrictModeConfig::default()
        };
        assert_eq!(fields(&info(vectors(), Some(strict), &present)), [VERSION_HIGH, VERSION_LOW, VERSION_REPLAY]);
    }
}
