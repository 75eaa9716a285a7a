//! The installation registry of a Redis, in memory.

use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use tidewheel_core::installation::Installation;
use tidewheel_core::ports::{PortResult, Registry};
use tidewheel_stores::redis::layout::{INITIAL_LAYOUT, LAYOUT, check_layout};

use super::faults::Faults;

/// Stores the installation. Clones share it.
#[derive(Clone, Default)]
pub struct FakeRegistry {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

struct State {
    installation: Option<Installation>,
    layout: u32,
}

impl Default for State {
    fn default() -> Self {
        Self { installation: None, layout: INITIAL_LAYOUT }
    }
}

impl State {
    fn check(&self) -> PortResult<()> {
        check_layout(self.layout, "a fake")
    }
}

impl FakeRegistry {
    /// The faults of its calls, named like the port's methods.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Removes the installation, like a wiped Redis.
    pub fn wipe(&self) {
        *self.state() = State::default();
    }

    /// Changes the layout, as a release that uses it does.
    pub fn set_layout(&self, layout: u32) {
        self.state().layout = layout;
    }

    /// Changes the layout to one that this release cannot use.
    pub fn set_newer_layout(&self) {
        self.set_layout(LAYOUT + 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

#[async_trait]
impl Registry for FakeRegistry {
    async fn installation(&self) -> PortResult<Option<Installation>> {
        let read = || {
            let state = self.state();
            state.check()?;
            Ok(state.installation.clone())
        };
        self.faults.around("installation", read).await
    }

    async fn register(&self, installation: &Installation) -> PortResult<Installation> {
        let register = || {
            let mut state = self.state();
            state.check()?;
            Ok(state.installation.get_or_insert_with(|| installation.clone()).clone())
        };
        self.faults.around("register", register).await
    }

    async fn replace(&self, installation: &Installation) -> PortResult<()> {
        let replace = || {
            let mut state = self.state();
            state.check()?;
            state.installation = Some(installation.clone());
            Ok(())
        };
        self.faults.around("replace", replace).await
    }
}
