//! Ends waiting for the embedder of a target that the catalog does not need any more.
//!
//! Changes wait for the embedder of a target as long as it takes. If it does not return, an operator drops the index, or
//! declares how its embedder is reached now. Work that began before must not wait on.

use std::sync::Arc;

use tracing::info;

use super::Worker;
use crate::retry::RetryError;
use crate::targets::{Applied, Target};

impl Worker {
    /// Works on the vectors of these targets. If the embedder fails, and the catalog does not need it any more for one of
    /// them, the work ends as in a shutdown: its entries stay pending, and are claimed by work for the new catalog.
    pub(super) async fn while_needed<T>(
        &self,
        targets: &[Arc<Target>],
        work: impl Future<Output = Result<T, RetryError>>,
    ) -> Result<T, RetryError> {
        let unneeded = async {
            self.until_unneeded(targets).await;
            self.retry.until_failing().await;
        };
        tokio::select! {
            biased;
            done = work => done,
            () = unneeded => {
                info!("leaving changes to later work, because the catalog no longer needs an embedder that fails");
                Err(RetryError::Shutdown)
            }
        }
    }

    /// Waits until the catalog does not need the embedder of one of these targets any more.
    pub(super) async fn until_unneeded(&self, targets: &[Arc<Target>]) {
        self.targets.until(|applied| targets.iter().any(|target| !is_needed(applied, target))).await;
    }
}

/// Whether the catalog routes changes to the target, and its declaration names the same embedder.
fn is_needed(applied: &Applied, target: &Target) -> bool {
    let embedding = &target.declaration().embedding;
    applied.target(Some(&target.id)).is_some_and(|now| now.declaration().embedding == *embedding)
}
