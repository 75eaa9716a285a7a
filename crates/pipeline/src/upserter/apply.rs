//! Executes a plan against the index, in the order that the protocol requires.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Map;
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, STAMP, Stamp, Stamped};
use tidewheel_core::ports::{DocumentPoints, Fence, FenceTarget, Index, Point, Tombstones, Written};
use tidewheel_core::version::Version;

use super::lane::Lane;
use super::plan::{Aftermath, Write, aftermath};
use super::traced::{Outcome, Outcomes};
use crate::isolate::{Attempt, Failure, Isolation, ProbeFuture, Successes, Suspect};
use crate::metric;
use crate::retry::{RetryError, RetryPolicy};
use crate::targets::{Target, Targets};

/// Successful requests of all batches, counted separately because a full disk may accept one kind and not the other.
#[derive(Default)]
pub(super) struct AllSuccesses {
    writes: Successes,
    removals: Successes,
}

/// The outcome of one item of a batch, with its index.
pub(super) type Settled = (usize, Result<(), PortError>);

/// Writes to the index, fenced by versions.
pub(super) struct Applier<'a> {
    pub(super) targets: &'a Targets,
    /// Where it writes.
    pub(super) target: &'a Target,
    /// What is known of the target.
    pub(super) lane: &'a Lane,
    /// For calls of the index.
    pub(super) retry: &'a RetryPolicy,
    /// For calls of the streams: their outage is not that of the target.
    pub(super) streams: &'a RetryPolicy,
    /// Set when the collection is missing because the catalog no longer routes the target; the work then ends as in a
    /// shutdown.
    pub(super) gone: &'a AtomicBool,
    /// Collects the outcome of each document, if traces are enabled.
    pub(super) outcomes: Option<&'a Outcomes>,
}

impl Applier<'_> {
    fn index(&self) -> &dyn Index {
        &*self.target.ports.index
    }

    fn tombstones(&self) -> &dyn Tombstones {
        &*self.target.ports.tombstones
    }

    /// Raises the tombstones of the removals, then deletes the points behind them. The tombstone comes first: a late
    /// write between the two finds it in its check and deletes itself. Returns the suspects; all others are done.
    pub(super) async fn remove(&self, fences: &[Fence]) -> Result<Vec<Suspect>, RetryError> {
        if fences.is_empty() {
            return Ok(Vec::new());
        }
        self.streams.call("record tombstones", || self.tombstones().raise(fences)).await?;
        let whole = std::iter::once(0..fences.len());
        Ok(self.removing(fences).sift(whole).await?.suspects)
    }

    /// Writes the documents. Returns the suspects; all others are done.
    pub(super) async fn write(&self, writes: &[Write]) -> Result<Vec<Suspect>, RetryError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let whole = std::iter::once(0..writes.len());
        Ok(self.writing(writes).sift(whole).await?.suspects)
    }

    /// Retries the suspects among these removals until each is done or has failed permanently.
    pub(super) async fn settle_removals(
        &self,
        fences: &[Fence],
        suspects: Vec<Suspect>,
    ) -> Result<Vec<Settled>, RetryError> {
        self.removing(fences).settle(suspects).await
    }

    /// Retries the suspects among these writes until each is done or has failed permanently.
    pub(super) async fn settle_writes(
        &self,
        writes: &[Write],
        suspects: Vec<Suspect>,
    ) -> Result<Vec<Settled>, RetryError> {
        let settled = self.writing(writes).settle(suspects).await?;
        for (index, outcome) in &settled {
            if outcome.is_err() {
                metric::rejected("refused", writes[*index].points.points.len() as u64);
            }
        }
        Ok(settled)
    }

    fn removing<'a>(
        &'a self,
        fences: &'a [Fence],
    ) -> Isolation<'a, impl Fn(Range<usize>) -> Attempt<'a>, impl Fn() -> ProbeFuture<'a>> {
        let attempt = move |range: Range<usize>| -> Attempt<'a> {
            Box::pin(async move { Ok(self.index().delete(&fences[range]).await?) })
        };
        let (retry, successes) = (self.retry, &self.lane.successes.removals);
        Isolation { retry, successes, what: "delete from Qdrant", attempt, probe: move || self.probe() }
    }

    fn writing<'a>(
        &'a self,
        writes: &'a [Write],
    ) -> Isolation<'a, impl Fn(Range<usize>) -> Attempt<'a>, impl Fn() -> ProbeFuture<'a>> {
        let attempt = move |range: Range<usize>| -> Attempt<'a> { Box::pin(self.write_all(&writes[range])) };
        let (retry, successes) = (self.retry, &self.lane.successes.writes);
        Isolation { retry, successes, what: "write to Qdrant", attempt, probe: move || self.probe() }
    }

    /// A regular write and a regular deletion that change nothing.
    fn probe(&self) -> ProbeFuture<'_> {
        Box::pin(async move {
            let mut probe = probe();
            // With the id of an existing point it is never written, because that point is newer: a crash leaves nothing
            // behind.
            let points = self.index().page(None, PROBED, STAMP).await?;
            if let Some(point) = points.iter().find(|point| Stamped::read(&point.payload).is_some()) {
                probe.points[0].id = point.id;
            }
            if self.index().upsert(&[&probe]).await? == Written::NoCollection {
                return Err(PortError::transient("the collection does not exist"));
            }
            let version = Version { replay: 1, ..probe.version };
            self.index().delete(&[Fence { target: FenceTarget::Document(probe.document), version }]).await
        })
    }

    /// Writes payloads alone where that may suffice, then conditional upsert, check and clean-up; restarts for
    /// documents that vanished in between.
    async fn write_all(&self, writes: &[Write]) -> Result<(), Failure> {
        let (unchanged, mut todo): (Vec<&Write>, _) = writes.iter().partition(|write| write.unchanged);
        todo.extend(self.refresh(unchanged).await?);
        while !todo.is_empty() {
            let documents: Vec<&DocumentPoints> = todo.iter().map(|write| &write.points).collect();
            self.prepare(&documents).await?;
            match self.index().upsert(&documents).await? {
                Written::Durably => {
                    self.note(&todo, Outcome::Written);
                    todo = self.check(todo).await?;
                }
                // It has been deleted since: prepare it again, and record that.
                Written::NoCollection => self.lane.prepared.store(0, Ordering::Relaxed),
            }
        }
        Ok(())
    }

    /// Writes the payloads of documents whose vectors the index had when they were processed; returns those that have
    /// to be written completely, because their points have changed since then, or the index rejects payload-only
    /// writes.
    async fn refresh<'w>(&self, writes: Vec<&'w Write>) -> Result<Vec<&'w Write>, Failure> {
        if writes.is_empty() {
            return Ok(writes);
        }
        let documents: Vec<&DocumentPoints> = writes.iter().map(|write| &write.points).collect();
        let refreshed = match self.index().refresh(&documents).await {
            Ok(refreshed) => refreshed,
            // The complete write isolates the document at fault.
            Err(error) if error.class == ErrorClass::Poison => return Ok(writes),
            Err(error) => return Err(error.into()),
        };
        let (mut there, mut rest) = (Vec::new(), Vec::new());
        for (write, refreshed) in writes.into_iter().zip(refreshed) {
            if refreshed { there.push(write) } else { rest.push(write) }
        }
        self.note(&there, Outcome::Refreshed);
        rest.extend(self.check(there).await?);
        Ok(rest)
    }

    /// The check after the write; returns the documents that have to be written again.
    async fn check<'w>(&self, writes: Vec<&'w Write>) -> Result<Vec<&'w Write>, Failure> {
        if writes.is_empty() {
            return Ok(writes);
        }
        let documents: Vec<_> =
            writes.iter().map(|write| (write.points.document, write.points.points.len() as u32)).collect();
        // A batch covers few collections.
        let mut namespaces: Vec<&Namespace> = writes.iter().map(|write| &write.namespace).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let targets: Vec<FenceTarget> = writes
            .iter()
            .map(|write| FenceTarget::Document(write.points.document))
            .chain(namespaces.iter().map(|namespace| FenceTarget::Namespace((*namespace).clone())))
            .collect();
        // The tombstones are read after the write, or a deletion could slip in between.
        let (stored, tombstones) = tokio::join!(
            self.index().stored(&documents),
            self.streams.call("read tombstones", || self.tombstones().of(&targets)),
        );
        let (stored, tombstones) = (stored?, tombstones?);
        let (of_documents, of_namespaces) = tombstones.split_at(writes.len());
        let mut fences = Vec::new();
        let mut again = Vec::new();
        let dropped =
            |namespace| of_namespaces[namespaces.binary_search(&namespace).expect("every namespace was queried")];
        for ((write, stored), tombstone) in writes.iter().copied().zip(stored).zip(of_documents) {
            match aftermath(&write.points, stored, *tombstone, dropped(&write.namespace)) {
                Aftermath::Clean => {}
                Aftermath::Sweep(fence) => {
                    if fence.version > write.points.version {
                        self.note(&[write], Outcome::Fenced);
                    }
                    fences.push(fence);
                }
                Aftermath::Rewrite => again.push(write),
            }
        }
        if !fences.is_empty() {
            self.index().delete(&fences).await?;
        }
        Ok(again)
    }

    fn note(&self, writes: &[&Write], outcome: Outcome) {
        if let Some(outcomes) = self.outcomes {
            outcomes.note(writes.iter().map(|write| write.points.document), outcome);
        }
    }
}

/// Points among which a probe looks for one written by tidewheel.
const PROBED: usize = 10;

/// A document of a collection that cannot exist in MongoDB, without a vector: no search finds it while it exists.
fn probe() -> DocumentPoints {
    let (namespace, key, version) = (Namespace::new("$tidewheel", "probe"), "", Version::default());
    let document = DocumentId::new(&namespace, key);
    let fingerprints = Fingerprints::new("", "", 0);
    let stamp = Stamp {
        key,
        namespace: namespace.as_str(),
        document,
        version,
        model: "",
        fingerprints: &fingerprints,
        chunks: 1,
        digest: "",
    };
    let payload: Map<_, _> = [(RESERVED.to_owned(), stamp.value(0, ""))].into_iter().collect();
    let point = Point { id: document.point(0), vector: Vec::new(), payload };
    DocumentPoints { document, version, fields: Map::new(), excerpt: None, points: vec![point] }
}
