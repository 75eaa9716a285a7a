//! Clients that search all the time, and note every search that fails or finds less than one before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tidewheel_core::catalog::IndexName;
use tidewheel_core::ports::Collections;
use tidewheel_embed::pool::{EmbedderPool, Transport};
use tidewheel_ops::search::{SearchPorts, find};
use tidewheel_pipeline::targets::{CatalogPorts, Targets};
use tidewheel_stores::qdrant::{QdrantCollections, QdrantOptions};
use tidewheel_stores::redis::{RedisOptions, RedisStore};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::clients::http;
use crate::world::World;

/// Interval of searches.
const EVERY: Duration = Duration::from_millis(50);

/// Documents that every search has to find.
pub(super) const MARKERS: i32 = 120;

/// More than there are documents.
const LIMIT: usize = 10_000;

/// What a search has found.
#[derive(Debug)]
pub(super) struct Hits {
    markers: usize,
    all: usize,
}

/// A client of the index.
pub(super) trait Client: Send + 'static {
    fn search(&mut self) -> impl Future<Output = Result<Hits, String>> + Send;
}

/// A client of Qdrant that knows the alias only. It embeds its query with the model that the collection records.
pub(super) struct AliasClient {
    http: reqwest::Client,
    collection: String,
    embeddings: String,
    vectors: BTreeMap<String, Value>,
}

impl AliasClient {
    pub(super) fn new(world: &World) -> Self {
        Self {
            http: http(),
            collection: format!("{}/collections/tickets", world.stack.qdrant_http_url().unwrap()),
            embeddings: format!("http://{}/v1/embeddings", world.embedder),
            vectors: BTreeMap::new(),
        }
    }

    /// The name of the model by which the points were made.
    async fn model(&self) -> Result<String, String> {
        let info = answer(self.http.get(&self.collection)).await?;
        let name = &info["result"]["config"]["metadata"]["tidewheel_index"]["declaration"]["embedding"]["name"];
        name.as_str().map(str::to_owned).ok_or_else(|| format!("the collection records no model: {info}"))
    }

    async fn hits(&mut self, model: &str) -> Result<Hits, String> {
        if !self.vectors.contains_key(model) {
            let query = json!({"input": "a parcel has not arrived", "model": model});
            let embedded = answer(self.http.post(&self.embeddings).json(&query)).await?;
            self.vectors.insert(model.to_owned(), embedded["data"][0]["embedding"].clone());
        }
        let query = json!({"vector": self.vectors[model], "limit": LIMIT, "with_payload": ["marker"]});
        let found = answer(self.http.post(format!("{}/points/search", self.collection)).json(&query)).await?;
        let hits = found["result"].as_array().ok_or_else(|| format!("not a list of points: {found}"))?;
        let markers = hits.iter().filter(|hit| hit["payload"]["marker"] == true).count();
        Ok(Hits { markers, all: hits.len() })
    }
}

impl Client for AliasClient {
    async fn search(&mut self) -> Result<Hits, String> {
        let model = self.model().await?;
        let found = self.hits(&model).await;
        if found.is_ok() {
            return found;
        }
        // The alias may have moved between both requests, to vectors of another dimension.
        match self.model().await? {
            other if other != model => self.hits(&other).await,
            _ => found,
        }
    }
}

/// Sends a request, and returns the JSON of its answer.
async fn answer(request: reqwest::RequestBuilder) -> Result<Value, String> {
    let response = request.send().await.map_err(|error| error.to_string())?;
    let status = response.status();
    let text = response.text().await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("{status}: {text}"));
    }
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

/// A client that searches as `tidewheel search` and the console do.
pub(super) struct CatalogClient(SearchPorts);

impl CatalogClient {
    pub(super) fn new(world: &World, embeddings: &[&str]) -> Self {
        // Clients of embedders need a cryptography provider.
        let _ = http();
        let redis = Arc::new(RedisStore::open(&RedisOptions::new(world.stack.redis_url())).unwrap());
        let qdrant = QdrantOptions::new(world.stack.qdrant_grpc_url().unwrap(), "");
        let collections: Arc<dyn Collections> = Arc::new(QdrantCollections::connect(qdrant).unwrap());
        let url = format!("http://{}", world.embedder);
        let transports = embeddings.iter().map(|name| ((*name).to_owned(), Transport::new(url.as_str())));
        let ports = CatalogPorts {
            store: redis.clone(),
            collections: collections.clone(),
            states: redis,
            embedders: Arc::new(EmbedderPool::new(transports.collect())),
            reuse: true,
        };
        Self(SearchPorts { targets: Arc::new(Targets::new(None, ports)), collections })
    }
}

impl Client for CatalogClient {
    async fn search(&mut self) -> Result<Hits, String> {
        let tickets = IndexName::new("tickets").expect("a valid name");
        let found = find(&self.0, Some(&tickets), "a parcel has not arrived", LIMIT, None).await;
        let found = found.map_err(|error| error.to_string())?;
        let markers = found.iter().filter(|hit| hit.document.get("marker") == Some(&Value::Bool(true))).count();
        Ok(Hits { markers, all: found.len() })
    }
}

/// Searches until stopped, and notes every search that fails or finds less than one before.
pub(super) struct Searching {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Searched>,
}

#[derive(Debug, Default)]
struct Searched {
    searches: u64,
    wrong: Vec<String>,
}

impl Searching {
    pub(super) fn start(client: impl Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(search(client, stop.clone()));
        Self { stop, task }
    }

    /// Stops; fails if any search was wrong.
    pub(super) async fn end(self, world: &World) {
        self.stop.store(true, Ordering::Relaxed);
        let Searched { searches, wrong } = self.task.await.expect("no panic");
        if !wrong.is_empty() || searches < 20 {
            let first = &wrong[..wrong.len().min(10)];
            world.fail(&format!("{} of {searches} searches failed or found less: {first:#?}", wrong.len()));
        }
    }
}

async fn search(mut client: impl Client, stop: Arc<AtomicBool>) -> Searched {
    let mut every = tokio::time::interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut searched, mut most) = (Searched::default(), 0);
    while !stop.load(Ordering::Relaxed) {
        every.tick().await;
        searched.searches += 1;
        match client.search().await {
            Ok(hits) => {
                if hits.markers != MARKERS as usize || hits.all < most {
                    searched.wrong.push(format!("{hits:?} after {most}"));
                }
                most = most.max(hits.all);
            }
            Err(error) => searched.wrong.push(error),
        }
    }
    searched
}
