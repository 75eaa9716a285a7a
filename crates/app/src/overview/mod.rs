//! Everything an operator wants to know, in one value: whether the index is right, which stage is behind, why, how long it
//! will take, and what to do.
//!
//! `status`, `monitor` and the console show the same [`Overview`]. It is gathered from MongoDB, Redis, Qdrant and the embedder
//! with the settings alone; what only a service knows of itself, it leaves in Redis every few seconds. What does not
//! answer is said to be unknown and never taken for zero.
//!
//! ```text
//!  Redis, MongoDB, Qdrant, embedder ──Looker::look──▶ Overview ──problems (pure)──▶ problems ──verdict (pure)──▶ one line
//!                                      rates from the looks of the last ten seconds
//! ```

mod look;
mod problems;
mod rates;
mod report;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
mod text;
mod verdict;
mod view;

use serde::{Serialize, Serializer};
use tidewheel_core::ports::StageStatus;

pub(crate) use look::Looker;
pub(crate) use problems::{CODES, Problem, Severity, duration, estimate, none_of, thousands};
pub(crate) use report::{Report, ServiceState};
pub(crate) use verdict::{State, Verdict};
pub(crate) use view::{History, Paint, draw};

/// Everything, at one moment.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    /// When, in milliseconds since the Unix epoch.
    pub(crate) at_ms: u64,
    /// The answer in one line.
    pub(crate) verdict: Verdict,
    /// What is not as it should be, the worst first.
    pub(crate) problems: Vec<Problem>,
    /// Stage 1 and stage 2.
    pub(crate) stages: [Told<Stage>; 2],
    /// MongoDB, and how far it has been read.
    pub(crate) source: Told<Source>,
    /// Redis.
    pub(crate) redis: Told<Redis>,
    /// The collection in Qdrant.
    pub(crate) collection: Told<Collection>,
    /// Whoever makes the vectors.
    pub(crate) embedder: Told<Embedder>,
    /// From the commit to being searchable, within the last minute; `None` if no change became searchable.
    pub(crate) latency: Option<Latency>,
    /// What the last audit has found; `None` if the producer at work has finished none yet.
    pub(crate) audit: Option<Audit>,
    /// What has been embedded, and what did not have to be, since the processors that run now were started.
    pub(crate) tokens: Option<Tokens>,
    /// The processes that report, and the services in them.
    pub(crate) services: Vec<Service>,
}

/// Something that was asked, and what it said.
#[derive(Clone, Debug)]
pub(crate) enum Told<T> {
    Known(T),
    Unknown(String),
}

impl<T> Told<T> {
    pub(crate) fn known(&self) -> Option<&T> {
        match self {
            Self::Known(told) => Some(told),
            Self::Unknown(_) => None,
        }
    }

    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(error) => Some(error),
        }
    }
}

impl<T: Serialize> Serialize for Told<T> {
    /// As itself, or as `{"error": …}`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Unknown<'a> {
            error: &'a str,
        }
        match self {
            Self::Known(told) => told.serialize(serializer),
            Self::Unknown(error) => Unknown { error }.serialize(serializer),
        }
    }
}

/// A stream with the group that works on it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    /// What Redis says.
    #[serde(flatten)]
    pub(crate) status: StageStatus,
    /// Entries that are not confirmed: those not given out, and those in work. Where Redis cannot tell, all of them.
    pub(crate) backlog: u64,
    /// Entries that come in a second; `None` before the second look.
    pub(crate) in_per_second: Option<f64>,
    /// Entries that are confirmed a second; `None` before the second look.
    pub(crate) out_per_second: Option<f64>,
    /// Seconds until the backlog is gone at these rates; `None` if it does not shrink or that is not known.
    pub(crate) eta_seconds: Option<f64>,
    /// For how many seconds entries have been waiting without any being confirmed; 0 if they are or none waits. Only as far
    /// back as this process has looked.
    pub(crate) stalled_seconds: f64,
    /// Consumers that gave a sign of life within the last minute.
    pub(crate) alive: u64,
}

/// MongoDB, and how far it has been read.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Source {
    /// The database; `None` if this machine's settings do not name one.
    pub(crate) database: Option<String>,
    /// Why MongoDB itself could not be asked, if so; the rest is from Redis.
    pub(crate) error: Option<String>,
    /// Seconds of history in the oplog; `None` if it cannot be seen.
    pub(crate) oplog_window_seconds: Option<u64>,
    /// Seconds until the oplog no longer reaches back to what the producer has saved, if it saved nothing more.
    pub(crate) oplog_time_to_loss_seconds: Option<u64>,
    /// The cluster time of the last change that was read, in seconds since the Unix epoch; `None` before the first start.
    pub(crate) read_until: Option<u32>,
    /// The cluster time up to which everything is known to be searchable, in seconds since the Unix epoch.
    pub(crate) searchable_until: Option<u32>,
    /// Seconds since the producer saved its place.
    pub(crate) checkpoint_age_seconds: Option<f64>,
    /// What was there before.
    pub(crate) snapshot: Option<Snapshot>,
    /// What was found to be lost and is being repaired.
    pub(crate) damage: Option<String>,
    /// The database's collections, if the index is empty and none of them is selected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) passed_over: Vec<String>,
}

/// Reading what was there before.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Snapshot {
    /// `running`, `sweeping` or `done`.
    pub(crate) state: &'static str,
    /// Documents read.
    pub(crate) rows: u64,
    /// About how many there are; `None` if the producer does not tell.
    pub(crate) of: Option<u64>,
    /// Documents read a second.
    pub(crate) rows_per_second: Option<f64>,
    /// Seconds until all are read.
    pub(crate) eta_seconds: Option<f64>,
}

/// Redis.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Redis {
    /// Host and port.
    pub(crate) address: String,
    /// Its version.
    pub(crate) version: String,
    /// Bytes in use.
    pub(crate) memory_bytes: u64,
    /// Its limit in bytes; `None` if there is none.
    pub(crate) memory_limit_bytes: Option<u64>,
}

/// The collection in Qdrant.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Collection {
    /// Where Qdrant is.
    pub(crate) url: String,
    /// The collection's name, or its alias.
    pub(crate) name: String,
    /// Qdrant's version.
    pub(crate) version: String,
    /// Whether it is there.
    pub(crate) exists: bool,
    /// `green`, `yellow`, `grey` or `red`, in Qdrant's words.
    pub(crate) status: Option<String>,
    /// Points in it; where there are more than a million, about.
    pub(crate) points: Option<u64>,
    /// Vectors in an index; the others are scanned.
    pub(crate) indexed_vectors: Option<u64>,
    /// Numbers in a vector.
    pub(crate) dimension: Option<u64>,
}

/// Whoever makes the vectors.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Embedder {
    /// Where it is.
    pub(crate) url: String,
    /// The model.
    pub(crate) model: String,
    /// Numbers in a vector.
    pub(crate) dimension: usize,
    /// Most tokens of a text.
    pub(crate) max_tokens: usize,
    /// Tokens computed a second; `None` if it does not tell, or before the second look.
    pub(crate) tokens_per_second: Option<f64>,
    /// Tokens that wait to be computed; `None` if it does not tell.
    pub(crate) queued_tokens: Option<u64>,
    /// Tokens computed since it was started; `None` if it does not tell.
    pub(crate) tokens: Option<u64>,
}

/// From the commit to being searchable.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Latency {
    /// How many changes became searchable within the last minute.
    pub(crate) changes: u64,
    /// Seconds that half of them stayed below.
    pub(crate) p50_seconds: f64,
    /// Seconds that 95 of 100 stayed below.
    pub(crate) p95_seconds: f64,
    /// Seconds that 99 of 100 stayed below.
    pub(crate) p99_seconds: f64,
}

/// By how many documents the index differed from MongoDB, when all of it was compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Audit {
    /// Seconds ago.
    pub(crate) seconds_ago: f64,
    /// Documents without a point.
    pub(crate) missing: u64,
    /// Documents whose points say something else.
    pub(crate) stale: u64,
    /// Documents that MongoDB does not have.
    pub(crate) extra: u64,
    /// Documents with points too many.
    pub(crate) surplus: u64,
}

impl Audit {
    /// Documents that differed.
    pub(crate) fn drift(&self) -> u64 {
        self.missing + self.stale + self.extra + self.surplus
    }

    /// Of which this many do not differ because they are `parked`: those are missing, or as they were before.
    pub(crate) fn unexplained(&self, parked: u64) -> u64 {
        self.extra + self.surplus + (self.missing + self.stale).saturating_sub(parked)
    }
}

/// Tokens embedded, and tokens that did not have to be.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Tokens {
    /// Embedded.
    pub(crate) embedded: u64,
    /// Not embedded, because a newer version came first or nothing that is embedded has changed.
    pub(crate) saved: u64,
}

/// A service in a process that reports.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Service {
    /// `producer`, `embedder`, `processor` or `upserter`.
    pub(crate) service: String,
    /// The process: host, process id and something that nobody else has.
    pub(crate) process: String,
    /// Where its operations server listens, if it does.
    pub(crate) operations: Option<String>,
    /// Seconds since it was started.
    pub(crate) up_seconds: f64,
    /// Seconds since it last said something.
    pub(crate) silent_seconds: f64,
    /// Whether it can do its work.
    pub(crate) ready: bool,
    /// If not, why.
    pub(crate) reasons: Vec<String>,
}
