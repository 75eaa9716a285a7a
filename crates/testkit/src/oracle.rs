//! Checks whether a Qdrant collection exactly matches its source in MongoDB: collections of a database, or what an index
//! was [declared](Declared) to be.
//!
//! Reads every document and every point with the servers' own drivers, without tidewheel's adapters or payload code: a
//! bug there must not hide itself. For the same reason MongoDB itself evaluates the filter of an index. The completeness
//! of a row of chunks is checked by the same code as in `verify`, and identities, fingerprints and what points were made
//! by are those of the core. Checks identity, namespace, version, the row of chunks, payload, and, if the caller provides
//! expectations, chunk texts and vectors; of a declared index always the texts, the length of chunks, their fingerprints,
//! and what their text and payload were made by.
//!
//! Memory grows with the number of points, not with their size: identities are read first, contents batch by batch.

mod comparison;
mod coverage;
mod declared;
mod paths;
mod payload;
mod points;
mod record;
mod report;
mod text;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bson::{Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;
use mongodb::Client;
use mongodb::options::ReadConcern;
use mongodb::results::{CollectionSpecification, CollectionType};
use qdrant_client::Qdrant;
use qdrant_client::qdrant::{GetPointsBuilder, PayloadIncludeSelector, PointId, RetrievedPoint, ScrollPointsBuilder};
use tidewheel_core::identity::Namespace;

use self::comparison::Comparison;
pub use self::declared::Declared;
use self::points::{Identity, Owner, identify, uuid_of};
use self::record::Record;
pub use self::report::{Difference, Report};
pub use self::text::text_of;

/// Documents compared per batch, and points read per call.
const PAGE: usize = 500;

/// Whether index and source are equal is unknown.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// MongoDB failed.
    #[error("oracle failed to read MongoDB: {0}")]
    Source(String),
    /// Qdrant failed.
    #[error("oracle failed to read Qdrant: {0}")]
    Index(String),
    /// A declaration is invalid, or the oracle does not support it.
    #[error("oracle failed to read a declaration: {0}")]
    Declaration(String),
}

/// Options of the comparison. Without `Debug`: the addresses may contain passwords.
#[derive(Clone)]
pub struct OracleOptions {
    /// MongoDB's connection string.
    pub mongodb_uri: String,
    /// The database.
    pub database: String,
    /// The indexed collections.
    pub collections: Vec<String>,
    /// Qdrant's gRPC address.
    pub qdrant_url: String,
    /// Qdrant's API key, if required.
    pub qdrant_api_key: Option<String>,
    /// The collection in Qdrant.
    pub collection: String,
}

type Render = Box<dyn Fn(&Document) -> String + Send + Sync>;
type Embed = Box<dyn Fn(&str) -> Vec<f32> + Send + Sync>;
type Select = Box<dyn Fn(&Document) -> bool + Send + Sync>;

/// Compares index and source.
pub struct Oracle {
    options: OracleOptions,
    mongo: Client,
    qdrant: Qdrant,
    declared: Option<Declared>,
    render: Option<Render>,
    embed: Option<Embed>,
    parked: Option<Select>,
    undecodable: Option<String>,
}

impl Oracle {
    /// Connects to both servers.
    ///
    /// # Errors
    /// If an address is invalid.
    pub async fn connect(options: OracleOptions) -> Result<Self, OracleError> {
        let mongo = Client::with_uri_str(&options.mongodb_uri).await.map_err(source)?;
        let qdrant = Qdrant::from_url(&options.qdrant_url)
            .api_key(options.qdrant_api_key.clone())
            .skip_compatibility_check()
            .build()
            .map_err(index)?;
        Ok(Self { options, mongo, qdrant, declared: None, render: None, embed: None, parked: None, undecodable: None })
    }

    /// Compares with what an index was declared to be, instead of the collections in the options.
    #[must_use]
    pub fn with_declaration(mut self, declared: Declared) -> Self {
        self.declared = Some(declared);
        self
    }

    /// Also checks that a document's chunks cover this text.
    #[must_use]
    pub fn with_text(mut self, render: impl Fn(&Document) -> String + Send + Sync + 'static) -> Self {
        self.render = Some(Box::new(render));
        self
    }

    /// Also checks that the vector of a chunk has the direction that is expected of the embedder's input: the chunk, or
    /// its prefix and the chunk.
    #[must_use]
    pub fn with_vectors(mut self, embed: impl Fn(&str) -> Vec<f32> + Send + Sync + 'static) -> Self {
        self.embed = Some(Box::new(embed));
        self
    }

    /// Expects these documents to be dead letters without a point; the report lists them as parked.
    #[must_use]
    pub fn with_parked(mut self, parked: impl Fn(&Document) -> bool + Send + Sync + 'static) -> Self {
        self.parked = Some(Box::new(parked));
        self
    }

    /// Also compares a collection whose `_id`s are invalid UTF-8, by the field `serial`: a unique long.
    #[must_use]
    pub fn with_undecodable(mut self, collection: impl Into<String>) -> Self {
        self.undecodable = Some(collection.into());
        self
    }

    /// Compares until index and source are equal or the timeout expires; returns the last report.
    ///
    /// # Errors
    /// As [`Oracle::compare`], if the last comparison before the timeout fails.
    pub async fn wait_until_equal(&self, timeout: Duration) -> Result<Report, OracleError> {
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_millis(50);
        loop {
            let outcome = self.compare().await;
            if outcome.as_ref().is_ok_and(Report::is_equal) || Instant::now() + pause > deadline {
                return outcome;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Compares once. Concurrent changes of the source may show up as false differences.
    ///
    /// # Errors
    /// If a server cannot be read.
    pub async fn compare(&self) -> Result<Report, OracleError> {
        let mut report = Report::default();
        let record = if self.declared.is_some() { self.record(&mut report).await? } else { None };
        let points = self.identities(&mut report).await?;
        let mut comparison = Comparison { oracle: self, record, points, report };
        let filter = self.declared.as_ref().map_or_else(|| doc! {}, Declared::filter);
        for namespace in self.namespaces().await? {
            let mut documents = self
                .mongo
                .database(namespace.database())
                .collection::<Document>(namespace.collection())
                .find(filter.clone())
                .read_concern(ReadConcern::majority())
                .batch_size(PAGE as u32)
                .await
                .map_err(source)?;
            let mut batch = Vec::with_capacity(PAGE);
            while let Some(document) = documents.try_next().await.map_err(source)? {
                batch.push(document);
                if batch.len() == PAGE {
                    comparison.batch(&namespace, std::mem::take(&mut batch)).await?;
                }
            }
            comparison.batch(&namespace, batch).await?;
        }
        if let Some(collection) = &self.undecodable {
            let namespace = Namespace::new(&self.options.database, collection);
            comparison.serials(&namespace, &self.undecoded(collection).await?).await?;
        }
        Ok(comparison.finish())
    }

    /// The collections to compare.
    async fn namespaces(&self) -> Result<Vec<Namespace>, OracleError> {
        let Some(declared) = &self.declared else {
            let of_database = |collection: &String| Namespace::new(&self.options.database, collection);
            return Ok(self.options.collections.iter().map(of_database).collect());
        };
        let mut namespaces = Vec::new();
        for database in self.mongo.list_database_names().await.map_err(source)? {
            let listed = self.mongo.database(&database).list_collections().await.map_err(source)?;
            let listed: Vec<CollectionSpecification> = listed.try_collect().await.map_err(source)?;
            // Compared separately.
            let is_undecodable = |name: &str| {
                database == self.options.database && self.undecodable.as_deref().is_some_and(|other| other == name)
            };
            // Views are not indexed.
            let covered = listed.iter().filter(|found| {
                found.collection_type == CollectionType::Collection
                    && declared.covers(&database, &found.name)
                    && !is_undecodable(&found.name)
            });
            namespaces.extend(covered.map(|found| Namespace::new(&database, &found.name)));
        }
        Ok(namespaces)
    }

    /// What the collection records about its index. Reports a collection without a record as extra.
    async fn record(&self, report: &mut Report) -> Result<Option<Record>, OracleError> {
        let info = match self.qdrant.collection_info(self.options.collection.as_str()).await {
            Ok(answer) => answer.result,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(index(error)),
        };
        let metadata = info.and_then(|info| info.config).map(|config| config.metadata).unwrap_or_default();
        let record = Record::read(metadata).map_err(OracleError::Index)?;
        if record.is_none() {
            report.extra.push(format!("collection {:?}, which records no index", self.options.collection));
        }
        Ok(record)
    }

    /// Reads the identities of all points, grouped by document. Reports points without a valid identity as extra.
    async fn identities(&self, report: &mut Report) -> Result<HashMap<Owner, Vec<Identity>>, OracleError> {
        let fields = ["key", "namespace", "version", "chunk", "chunks"].map(|name| format!("_tidewheel.{name}"));
        let mut owners: HashMap<Owner, Vec<Identity>> = HashMap::new();
        let mut offset: Option<PointId> = None;
        loop {
            let mut request = ScrollPointsBuilder::new(&self.options.collection)
                .limit(2 * PAGE as u32)
                .with_payload(PayloadIncludeSelector { fields: fields.to_vec() })
                .with_vectors(false);
            if let Some(offset) = offset {
                request = request.offset(offset);
            }
            let page = match self.qdrant.scroll(request).await {
                Ok(page) => page,
                // A missing collection counts as empty.
                Err(error) if is_missing(&error) => return Ok(owners),
                Err(error) => return Err(index(error)),
            };
            for point in page.result {
                report.points += 1;
                match identify(&point) {
                    Some((owner, identity)) => owners.entry(owner).or_default().push(identity),
                    None => report.extra.push(format!("point {:?}, whose payload is not tidewheel's", point.id)),
                }
            }
            offset = page.next_page_offset;
            if offset.is_none() {
                return Ok(owners);
            }
        }
    }

    /// The documents of a collection that the driver cannot decode.
    async fn undecoded(&self, collection: &str) -> Result<Vec<RawDocumentBuf>, OracleError> {
        let found = self
            .mongo
            .database(&self.options.database)
            .collection::<RawDocumentBuf>(collection)
            .find(doc! {})
            .read_concern(ReadConcern::majority())
            .await
            .map_err(source)?;
        found.try_collect().await.map_err(source)
    }

    async fn contents(&self, ids: Vec<PointId>) -> Result<HashMap<String, RetrievedPoint>, OracleError> {
        let mut contents = HashMap::with_capacity(ids.len());
        for ids in ids.chunks(PAGE) {
            let request = GetPointsBuilder::new(&self.options.collection, ids.to_vec())
                .with_payload(true)
                .with_vectors(self.embed.is_some());
            let points = self.qdrant.get_points(request).await.map_err(index)?.result;
            contents.extend(points.into_iter().filter_map(|point| Some((uuid_of(&point)?, point))));
        }
        Ok(contents)
    }
}

/// Whether the collection does not exist.
fn is_missing(error: &qdrant_client::QdrantError) -> bool {
    error.to_string().contains("doesn't exist")
}

fn source(error: impl std::fmt::Display) -> OracleError {
    OracleError::Source(error.to_string())
}

fn index(error: impl std::fmt::Display) -> OracleError {
    OracleError::Index(error.to_string())
}
