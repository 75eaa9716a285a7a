//! MongoDB as the source of changes.
//!
//! One change stream on the database, filtered by collection, delivers every change in commit order; scans read the
//! initial snapshot. Guarantees:
//!
//! - resuming at a batch's token yields exactly the events after that batch, also when several share a time, within a
//!   transaction, or after a dropped database;
//! - no driver future is ever dropped before completion; every method is cancel-safe;
//! - nothing retries automatically, with one exception: a scan whose cursor expired continues at its last row;
//! - at most two batches of a feed or a scan are in memory beside the one returned;
//! - credentials never appear in an error.

mod deployment;
mod event;
mod existing;
mod extjson;
mod failure;
mod feed;
mod inspect;
mod keys;
mod pages;
mod query;
mod reading;
mod reduced;
mod reply;
mod scan;
mod selection;
mod server;
mod uri;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bson::Document;
use mongodb::Client;
use mongodb::options::ClientOptions;
use tidewheel_core::address;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::installation::SourceIdentity;
use tidewheel_core::ports::{
    Feed, FeedError, PortResult, Scan, Source, SourceFilter, SourceHistory, SourceInspector, SourceRow, StartAt,
};
use tidewheel_core::secret::Secret;
use tidewheel_core::version::ClusterTime;
use tracing::warn;

pub use inspect::{MongoFacts, Topology};
pub use query::{Query, QueryError};
pub use reading::id_readings;
use reduced::FailedReads;
use selection::Selection;
use server::{Kind, Server};
pub use uri::ADDRESSES;

/// Server selection timeout, unless set in the URI. The driver's 30 s would hide an outage from the console for as
/// long.
const SERVER_SELECTION: Duration = Duration::from_secs(5);

/// Connection options for the source.
#[derive(Clone, Debug)]
pub struct MongoOptions {
    /// `mongodb://` or `mongodb+srv://`, with MongoDB's options for credentials, replica set and TLS (`tls=true`,
    /// `tlsCAFile=…`).
    pub uri: Secret,
    /// The database.
    pub database: String,
    /// Names of collections; `*` matches any sequence of characters. Empty: every non-system collection.
    pub collections: Vec<String>,
}

/// The selected collections of a MongoDB database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MongoSource {
    server: Server,
    /// The hosts of the URI.
    hosts: Vec<String>,
    /// Unsupported options of the URI, which have no effect.
    ignored: Vec<&'static str>,
    selection: Arc<Selection>,
    failed_reads: Arc<Mutex<FailedReads>>,
}

impl MongoSource {
    /// Prepares a client, which connects on first use. Fails if the options are invalid, or if a `mongodb+srv` host
    /// does not resolve.
    pub async fn connect(options: MongoOptions) -> PortResult<Self> {
        let selection = Selection::new(&options.database, &options.collections)?;
        let uri = options.uri;
        let failed = |error: mongodb::error::Error| {
            let mut error = failure::port_error("parse mongodb.uri", &error);
            error.message = address::scrubbed(&error.message, uri.reveal(), crate::ADDRESSES);
            // Its text may quote a part of the password.
            error.source = None;
            error
        };
        let (address, ignored) = uri::without_ignored(uri.reveal());
        for option in &ignored {
            warn!("unsupported option {option} in mongodb.uri has no effect");
        }
        let mut client = ClientOptions::parse(address).await.map_err(failed)?;
        client.app_name.get_or_insert_with(|| "tidewheel".to_owned());
        client.server_selection_timeout.get_or_insert(SERVER_SELECTION);
        let hosts: Vec<String> = client.hosts.iter().map(ToString::to_string).collect();
        let client = Client::with_options(client).map_err(failed)?;
        let server = Server::new(client, selection.database(), &hosts.join(","));
        Ok(Self { server, hosts, ignored, selection: Arc::new(selection), failed_reads: Arc::default() })
    }

    /// Reads the state of the source.
    pub async fn inspect(&self) -> PortResult<MongoFacts> {
        inspect::inspect(self).await
    }

    /// Returns the identity of the database and its deployment.
    pub async fn identity(&self) -> PortResult<SourceIdentity> {
        deployment::identity(self).await
    }
}

#[async_trait]
impl SourceInspector for MongoSource {
    async fn cluster_time(&self) -> PortResult<ClusterTime> {
        self.server.now().await
    }

    async fn history(&self) -> PortResult<Option<SourceHistory>> {
        inspect::history(self).await
    }

    async fn passed_over(&self) -> PortResult<Vec<String>> {
        let listed = self.server.collections().await?.into_iter();
        let collections = listed.filter(|listed| listed.kind == Kind::Collection);
        let mut names: Vec<String> = collections.map(|listed| listed.name).collect();
        names.retain(|name| !name.starts_with("system."));
        if names.iter().any(|name| self.selection.contains(name)) {
            names.clear();
        }
        names.sort_unstable();
        Ok(names)
    }
}

#[async_trait]
impl Source for MongoSource {
    async fn now(&self) -> PortResult<ClusterTime> {
        self.server.now().await
    }

    fn selection(&self) -> String {
        self.selection.identity()
    }

    fn database(&self) -> &str {
        self.selection.database()
    }

    async fn open_narrow(&self, start: StartAt, first: usize) -> Result<Box<dyn Feed>, FeedError> {
        if self.selection.names_collections() {
            self.selection.check(&self.server.collections().await?)?;
        }
        feed::open(self.server.clone(), Arc::clone(&self.selection), Arc::clone(&self.failed_reads), start, first).await
    }

    async fn collections(&self) -> PortResult<Vec<Namespace>> {
        let listed = self.server.collections().await?;
        self.selection.check(&listed)?;
        let mut selected: Vec<Namespace> = listed
            .into_iter()
            // Neither views nor time series have change streams.
            .filter(|listed| listed.kind == Kind::Collection && self.selection.contains(&listed.name))
            .map(|listed| Namespace::new(self.selection.database(), &listed.name))
            .collect();
        selected.sort_unstable();
        Ok(selected)
    }

    async fn estimate(&self, namespace: &Namespace) -> PortResult<u64> {
        let collection = self.server.database().collection::<Document>(namespace.collection());
        self.server
            .run(&format!("count documents of {} in", namespace.collection()), async move {
                collection.estimated_document_count().await
            })
            .await
    }

    async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        filter: Option<&SourceFilter>,
    ) -> PortResult<Box<dyn Scan>> {
        if namespace.database() != self.selection.database() {
            return Err(PortError::fatal(format!("{namespace} is not in the database {}", self.selection.database())));
        }
        scan::open(self.server.clone(), namespace, after, at_least, filter)
    }

    async fn existing(&self, namespace: &Namespace, keys: &[String], at_least: ClusterTime) -> PortResult<Vec<bool>> {
        let selected =
            namespace.database() == self.selection.database() && self.selection.contains(namespace.collection());
        if !selected || keys.is_empty() {
            return Ok(vec![false; keys.len()]);
        }
        existing::existing(&self.server, namespace, keys, at_least).await
    }

    async fn fetch(&self, namespace: &Namespace, keys: &[String], at_least: ClusterTime) -> PortResult<Vec<SourceRow>> {
        let selected =
            namespace.database() == self.selection.database() && self.selection.contains(namespace.collection());
        if !selected || keys.is_empty() {
            return Ok(Vec::new());
        }
        existing::fetch(&self.server, namespace, keys, at_least).await
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn options(uri: &str) -> MongoOptions {
        MongoOptions { uri: Secret::new(uri), database: "shop".into(), collections: vec!["tickets".into()] }
    }

    #[tokio::test]
    async fn invalid_uri_error_is_fatal_and_redacts_password() {
        for uri in [
            "mongodb://anna:hunt@er2@host",
            "mongodb://anna:hunt/er2@host",
            "mongodb://anna:hunt?er2@host",
            "mongodb://anna:hunt#er2@host",
            "mongodb://anna:hunter2@host:port",
            "mongodb://host/?authMechanismProperties=AWS_SESSION_TOKEN:hunter2&tls=hunter2",
            "mongodb://host/?tlsCertificateKeyFilePassword=hunter2&maxPoolSize=hunter2",
            "mysql://anna:hunter2@host",
            "",
        ] {
            let error = MongoSource::connect(options(uri)).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Fatal, "{uri}: {error}");
            assert!(!error.message.contains("hunt") && !error.message.contains("er2"), "{error}");
            assert!(error.hint.is_some());
        }
    }

    #[tokio::test]
    async fn connect_does_not_require_a_server() {
        let source = MongoSource::connect(options("mongodb://anna:hunter2@127.0.0.1:1/")).await.unwrap();
        assert_eq!(source.selection(), r#"shop["tickets"]"#);
        assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
    }

    #[tokio::test]
    async fn unreachable_server_is_a_transient_error() {
        let uri = "mongodb://anna:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=50";
        let source = MongoSource::connect(options(uri)).await.unwrap();
        let error = source.now().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
        assert!(error.message.contains("127.0.0.1:1") && !error.message.contains("hunter2"), "{error}");
        let Err(FeedError::Port(error)) = source.open(StartAt::Time(ClusterTime::default())).await else {
            panic!("a feed without a server");
        };
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
    }
}
