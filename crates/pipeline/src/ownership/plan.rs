//! Decides whether a service may use a Redis and a collection.

use tidewheel_core::error::PortError;
use tidewheel_core::installation::{CollectionMark, Installation, SourceIdentity, is_compatible};

/// The command that takes over a Redis or a collection.
const ADOPT: &str = "`tidewheel installation adopt`";

/// The source database of a service.
#[derive(Clone, Debug, Default)]
pub struct Serves {
    /// The database on its deployment; only the producer connects to it.
    pub source: Option<SourceIdentity>,
    /// The [database](SourceIdentity::database) of the settings, if set.
    pub database: Option<String>,
}

/// The action for the installation registered in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registration {
    /// None is registered, and only the producer registers one.
    Wait,
    /// None is registered: register a new one.
    Register,
    /// The owner is this installation.
    Keep,
    /// The registered installation matches, but its deployment's members have changed, or it covers several databases
    /// now.
    Refresh(SourceIdentity),
    /// The registered installation reads another database.
    Refuse(PortError),
}

/// Decides about the installation in Redis. `known` is the one that this service found earlier.
pub fn registration(found: Option<&Installation>, known: Option<&Installation>, serves: &Serves) -> Registration {
    let Some(found) = found else {
        return if serves.source.is_some() { Registration::Register } else { Registration::Wait };
    };
    let theirs = &found.source;
    if let Some(own) = &serves.source {
        if !own.may_become(theirs) {
            return Registration::Refuse(foreign_redis(found, &own.to_string()));
        }
        // Keeps MongoDB's id if this user is not allowed to read it.
        let cluster = if own.cluster.is_empty() { theirs.cluster.clone() } else { own.cluster.clone() };
        // Several databases stay several: two producers with different settings would replace each other's source.
        let several = theirs.database == SourceIdentity::SEVERAL;
        let database = if several { theirs.database.clone() } else { own.database.clone() };
        let own = SourceIdentity { database, cluster, ..own.clone() };
        return if own == *theirs { Registration::Keep } else { Registration::Refresh(own) };
    }
    if let Some(database) = serves.database.as_ref().filter(|database| !is_compatible(database, &theirs.database)) {
        return Registration::Refuse(foreign_redis(found, &format!("database {database:?}")));
    }
    match known {
        Some(known) if !known.source.may_become(theirs) => {
            Registration::Refuse(foreign_redis(found, &known.source.to_string()))
        }
        _ => Registration::Keep,
    }
}

fn foreign_redis(found: &Installation, own: &str) -> PortError {
    let Installation { id, source, .. } = found;
    PortError::fatal(format!("Redis belongs to installation {id} of {source}, not to {own}"))
        .with_hint(format!("set redis.url to another server or database number, or take this one over with {ADOPT}"))
}

/// The action for the owner recorded on a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The collection does not exist yet.
    Wait,
    /// The owner is this installation.
    Keep,
    /// The collection has no owner: mark it.
    Mark,
    /// The owner is this installation, which has covered another database when it marked the collection: replace its
    /// mark, by which a later installation of the same source finds the collection.
    Renew,
    /// The owner is an earlier installation of the same database whose Redis is gone: replace its mark.
    Inherit,
    /// The collection belongs to another installation.
    Refuse(PortError),
}

/// Decides about the owner of a collection. An installation without a marked collection is new, or its Redis was wiped:
/// it inherits the collections of its own database, or those of the same several databases.
pub fn ownership(installation: &Installation, collection: &str, mark: &CollectionMark) -> Ownership {
    match mark {
        CollectionMark::NoCollection => Ownership::Wait,
        CollectionMark::Unmarked => Ownership::Mark,
        CollectionMark::Of(owner) if owner.id == installation.id => {
            let is_current = owner.source.database == installation.source.database;
            if is_current { Ownership::Keep } else { Ownership::Renew }
        }
        CollectionMark::Of(owner)
            if installation.collection.is_empty() && owner.source.is_same(&installation.source) =>
        {
            Ownership::Inherit
        }
        CollectionMark::Of(owner) => Ownership::Refuse(
            PortError::fatal(format!(
                "Qdrant collection {collection:?} belongs to installation {} of {}, but this is installation {} of {}",
                owner.id, owner.source, installation.id, installation.source
            ))
            .with_hint(format!(
                "set qdrant.collection, or `name` of the [[index]], to another name, or take this collection over with {ADOPT}"
            )),
        ),
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn source(database: &str, host: &str) -> SourceIdentity {
        SourceIdentity {
            database: database.to_owned(),
            replica_set: "rs0".to_owned(),
            hosts: vec![host.to_owned()],
            cluster: String::new(),
        }
    }

    fn installation(id: &str, database: &str, collection: &str) -> Installation {
        let collection = collection.to_owned();
        Installation { id: id.to_owned(), source: source(database, "db1:1"), created_at: 0, collection }
    }

    fn serves(source: Option<SourceIdentity>, database: Option<&str>) -> Serves {
        Serves { source, database: database.map(str::to_owned) }
    }

    #[test]
    fn only_the_producer_registers_an_installation() {
        assert_eq!(registration(None, None, &serves(Some(source("shop", "db1:1")), None)), Registration::Register);
        assert_eq!(registration(None, None, &serves(None, Some("shop"))), Registration::Wait);
    }

    #[test]
    fn redis_of_another_source_is_rejected_with_both_names_and_the_adopt_command() {
        let found = installation("a", "shop", "documents");
        for other in [
            serves(Some(source("crm", "db1:1")), Some("crm")),
            serves(Some(source("shop", "db9:1")), Some("shop")),
            serves(None, Some("crm")),
        ] {
            let Registration::Refuse(error) = registration(Some(&found), None, &other) else { panic!("{other:?}") };
            assert_eq!(error.class, ErrorClass::Fatal);
            assert!(error.message.contains("installation a of database \"shop\""), "{error}");
            assert!(error.hint.unwrap().contains("tidewheel installation adopt"));
        }
        for own in [serves(Some(source("shop", "db1:1")), None), serves(None, Some("shop")), serves(None, None)] {
            assert_eq!(registration(Some(&found), None, &own), Registration::Keep);
        }
        let before = installation("b", "crm", "documents");
        let without_settings = registration(Some(&found), Some(&before), &serves(None, None));
        assert!(matches!(without_settings, Registration::Refuse(_)), "taken over while the service was running");
        let mut moved = source("shop", "db1:1");
        moved.hosts.push("db2:1".to_owned());
        let refreshed = registration(Some(&found), None, &serves(Some(moved.clone()), None));
        assert_eq!(refreshed, Registration::Refresh(moved));
    }

    #[test]
    fn installation_may_cover_several_databases_later() {
        let (one, several) = (installation("a", "shop", "documents"), installation("a", SourceIdentity::SEVERAL, "x"));
        let now_several = source(SourceIdentity::SEVERAL, "db1:1");
        let of = |found: &Installation, own: SourceIdentity| registration(Some(found), None, &serves(Some(own), None));
        assert_eq!(of(&one, now_several.clone()), Registration::Refresh(now_several.clone()));
        assert_eq!(of(&several, now_several.clone()), Registration::Keep);
        assert_eq!(of(&several, source("shop", "db1:1")), Registration::Keep, "a producer with earlier settings");
        let mut moved = source("shop", "db1:1");
        moved.hosts.push("db2:1".to_owned());
        let expected = SourceIdentity { hosts: moved.hosts.clone(), ..now_several };
        assert_eq!(of(&several, moved), Registration::Refresh(expected));
        let elsewhere = of(&one, source(SourceIdentity::SEVERAL, "db9:1"));
        let Registration::Refuse(error) = elsewhere else { panic!("another deployment") };
        assert!(error.message.contains("not to several databases on rs0"), "{error}");
        for (found, database) in [(&several, "shop"), (&several, "*"), (&one, "*"), (&one, "shop")] {
            let other = serves(None, Some(database));
            assert_eq!(registration(Some(found), Some(&one), &other), Registration::Keep, "{database}");
        }
    }

    #[test]
    fn mark_of_an_earlier_source_is_renewed_and_not_inherited() {
        let (one, several) = (installation("a", "shop", "x"), installation("a", SourceIdentity::SEVERAL, "x"));
        let of = |installation: &Installation| CollectionMark::Of(installation.clone());
        assert_eq!(ownership(&several, "tickets.g1", &of(&one)), Ownership::Renew);
        assert_eq!(ownership(&several, "tickets.g1", &of(&several)), Ownership::Keep);
        let new = |database| installation("b", database, "");
        assert_eq!(ownership(&new(SourceIdentity::SEVERAL), "tickets.g1", &of(&several)), Ownership::Inherit);
        // Another installation on one database of the same deployment.
        assert!(matches!(ownership(&new("shop"), "tickets.g1", &of(&several)), Ownership::Refuse(_)));
        assert!(matches!(ownership(&new(SourceIdentity::SEVERAL), "tickets.g1", &of(&one)), Ownership::Refuse(_)));
    }

    #[test]
    fn only_a_new_installation_of_the_same_database_inherits_a_collection() {
        let own = installation("a", "shop", "documents");
        let new = installation("b", "shop", "");
        let of = |installation: &Installation| CollectionMark::Of(installation.clone());
        assert_eq!(ownership(&own, "documents", &CollectionMark::NoCollection), Ownership::Wait);
        assert_eq!(ownership(&own, "documents", &CollectionMark::Unmarked), Ownership::Mark);
        assert_eq!(ownership(&own, "documents", &of(&own)), Ownership::Keep);
        assert_eq!(ownership(&new, "documents", &of(&own)), Ownership::Inherit);
        for (installation, owner) in
            [(&own, &new), (&own, &installation("c", "crm", "x")), (&installation("d", "crm", ""), &own)]
        {
            let Ownership::Refuse(error) = ownership(installation, "documents", &of(owner)) else {
                panic!("{owner:?}")
            };
            assert_eq!(error.class, ErrorClass::Fatal);
            assert!(error.message.contains(&owner.id) && error.message.contains(&installation.id), "{error}");
            assert!(error.hint.unwrap().contains("tidewheel installation adopt"));
        }
    }
}
