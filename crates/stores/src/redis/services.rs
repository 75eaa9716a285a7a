//! What the processes and the replays say of themselves, in two small hashes, so that an operator needs no list of their addresses.
//!
//! A process that ends takes its text back; that of one that was killed is forgotten after [`KEPT`]. What a replay said stays for
//! [`REPLAY_KEPT`], so that an operator sees how it ended.

use std::time::Duration;

use tidewheel_core::ports::PortResult;
use tidewheel_core::streams::{REPLAYS, SERVICES};

use super::reply::{self, Unexpected};
use super::{RedisStore, script};

/// After how long a process that says nothing more is forgotten. Long enough that an operator still sees which one died.
const KEPT: Duration = Duration::from_secs(60);

/// After how long a replay that says nothing more is forgotten.
const REPLAY_KEPT: Duration = Duration::from_secs(3_600);

/// What a process said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The process, or the replay.
    pub process: String,
    /// Its words.
    pub text: String,
    /// How long ago, in milliseconds by Redis' clock.
    pub age_ms: u64,
}

impl RedisStore {
    /// Keeps what this process says of itself, instead of what it said before.
    pub async fn say(&self, process: &str, text: &str) -> PortResult<()> {
        self.keep("report the state of this process", SERVICES, process, text, KEPT).await
    }

    /// Keeps what this replay says of itself, instead of what it said before.
    pub async fn say_of_replay(&self, replay: &str, text: &str) -> PortResult<()> {
        self.keep("report the progress of this replay", REPLAYS, replay, text, REPLAY_KEPT).await
    }

    async fn keep(&self, doing: &str, key: &str, who: &str, text: &str, kept: Duration) -> PortResult<()> {
        let mut command = script::REPORT.command(&[key], 3, text.len() + 128);
        command.arg(who).arg(text).arg(kept.as_millis() as u64);
        self.run(doing, &script::REPORT, &command).await.map(|_| ())
    }

    /// Takes back what this process said.
    pub async fn unsay(&self, process: &str) -> PortResult<()> {
        self.say(process, "").await
    }

    /// What every process says of itself.
    pub async fn said(&self) -> PortResult<Vec<Said>> {
        self.heard("read the state of the services", SERVICES, KEPT).await
    }

    /// What every replay of the last hour says of itself.
    pub async fn said_of_replays(&self) -> PortResult<Vec<Said>> {
        self.heard("read the progress of the replays", REPLAYS, REPLAY_KEPT).await
    }

    async fn heard(&self, doing: &str, key: &str, kept: Duration) -> PortResult<Vec<Said>> {
        let mut command = script::REPORTS.command(&[key], 1, 64);
        command.arg(kept.as_millis() as u64);
        let answer = self.run(doing, &script::REPORTS, &command).await?;
        let read = |answer| -> Result<Vec<Said>, Unexpected> {
            let mut values = reply::array(answer)?.into_iter();
            let mut all = Vec::new();
            while let (Some(process), Some(text), Some(age)) = (values.next(), values.next(), values.next()) {
                all.push(Said {
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
