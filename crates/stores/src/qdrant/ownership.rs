//! The owner of a collection, in the collection's metadata.
//!
//! Qdrant stores metadata since 1.16; older servers ignore it, and their collections stay unmarked. So do collections
//! that the API key may not change.

use async_trait::async_trait;
use qdrant_client::qdrant::UpdateCollection;
use serde_json::{Map, Value};
use tidewheel_core::error::{Cause, PortError};
use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_core::ports::{Ownable, PortResult};
use tonic::{Code, Status};

use super::{QdrantIndex, error, value};

/// The metadata entry with the owner.
pub(super) const ENTRY: &str = "tidewheel";

#[async_trait]
impl Ownable for QdrantIndex {
    fn collection(&self) -> &str {
        &self.collection
    }

    async fn mark(&self) -> PortResult<CollectionMark> {
        let Some(info) = self.info().await? else { return Ok(CollectionMark::NoCollection) };
        let metadata = value::from_payload(info.config.unwrap_or_default().metadata);
        mark_in(&metadata).map_err(|cause| {
            PortError::fatal(format!(
                "failed to read the owner of the Qdrant collection {:?}: {cause}",
                self.collection
            ))
            .with_hint(
                "run `tidewheel installation adopt` to mark the collection for the installation of these settings",
            )
        })
    }

    async fn set_mark(&self, installation: &Installation) -> PortResult<()> {
        // An update does not accept an alias.
        let collection_name = match self.real_name().await {
            Ok(Some(name)) => name,
            Ok(None) => return Ok(()),
            Err(error) if error.cause == Cause::Denied => return Ok(()),
            Err(error) => return Err(error),
        };
        let metadata = Map::from_iter([(ENTRY.to_owned(), serde_json::json!(installation))]);
        let request =
            UpdateCollection { collection_name, metadata: value::to_payload(&metadata), ..UpdateCollection::default() };
        match self.connection.collections().update(request).await {
            Ok(_) => Ok(()),
            Err(status) if error::is_missing(&status) || is_denied(&status) => Ok(()),
            Err(status) => Err(self.failed("mark the collection", &status)),
        }
    }
}

/// A key with write access to points alone suffices for everything else.
fn is_denied(status: &Status) -> bool {
    matches!(status.code(), Code::PermissionDenied | Code::Unauthenticated)
}

fn mark_in(metadata: &Map<String, Value>) -> Result<CollectionMark, serde_json::Error> {
    match metadata.get(ENTRY) {
        None | Some(Value::Null) => Ok(CollectionMark::Unmarked),
        Some(mark) => serde_json::from_value(mark.clone()).map(CollectionMark::Of),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn metadata_without_entry_is_unmarked_and_invalid_entry_fails() {
        let of = |metadata: Value| mark_in(metadata.as_object().unwrap());
        assert_eq!(of(json!({})).unwrap(), CollectionMark::Unmarked);
        assert_eq!(of(json!({"owner": "another"})).unwrap(), CollectionMark::Unmarked);
        let CollectionMark::Of(mark) = of(json!({"tidewheel": {"id": "a", "database": "shop"}})).unwrap() else {
            panic!("expected a mark")
        };
        assert_eq!(mark.source.database, "shop");
        assert!(of(json!({"tidewheel": {"id": 1}})).is_err());
    }
}
