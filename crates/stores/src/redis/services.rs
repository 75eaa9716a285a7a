//! What the processes say of themselves, in one small hash, so that an operator needs no list of their addresses.
//!
//! A process that ends takes its text back; that of one that was killed is forgotten after [`KEPT`].

use std::time::Duration;

use tidewheel_core::ports::PortResult;
use tidewheel_core::streams::SERVICES;

use super::reply::{self, Unexpected};
use super::{RedisStore, script};

/// After how long a process that says nothing more is forgotten. Long enough that an operator still sees which one died.
const KEPT: Duration = Duration::from_secs(60);

/// What a process said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The process.
    pub process: String,
    /// Its words.
    pub text: String,
    /// How long ago, in milliseconds by Redis' clock.
    pub age_ms: u64,
}

impl RedisStore {
    /// Keeps what this process says of itself, instead of what it said before.
    pub async fn say(&self, process: &str, text: &str) -> PortResult<()> {
        let mut command = script::REPORT.command(&[SERVICES], 3, text.len() + 128);
        command.arg(process).arg(text).arg(KEPT.as_millis() as u64);
        self.run("report the state of this process", &script::REPORT, &command).await.map(|_| ())
    }

    /// Takes back what this process said.
    pub async fn unsay(&self, process: &str) -> PortResult<()> {
        self.say(process, "").await
    }

    /// What every process says of itself.
    pub async fn said(&self) -> PortResult<Vec<Said>> {
        let doing = "read the state of the services";
        let mut command = script::REPORTS.command(&[SERVICES], 1, 64);
        command.arg(KEPT.as_millis() as u64);
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
