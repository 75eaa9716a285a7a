//! The Qdrant adapter, over gRPC.
//!
//! * **Order.** Every write carries a filter on the stored version, which the server evaluates and applies atomically:
//!   an older change never replaces or deletes a newer one, however late or often it arrives. Only a missing point is
//!   inserted regardless of its version: tombstones and [`IndexWriter::stored`](tidewheel_core::ports::IndexWriter::stored)
//!   cover that case.
//! * **Durability.** Writes wait, and succeed only if the server reports `Completed`. Anything less is a transient
//!   error and is retried.
//! * **No hidden retries.** One call of the port is one attempt.
//! * **A deleted collection** is reported by the next write, which does not create it.
//! * **Changes of a collection** are idempotent, so that an interrupted one is repeated. Only what tidewheel has created
//!   is deleted.

mod admin;
mod aliases;
mod batch;
mod bounds;
mod collection;
mod collections;
mod connection;
mod error;
mod fence;
mod field_indexes;
mod filter;
mod inspect;
mod numbers;
mod ownership;
mod reading;
mod redirect;
mod request;
mod spec;
mod typed;
mod value;
mod writing;

use std::time::Duration;

use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{
    HealthCheckRequest, PointId, PointsOperationResponse, UpdateBatchResponse, UpdateResult, UpdateStatus,
};
use serde::Serialize;
use tidewheel_core::error::PortError;
use tidewheel_core::ports::PortResult;
use tidewheel_core::secret::Secret;
use tidewheel_core::tls::ClientTls;
use tonic::{Response, Status};
use uuid::Uuid;

use self::batch::Limits;
pub use self::collection::CollectionFacts;
pub use self::collections::QdrantCollections;
use self::connection::Connection;
use self::error::Call;
pub use self::request::payload;

/// Connection options for Qdrant and request limits.
#[derive(Clone, Debug)]
pub struct QdrantOptions {
    /// The gRPC address, `http://host:6334` or `https://host:6334`. The scheme defaults to http, the port to 6334.
    pub url: String,
    /// The API key, sent with every call.
    pub api_key: Option<Secret>,
    /// A private CA and a client certificate. Only with `https://`.
    pub tls: ClientTls,
    /// A collection or an alias.
    pub collection: String,
    /// Connect timeout.
    pub connect_timeout: Duration,
    /// Response timeout. A write that exceeds it may still be applied.
    pub timeout: Duration,
    /// Maximum points per request. Qdrant's documentation recommends 64 to 256.
    pub max_points: usize,
    /// Approximate maximum bytes per request.
    pub max_bytes: usize,
}

impl QdrantOptions {
    /// Default options for this address and collection.
    pub fn new(url: impl Into<String>, collection: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            api_key: None,
            tls: ClientTls::default(),
            collection: collection.into(),
            connect_timeout: Duration::from_secs(5),
            // A write may wait for a segment that is being optimised.
            timeout: Duration::from_secs(60),
            max_points: 256,
            // Half of Qdrant's maximum: our byte count is an estimate.
            max_bytes: 16 * 1024 * 1024,
        }
    }
}

/// State of the server and the collection, for operators.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QdrantFacts {
    /// The server's title.
    pub title: String,
    /// The server's version.
    pub version: String,
    /// The collection; `None` if it does not exist yet.
    pub collection: Option<CollectionFacts>,
}

/// A collection in Qdrant. Cheap to clone; clones share the connection.
#[derive(Clone)]
pub struct QdrantIndex {
    connection: Connection,
    collection: String,
    url: String,
    limits: Limits,
}

impl std::fmt::Debug for QdrantIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QdrantIndex").field("url", &self.url).field("collection", &self.collection).finish()
    }
}

impl QdrantIndex {
    /// Checks the options; the first call connects. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// Fatal, if the address or the API key is invalid.
    pub fn connect(options: QdrantOptions) -> PortResult<Self> {
        let QdrantOptions { url, api_key, tls, collection, connect_timeout, timeout, max_points, max_bytes } = options;
        Ok(Self {
            connection: Connection::new(&url, api_key.as_ref(), &tls, connect_timeout, timeout)?,
            collection,
            url,
            limits: Limits { points: max_points.max(1), bytes: max_bytes },
        })
    }

    /// Reads the current state of the server and the collection.
    pub async fn inspect(&self) -> PortResult<QdrantFacts> {
        let server = self.connection.server().health_check(HealthCheckRequest {}).await;
        let server = server.map_err(|status| self.failed("reach the server", &status))?.into_inner();
        Ok(QdrantFacts { title: server.title, version: server.version, collection: self.facts().await? })
    }

    fn failed(&self, what: &str, status: &Status) -> PortError {
        error::classify(Call { what, collection: &self.collection, url: &self.url }, status)
    }
}

/// Checks that a write is completed. `WaitTimeout` comes in an otherwise successful response: the write is in progress,
/// and its outcome is unknown.
fn completed(response: Result<Response<PointsOperationResponse>, Status>) -> Result<(), Status> {
    completion(response?.into_inner().result.unwrap_or_default().status())
}

fn completion(status: UpdateStatus) -> Result<(), Status> {
    if status == UpdateStatus::Completed {
        return Ok(());
    }
    Err(Status::aborted(format!("the server returned {} instead of Completed", status.as_str_name())))
}

/// Checks that every write of a batch is completed.
fn all_completed(response: Response<UpdateBatchResponse>) -> Result<(), Status> {
    response.into_inner().result.iter().map(UpdateResult::status).try_for_each(completion)
}

/// `None` if the collection is missing.
fn existing<T>(response: Result<Response<T>, Status>) -> Result<Option<T>, Status> {
    match response {
        Ok(response) => Ok(Some(response.into_inner())),
        Err(status) if error::is_missing(&status) => Ok(None),
        Err(status) => Err(status),
    }
}

fn uuid_of(id: Option<PointId>) -> Option<Uuid> {
    match id?.point_id_options? {
        PointIdOptions::Uuid(text) => Uuid::parse_str(&text).ok(),
        PointIdOptions::Num(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn only_a_completed_write_succeeds() {
        let response = |status: UpdateStatus| {
            let result = UpdateResult { status: status.into(), ..UpdateResult::default() };
            completed(Ok(Response::new(PointsOperationResponse {
                result: Some(result),
                ..PointsOperationResponse::default()
            })))
        };
        assert!(response(UpdateStatus::Completed).is_ok());
        for status in [UpdateStatus::Acknowledged, UpdateStatus::ClockRejected, UpdateStatus::WaitTimeout] {
            let status = response(status).unwrap_err();
            assert_eq!(status.code(), Code::Aborted, "which is transient");
        }
        assert!(completed(Ok(Response::new(PointsOperationResponse::default()))).is_err());
    }
}
