//! Sends documents that differ through the pipeline again, and verifies the result.

use tidewheel_core::change::{Change, Operation, Route};
use tidewheel_core::error::PortError;
use tidewheel_core::key;
use tidewheel_core::ports::{Backlog, Fence, FenceTarget, PortResult};
use tidewheel_core::time::now_ms;
use tidewheel_core::version::{ClusterTime, Version};
use tokio::time::Instant;
use uuid::Uuid;

use super::judge::{Seen, Target};
use super::run::{BATCH, Confirmed, Run, Sides, difference, stuck};
use super::{Audited, Repaired, look};
use crate::NO_PRODUCER;
use crate::backpressure::{BESIDE_LIVE_CHANGES, PAUSE, Room};

impl Run<'_> {
    /// Repairs these documents.
    pub(super) async fn repair(&self, confirmed: &[Confirmed]) -> PortResult<()> {
        let Some(stream_log) = &self.ports.repair else { return Ok(()) };
        let checkpoint = self.ports.journal.load().await?.ok_or_else(|| {
            PortError::fatal(format!("nothing to repair: {NO_PRODUCER}"))
                .with_hint("start `tidewheel run`: its initial snapshot indexes all documents")
        })?;
        // After every change found: it wins over everything that they left in the index.
        let version = Version::of_snapshot(checkpoint.epoch, self.later().await?);
        let route = self.options.target.as_ref().map_or(Route::Plain, Audited::route);
        let room = Room::new("stage 1", "the processors", BESIDE_LIVE_CHANGES);
        let (mut sent, mut deleted) = (0, 0);
        for batch in confirmed.chunks(BATCH) {
            let targets: Vec<&Target> = batch.iter().map(|confirmed| &confirmed.target).collect();
            let mut rows = look::rows(&self.members, &targets, version.time).await?;
            // Unreadable or too large documents are skipped. Points with a key of an earlier release are removed in the
            // sweep: in the pipeline their deletion would delete the document with the current key.
            let changes = targets.iter().filter(|target| key::is_canonical(&target.key)).filter_map(|target| {
                let (id, document) = match rows.remove(*target) {
                    Some(row) => (row.id, Some(row.document.ok().filter(|_| target.key.len() <= key::MAX_BYTES)?)),
                    None => (target.key.clone(), None),
                };
                Some(Change {
                    operation: if document.is_some() { Operation::Read } else { Operation::Delete },
                    namespace: target.namespace.clone(),
                    key: target.key.clone(),
                    id,
                    version,
                    committed_at: now_ms(),
                    document,
                    route: route.clone(),
                })
            });
            let changes: Vec<Change> = changes.collect();
            self.wait_for_room(&room, changes.len(), &**stream_log).await?;
            stream_log.append(&changes).await?;
            let documents = changes.iter().filter(|change| change.operation == Operation::Read).count() as u64;
            sent += documents;
            deleted += changes.len() as u64 - documents;
        }
        self.processed().await?;
        for batch in confirmed.chunks(BATCH) {
            self.sweep(batch, version).await?;
        }
        let mut repaired = self.found().repaired.take().unwrap_or_default();
        repaired.sent += sent;
        repaired.deleted += deleted;
        for batch in confirmed.chunks(BATCH) {
            self.verify(batch, version, &mut repaired).await?;
        }
        self.found().repaired = Some(repaired);
        Ok(())
    }

    /// Waits for a time after the current one: an idle MongoDB advances its time every ten seconds.
    async fn later(&self) -> PortResult<ClusterTime> {
        let found = self.ports.source.now().await?;
        loop {
            let now = self.ports.source.now().await?;
            if now > found {
                return Ok(now);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits for room in stage 1; fails if it does not drain in time.
    async fn wait_for_room(&self, room: &Room, changes: usize, stream_log: &dyn Backlog) -> PortResult<()> {
        let begun = Instant::now();
        let pause = || async move {
            if begun.elapsed() > self.options.arrive {
                return Err(stuck(
                    "stage 1 is full and not draining",
                    "run `tidewheel status` to find the missing service",
                ));
            }
            tokio::time::sleep(PAUSE).await;
            Ok(())
        };
        room.wait(changes as u64, || stream_log.backlog(), pause).await
    }

    /// Waits until all current entries of stage 1 have passed both stages.
    async fn processed(&self) -> PortResult<()> {
        let begun = Instant::now();
        let journal = &self.ports.journal;
        let raw = journal.positions().await?.raw.last;
        let mut embedded = None;
        loop {
            let positions = journal.positions().await?;
            if positions.damage.is_none() {
                if embedded.is_none() && positions.raw.has_passed(&raw) {
                    embedded = Some(positions.embedded.last.clone());
                }
                if embedded.as_ref().is_some_and(|last| positions.embedded.has_passed(last)) {
                    return Ok(());
                }
            }
            if begun.elapsed() > self.options.arrive {
                let waited = self.options.arrive.as_secs();
                return Err(stuck(
                    &format!("repairs did not reach the index within {waited} s"),
                    "they are still in the streams and will arrive; run `tidewheel status` to find the cause",
                ));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The points of each document.
    async fn points(&self, batch: &[Confirmed]) -> PortResult<Vec<Vec<Seen>>> {
        let targets: Vec<&Target> = batch.iter().map(|confirmed| &confirmed.target).collect();
        let more: Vec<Uuid> = batch.iter().flat_map(|confirmed| confirmed.points.iter().copied()).collect();
        let whole = self.options.payload.is_some();
        let mut points = look::points(&*self.ports.index, &targets, &more, whole, true).await?;
        Ok(targets.iter().map(|target| points.remove(*target).unwrap_or_default()).collect())
    }

    /// Removes points older than the repair from documents that it has reached. An upserter only removes older points
    /// right after the last chunk; it does not look elsewhere.
    async fn sweep(&self, batch: &[Confirmed], version: Version) -> PortResult<()> {
        let points = self.points(batch).await?;
        let fences = batch.iter().zip(&points).filter_map(|(confirmed, points)| {
            let document = confirmed.target.document();
            let first = points.iter().find(|seen| seen.point.id == document.point(0));
            let former = !key::is_canonical(&confirmed.target.key);
            let reached = former || first.is_some_and(|first| first.stamp.version >= version);
            let older = points.iter().any(|seen| seen.stamp.version < version);
            (reached && older).then_some(Fence { target: FenceTarget::Document(document), version })
        });
        let fences: Vec<Fence> = fences.collect();
        if !fences.is_empty() {
            self.ports.index.delete(&fences).await?;
        }
        // A deletion by document does not find these.
        let stray = points.iter().flatten().filter(|seen| seen.is_stray() && seen.stamp.version < version);
        let stray: Vec<Uuid> = stray.map(|seen| seen.point.id).collect();
        if stray.is_empty() { Ok(()) } else { self.ports.index.remove(&stray, version).await }
    }

    /// Checks the documents again.
    async fn verify(&self, batch: &[Confirmed], version: Version, repaired: &mut Repaired) -> PortResult<()> {
        let points = self.points(batch).await?;
        let targets: Vec<&Target> = batch.iter().map(|confirmed| &confirmed.target).collect();
        let now = self.ports.source.now().await?;
        let mut rows = look::rows(&self.members, &targets, now).await?;
        // A document written concurrently is in flight again.
        let newer = points.iter().map(|points| points.iter().any(|seen| seen.stamp.version > version));
        let newer: Vec<bool> = newer.collect();
        let sides: Vec<Sides> = targets.iter().map(|target| rows.remove(*target)).zip(points).collect();
        let verdicts = self.judge(sides).await?;
        for ((target, verdict), newer) in targets.into_iter().zip(verdicts).zip(newer) {
            if let Some((kind, what)) = verdict.difference
                && !newer
            {
                repaired.left += 1;
                if repaired.still.len() < self.options.named {
                    repaired.still.push(difference(target, kind, what));
                }
            }
        }
        Ok(())
    }
}
