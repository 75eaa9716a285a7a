//! Builds producer, processor and upserter from the settings.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::health::Health;
use tidewheel_core::ports::{KnownVectors, PortResult, Retention};
use tidewheel_core::stage::Stage;
use tidewheel_core::trace::Tracer;
use tidewheel_pipeline::consumer::ConsumerOptions;
use tidewheel_pipeline::processor::{LeftOut, Processor, ProcessorOptions, ProcessorPorts};
use tidewheel_pipeline::producer::{ControllerPorts, Producer, ProducerOptions, ProducerPorts};
use tidewheel_pipeline::retry::{RetryError, RetryPolicy};
use tidewheel_pipeline::service::ServiceError;
use tidewheel_pipeline::upserter::{Upserter, UpserterOptions};
use tidewheel_stores::redis::RedisStore;
use tokio_util::sync::CancellationToken;

use super::Ready;
use super::ownership::{guard, while_owned};
use crate::exit::Failure;
use crate::settings::{Consumer, Settings};
use crate::{compose, connect};

/// A service, ready to run.
pub(crate) type Task = Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// Lease duration of a silent producer. The lease is renewed several times within it.
const LEASE: Duration = Duration::from_secs(10);

pub(super) fn producer(
    settings: &Settings,
    tracer: Option<Tracer>,
    shutdown: CancellationToken,
) -> Result<(Task, Ready), Failure> {
    let mongo = connect::mongo_options(settings, "the producer")?;
    let redis = connect::redis(settings)?;
    let options = ProducerOptions {
        owner: own_name("producer"),
        snapshot: settings.producer.snapshot,
        high_water: settings.producer.high_water,
        lease: LEASE,
        // Retained entries must not outlive the tombstones of later deletions.
        tombstone_grace: settings.streams.tombstone_grace.max(settings.streams.retention_age),
        audit_interval: settings.audit_interval,
        declared: settings.declarations(),
        is_declared: settings.is_declared(),
    };
    // An invalid template ends the service, not its first audit.
    left_out(settings)?;
    let index = connect::index(settings)?;
    // Resolving the source's addresses precedes the producer, and may fail transiently.
    let health = Health::of(tidewheel_pipeline::producer::NAME);
    let running = Arc::new(std::sync::Mutex::new(health.clone()));
    let current = running.clone();
    let settings = settings.clone();
    let task = async move {
        if !redis_is_fit(&redis, &health, &shutdown).await? {
            return Ok(());
        }
        let connect = || connect::source(mongo.clone());
        let Some(source) = with_retries("look up MongoDB", &health, &shutdown, connect).await? else { return Ok(()) };
        let identify = || source.identity();
        let Some(identity) = with_retries("identify MongoDB", &health, &shutdown, identify).await? else {
            return Ok(());
        };
        let guard = Arc::new(guard(&settings, &redis, Some(index), Some(identity)));
        let targets = compose::owned_targets(&settings, &redis, &guard)?;
        // Redis only: the producer works while Qdrant is unreachable.
        let check = || guard.check_redis();
        if with_retries("check the owner of Redis", &health, &shutdown, check).await?.is_none() {
            return Ok(());
        }
        let ports = ProducerPorts {
            source: Arc::new(source),
            journal: Arc::new(redis.clone()),
            backlog: Arc::new(redis.stream_log::<Change>(Stage::Raw)),
            targets,
            controller: Some(ControllerPorts {
                embedded: Arc::new(redis.stream_log::<Embedded>(Stage::Embedded)),
                letters: Arc::new(redis.clone()),
                registry: Arc::new(redis),
            }),
        };
        let producer = Producer::new(options, ports).traced(tracer);
        *running.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = producer.health();
        while_owned(&guard, &shutdown, producer.run(shutdown.clone())).await
    };
    let ready = move || current.lock().unwrap_or_else(std::sync::PoisonError::into_inner).readiness();
    Ok((Box::pin(task), Arc::new(ready)))
}

pub(super) fn processor(
    settings: &Settings,
    tracer: Option<Tracer>,
    shutdown: CancellationToken,
) -> Result<(Task, Ready), Failure> {
    let redis = connect::redis(settings)?;
    let options = processor_options(settings);
    let queue = Arc::new(redis.queue(Stage::Raw, own_name("processor")));
    let ports = ProcessorPorts {
        queue: queue.clone(),
        maintenance: Some(queue),
        handover: Arc::new(redis.clone()),
        backlog: Some(Arc::new(redis.stream_log::<Embedded>(Stage::Embedded))),
        targets: compose::embedding_targets(settings, &redis)?,
    };
    let processor = Processor::new(options, ports)?.traced(tracer);
    let health = processor.health();
    let ready = health.clone();
    let guard = guard(settings, &redis, None, None);
    let task = async move {
        if !redis_is_fit(&redis, &health, &shutdown).await? {
            return Ok(());
        }
        let check = || guard.check();
        if with_retries("check the owner of Redis", &health, &shutdown, check).await?.is_none() {
            return Ok(());
        }
        while_owned(&guard, &shutdown, processor.run(shutdown.clone())).await
    };
    Ok((Box::pin(task), Arc::new(move || ready.readiness())))
}

pub(super) fn upserter(
    settings: &Settings,
    tracer: Option<Tracer>,
    shutdown: CancellationToken,
) -> Result<(Task, Ready), Failure> {
    let redis = connect::redis(settings)?;
    let index = connect::index(settings)?;
    let options = upserter_options(settings);
    let queue = Arc::new(redis.queue(Stage::Embedded, own_name("upserter")));
    let guard = Arc::new(guard(settings, &redis, Some(index), None));
    let targets = compose::owned_targets(settings, &redis, &guard)?;
    let upserter = Upserter::new(options, queue, targets).traced(tracer);
    let health = upserter.health();
    let ready = health.clone();
    let task = async move {
        if !redis_is_fit(&redis, &health, &shutdown).await? {
            return Ok(());
        }
        let check = || guard.check();
        if with_retries("check the owner of the collection", &health, &shutdown, check).await?.is_none() {
            return Ok(());
        }
        while_owned(&guard, &shutdown, upserter.run(shutdown.clone())).await
    };
    Ok((Box::pin(task), Arc::new(move || ready.readiness())))
}

/// Returns the source of reusable vectors.
pub(crate) fn known_vectors(settings: &Settings) -> Result<Option<Arc<dyn KnownVectors>>, Failure> {
    if !settings.reuse_vectors {
        return Ok(None);
    }
    Ok(Some(Arc::new(connect::index(settings)?)))
}

/// Returns the filter for documents that are deliberately not indexed.
fn left_out(settings: &Settings) -> Result<LeftOut, Failure> {
    let text = compose::short_form(settings).map(|declaration| declaration.text).unwrap_or_default();
    Ok(LeftOut::new(&text, text.blank)?)
}

/// Returns the processor's options.
pub(crate) fn processor_options(settings: &Settings) -> ProcessorOptions {
    let consumer = consumer(&settings.processor, settings);
    ProcessorOptions { consumer, high_water: settings.processor_high_water }
}

/// Returns the upserter's options.
pub(crate) fn upserter_options(settings: &Settings) -> UpserterOptions {
    UpserterOptions { consumer: consumer(&settings.upserter, settings) }
}

fn consumer(consumer: &Consumer, settings: &Settings) -> ConsumerOptions {
    let streams = &settings.streams;
    ConsumerOptions {
        batch: consumer.batch,
        concurrency: consumer.concurrency,
        claim_after: consumer.claim_after,
        retention: Retention {
            age: streams.retention_age,
            entries: streams.retention_entries,
            bytes: streams.retention_memory.unwrap_or(u64::MAX),
        },
    }
}

/// Waits for Redis and rejects one with an evicting policy; false if shut down meanwhile.
async fn redis_is_fit(redis: &RedisStore, health: &Health, shutdown: &CancellationToken) -> Result<bool, Failure> {
    let fit = with_retries("reach Redis", health, shutdown, || redis.refuse_evicting_policy()).await?;
    Ok(fit.is_some())
}

/// Retries until success or a permanent failure; `None` if shut down meanwhile, even during a hanging attempt. `what` completes
/// "failed to …".
async fn with_retries<T, F>(
    what: &'static str,
    health: &Health,
    shutdown: &CancellationToken,
    attempt: impl Fn() -> F,
) -> Result<Option<T>, Failure>
where
    F: Future<Output = PortResult<T>>,
{
    let retry = RetryPolicy { health: health.clone(), shutdown: shutdown.clone() };
    tokio::select! {
        () = shutdown.cancelled() => Ok(None),
        answer = retry.wait_for(what, attempt) => match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(RetryError::Shutdown) => Ok(None),
            Err(RetryError::Failed(error)) => Err(error.into()),
        },
    }
}

/// Returns a unique consumer name that identifies the process to operators.
pub(crate) fn own_name(service: &str) -> String {
    format!("{service}-{}", process_name())
}

/// Returns a name unique to this process, even if another has the same host name and process id.
pub(super) fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "host" } else { host.trim() };
    // Containers may share host name and process id.
    let unique = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &unique[..8])
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        Self { message: error.to_string(), hint: error.hint }
    }
}
