//! The gRPC service for collections and aliases.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use qdrant_client::qdrant::collections_server::Collections;
use qdrant_client::qdrant::{self as proto, alias_operations::Action};
use tonic::{Request, Response, Status};

use super::super::catalog::{AliasChange, Catalog};
use super::super::collection::Info;
use super::super::error::ApiError;
use super::config::{changes_in, config_in, config_out};
use super::index::index_out;
use super::value::required;

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
        let name = request.collection_name.clone();
        self.catalog.update(&name, changes_in(request)?).await?;
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
