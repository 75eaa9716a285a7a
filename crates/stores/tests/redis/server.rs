//! A redis-server per test.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue, Value};
use tempfile::TempDir;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{
    Appended, Backlog, CatalogStore, CollectionRegistry, DeadLetters, Delivery, EntryFinder, EntryId, Follower,
    Handover, Journal, QueueServerInspector, ReportReader, StageInspector, StageQueue, StreamLog, TargetStates,
    Tombstones,
};
use tidewheel_core::stage::Stage;
use tidewheel_local::provision::Provisioner;
use tidewheel_local::silent;
use tidewheel_local::stack::{Fsync, Redis, Server};
use tidewheel_stores::redis::keys::{STAGE_1, STAGE_2_REPLAY, StreamKeys};
use tidewheel_stores::redis::wire::RawFields;
use tidewheel_stores::redis::{RedisOptions, RedisQueue, RedisStore};
use tidewheel_testkit::contracts::catalog::CatalogHarness;
use tidewheel_testkit::contracts::samples;
use tidewheel_testkit::contracts::streams::StreamsHarness;
use tidewheel_testkit::proxy::Proxy;

/// A server, stopped on drop, and the adapters on it.
pub(crate) struct TestRedis {
    pub(crate) server: Server,
    pub(crate) store: RedisStore,
    pub(crate) data: TempDir,
}

impl TestRedis {
    /// Starts a server that syncs each write to disk, so that a kill loses nothing.
    pub(crate) async fn start() -> Self {
        let data = TempDir::new().unwrap();
        let program = Provisioner::new(silent()).unwrap().redis_server().await.unwrap();
        let redis = Redis { fsync: Fsync::Always, ..Redis::new(program, data.path()) };
        let server = redis.start(silent()).await.unwrap();
        let store = RedisStore::connect(&RedisOptions::new(server.url())).await.unwrap();
        Self { server, store, data }
    }

    /// Sends a command as an operator would.
    pub(crate) async fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query_async(&mut self.operator().await).await.unwrap()
    }

    /// A connection for a test's own commands, with a longer timeout than the client's default of half a second.
    async fn operator(&self) -> MultiplexedConnection {
        let timeout = Some(Duration::from_secs(60));
        let config = AsyncConnectionConfig::new().set_connection_timeout(timeout).set_response_timeout(timeout);
        let client = redis::Client::open(self.server.url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// The adapters through a proxy.
    pub(crate) async fn through_proxy(&self) -> (Proxy, RedisStore) {
        let proxy = Proxy::start(format!("127.0.0.1:{}", self.server.port())).await.unwrap();
        let url = format!("redis://127.0.0.1:{}/", proxy.port());
        let store = RedisStore::connect(&RedisOptions::new(url)).await.unwrap();
        (proxy, store)
    }

    /// Stage 1 for this consumer.
    pub(crate) fn stage_1(&self, consumer: &str) -> RedisQueue<Change> {
        self.store.queue(STAGE_1, consumer)
    }

    /// The numbers of all inserts on stage 1.
    pub(crate) async fn on_stage_1(&self) -> Vec<u32> {
        self.documents(STAGE_1.stream).await
    }

    /// The numbers of the documents in a stream's entries.
    pub(crate) async fn documents(&self, stream: &str) -> Vec<u32> {
        let entries: Vec<(String, RawFields)> = self.command(&["XRANGE", stream, "-", "+"]).await;
        entries
            .into_iter()
            .map(|(_, fields)| {
                let id = fields.into_iter().find(|(name, _)| name == b"id").unwrap().1;
                String::from_utf8(id).unwrap().parse().unwrap()
            })
            .collect()
    }
}

/// Appends these inserts in one step, after the existing entries.
pub(crate) async fn append(journal: &dyn Journal, numbers: impl IntoIterator<Item = u32>) {
    let changes = samples::changes(numbers);
    let last = changes.last().unwrap().version.time.increment;
    let saved = journal.load().await.unwrap();
    let appended = journal.append(saved.as_ref(), &changes, &samples::checkpoint(last)).await.unwrap();
    assert_eq!(appended, Appended::Saved);
}

/// The numbers of the delivered inserts.
pub(crate) fn numbers(deliveries: &[Delivery<Change>]) -> Vec<u32> {
    deliveries.iter().map(|delivery| delivery.record.as_ref().unwrap().id.parse().unwrap()).collect()
}

/// The ids of the delivered entries.
pub(crate) fn ids<T>(deliveries: &[Delivery<T>]) -> Vec<EntryId> {
    deliveries.iter().map(|delivery| delivery.id.clone()).collect()
}

#[async_trait]
impl StreamsHarness for TestRedis {
    fn journal(&self) -> Arc<dyn Journal> {
        Arc::new(self.store.clone())
    }

    fn changes(&self, stage: StreamKeys, consumer: &str) -> Arc<dyn StageQueue<Change>> {
        Arc::new(self.store.queue(stage, consumer))
    }

    fn embedded(&self, consumer: &str) -> Arc<dyn StageQueue<Embedded>> {
        Arc::new(self.store.queue(tidewheel_stores::redis::keys::STAGE_2, consumer))
    }

    fn handover(&self) -> Arc<dyn Handover> {
        Arc::new(self.store.clone())
    }

    fn tombstones(&self) -> Arc<dyn Tombstones> {
        Arc::new(self.store.clone())
    }

    fn collection_registry(&self) -> Arc<dyn CollectionRegistry> {
        Arc::new(self.store.clone())
    }

    fn stream_log(&self) -> Arc<dyn StreamLog<Change>> {
        Arc::new(self.store.stream_log(STAGE_1))
    }

    fn backlog(&self, stage: Stage) -> Arc<dyn Backlog> {
        Arc::new(self.store.stream_log::<Change>(stage))
    }

    fn follower(&self) -> Arc<dyn Follower> {
        Arc::new(self.store.clone())
    }

    fn dead_letters(&self) -> Arc<dyn DeadLetters> {
        Arc::new(self.store.clone())
    }

    fn replay(&self, consumer: &str) -> Arc<dyn StageQueue<Embedded>> {
        Arc::new(self.store.queue(STAGE_2_REPLAY, consumer))
    }

    fn stages(&self) -> Arc<dyn StageInspector> {
        Arc::new(self.store.clone())
    }

    fn finder(&self) -> Arc<dyn EntryFinder> {
        Arc::new(self.store.clone())
    }

    fn queue_server(&self) -> Arc<dyn QueueServerInspector> {
        Arc::new(self.store.clone())
    }

    fn reports(&self) -> Arc<dyn ReportReader> {
        Arc::new(self.store.clone())
    }

    async fn publish(&self, process: &str, text: &str) {
        self.store.publish(process, text).await.unwrap();
    }

    async fn add_raw(&self, stream: &'static str, fields: RawFields) -> EntryId {
        let mut command = redis::cmd("XADD");
        command.arg(stream).arg("*").arg(&fields);
        EntryId(command.query_async(&mut self.operator().await).await.unwrap())
    }

    async fn raw(&self, stream: &'static str) -> Vec<RawFields> {
        let entries: Vec<(String, RawFields)> = self.command(&["XRANGE", stream, "-", "+"]).await;
        entries.into_iter().map(|(_, fields)| fields).collect()
    }

    async fn delete_entry(&self, stream: &'static str, id: &EntryId) {
        assert_eq!(self.command::<u64>(&["XDEL", stream, &id.0]).await, 1);
    }

    async fn delete_stream(&self, stream: &'static str) {
        assert_eq!(self.command::<u64>(&["DEL", stream]).await, 1);
    }

    async fn destroy_group(&self, stage: StreamKeys) {
        self.command::<Value>(&["XGROUP", "DESTROY", stage.stream, stage.group]).await;
    }
}

impl CatalogHarness for TestRedis {
    fn catalog(&self) -> Arc<dyn CatalogStore> {
        Arc::new(self.store.clone())
    }

    fn targets(&self) -> Arc<dyn TargetStates> {
        Arc::new(self.store.clone())
    }
}
