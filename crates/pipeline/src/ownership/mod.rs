//! Keeps two installations from working on one Redis, or on one collection.
//!
//! ```text
//!  start ──▶ Redis: whose? ──▶ collection: whose? ──▶ work
//!                 ▲                    │
//!                 └──── every few s ◀──┘    a foreign owner stops the service
//! ```
//!
//! **Who registers**: the producer, which alone connects to MongoDB. The others take over what it wrote.
//! **A wiped Redis** gets its installation back from a service that still runs. Where none does, the next producer
//! registers a new one, which inherits the collection of its own database. An installation that is deprived of its
//! collection that way stops within [`INTERVAL`], and does not take it back when it is started again.
//! **A collection that is made anew** is marked by the next check.

mod plan;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use plan::{Ownership, Registration, Serves, ownership, registration};
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_core::ports::{Ownable, PortResult, Registry};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The time between two checks: how long a service may work on what was taken over by another installation.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// The time between two checks while the collection has no mark yet.
const SOON: Duration = Duration::from_millis(500);

/// The result of a check that found nothing foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checked {
    /// Redis and, where it was asked for, the collection are marked as ours.
    Marked,
    /// Something is yet to be registered or created.
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
    /// The collection was given a mark and did not keep it.
    unsupported: bool,
}

impl Guard {
    /// A guard over a Redis and, for a service that writes to it, a collection.
    pub fn new(registry: Arc<dyn Registry>, collection: Option<Arc<dyn Ownable>>, serves: Serves) -> Self {
        Self { registry, collection, serves, known: Mutex::default() }
    }

    /// Checks both owners once, and marks what names none.
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
            warn!(installation = known.id, "Redis has lost its installation; registering it again");
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
                let new = Installation::new(source, now());
                // Another producer may have been faster.
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
                            "the collection cannot be marked, so that a second installation on it goes unnoticed: \
                             Qdrant is older than 1.16, or the API key may not change collections"
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
            // Last: an installation that has marked a collection inherits no other.
            installation.collection = name.to_owned();
            self.registry.replace(&installation).await?;
            self.known().installation = Some(installation);
        }
        Ok(Checked::Marked)
    }

    /// Checks until a check finds a foreign owner, and returns why the service has to stop. Never returns before `stop`
    /// otherwise: the work itself reports outages.
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

/// Seconds since the Unix epoch.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
