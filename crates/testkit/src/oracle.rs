//! Checks whether a Qdrant collection exactly matches a MongoDB database.
//!
//! Reads every document and every point with the servers' own drivers, without tidewheel's adapters or payload code: a
//! bug there must not hide itself. The completeness of a row of chunks is checked by the same code as in `verify`.
//! Checks identity, namespace, version, the row of chunks, payload, and, if the caller provides expectations, chunk
//! texts and vectors.
//!
//! Memory grows with the number of points, not with their size: identities are read first, contents batch by batch.

mod coverage;
mod payload;
mod report;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use bson::{Bson, Document, RawDocumentBuf, doc};
use futures::TryStreamExt as _;
use mongodb::Client;
use mongodb::options::ReadConcern;
use qdrant_client::Qdrant;
use qdrant_client::qdrant::{
    GetPointsBuilder, PayloadIncludeSelector, PointId, RetrievedPoint, ScrollPointsBuilder, point_id::PointIdOptions,
    vector_output, vectors_output,
};
use serde_json::Value;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::key;
use tidewheel_core::row::{Place, row};

pub use self::report::{Difference, Report};

/// Documents compared per batch, and points read per call.
const PAGE: usize = 500;

/// Tolerance per element of a normalised vector: Qdrant normalises in its own way.
const TOLERANCE: f32 = 1e-4;

/// A server failed; whether index and source are equal is unknown.
#[derive(Debug, thiserror::Error)]
pub enum OracleError {
    /// MongoDB failed.
    #[error("oracle failed to read MongoDB: {0}")]
    Source(String),
    /// Qdrant failed.
    #[error("oracle failed to read Qdrant: {0}")]
    Index(String),
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
        Ok(Self { options, mongo, qdrant, render: None, embed: None, parked: None, undecodable: None })
    }

    /// Also checks that a document's chunks cover this text.
    #[must_use]
    pub fn with_text(mut self, render: impl Fn(&Document) -> String + Send + Sync + 'static) -> Self {
        self.render = Some(Box::new(render));
        self
    }

    /// Also checks that a chunk's vector has the expected direction.
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
        let mut points = self.identities(&mut report).await?;
        for collection in &self.options.collections {
            let namespace = Namespace::new(&self.options.database, collection);
            let mut documents = self
                .mongo
                .database(&self.options.database)
                .collection::<Document>(collection)
                .find(doc! {})
                .read_concern(ReadConcern::majority())
                .batch_size(PAGE as u32)
                .await
                .map_err(source)?;
            let mut batch = Vec::with_capacity(PAGE);
            while let Some(document) = documents.try_next().await.map_err(source)? {
                batch.push(document);
                if batch.len() == PAGE {
                    self.compare_batch(&namespace, std::mem::take(&mut batch), &mut points, &mut report).await?;
                }
            }
            self.compare_batch(&namespace, batch, &mut points, &mut report).await?;
        }
        if let Some(collection) = &self.undecodable {
            self.compare_serials(collection, &mut points, &mut report).await?;
        }
        report.extra.extend(points.into_keys().map(|(namespace, key)| format!("{namespace} {key}")));
        report.extra.sort_unstable();
        Ok(report)
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
                Err(error) if error.to_string().contains("doesn't exist") => return Ok(owners),
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

    async fn compare_batch(
        &self,
        namespace: &Namespace,
        documents: Vec<Document>,
        points: &mut HashMap<Owner, Vec<Identity>>,
        report: &mut Report,
    ) -> Result<(), OracleError> {
        let mut pairs = Vec::with_capacity(documents.len());
        for document in documents {
            report.documents += 1;
            let key = key::canonical(&canonical(document.get("_id").cloned().unwrap_or(Bson::Null))).into_owned();
            let owner = (namespace.to_string(), key);
            let parked = self.parked.as_ref().is_some_and(|parked| parked(&document));
            match points.remove(&owner) {
                Some(_) if parked => report.extra.push(format!("{} {}, which cannot be indexed", owner.0, owner.1)),
                None if parked => report.parked.push(format!("{} {}", owner.0, owner.1)),
                Some(identities) => pairs.push((owner, document, identities)),
                None => report.missing.push(format!("{} {}", owner.0, owner.1)),
            }
        }
        let ids: Vec<PointId> =
            pairs.iter().flat_map(|(_, _, identities)| identities).map(|identity| identity.id.clone().into()).collect();
        let contents = self.contents(ids).await?;
        for (owner, document, mut identities) in pairs {
            identities.sort_by_key(|identity| identity.chunk);
            let name = format!("{} {}", owner.0, owner.1);
            let chunks = row(&identities, Identity::place);
            let surplus = chunks.surplus.iter().map(|identity| format!("{name}, chunk {}", identity.chunk));
            report.surplus_chunks.extend(surplus);
            let same = chunks.whole.and_then(|()| self.compare_contents(&document, chunks.row, &contents));
            if let Err(what) = same {
                report.stale.push(Difference { document: name, what });
            }
        }
        Ok(())
    }

    /// Compares a collection whose documents the driver cannot decode.
    async fn compare_serials(
        &self,
        collection: &str,
        points: &mut HashMap<Owner, Vec<Identity>>,
        report: &mut Report,
    ) -> Result<(), OracleError> {
        let namespace = Namespace::new(&self.options.database, collection).to_string();
        let mut found = self
            .mongo
            .database(&self.options.database)
            .collection::<RawDocumentBuf>(collection)
            .find(doc! {})
            .read_concern(ReadConcern::majority())
            .await
            .map_err(source)?;
        let mut wanted = BTreeSet::new();
        while let Some(document) = found.try_next().await.map_err(source)? {
            report.documents += 1;
            wanted.extend(serial_of(document.as_bytes()));
        }
        let mut ids: Vec<PointId> = Vec::new();
        points.retain(|(of, _), identities| {
            let other = *of != namespace;
            if !other {
                ids.extend(identities.iter().map(|identity| PointId::from(identity.id.clone())));
            }
            other
        });
        for point in self.contents(ids).await?.into_values() {
            let serial = point.payload.get("serial").and_then(|value| value.clone().into_json().as_i64());
            if !serial.is_some_and(|serial| wanted.remove(&serial)) {
                report.extra.push(format!("{namespace} with serial {serial:?}"));
            }
        }
        report.missing.extend(wanted.into_iter().map(|serial| format!("{namespace} with serial {serial}")));
        Ok(())
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

    fn compare_contents(
        &self,
        document: &Document,
        chunks: &[Identity],
        contents: &HashMap<String, RetrievedPoint>,
    ) -> Result<(), String> {
        let mut texts = Vec::with_capacity(chunks.len());
        for Identity { id, chunk, .. } in chunks {
            let point = contents.get(id).ok_or_else(|| format!("chunk {chunk} disappeared during the comparison"))?;
            let payload: serde_json::Map<String, Value> =
                point.payload.iter().map(|(name, value)| (name.clone(), value.clone().into_json())).collect();
            payload::compare(document, &payload, *chunk == 0)
                .map_err(|what| format!("payload of chunk {chunk}: {what}"))?;
            let text = payload.get("_tidewheel").and_then(|reserved| reserved.get("text")).and_then(Value::as_str);
            let text = text.ok_or_else(|| format!("chunk {chunk} has no text"))?;
            if let Some(embed) = &self.embed {
                match vector_of(point).filter(|found| !found.is_empty()) {
                    None if text.trim().is_empty() => {}
                    None => return Err(format!("chunk {chunk} has no vector")),
                    Some(_) if text.trim().is_empty() => {
                        return Err(format!("chunk {chunk} has a vector without text"));
                    }
                    Some(found) => compare_vectors(embed(text), found)
                        .map_err(|what| format!("vector of chunk {chunk}: {what}"))?,
                }
            }
            texts.push(text.to_owned());
        }
        match &self.render {
            Some(render) => coverage::covers(&texts, &render(document)),
            None => Ok(()),
        }
    }
}

/// The text that the default settings embed: `subject` and `content`, each omitted if blank. For [`Oracle::with_text`].
pub fn text_of(document: &Document) -> String {
    let lines: Vec<&str> = ["subject", "content"]
        .into_iter()
        .filter_map(|field| document.get(field).and_then(Bson::as_str))
        .filter(|text| !text.trim().is_empty())
        .collect();
    lines.join("\n")
}

/// The field `serial` of a document, found in its bytes: a long.
fn serial_of(document: &[u8]) -> Option<i64> {
    const NAME: &[u8] = b"\x12serial\0";
    let at = document.windows(NAME.len()).position(|window| window == NAME)? + NAME.len();
    Some(i64::from_le_bytes(document.get(at..at + 8)?.try_into().ok()?))
}

/// A document: its namespace and its `_id` in canonical extended JSON.
type Owner = (String, String);

#[derive(Clone, Debug)]
struct Identity {
    id: String,
    chunk: u64,
    chunks: u64,
    version: (u64, u64),
}

impl Identity {
    fn place(&self) -> Place<(u64, u64)> {
        Place { chunk: self.chunk, chunks: self.chunks, version: self.version }
    }
}

/// The identity in a point's payload; `None` if it is missing or contradicts the point's id.
fn identify(point: &RetrievedPoint) -> Option<(Owner, Identity)> {
    let id = uuid_of(point)?;
    let reserved = point.payload.get("_tidewheel")?.clone().into_json();
    let (key, namespace) = (reserved.get("key")?.as_str()?, reserved.get("namespace")?.as_str()?);
    let number = |value: &Value, name: &str| value.get(name)?.as_u64();
    let version = reserved.get("version")?;
    let chunk = number(&reserved, "chunk")?;
    let expected = DocumentId::new(&Namespace::parse(namespace)?, key).point(u32::try_from(chunk).ok()?);
    if expected.to_string() != id {
        return None;
    }
    // Parsed and serialised by MongoDB's own library, so that only the value counts, not the notation. The form is
    // kept: a key in an older form does not belong to any document.
    let value: Value = serde_json::from_str(key).ok()?;
    let owner = (namespace.to_owned(), canonical(Bson::try_from(value).ok()?));
    let identity = Identity {
        id,
        chunk,
        chunks: number(&reserved, "chunks")?,
        version: (number(version, "high")?, number(version, "low")?),
    };
    Some((owner, identity))
}

fn canonical(id: Bson) -> String {
    id.into_canonical_extjson().to_string()
}

fn uuid_of(point: &RetrievedPoint) -> Option<String> {
    match point.id.as_ref()?.point_id_options.as_ref()? {
        PointIdOptions::Uuid(id) => Some(id.clone()),
        PointIdOptions::Num(_) => None,
    }
}

fn vector_of(point: &RetrievedPoint) -> Option<Vec<f32>> {
    match point.vectors.clone()?.vectors_options? {
        vectors_output::VectorsOptions::Vector(vector) => match vector.into_vector() {
            vector_output::Vector::Dense(dense) => Some(dense.data),
            _ => None,
        },
        vectors_output::VectorsOptions::Vectors(_) => None,
    }
}

fn compare_vectors(expected: Vec<f32>, found: Vec<f32>) -> Result<(), String> {
    if expected.len() != found.len() {
        return Err(format!("expected {} elements, found {}", expected.len(), found.len()));
    }
    let (expected, found) = (normalised(expected), normalised(found));
    let furthest = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    if furthest <= TOLERANCE { Ok(()) } else { Err(format!("an element differs by {furthest}")) }
}

fn normalised(mut vector: Vec<f32>) -> Vec<f32> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if norm > 0.0 {
        vector.iter_mut().for_each(|value| *value /= norm);
    }
    vector
}

fn source(error: impl std::fmt::Display) -> OracleError {
    OracleError::Source(error.to_string())
}

fn index(error: impl std::fmt::Display) -> OracleError {
    OracleError::Index(error.to_string())
}
