//! The memory of deletions, in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tidewheel_core::ports::{Fence, FenceTarget, PortResult, Tombstones};
use tidewheel_core::version::Version;

use super::faults::Faults;

/// Versions of deletions. Clones are the same memory.
#[derive(Clone, Default)]
pub struct FakeTombstones {
    versions: Arc<Mutex<HashMap<FenceTarget, Version>>>,
    faults: Faults,
}

impl FakeTombstones {
    /// An empty memory.
    pub fn new() -> Self {
        Self::default()
    }

    /// The faults of its calls, named like the port's methods.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Forgets everything, as a Redis that was wiped does.
    pub fn wipe(&self) {
        self.versions.lock().expect("no holder panics").clear();
    }
}

#[async_trait]
impl Tombstones for FakeTombstones {
    async fn raise(&self, fences: &[Fence]) -> PortResult<()> {
        let raise = || {
            let mut versions = self.versions.lock().expect("no holder panics");
            for fence in fences {
                let version = versions.entry(fence.target.clone()).or_insert(fence.version);
                *version = fence.version.max(*version);
            }
            Ok(())
        };
        self.faults.around("raise", raise).await
    }

    async fn of(&self, targets: &[FenceTarget]) -> PortResult<Vec<Option<Version>>> {
        let of = || {
            let versions = self.versions.lock().expect("no holder panics");
            Ok(targets.iter().map(|target| versions.get(target).copied()).collect())
        };
        self.faults.around("of", of).await
    }
}
