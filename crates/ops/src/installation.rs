//! Shows and takes over the ownership of Redis and of the collection.

use serde::Serialize;
use tidewheel_core::error::{Cause, ErrorClass, PortError};
use tidewheel_core::installation::{CollectionMark, Installation, SourceIdentity};
use tidewheel_core::ports::{Ownable, PortResult, Registry};
use tidewheel_core::time::now_ms;
use tidewheel_pipeline::ownership::{Ownership, Registration, Serves, ownership, registration};

/// What has an owner.
#[derive(Clone, Copy)]
pub struct OwnerPorts<'a> {
    /// Redis.
    pub registry: &'a dyn Registry,
    /// The collection.
    pub collection: &'a dyn Ownable,
}

/// Owners of Redis and of the collection.
#[derive(Clone, Debug, Serialize)]
pub struct Owners {
    /// The installation registered in Redis.
    pub redis: Option<Installation>,
    /// The collection's name, or its alias.
    pub collection: String,
    /// The installation recorded in the collection.
    pub qdrant: Option<Installation>,
}

/// Changes made by a take-over.
#[derive(Clone, Debug, Serialize)]
pub struct TakeOver {
    /// The owners before it.
    #[serde(flatten)]
    pub owners: Owners,
    /// The new owner of both.
    pub installation: Installation,
    /// Whether the owner of Redis changes.
    pub changes_redis: bool,
    /// Whether the owner of the collection changes.
    pub changes_qdrant: bool,
    /// Whether it has been applied.
    pub done: bool,
}

impl TakeOver {
    /// Whether it changes an owner.
    pub fn changes(&self) -> bool {
        self.changes_redis || self.changes_qdrant
    }
}

/// Reads the owners.
///
/// # Errors
/// If a server fails, or an owner cannot be decoded.
pub async fn owners(ports: OwnerPorts<'_>) -> PortResult<Owners> {
    let OwnerPorts { registry, collection } = ports;
    let (installation, mark) = tokio::try_join!(registry.installation(), collection.mark())?;
    Ok(Owners { redis: installation, collection: collection.collection().to_owned(), qdrant: marked(mark) })
}

/// Plans a take-over by the installation of this source. Changes nothing. An owner that cannot be decoded is replaced,
/// unless a newer release has written it.
///
/// # Errors
/// If a server fails, or a newer release has written an owner.
pub async fn plan(ports: OwnerPorts<'_>, source: SourceIdentity) -> PortResult<TakeOver> {
    let found = readable(ports.registry.installation().await)?.flatten();
    let mark = readable(ports.collection.mark().await)?.unwrap_or(CollectionMark::Unmarked);
    Ok(planned(ports.collection.collection(), found, &mark, source))
}

/// Applies a plan.
///
/// # Errors
/// If a server fails; the owner of Redis may have changed before.
pub async fn take_over(ports: OwnerPorts<'_>, plan: &mut TakeOver) -> PortResult<()> {
    if plan.changes_redis {
        ports.registry.replace(&plan.installation).await?;
    }
    if plan.changes_qdrant {
        ports.collection.set_mark(&plan.installation).await?;
    }
    plan.done = true;
    Ok(())
}

/// Returns `None` for an owner that may be replaced unread.
fn readable<T>(owner: PortResult<T>) -> PortResult<Option<T>> {
    let is_replaceable = |error: &PortError| error.class == ErrorClass::Fatal && error.cause != Cause::Newer;
    match owner {
        Ok(owner) => Ok(Some(owner)),
        Err(error) if is_replaceable(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn marked(mark: CollectionMark) -> Option<Installation> {
    match mark {
        CollectionMark::Of(installation) => Some(installation),
        CollectionMark::NoCollection | CollectionMark::Unmarked => None,
    }
}

/// Keeps the installation registered in Redis if it reads the same database; otherwise a new one replaces it.
fn planned(collection: &str, found: Option<Installation>, mark: &CollectionMark, source: SourceIdentity) -> TakeOver {
    let serves = Serves { source: Some(source.clone()), database: None };
    let (installation, changes_redis) = match (registration(found.as_ref(), None, &serves), &found) {
        (Registration::Keep | Registration::Refresh(_), Some(found)) => {
            let bound = Installation { collection: collection.to_owned(), ..found.clone() };
            (bound, found.collection.is_empty())
        }
        _ => {
            let now = now_ms() / 1_000;
            (Installation { collection: collection.to_owned(), ..Installation::new(source, now) }, true)
        }
    };
    let changes_qdrant = !matches!(ownership(&installation, collection, mark), Ownership::Keep | Ownership::Wait);
    let owners = Owners { redis: found, collection: collection.to_owned(), qdrant: marked(mark.clone()) };
    TakeOver { owners, installation, changes_redis, changes_qdrant, done: false }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::ports::IndexWriter as _;
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::index::FakeIndex;
    use tidewheel_testkit::fakes::ownership::FakeRegistry;

    use super::*;

    fn source(database: &str) -> SourceIdentity {
        SourceIdentity { database: database.to_owned(), hosts: vec!["db:1".to_owned()], ..SourceIdentity::default() }
    }

    fn of(database: &str, collection: &str) -> Installation {
        Installation { collection: collection.to_owned(), ..Installation::new(source(database), 1) }
    }

    #[test]
    fn take_over_changes_only_foreign_ownership() {
        let (own, other) = (of("shop", "documents"), of("crm", "documents"));
        let mark = |installation: &Installation| CollectionMark::Of(installation.clone());
        let plans = |found: Option<&Installation>, mark: CollectionMark| {
            let plan = planned("documents", found.cloned(), &mark, source("shop"));
            (plan.changes_redis, plan.changes_qdrant, plan.installation.id == own.id)
        };
        assert_eq!(plans(Some(&own), mark(&own)), (false, false, true));
        assert_eq!(plans(Some(&own), mark(&other)), (false, true, true));
        assert_eq!(plans(Some(&own), mark(&of("shop", "documents"))), (false, true, true));
        assert_eq!(plans(Some(&own), CollectionMark::NoCollection), (false, false, true));
        assert_eq!(plans(Some(&other), mark(&other)), (true, true, false));
        assert_eq!(plans(None, mark(&other)), (true, true, false));
        assert_eq!(plans(None, CollectionMark::Unmarked), (true, true, false));
    }

    #[tokio::test]
    async fn take_over_replaces_both_owners_and_is_idempotent() {
        let (registry, index) = (FakeRegistry::default(), FakeIndex::new());
        index.prepare(3).await.unwrap();
        let ports = OwnerPorts { registry: &registry, collection: &index };
        let other = of("crm", "documents");
        registry.replace(&other).await.unwrap();
        index.set_mark(&other).await.unwrap();

        let mut first = plan(ports, source("shop")).await.unwrap();
        assert!(first.changes_redis && first.changes_qdrant && !first.done, "{first:?}");
        assert_eq!(owners(ports).await.unwrap().redis, Some(other), "a plan changes nothing");
        take_over(ports, &mut first).await.unwrap();
        let found = owners(ports).await.unwrap();
        assert!(first.done && found.redis == found.qdrant, "{found:?}");
        assert_eq!(found.redis.map(|owner| owner.source.database), Some("shop".to_owned()));
        assert!(!plan(ports, source("shop")).await.unwrap().changes());
    }

    #[tokio::test]
    async fn unreadable_owner_is_replaced_unless_a_newer_release_has_written_it() {
        let (registry, index) = (FakeRegistry::default(), FakeIndex::new());
        let ports = OwnerPorts { registry: &registry, collection: &index };
        registry.faults().once("installation", Fault::Refused(PortError::fatal("invalid owner")));
        assert!(plan(ports, source("shop")).await.unwrap().changes_redis);
        registry.faults().once("installation", Fault::unreachable());
        assert_eq!(plan(ports, source("shop")).await.unwrap_err().class, ErrorClass::Transient);
        registry.set_newer_layout();
        assert_eq!(plan(ports, source("shop")).await.unwrap_err().cause, Cause::Newer);
    }
}
