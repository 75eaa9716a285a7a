//! The gRPC service for collections and aliases.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use qdrant_client::qdrant::collections_server::Collections;
use qdrant_client::qdrant::{self as proto, alias_operations::Action, vectors_config::Config};
use qdrant_edge::Distance;
use tonic::{Request, Response, Status};

use super::super::catalog::{AliasChange, Catalog};
use super::super::collection::Info;
use super::super::config::{CollectionConfig, ConfigChanges, HnswDiff, OptimizersDiff, VectorParams, Vectors};
use super::super::error::ApiError;
use super::index::index_out;
use super::query::count;
use super::value::{object_in, object_out, required};

type Answer<T> = Result<Response<T>, Status>;

pub(super) struct CollectionsService {
    pub(super) catalog: Arc<Catalog>,
}

fn done(result: bool, started: Instant) -> Answer<proto::CollectionOperationResponse> {
    Ok(Response::new(proto::CollectionOperationResponse { result, time: started.elapsed().as_secs_f64() }))
}

fn unavailable<T>(call: &str) -> Answer<T> {
    Err(ApiError::Unsupported(format!("call {call}")).into())
}

fn aliases_out(aliases: Vec<(String, String)>, started: Instant) -> Answer<proto::ListAliasesResponse> {
    let aliases = aliases
        .into_iter()
        .map(|(alias_name, collection_name)| proto::AliasDescription { alias_name, collection_name });
    Ok(Response::new(proto::ListAliasesResponse { aliases: aliases.collect(), time: started.elapsed().as_secs_f64() }))
}

#[allow(deprecated, reason = "current clients send `on_disk`")]
fn params_in(params: proto::VectorParams) -> Result<VectorParams, ApiError> {
    let distance = match params.distance() {
        proto::Distance::Cosine => Distance::Cosine,
        proto::Distance::Euclid => Distance::Euclid,
        proto::Distance::Dot => Distance::Dot,
        proto::Distance::Manhattan => Distance::Manhattan,
        proto::Distance::UnknownDistance => return Err(ApiError::BadInput("unknown distance".to_owned())),
    };
    let datatype = params.datatype.map(proto::Datatype::try_from).and_then(|datatype| match datatype {
        Ok(proto::Datatype::Default | proto::Datatype::Float32) => None,
        Ok(other) => Some(other.as_str_name().to_owned()),
        Err(unknown) => Some(unknown.to_string()),
    });
    Ok(VectorParams {
        size: count(params.size),
        distance,
        on_disk: params.on_disk,
        multivector_config: params.multivector_config.map(|_| serde_json::Value::Bool(true)),
        quantization_config: params.quantization_config.map(|_| serde_json::Value::Bool(true)),
        datatype,
    })
}

fn config_in(request: proto::CreateCollection) -> Result<CollectionConfig, ApiError> {
    if request.sparse_vectors_config.is_some_and(|sparse| !sparse.map.is_empty()) {
        return Err(ApiError::Unsupported("sparse vectors".to_owned()));
    }
    if request.quantization_config.is_some() {
        return Err(ApiError::Unsupported("quantization".to_owned()));
    }
    let vectors = match required(request.vectors_config.and_then(|vectors| vectors.config), "vectors_config")? {
        Config::Params(params) => Vectors::Single(params_in(params)?),
        Config::ParamsMap(map) => {
            let named = map.map.into_iter().map(|(name, params)| Ok((name, params_in(params)?)));
            Vectors::Named(named.collect::<Result<BTreeMap<_, _>, ApiError>>()?)
        }
    };
    let mut config = CollectionConfig::new(vectors)?;
    #[allow(deprecated, reason = "current clients send it")]
    if let Some(on_disk) = request.on_disk_payload {
        config.on_disk_payload = on_disk;
    }
    config.apply_hnsw(&request.hnsw_config.map(hnsw_in).unwrap_or_default());
    config.apply_optimizers(&request.optimizers_config.map(optimizers_in).unwrap_or_default());
    config.apply_metadata(object_in(request.metadata));
    Ok(config)
}

#[allow(deprecated, reason = "current clients send `on_disk`")]
fn hnsw_in(diff: proto::HnswConfigDiff) -> HnswDiff {
    HnswDiff {
        m: diff.m.map(count),
        ef_construct: diff.ef_construct.map(count),
        full_scan_threshold: diff.full_scan_threshold.map(count),
        max_indexing_threads: diff.max_indexing_threads.map(count),
        on_disk: diff.on_disk,
        payload_m: diff.payload_m.map(count),
    }
}

fn optimizers_in(diff: proto::OptimizersConfigDiff) -> OptimizersDiff {
    OptimizersDiff {
        deleted_threshold: diff.deleted_threshold,
        vacuum_min_vector_number: diff.vacuum_min_vector_number.map(count),
        default_segment_number: diff.default_segment_number.map(count),
        max_segment_size: diff.max_segment_size.map(count),
        indexing_threshold: diff.indexing_threshold.map(count),
    }
}

#[allow(deprecated, reason = "current clients read `on_disk`")]
fn vector_params_out(params: &VectorParams) -> proto::VectorParams {
    let distance = match params.distance {
        Distance::Cosine => proto::Distance::Cosine,
        Distance::Euclid => proto::Distance::Euclid,
        Distance::Dot => proto::Distance::Dot,
        Distance::Manhattan => proto::Distance::Manhattan,
    };
    proto::VectorParams {
        size: params.size as u64,
        distance: distance.into(),
        on_disk: params.on_disk,
        ..proto::VectorParams::default()
    }
}

#[allow(deprecated, reason = "current clients read the plain flags")]
fn config_out(config: &CollectionConfig) -> proto::CollectionConfig {
    let wide = |value: usize| Some(value as u64);
    let vectors = match &config.vectors {
        Vectors::Single(params) => Config::Params(vector_params_out(params)),
        Vectors::Named(named) => Config::ParamsMap(proto::VectorParamsMap {
            map: named.iter().map(|(name, params)| (name.clone(), vector_params_out(params))).collect(),
        }),
    };
    let hnsw = &config.hnsw;
    let optimizers = &config.optimizers;
    proto::CollectionConfig {
        params: Some(proto::CollectionParams {
            shard_number: 1,
            on_disk_payload: config.on_disk_payload,
            vectors_config: Some(proto::VectorsConfig { config: Some(vectors) }),
            replication_factor: Some(1),
            write_consistency_factor: Some(1),
            ..proto::CollectionParams::default()
        }),
        hnsw_config: Some(proto::HnswConfigDiff {
            m: wide(hnsw.m),
            ef_construct: wide(hnsw.ef_construct),
            full_scan_threshold: wide(hnsw.full_scan_threshold),
            max_indexing_threads: wide(hnsw.max_indexing_threads),
            on_disk: hnsw.on_disk,
            payload_m: hnsw.payload_m.and_then(wide),
            ..proto::HnswConfigDiff::default()
        }),
        optimizer_config: Some(proto::OptimizersConfigDiff {
            deleted_threshold: optimizers.deleted_threshold,
            vacuum_min_vector_number: optimizers.vacuum_min_vector_number.and_then(wide),
            default_segment_number: optimizers.default_segment_number.and_then(wide),
            max_segment_size: optimizers.max_segment_size.and_then(wide),
            indexing_threshold: optimizers.indexing_threshold.and_then(wide),
            flush_interval_sec: Some(super::super::FLUSH_INTERVAL.as_secs()),
            ..proto::OptimizersConfigDiff::default()
        }),
        wal_config: Some(proto::WalConfigDiff {
            wal_capacity_mb: Some(32),
            wal_segments_ahead: Some(0),
            wal_retain_closed: Some(1),
        }),
        metadata: object_out(config.metadata.clone()),
        ..proto::CollectionConfig::default()
    }
}

fn info_out(info: &Info) -> proto::CollectionInfo {
    let status = if info.optimizing { proto::CollectionStatus::Yellow } else { proto::CollectionStatus::Green };
    let schema = info.payload_schema.iter().map(|(path, index)| (path.to_string(), index_out(index)));
    proto::CollectionInfo {
        status: status.into(),
        optimizer_status: Some(proto::OptimizerStatus { ok: true, error: String::new() }),
        segments_count: info.segments as u64,
        config: Some(config_out(&info.config)),
        payload_schema: schema.collect::<HashMap<_, _>>(),
        points_count: Some(info.points as u64),
        indexed_vectors_count: Some(info.indexed_vectors as u64),
        ..proto::CollectionInfo::default()
    }
}

#[tonic::async_trait]
impl Collections for CollectionsService {
    async fn get(&self, request: Request<proto::GetCollectionInfoRequest>) -> Answer<proto::GetCollectionInfoResponse> {
        let started = Instant::now();
        let info = self.catalog.get(&request.into_inner().collection_name)?.info().await?;
        Ok(Response::new(proto::GetCollectionInfoResponse {
            result: Some(info_out(&info)),
            time: started.elapsed().as_secs_f64(),
        }))
    }

    async fn list(&self, _: Request<proto::ListCollectionsRequest>) -> Answer<proto::ListCollectionsResponse> {
        let started = Instant::now();
        let collections = self.catalog.names().into_iter().map(|name| proto::CollectionDescription { name });
        Ok(Response::new(proto::ListCollectionsResponse {
            collections: collections.collect(),
            time: started.elapsed().as_secs_f64(),
        }))
    }

    async fn create(&self, request: Request<proto::CreateCollection>) -> Answer<proto::CollectionOperationResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let name = request.collection_name.clone();
        self.catalog.create(&name, config_in(request)?).await?;
        done(true, started)
    }

    async fn update(&self, request: Request<proto::UpdateCollection>) -> Answer<proto::CollectionOperationResponse> {
        let started = Instant::now();
        let request = request.into_inner();
        let changes = ConfigChanges {
            hnsw: request.hnsw_config.map(hnsw_in).unwrap_or_default(),
            optimizers: request.optimizers_config.map(optimizers_in).unwrap_or_default(),
            metadata: object_in(request.metadata),
        };
        self.catalog.update(&request.collection_name, changes).await?;
        done(true, started)
    }

    async fn delete(&self, request: Request<proto::DeleteCollection>) -> Answer<proto::CollectionOperationResponse> {
        let started = Instant::now();
        let deleted = self.catalog.delete(&request.into_inner().collection_name).await?;
        done(deleted, started)
    }

    async fn update_aliases(
        &self,
        request: Request<proto::ChangeAliases>,
    ) -> Answer<proto::CollectionOperationResponse> {
        let started = Instant::now();
        let changes = request.into_inner().actions.into_iter().map(|operation| {
            Ok::<_, ApiError>(match required(operation.action, "alias action")? {
                Action::CreateAlias(create) => {
                    AliasChange::Create { alias: create.alias_name, collection: create.collection_name }
                }
                Action::RenameAlias(rename) => {
                    AliasChange::Rename { from: rename.old_alias_name, to: rename.new_alias_name }
                }
                Action::DeleteAlias(delete) => AliasChange::Delete { alias: delete.alias_name },
            })
        });
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        self.catalog.change_aliases(&changes).await?;
        done(true, started)
    }

    async fn list_collection_aliases(
        &self,
        request: Request<proto::ListCollectionAliasesRequest>,
    ) -> Answer<proto::ListAliasesResponse> {
        let started = Instant::now();
        let collection = request.into_inner().collection_name;
        self.catalog.get(&collection)?;
        aliases_out(self.catalog.aliases(Some(&collection)), started)
    }

    async fn list_aliases(&self, _: Request<proto::ListAliasesRequest>) -> Answer<proto::ListAliasesResponse> {
        aliases_out(self.catalog.aliases(None), Instant::now())
    }

    async fn collection_cluster_info(
        &self,
        _: Request<proto::CollectionClusterInfoRequest>,
    ) -> Answer<proto::CollectionClusterInfoResponse> {
        unavailable("CollectionClusterInfo")
    }

    async fn collection_exists(
        &self,
        request: Request<proto::CollectionExistsRequest>,
    ) -> Answer<proto::CollectionExistsResponse> {
        let started = Instant::now();
        let exists = self.catalog.get(&request.into_inner().collection_name).is_ok();
        Ok(Response::new(proto::CollectionExistsResponse {
            result: Some(proto::CollectionExists { exists }),
            time: started.elapsed().as_secs_f64(),
        }))
    }

    async fn update_collection_cluster_setup(
        &self,
        _: Request<proto::UpdateCollectionClusterSetupRequest>,
    ) -> Answer<proto::UpdateCollectionClusterSetupResponse> {
        unavailable("UpdateCollectionClusterSetup")
    }

    async fn create_shard_key(
        &self,
        _: Request<proto::CreateShardKeyRequest>,
    ) -> Answer<proto::CreateShardKeyResponse> {
        unavailable("CreateShardKey")
    }

    async fn delete_shard_key(
        &self,
        _: Request<proto::DeleteShardKeyRequest>,
    ) -> Answer<proto::DeleteShardKeyResponse> {
        unavailable("DeleteShardKey")
    }

    async fn list_shard_keys(&self, _: Request<proto::ListShardKeysRequest>) -> Answer<proto::ListShardKeysResponse> {
        unavailable("ListShardKeys")
    }
}
