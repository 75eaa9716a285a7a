//! Ownership of the queues and of a collection by an installation.
//!
//! An installation is one queue server with the services on it. Two of them on one server, or on one collection,
//! overwrite each other's work, so both carry the owner's mark.

use serde::{Deserialize, Serialize};

use crate::catalog::{Databases, Selector};

/// The source of an installation: a database, or several of one deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceIdentity {
    /// The database's name; [`SourceIdentity::SEVERAL`] if the indexes of the installation cover more than one.
    pub database: String,
    /// The replica set's name; empty for a sharded cluster.
    #[serde(default)]
    pub replica_set: String,
    /// `host:port` of the members, or of the routers in the URI.
    #[serde(default)]
    pub hosts: Vec<String>,
    /// The server's own id of the replica set or the cluster; empty if the user is not allowed to read it.
    #[serde(default)]
    pub cluster: String,
}

impl SourceIdentity {
    /// Stands for more than one database. No database has this name.
    pub const SEVERAL: &str = "*";

    /// The database that identifies a source of which these collections are indexed.
    pub fn database_of<'a>(selectors: impl IntoIterator<Item = &'a Selector>) -> String {
        let mut databases = selectors.into_iter().map(Selector::databases);
        match databases.next() {
            Some(Databases::One(first)) if databases.all(|other| other == Databases::One(first.clone())) => first,
            _ => Self::SEVERAL.to_owned(),
        }
    }

    /// Whether both are the same database of the same deployment.
    pub fn is_same(&self, other: &Self) -> bool {
        self.database == other.database && self.is_same_deployment(other)
    }

    /// Whether an installation with one of these sources may have the other one after its indexes have changed: on the
    /// same deployment, from one database to several and back.
    pub fn may_become(&self, other: &Self) -> bool {
        is_compatible(&self.database, &other.database) && self.is_same_deployment(other)
    }

    /// Members change, so one shared host is enough. A backup that is restored into a new replica set on the same hosts
    /// has another id; loopback hosts do not count there, because every machine has them.
    fn is_same_deployment(&self, other: &Self) -> bool {
        let identified = !self.cluster.is_empty() && !other.cluster.is_empty();
        if identified && self.cluster == other.cluster {
            return true;
        }
        let counts = |host: &&String| !identified || !is_loopback(host);
        self.replica_set == other.replica_set && self.hosts.iter().filter(counts).any(|host| other.hosts.contains(host))
    }
}

/// Whether the sources of one installation may have these [databases](SourceIdentity::database).
pub fn is_compatible(database: &str, other: &str) -> bool {
    database == other || [database, other].contains(&SourceIdentity::SEVERAL)
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl std::fmt::Display for SourceIdentity {
    /// `database "shop" on rs0 (db1:27017, db2:27017)`
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.database == Self::SEVERAL {
            f.write_str("several databases")?;
        } else {
            write!(f, "database {:?}", self.database)?;
        }
        let set = if self.replica_set.is_empty() { "a sharded cluster" } else { &self.replica_set };
        write!(f, " on {set} ({})", self.hosts.join(", "))
    }
}

/// An installation, as recorded with the queues and on the collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installation {
    /// A random id.
    pub id: String,
    /// Its source.
    #[serde(flatten)]
    pub source: SourceIdentity,
    /// Time of its registration, in seconds since the Unix epoch.
    #[serde(default)]
    pub created_at: u64,
    /// The first collection that it marked; empty before that.
    #[serde(default)]
    pub collection: String,
}

impl Installation {
    /// A new installation that reads this source.
    pub fn new(source: SourceIdentity, now: u64) -> Self {
        Self { id: uuid::Uuid::new_v4().simple().to_string(), source, created_at: now, collection: String::new() }
    }
}

/// The owner recorded on a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CollectionMark {
    /// The collection does not exist.
    NoCollection,
    /// The collection has no owner.
    Unmarked,
    /// The collection belongs to this installation.
    Of(Installation),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(database: &str, set: &str, hosts: &[&str], cluster: &str) -> SourceIdentity {
        SourceIdentity {
            database: database.to_owned(),
            replica_set: set.to_owned(),
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            cluster: cluster.to_owned(),
        }
    }

    #[test]
    fn source_stays_the_same_while_members_change_and_differs_by_database_or_deployment() {
        let own = source("shop", "rs0", &["db1:27017", "db2:27017"], "1");
        for (same, other) in [
            (true, own.clone()),
            (true, source("shop", "rs0", &["db2:27017", "db3:27017"], "1")),
            // Another port, a new name: the id decides.
            (true, source("shop", "rs0", &["127.0.0.1:4000"], "1")),
            // The id is not readable.
            (true, source("shop", "rs0", &["db2:27017"], "")),
            // A restored backup on the same hosts.
            (true, source("shop", "rs0", &["db1:27017"], "2")),
            (false, source("crm", "rs0", &["db1:27017", "db2:27017"], "1")),
            (false, source("shop", "rs0", &["db9:27017"], "2")),
            (false, source("shop", "rs1", &["db1:27017"], "2")),
            (false, source("shop", "rs0", &["db9:27017"], "")),
        ] {
            assert_eq!(own.is_same(&other), same, "{other}");
            assert_eq!(other.is_same(&own), same, "{other}");
        }
    }

    #[test]
    fn loopback_hosts_do_not_make_two_deployments_the_same() {
        for host in ["localhost:27017", "127.0.0.1:27017", "[::1]:27017"] {
            let (one, other) = (source("shop", "rs0", &[host], "1"), source("shop", "rs0", &[host], "2"));
            assert!(!one.is_same(&other), "{host}");
            assert!(one.is_same(&SourceIdentity { cluster: String::new(), ..other }), "{host}");
        }
    }

    #[test]
    fn installation_may_cover_several_databases_of_its_deployment_later() {
        let several = source(SourceIdentity::SEVERAL, "rs0", &["db1:27017"], "1");
        let shop = source("shop", "rs0", &["db1:27017"], "1");
        let elsewhere = source("shop", "rs1", &["db9:27017"], "2");
        for (one, other, expected) in [
            (&several, &shop, true),
            (&shop, &shop, true),
            (&several, &several, true),
            (&source("crm", "rs0", &["db1:27017"], "1"), &shop, false),
            (&several, &elsewhere, false),
        ] {
            assert_eq!((one.may_become(other), other.may_become(one)), (expected, expected), "{one} {other}");
        }
        assert!(!several.is_same(&shop) && several.is_same(&several));
        assert_eq!(several.to_string(), "several databases on rs0 (db1:27017)");
        assert_eq!(shop.to_string(), "database \"shop\" on rs0 (db1:27017)");
    }

    #[test]
    fn database_of_an_installation_is_the_only_one_of_its_indexes() {
        let selector = |patterns: &[&str]| Selector::parse(patterns, None).unwrap();
        let (tickets, notes) = (selector(&["shop.tickets", "!shop.tmp"]), selector(&["shop.notes_*"]));
        assert_eq!(SourceIdentity::database_of([&tickets, &notes]), "shop");
        assert_eq!(SourceIdentity::database_of([&tickets, &selector(&["crm.accounts"])]), SourceIdentity::SEVERAL);
        assert_eq!(SourceIdentity::database_of([&selector(&["*.tickets"])]), SourceIdentity::SEVERAL);
        assert_eq!(SourceIdentity::database_of([]), SourceIdentity::SEVERAL);
    }

    #[test]
    fn installation_ignores_unknown_fields_of_a_mark() {
        let mark = r#"{"id": "a", "database": "shop", "later": 1}"#;
        let read: Installation = serde_json::from_str(mark).unwrap();
        assert_eq!((read.id.as_str(), read.source.database.as_str(), read.created_at), ("a", "shop", 0));
        let own = Installation::new(source("shop", "rs0", &["db1:27017"], "1"), 7);
        assert_eq!(serde_json::from_value::<Installation>(serde_json::to_value(&own).unwrap()).unwrap(), own);
    }
}
