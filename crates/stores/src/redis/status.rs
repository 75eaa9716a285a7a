//! Current state of a stage's stream and group.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use async_trait::async_trait;
use redis::Value;
use tidewheel_core::ports::{ConsumerStatus, EntryId, PortResult, Position, StageInspector, StageStatus};
use tidewheel_core::stage::Stage;

use super::journal::counts_field;
use super::keys::{COUNTS, LEASE, StreamKeys};
use super::reply::{self, Unexpected};
use super::{RedisStore, script};

/// A consistent view of a stage.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StageFacts {
    length: u64,
    dead_letters: u64,
    /// By Redis' clock, in milliseconds since the Unix epoch.
    now: u64,
    has_group: bool,
    pending: u64,
    lag: Option<u64>,
    oldest: Option<String>,
    last: Option<String>,
    appended: u64,
    delivered: String,
    unread: String,
    consumers: Vec<ConsumerStatus>,
}

impl StageFacts {
    /// Entries that the group has not acknowledged. If the lag is unknown (unread entries were deleted by hand), the
    /// whole stream counts: a producer that pauses too early continues once the group has read to the end.
    pub(super) fn backlog(&self) -> u64 {
        if self.has_group { self.lag.unwrap_or(self.length) + self.pending } else { self.length }
    }

    /// The newest entry and the oldest unacknowledged one.
    pub(super) fn position(&self) -> Position {
        let last = self.last.clone().map_or_else(EntryId::zero, EntryId);
        Position { last, waiting: self.oldest.clone().map(EntryId) }
    }

    fn parse(answer: Value) -> Result<Self, Unexpected> {
        let mut values = reply::array(answer)?.into_iter();
        let mut next = || values.next().ok_or(Unexpected("all values of the script"));
        let mut facts = Self {
            length: reply::count(&next()?)?,
            dead_letters: reply::count(&next()?)?,
            now: reply::count(&next()?)?,
            has_group: reply::count(&next()?)? > 0,
            pending: reply::count(&next()?)?,
            lag: u64::try_from(reply::integer(&next()?)?).ok(),
            oldest: Some(reply::text(next()?)?).filter(|id| !id.is_empty()),
            last: Some(reply::text(next()?)?).filter(|id| !id.is_empty()),
            appended: reply::count(&next()?)?,
            delivered: reply::text(next()?)?,
            unread: reply::text(next()?)?,
            consumers: Vec::new(),
        };
        while let Ok(name) = next() {
            let (name, pending, idle_ms) = (reply::text(name)?, reply::count(&next()?)?, reply::count(&next()?)?);
            facts.consumers.push(ConsumerStatus { name, pending, idle_ms });
        }
        Ok(facts)
    }

    /// Milliseconds since the oldest unacknowledged entry was added: the first half of its id is that time.
    fn oldest_age_ms(&self) -> Option<u64> {
        let (added, _) = self.oldest.as_deref()?.split_once('-')?;
        Some(self.now.saturating_sub(added.parse().ok()?))
    }
}

impl RedisStore {
    pub(super) async fn facts(&self, stage: StreamKeys) -> PortResult<StageFacts> {
        let (delivered, unread) = self.unread().get(stage.group).cloned().unwrap_or_default();
        let facts = self.look(stage, &delivered, &unread).await?;
        self.unread().insert(stage.group, (facts.delivered.clone(), facts.unread.clone()));
        Ok(facts)
    }

    /// Number of entries that the stage's group has not acknowledged. Reads no entries.
    pub(super) async fn backlog_of(&self, stage: StreamKeys) -> PortResult<u64> {
        Ok(self.look(stage, "*", "").await?.backlog())
    }

    async fn look(&self, stage: StreamKeys, delivered: &str, unread: &str) -> PortResult<StageFacts> {
        let doing = format!("inspect {}", stage.stream);
        let mut command = script::STAGE.command(&[stage.stream, stage.dead_letters, COUNTS], 4, 128);
        command.arg(stage.group).arg(counts_field(stage.stream)).arg(delivered).arg(unread);
        let answer = self.run(&doing, &script::STAGE, &command).await?;
        StageFacts::parse(answer).map_err(self.garbled(&doing))
    }

    fn unread(&self) -> MutexGuard<'_, HashMap<&'static str, (String, String)>> {
        self.inner.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl StageInspector for RedisStore {
    async fn status(&self, stage: Stage) -> PortResult<StageStatus> {
        let stage = StreamKeys::from(stage);
        let facts = self.facts(stage).await?;
        let lag = if facts.has_group { facts.lag } else { Some(facts.length) };
        Ok(StageStatus {
            stream: stage.stream.to_owned(),
            group: stage.group.to_owned(),
            length: facts.length,
            appended: facts.appended,
            lag,
            pending: facts.pending,
            oldest_age_ms: facts.oldest_age_ms(),
            dead_letters: facts.dead_letters,
            consumers: facts.consumers,
        })
    }

    async fn leader(&self) -> PortResult<Option<String>> {
        let doing = "read the producer's lease";
        let answer = self.send(doing, redis::cmd("GET").arg(LEASE)).await?;
        reply::optional_text(answer).map_err(self.garbled(doing))
    }
}
