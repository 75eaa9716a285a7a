//! One collection: the engine's shard, its writer thread, and its files.
//!
//! ```text
//! collections/NAME/collection.json   configuration, and the uuid of the current storage directory
//! collections/NAME/<uuid>/           the engine's files
//! collections/NAME/<uuid>/oplog      confirmed writes since the engine's last flush
//! ```
//!
//! `collection.json` is written last and removed first: without it the collection does not exist, whatever other files
//! the directory contains.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use qdrant_edge::{
    CountRequest, CreateIndex, EdgeShard, FieldIndexOperations, JsonPath, OperationResult, PayloadFieldSchema,
    PayloadIndexInfo, UpdateOperation,
};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::config::{CollectionConfig, ConfigChanges};
use super::error::ApiError;
use super::files::{remove_durably, sync_parent, write_atomically};
use super::oplog::OpLog;
use super::shared::{BuildSlot, Shared};
use super::wal::EngineWal;
use super::write::Write;
use super::writer::{self, Message, Writer};

/// Capacity of the write queue. Further writes wait in their request.
const QUEUE: usize = 64;

const CONFIG_FILE: &str = "collection.json";

/// How long shutdown waits for an index build. An aborted build loses only its own work.
const BUILD_TIMEOUT: Duration = Duration::from_secs(5);

/// Result of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) operation_id: u64,
    /// Whether the write is applied and durable; otherwise it is queued.
    pub(crate) completed: bool,
}

/// A snapshot of the fields of `GET /collections/NAME`.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) config: CollectionConfig,
    pub(crate) points: usize,
    pub(crate) indexed_vectors: usize,
    pub(crate) segments: usize,
    pub(crate) optimizing: bool,
    pub(crate) payload_schema: Vec<(JsonPath, PayloadIndexInfo)>,
}

/// A served collection. Cheap to share.
pub(crate) struct Collection {
    pub(crate) shared: Arc<Shared>,
    directory: PathBuf,
    storage: Uuid,
    queue: mpsc::Sender<Message>,
    writer: Mutex<Option<JoinHandle<()>>>,
    operations: AtomicU64,
    /// Distinguishes a late write to a deleted collection from one during shutdown.
    deleted: AtomicBool,
}

/// Contents of `collection.json`.
#[derive(Serialize, Deserialize)]
struct OnDisk {
    storage: Uuid,
    config: CollectionConfig,
}

impl Collection {
    /// Creates the files and starts the collection. Before `collection.json` is written, a kill leaves only a directory
    /// that the next start removes.
    pub(crate) fn create(
        directory: &Path,
        name: &str,
        config: CollectionConfig,
        builds: BuildSlot,
    ) -> Result<Self, ApiError> {
        let storage = Uuid::new_v4();
        let files = directory.join(storage.to_string());
        fs::create_dir_all(&files)?;
        let shard = EdgeShard::new(&files, config.to_engine())?;
        shard.flush();
        sync_parent(&files)?;
        sync_parent(directory)?;
        let collection = Self::start(directory, name, storage, shard, config, builds)?;
        collection.save_config()?;
        Ok(collection)
    }

    /// Loads the collection in `directory`. `None`: there is none.
    pub(crate) fn load(directory: &Path, name: &str, builds: BuildSlot) -> Result<Option<Self>, ApiError> {
        let bytes = match fs::read(directory.join(CONFIG_FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let OnDisk { storage, config } = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::Internal(format!("{CONFIG_FILE} of collection `{name}`: {error}")))?;
        remove_leftovers(directory, storage)?;
        let files = directory.join(storage.to_string());
        EngineWal::new(&files).release(true);
        let shard = EdgeShard::load(&files, Some(config.to_engine()))?;
        complete_indexes(&shard)?;
        Self::start(directory, name, storage, shard, config, builds).map(Some)
    }

    /// Replays the log into the shard and starts the writer.
    fn start(
        directory: &Path,
        name: &str,
        storage: Uuid,
        shard: EdgeShard,
        config: CollectionConfig,
        builds: BuildSlot,
    ) -> Result<Self, ApiError> {
        let files = directory.join(storage.to_string());
        let (mut replayed, mut failed) = (0_u64, None);
        let mut log = OpLog::open(&files.join("oplog"), |record| {
            if failed.is_none() {
                failed = writer::replay(&shard, record).err();
                replayed += 1;
            }
        })?;
        if let Some(error) = failed {
            return Err(ApiError::Internal(format!(
                "collection `{name}`: failed to replay the operation log: {error}"
            )));
        }
        if replayed > 0 {
            shard.flush();
            log.clear()?;
            tracing::info!(collection = name, operations = replayed, "replayed the operation log");
        }
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            shard,
            config: RwLock::new(config),
            optimizing: AtomicBool::new(false),
            builds,
        });
        let (queue, inbox) = mpsc::channel(QUEUE);
        let writer = Writer {
            shared: Arc::clone(&shared),
            inbox,
            log,
            engine_wal: EngineWal::new(&files),
            last_write: Instant::now(),
            suspect: false,
            unoptimized: true,
            buffer: Vec::new(),
        };
        let thread = std::thread::Builder::new().name("qdrant-writer".to_owned()).spawn(move || writer.run())?;
        Ok(Self {
            shared,
            directory: directory.to_owned(),
            storage,
            queue,
            writer: Mutex::new(Some(thread)),
            operations: AtomicU64::new(replayed),
            deleted: AtomicBool::new(false),
        })
    }

    fn save_config(&self) -> Result<(), ApiError> {
        let on_disk = OnDisk { storage: self.storage, config: self.shared.config() };
        let json = serde_json::to_vec_pretty(&on_disk).map_err(|error| ApiError::Internal(error.to_string()))?;
        Ok(write_atomically(&self.directory.join(CONFIG_FILE), &json)?)
    }

    /// Changes the configuration, or nothing if a change is invalid. The catalog serialises the calls.
    pub(crate) fn update_config(&self, changes: ConfigChanges) -> Result<(), ApiError> {
        let mut config = self.shared.config();
        config.apply(changes)?;
        self.shared.shard.set_hnsw_config(config.engine_hnsw())?;
        self.shared.shard.set_optimizers_config(config.engine_optimizers())?;
        *self.shared.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        self.save_config()
    }

    /// Queues a write. With `wait`, returns when it is applied and durable.
    pub(crate) async fn write(&self, write: Write, wait: bool) -> Result<Outcome, ApiError> {
        {
            let config = self.shared.config.read().unwrap_or_else(PoisonError::into_inner);
            write.check(&config.vectors)?;
        }
        let gone = || {
            if self.deleted.load(Ordering::Acquire) {
                ApiError::no_collection(&self.shared.name)
            } else {
                ApiError::Stopping
            }
        };
        let (reply, answer) = if wait {
            let (reply, answer) = oneshot::channel();
            (Some(reply), Some(answer))
        } else {
            (None, None)
        };
        self.queue.send(Message::Write { write: Box::new(write), reply }).await.map_err(|_| gone())?;
        let operation_id = self.operations.fetch_add(1, Ordering::Relaxed);
        if let Some(answer) = answer {
            answer.await.map_err(|_| gone())??;
        }
        Ok(Outcome { operation_id, completed: wait })
    }

    /// Queues several writes in order; stops at the first that fails, as Qdrant does.
    pub(crate) async fn write_all(&self, writes: Vec<Write>, wait: bool) -> Result<Vec<Outcome>, ApiError> {
        let mut outcomes = Vec::with_capacity(writes.len());
        for write in writes {
            outcomes.push(self.write(write, wait).await?);
        }
        Ok(outcomes)
    }

    /// Runs a read on the engine, off the threads that serve connections.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&EdgeShard) -> OperationResult<T> + Send + 'static,
    ) -> Result<T, ApiError> {
        let shared = Arc::clone(&self.shared);
        let result = tokio::task::spawn_blocking(move || read(&shared.shard)).await;
        Ok(result.map_err(|error| ApiError::Internal(format!("engine panicked: {error}")))??)
    }

    pub(crate) async fn info(&self) -> Result<Info, ApiError> {
        let points = self.read(|shard| shard.count(CountRequest { filter: None, exact: true })).await?;
        let engine = self.read(|shard| Ok(shard.info())).await?;
        let mut payload_schema: Vec<_> = engine.payload_schema.into_iter().collect();
        payload_schema.sort_by(|(left, _), (right, _)| left.cmp(right));
        Ok(Info {
            config: self.shared.config(),
            points,
            indexed_vectors: engine.indexed_vectors_count,
            segments: engine.segments_count,
            optimizing: self.shared.optimizing.load(Ordering::Acquire),
            payload_schema,
        })
    }

    /// Triggers maintenance of the log and the index. Skipped when the queue is full: the writer is busy anyway.
    pub(crate) fn tick(&self) {
        let _ = self.queue.try_send(Message::Tick);
    }

    /// Drains the queue, flushes and waits for the writer to end.
    pub(crate) async fn stop(&self) {
        // The queue is closed if the writer has ended already.
        let _ = self.queue.send(Message::Stop).await;
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writer) = writer
            && let Err(error) = tokio::task::spawn_blocking(move || writer.join()).await
        {
            tracing::error!(collection = %self.shared.name, %error, "failed to join the writer thread");
        }
        let deadline = Instant::now() + BUILD_TIMEOUT;
        while self.shared.optimizing.load(Ordering::Acquire) && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Deletes the collection durably. Its other files are removed when the last request that uses them is done.
    pub(crate) fn delete_config(&self) -> Result<(), ApiError> {
        remove_durably(&self.directory.join(CONFIG_FILE))?;
        self.deleted.store(true, Ordering::Release);
        Ok(())
    }

    /// Removes the files of a deleted collection. Waits for requests and index builds that still read them.
    pub(crate) async fn remove_files(self: Arc<Self>) {
        self.stop().await;
        let files = self.directory.join(self.storage.to_string());
        let directory = self.directory.clone();
        let mut collection = self;
        let collection = loop {
            match Arc::try_unwrap(collection) {
                Ok(collection) => break collection,
                Err(shared) => collection = shared,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let mut shared = collection.shared;
        let shared = loop {
            match Arc::try_unwrap(shared) {
                Ok(shared) => break shared,
                Err(used) => shared = used,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let removed = tokio::task::spawn_blocking(move || {
            // Dropping the shard flushes it, so its files must still exist.
            drop(shared);
            fs::remove_dir_all(&files)?;
            // Fails if the collection was created again meanwhile.
            let _ = fs::remove_dir(&directory);
            std::io::Result::Ok(())
        });
        match removed.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "failed to remove the files of a deleted collection"),
            Err(error) => tracing::warn!(%error, "failed to remove the files of a deleted collection"),
        }
    }
}

/// Removes leftovers of earlier creations and deletions, and incomplete indexes.
fn remove_leftovers(directory: &Path, storage: Uuid) -> Result<(), ApiError> {
    let keep = storage.to_string();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != keep.as_str() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    let incomplete = directory.join(keep).join("temp_segments");
    if incomplete.exists() {
        fs::remove_dir_all(incomplete)?;
    }
    Ok(())
}

/// Creates the payload indexes of all segments in every segment: one that the engine created while loading lacks them.
fn complete_indexes(shard: &EdgeShard) -> Result<(), ApiError> {
    for (field_name, info) in shard.info().payload_schema {
        let schema = PayloadFieldSchema::try_from(info).map_err(ApiError::Internal)?;
        let index = CreateIndex { field_name, field_schema: Some(schema) };
        shard.update(UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(index)))?;
    }
    Ok(())
}
