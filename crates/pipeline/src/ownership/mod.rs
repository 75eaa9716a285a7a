//! Prevents two installations from sharing one Redis or one collection.
//!
//! ```text
//!  start ──▶ owner of Redis ──▶ owner of collection ──▶ work
//!                  ▲                    │
//!                  └───── every 5 s ◀───┘    a foreign owner stops the service
//! ```
//!
//! **Registration**: by the producer, the only service that connects to MongoDB. The others read its registration.
//! **A wiped Redis** gets its installation back from a running service. If none is running, the next producer registers
//! a new one, which inherits the collection of its own database. An installation that loses its collection that way
//! stops within [`INTERVAL`], and does not take it back after a restart.
//! **A recreated collection** is marked by the next check.

mod plan;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use plan::{Ownership, Registration, Serves, ownership, registration};
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_core::ports::{Ownable, PortResult, Registry};
use tidewheel_core::time::now_ms;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The time between two checks: the maximum time that a service works on data taken over by another installation.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// The time between two checks until the collection has a mark.
const SOON: Duration = Duration::from_millis(500);

/// The result of a check without a foreign owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Redis and, if given, the collection belong to this installation.
    Marked,
    /// The installation or the collection does not exist yet.
    Pending,
}

/// Checks the owners for one service.
pub struct Guard {
    registry: Arc<dyn Registry>,
    collection: Option<Arc<dyn Ownable>>,
    serves: Serves,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    installation: Option<Installation>,
    /// The collection does not keep a mark.
    unsupported: bool,
}

impl Guard {
    /// A guard over a Redis and, for a service that writes to it, a collection.
    pub fn new(registry: Arc<dyn Registry>, collection: Option<Arc<dyn Ownable>>, serves: Serves) -> Self {
        Self { registry, collection, serves, known: Mutex::default() }
    }

    /// Checks both owners once, and registers or marks missing ones.
    ///
    /// # Errors
    /// Fatal, if Redis or the collection belongs to another installation.
    pub async fn check(&self) -> PortResult<Checked> {
        let Some(installation) = self.check_redis().await? else { return Ok(Checked::Pending) };
        match &self.collection {
            Some(collection) => self.check_collection(installation, &**collection).await,
            None => Ok(Checked::Marked),
        }
    }

    /// Checks the owner of Redis alone. Returns the installation, if one is registered.
    ///
    /// # Errors
    /// Fatal, if Redis belongs to another installation.
    pub async fn check_redis(&self) -> PortResult<Option<Installation>> {
        let mut found = self.registry.installation().await?;
        let known = self.known().installation.clone();
        if found.is_none()
            && let Some(known) = &known
        {
            warn!(installation = known.id, "Redis lost its installation; registering it again");
            found = Some(self.registry.register(known).await?);
        }
        let installation = match registration(found.as_ref(), known.as_ref(), &self.serves) {
            Registration::Wait => return Ok(None),
            Registration::Refuse(error) => return Err(error),
            Registration::Keep => found,
            Registration::Refresh(source) => {
                let refreshed = found.map(|found| Installation { source, ..found });
                if let Some(refreshed) = &refreshed {
                    self.registry.replace(refreshed).await?;
                }
                refreshed
            }
            Registration::Register => {
                let source = self.serves.source.clone().unwrap_or_default();
                let new = Installation::new(source, now_ms() / 1_000);
                // Another producer may have registered first.
                let registered = self.registry.register(&new).await?;
                if let Registration::Refuse(error) = registration(Some(&registered), None, &self.serves) {
                    return Err(error);
                }
                info!(installation = registered.id, source = %registered.source, "registered the installation in Redis");
                Some(registered)
            }
        };
        self.known().installation.clone_from(&installation);
        Ok(installation)
    }

    async fn check_collection(&self, mut installation: Installation, collection: &dyn Ownable) -> PortResult<Checked> {
        let name = collection.collection();
        let mark = collection.mark().await?;
        match ownership(&installation, name, &mark) {
            Ownership::Wait => return Ok(Checked::Pending),
            Ownership::Refuse(error) => return Err(error),
            Ownership::Keep => {}
            Ownership::Mark if self.known().unsupported => return Ok(Checked::Marked),
            Ownership::Mark => {
                collection.set_mark(&installation).await?;
                match collection.mark().await? {
                    CollectionMark::Unmarked => {
                        self.known().unsupported = true;
                        warn!(
                            collection = name,
                            "the collection cannot be marked, so a second installation on it will not be detected: \
                             Qdrant is older than 1.16, or the API key is not allowed to change collections"
                        );
                    }
                    mark => {
                        if let Ownership::Refuse(error) = ownership(&installation, name, &mark) {
                            return Err(error);
                        }
                        info!(collection = name, installation = installation.id, "marked the collection");
                    }
                }
            }
            Ownership::Inherit => {
                warn!(
                    collection = name,
                    installation = installation.id,
                    "the collection was marked by an earlier installation of the same database; taking it over"
                );
                collection.set_mark(&installation).await?;
            }
        }
        if installation.collection.is_empty() {
            // Last step: an installation that has marked a collection inherits no other.
            installation.collection = name.to_owned();
            self.registry.replace(&installation).await?;
            self.known().installation = Some(installation);
        }
        Ok(Checked::Marked)
    }

    /// Checks repeatedly; returns the error if a check finds a foreign owner, and `None` after `stop`. Outages are
    /// reported by the work itself.
    pub async fn watch(&self, stop: CancellationToken) -> Option<PortError> {
        let mut pause = SOON;
        loop {
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
            match self.check().await {
                Ok(Checked::Marked) => pause = INTERVAL,
                Ok(Checked::Pending) => pause = SOON,
                Err(error) if error.class == ErrorClass::Fatal => return Some(error),
                Err(error) => debug!("failed to check the owner: {error}"),
            }
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
