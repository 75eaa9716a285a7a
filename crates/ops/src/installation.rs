//! Shows and takes over the ownership of Redis and of the collections.

use std::sync::Arc;

use serde::Serialize;
use tidewheel_core::catalog::{IndexName, State};
use tidewheel_core::error::{Cause, ErrorClass, PortError};
use tidewheel_core::installation::{CollectionMark, Installation, SourceIdentity};
use tidewheel_core::ports::{Ownable, PortResult, Registry};
use tidewheel_core::time::now_ms;
use tidewheel_pipeline::ownership::{Ownership, Registration, Serves, ownership, registration};
use tidewheel_pipeline::targets::Targets;

use crate::selection;

/// What has an owner.
#[derive(Clone, Copy)]
pub struct OwnerPorts<'a> {
    /// Redis.
    pub registry: &'a dyn Registry,
    /// The collection, or the first one.
    pub collection: &'a dyn Ownable,
    /// The other collections of the applied catalog.
    pub others: &'a [Arc<dyn Ownable>],
}

/// The collections of the selected indexes, without those that are not created yet. Empty before a catalog is applied.
///
/// # Errors
/// If the catalog cannot be read, or there is no such index.
pub async fn collections(targets: &Targets, index: Option<&IndexName>) -> PortResult<Vec<Arc<dyn Ownable>>> {
    let applied = targets.reload().await?;
    let Some(ports) = targets.ports().filter(|_| !applied.catalog().is_short_form()) else { return Ok(Vec::new()) };
    let selected = selection::restricted(applied.catalog(), index)?;
    let created = selected.targets().filter(|(_, generation)| generation.state != State::Creating);
    let open = |name: &str| ports.collections.open(name) as Arc<dyn Ownable>;
    Ok(created.map(|(_, generation)| open(&generation.collection)).collect())
}

/// A collection and its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CollectionOwner {
    /// The collection's name.
    pub collection: String,
    /// The installation recorded in it.
    pub owner: Option<Installation>,
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
    /// The other collections of the applied catalog.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<CollectionOwner>,
}

/// Changes made by a take-over.
#[derive(Clone, Debug, Serialize)]
pub struct TakeOver {
    /// The owners before it.
    #[serde(flatten)]
    pub owners: Owners,
    /// The new owner of all.
    pub installation: Installation,
    /// Whether the owner of Redis changes.
    pub changes_redis: bool,
    /// Whether the owner of the collection changes.
    pub changes_qdrant: bool,
    /// The other collections whose owner changes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes_others: Vec<String>,
    /// Whether it has been applied.
    pub done: bool,
}

impl TakeOver {
    /// Whether it changes an owner.
    pub fn changes(&self) -> bool {
        self.changes_redis || self.changes_qdrant || !self.changes_others.is_empty()
    }
}

/// Reads the owners.
///
/// # Errors
/// If a server fails, or an owner cannot be decoded.
pub async fn owners(ports: OwnerPorts<'_>) -> PortResult<Owners> {
    let OwnerPorts { registry, collection, others } = ports;
    let (installation, mark) = tokio::try_join!(registry.installation(), collection.mark())?;
    let mut marks = Vec::with_capacity(others.len());
    for other in others {
        marks.push((other.collection(), other.mark().await?));
    }
    Ok(owned(installation, (collection.collection(), mark), marks))
}

/// Plans a take-over by the installation of this source. Changes nothing. An owner that cannot be decoded is replaced,
/// unless a newer release has written it.
///
/// # Errors
/// If a server fails, or a newer release has written an owner.
pub async fn plan(ports: OwnerPorts<'_>, source: SourceIdentity) -> PortResult<TakeOver> {
    let found = readable(ports.registry.installation().await)?.flatten();
    let mark = readable(ports.collection.mark().await)?.unwrap_or(CollectionMark::Unmarked);
    let mut marks = Vec::with_capacity(ports.others.len());
    for other in ports.others {
        let mark = readable(other.mark().await)?.unwrap_or(CollectionMark::Unmarked);
        marks.push((other.collection(), mark));
    }
    Ok(planned((ports.collection.collection(), mark), marks, found, source))
}

/// Applies a plan.
///
/// # Errors
/// If a server fails; the owners of Redis and of some collections may have changed before.
pub async fn take_over(ports: OwnerPorts<'_>, plan: &mut TakeOver) -> PortResult<()> {
    if plan.changes_redis {
        ports.registry.replace(&plan.installation).await?;
    }
    if plan.changes_qdrant {
        ports.collection.set_mark(&plan.installation).await?;
    }
    for other in ports.others {
        if plan.changes_others.iter().any(|name| name == other.collection()) {
            other.set_mark(&plan.installation).await?;
        }
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

fn owned(
    redis: Option<Installation>,
    (collection, mark): (&str, CollectionMark),
    others: Vec<(&str, CollectionMark)>,
) -> Owners {
    let of = |(collection, mark): (&str, CollectionMark)| CollectionOwner {
        collection: collection.to_owned(),
        owner: marked(mark),
    };
    let others = others.into_iter().map(of).collect();
    Owners { redis, collection: collection.to_owned(), qdrant: marked(mark), others }
}

/// Keeps the installation registered in Redis if it reads the same databases; otherwise a new one replaces it.
fn planned(
    (collection, mark): (&str, CollectionMark),
    others: Vec<(&str, CollectionMark)>,
    found: Option<Installation>,
    source: SourceIdentity,
) -> TakeOver {
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
    let changes = |name: &str, mark: &CollectionMark| {
        !matches!(ownership(&installation, name, mark), Ownership::Keep | Ownership::Wait)
    };
    let changes_qdrant = changes(collection, &mark);
    let changing = others.iter().filter(|(name, mark)| changes(name, mark));
    let changes_others = changing.map(|(name, _)| (*name).to_owned()).collect();
    let owners = owned(found, (collection, mark), others);
    TakeOver { owners, installation, changes_redis, changes_qdrant, changes_others, done: false }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::ports::IndexWriter as _;
    use tidewheel_testkit::fakes::faults::Fault;
    use tidewheel_testkit::fakes::index::FakeIndex;
    use tidewheel_testkit::fakes::ownership::FakeRegistry;

    use super::*;
    use crate::samples::{Servers, catalog, index};

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
            let plan = planned(("documents", mark), Vec::new(), found.cloned(), source("shop"));
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
        let ports = OwnerPorts { registry: &registry, collection: &index, others: &[] };
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
        let ports = OwnerPorts { registry: &registry, collection: &index, others: &[] };
        registry.faults().once("installation", Fault::Refused(PortError::fatal("invalid owner")));
        assert!(plan(ports, source("shop")).await.unwrap().changes_redis);
        registry.faults().once("installation", Fault::unreachable());
        assert_eq!(plan(ports, source("shop")).await.unwrap_err().class, ErrorClass::Transient);
        registry.set_newer_layout();
        assert_eq!(plan(ports, source("shop")).await.unwrap_err().cause, Cause::Newer);
    }

    #[tokio::test]
    async fn take_over_concerns_every_collection_of_the_catalog() {
        let (servers, registry) = (Servers::new(), FakeRegistry::default());
        let targets = servers.targets();
        assert!(collections(&targets, None).await.unwrap().is_empty());
        let indexes = [("notes", State::Serving), ("tickets", State::Serving), ("users", State::Creating)];
        servers.apply(&catalog(7, &indexes)).await;
        let (own, other) = (of("shop", "notes.g1"), of("crm", "documents"));
        registry.replace(&own).await.unwrap();
        for (name, owner) in [("notes.g1", &own), ("tickets.g1", &other)] {
            servers.collections.index(name).prepare(4).await.unwrap();
            servers.collections.index(name).set_mark(owner).await.unwrap();
        }
        let all = collections(&targets, None).await.unwrap();
        let (first, others) = all.split_first().unwrap();
        let ports = OwnerPorts { registry: &registry, collection: &**first, others };
        let mut planned = plan(ports, source("shop")).await.unwrap();
        assert!(planned.changes() && !planned.changes_redis && !planned.changes_qdrant, "{planned:?}");
        assert_eq!(planned.changes_others, ["tickets.g1"]);
        assert_eq!(planned.owners.others, [CollectionOwner { collection: "tickets.g1".into(), owner: Some(other) }]);
        take_over(ports, &mut planned).await.unwrap();
        assert_eq!(owners(ports).await.unwrap().others[0].owner.as_ref().map(|owner| &owner.id), Some(&own.id));
        assert_eq!(collections(&targets, Some(&index("tickets"))).await.unwrap().len(), 1);
    }
}
