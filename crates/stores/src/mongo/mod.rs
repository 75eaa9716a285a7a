//! MongoDB as the source of changes.
//!
//! One change stream, of the database or of the deployment and filtered by collection, delivers every change in commit
//! order; scans read the initial snapshot. Filters are evaluated here, for events as for rows. Guarantees:
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
mod filters;
mod inspect;
mod keys;
mod pages;
mod pipeline;
mod query;
mod reading;
mod reduced;
mod reply;
mod sample;
mod scan;
mod selection;
mod server;
mod touched;
mod uri;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bson::Document;
use mongodb::Client;
use mongodb::options::ClientOptions;
use tidewheel_core::address;
use tidewheel_core::catalog::{Glob, Selector};
use tidewheel_core::identity::Namespace;
use tidewheel_core::installation::SourceIdentity;
use tidewheel_core::ports::{
    Coverage, Covered, Feed, FeedError, Judged, PortResult, Scan, Source, SourceFilter, SourceHistory, SourceInspector,
    SourceRow, StartAt,
};
use tidewheel_core::secret::Secret;
use tidewheel_core::version::ClusterTime;
use tracing::warn;

use filters::Filters;
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

/// Databases that no selector covers, and in which few users may list collections.
const SYSTEM_DATABASES: [&str; 3] = ["admin", "config", "local"];

/// Connection options for the source.
#[derive(Clone, Debug)]
pub struct MongoOptions {
    /// `mongodb://` or `mongodb+srv://`, with MongoDB's options for credentials, replica set and TLS (`tls=true`,
    /// `tlsCAFile=…`).
    pub uri: Secret,
    /// The database by which the [identity](MongoSource::identity) of the source differs from another one on the same
    /// deployment.
    pub database: String,
    /// The collections that operators inspect. A source itself selects nothing.
    pub selectors: Vec<Selector>,
}

impl MongoOptions {
    /// The options for collections of one database, by name; `*` matches any sequence of characters. No names select
    /// every non-system collection.
    pub fn of_database(uri: Secret, database: &str, collections: &[String]) -> Self {
        let selectors = vec![Selector::of_database(database, collections)];
        Self { uri, database: database.to_owned(), selectors }
    }
}

/// A MongoDB deployment as a source. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MongoSource {
    server: Server,
    /// The hosts of the URI.
    hosts: Vec<String>,
    /// Unsupported options of the URI, which have no effect.
    ignored: Vec<&'static str>,
    database: String,
    /// The collections that operators inspect.
    coverage: Arc<Coverage>,
    failed_reads: Arc<Mutex<FailedReads>>,
}

impl MongoSource {
    /// Prepares a client, which connects on first use. Fails if the options are invalid, or if a `mongodb+srv` host
    /// does not resolve.
    pub async fn connect(options: MongoOptions) -> PortResult<Self> {
        let MongoOptions { uri, database, selectors } = options;
        selection::check_names(&selectors)?;
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
        let server = Server::new(client, &hosts.join(","));
        let coverage = Arc::new(Coverage { selectors, filters: Vec::new() });
        Ok(Self { server, hosts, ignored, database, coverage, failed_reads: Arc::default() })
    }

    /// The source, restricted to the collections of its options.
    pub fn covered(&self) -> Covered {
        Covered { source: Arc::new(self.clone()), coverage: Arc::clone(&self.coverage) }
    }

    /// Reads the state of the source.
    pub async fn inspect(&self) -> PortResult<MongoFacts> {
        inspect::inspect(self).await
    }

    /// Returns the identity of the database and its deployment.
    pub async fn identity(&self) -> PortResult<SourceIdentity> {
        deployment::identity(self).await
    }

    /// The existing databases in which the selector may cover collections.
    async fn databases(&self, selector: &Selector) -> PortResult<BTreeSet<String>> {
        let patterns = || selector.inclusions().map(|pattern| &pattern.database);
        let mut databases: BTreeSet<String> = patterns().filter_map(Glob::exact).map(str::to_owned).collect();
        if patterns().any(|name| name.exact().is_none()) {
            let mut listed = self.server.databases().await?;
            listed.retain(|database| !SYSTEM_DATABASES.contains(&database.as_str()));
            databases.extend(listed.into_iter().filter(|database| patterns().any(|name| name.matches(database))));
        }
        Ok(databases)
    }

    /// Checks that no view is selected by name.
    async fn check_kinds(&self, selection: &Selection) -> PortResult<()> {
        for database in selection::databases_with_names(selection.selectors()) {
            let listed = self.server.collections(database).await.map_err(|error| selection.stream().explain(error))?;
            selection::check_kinds(selection.selectors(), database, &listed)?;
        }
        Ok(())
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
        let mut databases = BTreeSet::new();
        for selector in &self.coverage.selectors {
            databases.append(&mut self.databases(selector).await?);
        }
        let mut found: Vec<Namespace> = Vec::new();
        for database in &databases {
            let listed = self.server.collections(database).await?.into_iter();
            let collections = listed.filter(|listed| listed.kind == Kind::Collection);
            let names = collections.map(|listed| listed.name).filter(|name| !name.starts_with("system."));
            found.extend(names.map(|name| Namespace::new(database, &name)));
        }
        if found.iter().any(|namespace| self.coverage.covers(namespace)) {
            found.clear();
        }
        found.sort_unstable();
        let name = |namespace: &Namespace| match databases.len() {
            1 => namespace.collection().to_owned(),
            _ => namespace.to_string(),
        };
        Ok(found.iter().map(name).collect())
    }
}

#[async_trait]
impl Source for MongoSource {
    async fn now(&self) -> PortResult<ClusterTime> {
        self.server.now().await
    }

    async fn check(&self, coverage: &Coverage) -> PortResult<()> {
        // Filters first: they need no server.
        let selection = Selection::new(coverage)?;
        inspect::watch(&self.server, &selection).await?;
        self.check_kinds(&selection).await
    }

    fn scope(&self, coverage: &Coverage) -> String {
        selection::scope(&coverage.selectors)
    }

    async fn open_narrow(
        &self,
        coverage: &Arc<Coverage>,
        start: StartAt,
        first: usize,
    ) -> Result<Box<dyn Feed>, FeedError> {
        let selection = Arc::new(Selection::new(coverage)?);
        self.check_kinds(&selection).await?;
        feed::open(self.server.clone(), selection, Arc::clone(&self.failed_reads), start, first).await
    }

    async fn collections(&self, selector: &Selector) -> PortResult<Vec<Namespace>> {
        let mut selected = Vec::new();
        for database in self.databases(selector).await? {
            let listed = self.server.collections(&database).await?;
            selection::check_kinds(std::slice::from_ref(selector), &database, &listed)?;
            // Neither views nor time series have change streams.
            let collections = listed.into_iter().filter(|listed| listed.kind == Kind::Collection);
            let namespaces = collections.map(|listed| Namespace::new(&database, &listed.name));
            selected.extend(namespaces.filter(|namespace| selector.covers(namespace)));
        }
        selected.sort_unstable();
        Ok(selected)
    }

    async fn estimate(&self, namespace: &Namespace) -> PortResult<u64> {
        let (database, collection) = (namespace.database(), namespace.collection());
        let documents = self.server.database(database).collection::<Document>(collection);
        let count = async move { documents.estimated_document_count().await };
        self.server.run(&format!("count documents of {collection} in {database} on"), count).await
    }

    async fn sample(&self, namespace: &Namespace, most: usize, filters: &[SourceFilter]) -> PortResult<Vec<SourceRow>> {
        sample::sample(&self.server, namespace, most, &Filters::parse(filters)?).await
    }

    async fn scan(
        &self,
        namespace: &Namespace,
        after: Option<&str>,
        at_least: ClusterTime,
        judged: &Judged,
    ) -> PortResult<Box<dyn Scan>> {
        let filters = Filters::parse(&judged.filters)?;
        let mut pushed = judged.pushed.as_ref().map(filters::document).transpose()?;
        // The filters compare strings by their bytes.
        if pushed.is_some() && !filters.is_empty() && !self.server.compares_bytes(namespace).await? {
            pushed = None;
        }
        scan::open(self.server.clone(), namespace, after, at_least, filters, pushed)
    }

    async fn existing(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
        filter: Option<&SourceFilter>,
    ) -> PortResult<Vec<bool>> {
        existing::existing(&self.server, namespace, keys, at_least, filter).await
    }

    async fn fetch(
        &self,
        namespace: &Namespace,
        keys: &[String],
        at_least: ClusterTime,
        judged: &Judged,
    ) -> PortResult<Vec<SourceRow>> {
        existing::fetch(&self.server, namespace, keys, at_least, judged).await
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;

    use super::*;

    fn options(uri: &str) -> MongoOptions {
        MongoOptions::of_database(Secret::new(uri), "shop", &["tickets".to_owned()])
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
        assert_eq!(source.covered().scope(), r#"shop["tickets"]"#);
        assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
    }

    #[tokio::test]
    async fn unreachable_server_is_a_transient_error() {
        let uri = "mongodb://anna:hunter2@127.0.0.1:1/?serverSelectionTimeoutMS=50";
        let source = MongoSource::connect(options(uri)).await.unwrap();
        let error = source.now().await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
        assert!(error.message.contains("127.0.0.1:1") && !error.message.contains("hunter2"), "{error}");
        let Err(FeedError::Port(error)) = source.covered().open(StartAt::Time(ClusterTime::default())).await else {
            panic!("a feed without a server");
        };
        assert_eq!(error.class, ErrorClass::Transient, "{error}");
    }
}
