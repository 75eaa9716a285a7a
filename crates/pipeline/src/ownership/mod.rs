//! Prevents two installations from sharing one Redis or one collection.
//!
//! ```text
//!  start ──▶ owner of Redis ──▶ owner of collection ──▶ work
//!                  ▲                    │
//!                  └───── every 5 s ◀───┘    a foreign owner stops the service
//!
//!  with an applied catalog:
//!  start ──▶ owner of Redis ──▶ work ──▶ a write ──▶ owner of its collection, unless checked within the last 5 s ──▶ the write
//!                ▲     │
//!                └─────┘ every 5 s
//! ```
//!
//! **Registration**: by the producer, the only service that connects to MongoDB. The others read its registration.
//! **A wiped Redis** gets its installation back from a running service. If none is running, the next producer registers
//! a new one, which inherits the collection of its own database. An installation that loses its collection that way
//! stops within [`INTERVAL`], and does not take it back after a restart.
//! **A recreated collection** is marked by the next check.
//! **Many collections**: [`OwnedCollections`] checks the owner of a collection before the first write after [`INTERVAL`],
//! and every [`INTERVAL`] while writes continue. An idle collection costs no call. A new installation checks all of them
//! until each has its mark, so that it inherits all or none.

mod collections;
mod plan;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

pub use collections::OwnedCollections;
pub use plan::{Ownership, Registration, Serves, ownership, registration};
use tidewheel_core::catalog::State;
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_core::ports::{Ownable, PortResult, Registry};
use tidewheel_core::time::now_ms;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::targets::{Applied, Targets};

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
    /// What the service works on. Its collections may refer to this guard.
    targets: OnceLock<Weak<Targets>>,
    serves: Serves,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    installation: Option<Installation>,
    /// The collections that do not keep a mark.
    unsupported: HashSet<String>,
}

impl Guard {
    /// A guard over a Redis and, for a service that writes to it, a collection.
    pub fn new(registry: Arc<dyn Registry>, collection: Option<Arc<dyn Ownable>>, serves: Serves) -> Self {
        Self { registry, collection, targets: OnceLock::new(), serves, known: Mutex::default() }
    }

    /// Leaves the collection alone once a catalog is applied: then [`OwnedCollections`] check those of the catalog. Only
    /// the first call has an effect.
    pub fn follow(&self, targets: &Arc<Targets>) {
        let _ = self.targets.set(Arc::downgrade(targets));
    }

    /// Checks both owners once, and registers or marks missing ones.
    ///
    /// # Errors
    /// Fatal, if Redis or the collection belongs to another installation.
    pub async fn check(&self) -> PortResult<Checked> {
        let Some(installation) = self.check_redis().await? else { return Ok(Checked::Pending) };
        if let Some(targets) = self.targets.get().and_then(Weak::upgrade) {
            let applied = targets.reload().await?;
            if applied.revision() > 0 {
                self.check_new(installation, &targets, &applied).await?;
                return Ok(Checked::Marked);
            }
        }
        let Some(collection) = &self.collection else { return Ok(Checked::Marked) };
        let checked = self.check_mark(&installation, &**collection).await?;
        if checked == Checked::Marked {
            self.bind(installation, collection.collection()).await?;
        }
        Ok(checked)
    }

    /// Checks every collection of the catalog, if the installation has not marked all of them yet.
    async fn check_new(&self, installation: Installation, targets: &Targets, applied: &Applied) -> PortResult<()> {
        let Some(ports) = targets.ports().filter(|_| installation.collection.is_empty()) else { return Ok(()) };
        let mut marked = None;
        // A collection in the place of one that is not created yet may be that of another client.
        for target in applied.every().filter(|target| target.generation.state != State::Creating) {
            let name = &target.generation.collection;
            match self.check_mark(&installation, &*ports.collections.open(name)).await? {
                Checked::Marked => marked = Some(name),
                // Its writer creates and marks it.
                Checked::Pending if target.generation.state.is_routed() => return Ok(()),
                Checked::Pending => {}
            }
        }
        match marked {
            Some(name) => self.bind(installation, name).await,
            None => Ok(()),
        }
    }

    /// Checks the owner of a collection that is about to be written, and marks it if it has none.
    ///
    /// # Errors
    /// Fatal, if Redis or the collection belongs to another installation. Transient, if no installation is registered.
    pub async fn check_written(&self, collection: &dyn Ownable) -> PortResult<Checked> {
        let known = self.known().installation.clone();
        let installation = match known {
            Some(known) => known,
            None => self.check_redis().await?.ok_or_else(|| {
                PortError::transient("no installation is registered in Redis yet: waiting for the producer")
            })?,
        };
        self.check_mark(&installation, collection).await
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

    async fn check_mark(&self, installation: &Installation, collection: &dyn Ownable) -> PortResult<Checked> {
        let name = collection.collection();
        let mark = collection.mark().await?;
        match ownership(installation, name, &mark) {
            Ownership::Wait => return Ok(Checked::Pending),
            Ownership::Refuse(error) => return Err(error),
            Ownership::Keep => {}
            Ownership::Mark if self.known().unsupported.contains(name) => {}
            Ownership::Mark => {
                collection.set_mark(installation).await?;
                match collection.mark().await? {
                    CollectionMark::Unmarked => {
                        self.known().unsupported.insert(name.to_owned());
                        warn!(
                            collection = name,
                            "the collection cannot be marked, so a second installation on it will not be detected: \
                             Qdrant is older than 1.16, or the API key is not allowed to change collections"
                        );
                    }
                    mark => {
                        if let Ownership::Refuse(error) = ownership(installation, name, &mark) {
                            return Err(error);
                        }
                        info!(collection = name, installation = installation.id, "marked the collection");
                    }
                }
            }
            Ownership::Renew => collection.set_mark(installation).await?,
            Ownership::Inherit => {
                warn!(
                    collection = name,
                    installation = installation.id,
                    "the collection was marked by an earlier installation of the same database; taking it over"
                );
                collection.set_mark(installation).await?;
            }
        }
        Ok(Checked::Marked)
    }

    /// Records that the installation has marked its collections. The last step: from now on it inherits no other.
    async fn bind(&self, mut installation: Installation, collection: &str) -> PortResult<()> {
        if installation.collection.is_empty() {
            collection.clone_into(&mut installation.collection);
            self.registry.replace(&installation).await?;
            self.known().installation = Some(installation);
        }
        Ok(())
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
