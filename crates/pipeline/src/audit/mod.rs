//! The audit: is the index what the source says, document by document and point by point?
//!
//! ```text
//!  source, page by page in the order of _id ──▶ their points by id ──────────────────▶ judge ──┐
//!  index, page by page in the order of ids ──▶ which of them the source still has ──▶ judge ──┤
//!                                                                                              ▼
//!      repair ◀── confirmed ◀── judge again ◀── everything committed before has arrived ◀── suspects
//! ```
//!
//! **Bounded**: neither side is held in memory; suspects are settled whenever there are many.
//! **Resumable**: an audit of everything saves its place, and the next process goes on there.
//! **Fair**: what differs is looked at again when all that was committed at the first look is in the index, and counts only if
//! its source has not changed since. So writes that are under way are no drift.
//! **Repair** goes through the pipeline: rows of the source and deletions with a time after everything that was found, which
//! every later change wins over. Points that a repaired document leaves behind are removed as an upserter removes them.

mod judge;
mod look;
mod place;
mod repair;
mod run;
mod scope;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidewheel_core::change::Change;
use tidewheel_core::ports::{Archive, Index, Journal, Source};

pub use judge::Kind;
pub use run::audit;
pub use scope::{Range, Scope};

use crate::processor::LeftOut;
use crate::upserter::PayloadOptions;

/// What an audit works with.
#[derive(Clone)]
pub struct AuditPorts {
    /// MongoDB.
    pub source: Arc<dyn Source>,
    /// The collection in Qdrant. Only a repair writes to it.
    pub index: Arc<dyn Index>,
    /// How far everything has come.
    pub journal: Arc<dyn Journal>,
    /// Stage 1, for a repair; `None` for a look alone.
    pub repair: Option<Arc<dyn Archive<Change>>>,
}

/// How to audit.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// What is compared.
    pub scope: Scope,
    /// Compare every field of the payload; without, the digest alone.
    pub payload: Option<PayloadOptions>,
    /// How long to wait until what was committed before has arrived, before what differs is looked at again.
    pub settle: Duration,
    /// How long to wait until repairs have arrived.
    pub arrive: Duration,
    /// The least pause after each page: a slow audit leaves the servers to others.
    pub pause: Duration,
    /// Differences that are named; the rest is counted.
    pub named: usize,
    /// Documents that the index leaves out on purpose.
    pub left_out: LeftOut,
    /// Resume where an earlier audit was interrupted, and save the place from time to time. For audits of everything.
    pub resumes: bool,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            scope: Scope::default(),
            payload: None,
            settle: Duration::from_secs(30),
            arrive: Duration::from_secs(300),
            pause: Duration::ZERO,
            named: 1_000,
            left_out: LeftOut::default(),
            resumes: false,
        }
    }
}

/// How far an audit has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Documents of the source compared.
    pub documents: u64,
    /// About how many there are.
    pub of_documents: u64,
    /// Points of the index compared.
    pub points: u64,
    /// How many there are.
    pub of_points: u64,
    /// What differs at the first look.
    pub suspects: u64,
}

/// Is told how far an audit has come.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// A document whose points are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// How.
    pub kind: Kind,
    /// `database.collection`.
    pub namespace: String,
    /// Canonical extended JSON of `_id`.
    pub key: String,
    /// What differs.
    pub what: String,
}

/// What an audit has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Found {
    /// Documents of the source that were compared.
    pub documents: u64,
    /// Points of the index that were compared.
    pub points: u64,
    /// Documents without a point.
    pub missing: u64,
    /// Documents whose points say something else, or not all of it.
    pub stale: u64,
    /// Documents that the index has and the source has not.
    pub extra: u64,
    /// Documents with points that should not be there.
    pub surplus: u64,
    /// Documents that kept changing, so that nothing can be said of them.
    pub unsettled: u64,
    /// Points that are none of tidewheel's, or of another database: they are left alone.
    pub foreign: u64,
    /// Whether all that was committed before had arrived when the differences were looked at again. If not, changes that are
    /// still on their way count as differences.
    pub settled: bool,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// What was done about them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
    /// How long it took.
    pub seconds: f64,
}

impl Found {
    /// Documents that differ.
    pub fn drift(&self) -> u64 {
        self.missing + self.stale + self.extra + self.surplus
    }

    /// How many differ in this way.
    pub fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Missing => self.missing,
            Kind::Stale => self.stale,
            Kind::Extra => self.extra,
            Kind::Surplus => self.surplus,
        }
    }
}

/// What a repair has done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Documents that were sent again.
    pub sent: u64,
    /// Deletions that were sent.
    pub deleted: u64,
    /// Documents that still differ: parked ones, for example.
    pub left: u64,
    /// The first of those.
    pub still: Vec<Difference>,
}
