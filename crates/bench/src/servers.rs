//! The servers of all sides, and the benchmark's clients.

use std::error::Error;

use mongodb::bson::Document;
use mongodb::options::WriteConcern;
use qdrant_client::Qdrant;
use qdrant_client::qdrant::{CountPointsBuilder, GetPointsBuilder};
use tidewheel_local::stack::Stack;
use uuid::Uuid;

/// The source database.
pub const DATABASE: &str = "bench";
/// The source collection of all sides.
pub const COLLECTION: &str = "tickets";
/// The Qdrant collection of all sides.
pub const INDEX: &str = "documents";

/// The servers' URLs and the benchmark's clients.
pub struct Servers {
    pub mongodb_uri: String,
    pub redis_url: String,
    pub qdrant_http_url: String,
    pub qdrant_grpc_url: String,
    pub tickets: mongodb::Collection<Document>,
    redis: redis::Client,
    pub qdrant: Qdrant,
    /// Vector dimension.
    pub dimension: usize,
}

impl Servers {
    /// Connects to the stack.
    pub async fn connect(stack: &Stack, dimension: usize) -> Result<Self, Box<dyn Error>> {
        let client = mongodb::Client::with_uri_str(stack.mongodb_uri()).await?;
        let options = mongodb::options::CollectionOptions::builder().write_concern(WriteConcern::majority()).build();
        let qdrant_grpc_url = stack.qdrant_grpc_url().ok_or("the stack has no Qdrant")?;
        Ok(Self {
            mongodb_uri: stack.mongodb_uri(),
            redis_url: stack.redis_url(),
            qdrant_http_url: stack.qdrant_http_url().ok_or("the stack has no Qdrant")?,
            tickets: client.database(DATABASE).collection_with_options(COLLECTION, options),
            redis: redis::Client::open(stack.redis_url())?,
            qdrant: Qdrant::from_url(&qdrant_grpc_url).skip_compatibility_check().build()?,
            qdrant_grpc_url,
            dimension,
        })
    }

    /// Deletes all data, so that every side starts empty.
    pub async fn clear(&self) -> Result<(), Box<dyn Error>> {
        self.tickets.drop().await?;
        let mut redis = self.redis.get_multiplexed_async_connection().await?;
        redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
        if self.qdrant.collection_exists(INDEX).await? {
            self.qdrant.delete_collection(INDEX).await?;
        }
        Ok(())
    }

    /// Whether the point is readable.
    pub async fn is_searchable(&self, point: Uuid) -> bool {
        let request = GetPointsBuilder::new(INDEX, vec![point.to_string().into()]);
        self.qdrant.get_points(request).await.is_ok_and(|answer| !answer.result.is_empty())
    }

    /// Returns the exact number of points.
    pub async fn points(&self) -> u64 {
        let answer = self.qdrant.count(CountPointsBuilder::new(INDEX).exact(true)).await;
        answer.ok().and_then(|answer| answer.result).map_or(0, |result| result.count)
    }
}
