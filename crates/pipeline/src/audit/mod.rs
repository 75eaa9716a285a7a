//! The audit: compares index and source, document by document and point by point.
//!
//! ```text
//!  source, page by page in the order of _id ──▶ their points by id ──────────────────▶ judge ──┐
//!  index, page by page in the order of ids ──▶ which of them the source still has ──▶ judge ──┤
//!                                                                                              ▼
//!      repair ◀── confirmed ◀── judge again ◀── earlier commits are in the index ◀───────── suspects
//! ```
//!
//! **Bounded**: neither side is held in memory; suspects are settled whenever many have accumulated.
//! **Resumable**: a complete audit saves its position, and the next process resumes there.
//! **Fair**: a difference is checked again once everything committed at the first check is in the index, and counts
//! only if its source has not changed since. So writes in flight are not drift.
//! **Repair** goes through the pipeline: rows of the source and deletions, with a time after all differences found, so
//! that every later change wins over them. Leftover points of a repaired document are removed as an upserter removes
//! them.
//! **One target**: its documents are those that match its filter, its points have to be made by its declaration, and its
//! repairs are routed to it alone.

mod judge;
mod look;
mod place;
mod reading;
mod repair;
mod run;
mod scope;
mod settling;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tidewheel_core::catalog::{Made, TargetId};
use tidewheel_core::change::{Change, Route, Stamp};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{
    AuditPosition, Coverage, Covered, Index, Journal, PortResult, Source, SourceFilter, StreamLog,
};

pub use judge::Kind;
pub use run::audit;
pub use scope::{Range, Scope};

use crate::processor::LeftOut;
use crate::targets::Target;
use crate::upserter::PayloadOptions;

/// The ports of an audit.
#[derive(Clone)]
pub struct AuditPorts {
    /// MongoDB.
    pub source: Covered,
    /// The collection in Qdrant. Only a repair writes to it.
    pub index: Arc<dyn Index>,
    /// The checkpoints.
    pub journal: Arc<dyn Journal>,
    /// The position of an audit that resumes; `None` for that of the journal.
    pub position: Option<Arc<dyn AuditPosition>>,
    /// Stage 1, for a repair; `None` for an audit without repair.
    pub repair: Option<Arc<dyn StreamLog<Change>>>,
}

impl AuditPorts {
    /// The ports to compare a target with the source, without repair.
    pub fn of(target: &Target, source: Arc<dyn Source>, journal: Arc<dyn Journal>) -> Self {
        Self {
            source: Covered::new(source, Coverage::of(target.declaration().source.clone())),
            index: target.ports.index.clone(),
            journal,
            position: target.ports.audit.clone(),
            repair: None,
        }
    }
}

/// The target of an applied catalog that an audit compares.
#[derive(Clone, Debug, PartialEq)]
pub struct Audited {
    /// Its name.
    pub id: TargetId,
    /// The revision of the catalog, by which repairs are routed.
    pub catalog: u64,
    /// The condition on its documents; `None` for all.
    pub filter: Option<SourceFilter>,
    /// What its points are made by. Points that state nothing were made before a catalog was applied, and differ only in
    /// their document.
    pub made: Made,
}

impl Audited {
    /// The route of its repairs.
    fn route(&self) -> Route {
        Stamp { catalog: self.catalog, targets: vec![self.id.clone()], leaves: Vec::new() }.into()
    }
}

/// Options of an audit.
#[derive(Clone, Debug)]
pub struct AuditOptions {
    /// The target; `None` for the only one of an installation without an applied catalog.
    pub target: Option<Audited>,
    /// The scope of the comparison.
    pub scope: Scope,
    /// Compare every field of the payload; `None` compares the digest alone.
    pub payload: Option<PayloadOptions>,
    /// How long to wait for earlier commits to reach the index before differences are checked again.
    pub settle: Duration,
    /// How long to wait for repairs to reach the index.
    pub arrive: Duration,
    /// Minimum pause after each page, which limits the load of a slow audit.
    pub pause: Duration,
    /// Maximum number of differences listed; the rest is counted.
    pub named: usize,
    /// Documents that are intentionally not indexed.
    pub left_out: LeftOut,
    /// Resume an interrupted audit, and save the position periodically. For complete audits.
    pub resumes: bool,
}

impl AuditOptions {
    /// The defaults for a target of the catalog of this revision.
    ///
    /// # Errors
    /// Fatal if its template is invalid.
    pub fn of(target: &Target, revision: u64) -> PortResult<Self> {
        let declaration = target.declaration();
        let audited = target.made.map(|made| Audited {
            id: target.id.clone(),
            catalog: revision,
            filter: declaration.filter.clone(),
            made,
        });
        let left_out = LeftOut::new(&declaration.text, declaration.text.blank)
            .map_err(|error| PortError::fatal(error.to_string()))?;
        Ok(Self { target: audited, left_out, ..Self::default() })
    }
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            target: None,
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

/// The progress of an audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Progress {
    /// Documents of the source compared.
    pub documents: u64,
    /// Estimated number of documents.
    pub of_documents: u64,
    /// Index points compared.
    pub points: u64,
    /// Number of points.
    pub of_points: u64,
    /// Documents that differ at the first check.
    pub suspects: u64,
}

/// Receives the progress of an audit.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// A document that differs between source and index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The kind of difference.
    pub kind: Kind,
    /// `database.collection`.
    pub namespace: String,
    /// Canonical extended JSON of `_id`.
    pub key: String,
    /// The difference.
    pub what: String,
}

/// The result of an audit.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Found {
    /// Source documents compared.
    pub documents: u64,
    /// Index points compared.
    pub points: u64,
    /// Documents without points.
    pub missing: u64,
    /// Documents whose points have another state, or are incomplete.
    pub stale: u64,
    /// Documents in the index, but not in the source.
    pub extra: u64,
    /// Documents with surplus points.
    pub surplus: u64,
    /// Documents that kept changing, so that their state is undetermined.
    pub unsettled: u64,
    /// Points not written by tidewheel, or of another database: they are ignored.
    pub foreign: u64,
    /// Whether earlier commits were in the index when the differences were checked again. If not, changes in flight
    /// count as differences.
    pub settled: bool,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// The result of the repair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repaired: Option<Repaired>,
    /// Duration in seconds.
    pub seconds: f64,
}

impl Found {
    /// Number of documents that differ.
    pub fn drift(&self) -> u64 {
        self.missing + self.stale + self.extra + self.surplus
    }

    /// Number of documents with this kind of difference.
    pub fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Missing => self.missing,
            Kind::Stale => self.stale,
            Kind::Extra => self.extra,
            Kind::Surplus => self.surplus,
        }
    }
}

/// The result of a repair.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Documents sent again.
    pub sent: u64,
    /// Deletions sent.
    pub deleted: u64,
    /// Documents that still differ: parked ones, for example.
    pub left: u64,
    /// The first of those.
    pub still: Vec<Difference>,
}
