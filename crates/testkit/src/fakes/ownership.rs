//! The installation registry of a Redis, in memory.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tidewheel_core::installation::Installation;
use tidewheel_core::ports::{PortResult, Registry};

use super::faults::Faults;

/// Stores the installation. Clones share it.
#[derive(Clone, Default)]
pub struct FakeRegistry {
    installation: Arc<Mutex<Option<Installation>>>,
    faults: Faults,
}

impl FakeRegistry {
    /// The faults of its calls, named like the port's methods.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Removes the installation, like a wiped Redis.
    pub fn wipe(&self) {
        *self.state() = None;
    }

    fn state(&self) -> MutexGuard<'_, Option<Installation>> {
        self.installation.lock().expect("no holder panics")
    }
}

#[async_trait]
impl Registry for FakeRegistry {
    async fn installation(&self) -> PortResult<Option<Installation>> {
        self.faults.around("installation", || Ok(self.state().clone())).await
    }

    async fn register(&self, installation: &Installation) -> PortResult<Installation> {
        let register = || Ok(self.state().get_or_insert_with(|| installation.clone()).clone());
        self.faults.around("register", register).await
    }

    async fn replace(&self, installation: &Installation) -> PortResult<()> {
        let replace = || {
            *self.state() = Some(installation.clone());
            Ok(())
        };
        self.faults.around("replace", replace).await
    }
}
