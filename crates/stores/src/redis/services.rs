//! Status reports of processes and replays, in two small hashes, so that an operator needs no list of their addresses.
//!
//! A process that ends removes its report; that of a killed one expires after [`KEPT`]. The report of a replay stays
//! for [`REPLAY_KEPT`], so that an operator sees how it ended.

use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::ports::{PortResult, PublishedReport, ReportReader};

use super::keys::{REPLAYS, SERVICES};
use super::reply::{self, Unexpected};
use super::{RedisStore, script};

/// How long the report of a silent process is kept. Long enough that an operator still sees which one died.
const KEPT: Duration = Duration::from_secs(60);

/// How long the report of a silent replay is kept.
const REPLAY_KEPT: Duration = Duration::from_secs(3_600);

/// A status report of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The process or replay.
    pub process: String,
    /// The report.
    pub text: String,
    /// Its age in milliseconds, by Redis' clock.
    pub age_ms: u64,
}

impl RedisStore {
    /// Replaces the report of this process.
    pub async fn publish(&self, process: &str, text: &str) -> PortResult<()> {
        self.keep("report the state of this process", SERVICES, process, text, KEPT).await
    }

    /// Replaces the report of this replay.
    pub async fn publish_replay(&self, replay: &str, text: &str) -> PortResult<()> {
        self.keep("report the progress of this replay", REPLAYS, replay, text, REPLAY_KEPT).await
    }

    async fn keep(&self, doing: &str, key: &str, who: &str, text: &str, kept: Duration) -> PortResult<()> {
        let mut command = script::REPORT.command(&[key], 3, text.len() + 128);
        command.arg(who).arg(text).arg(kept.as_millis() as u64);
        self.run(doing, &script::REPORT, &command).await.map(|_| ())
    }

    /// Removes the report of this process.
    pub async fn withdraw(&self, process: &str) -> PortResult<()> {
        self.publish(process, "").await
    }

    /// The reports of all processes.
    pub async fn published(&self) -> PortResult<Vec<Published>> {
        self.published_in("read the state of the services", SERVICES, KEPT).await
    }

    /// The reports of all replays of the last hour.
    pub async fn published_replays(&self) -> PortResult<Vec<Published>> {
        self.published_in("read the progress of the replays", REPLAYS, REPLAY_KEPT).await
    }

    async fn published_in(&self, doing: &str, key: &str, kept: Duration) -> PortResult<Vec<Published>> {
        let mut command = script::REPORTS.command(&[key], 1, 64);
        command.arg(kept.as_millis() as u64);
        let answer = self.run(doing, &script::REPORTS, &command).await?;
        let read = |answer| -> Result<Vec<Published>, Unexpected> {
            let mut values = reply::array(answer)?.into_iter();
            let mut all = Vec::new();
            while let (Some(process), Some(text), Some(age)) = (values.next(), values.next(), values.next()) {
                all.push(Published {
                    process: reply::text(process)?,
                    text: reply::text(text)?,
                    age_ms: reply::count(&age)?,
                });
            }
            Ok(all)
        };
        read(answer).map_err(self.garbled(doing))
    }
}

#[async_trait]
impl ReportReader for RedisStore {
    async fn reports(&self) -> PortResult<Vec<PublishedReport>> {
        let decoded = |Published { process, text, age_ms }| {
            Some(PublishedReport { process, age_ms, report: serde_json::from_str(&text).ok()? })
        };
        Ok(self.published().await?.into_iter().filter_map(decoded).collect())
    }
}
