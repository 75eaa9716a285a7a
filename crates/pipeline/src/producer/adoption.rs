//! Keeps a session at the applied catalog: adopts its revisions, and begins the snapshots that they require.
//!
//! ```text
//!  another revision ──▶ the feed delivers what it needs? ──yes──▶ append it alone; changes after it are routed by it
//!                            └──no──▶ end the session; the next one opens the feed for it, and appends it with its events
//!  targets due, and adopted ──▶ append the scope ──▶ snapshot ──▶ done, applied ──▶ the catalog records them as filled
//! ```
//!
//! **Routing** is part of the step that saves the checkpoint: every entry after a checkpoint with a revision is routed by
//! that revision or a newer one, whichever producer appends it.
//! **Snapshots** begin after the adoption of what makes their targets due, at a time after everything appended: their
//! rows win over what an earlier declaration made, and every later change is routed to the targets too.
//! **Losses** of one target concern no other: nothing is read again for the others, and no snapshot waits for it.

use tidewheel_core::catalog::{
    Catalog, Due, Generation, IndexName, Lost, Needs, Rows, TargetId, is_futile, next_scope,
};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::{Appended, Checkpoint, Covered, PortResult, SnapshotState};
use tidewheel_core::version::ClusterTime;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::adopted::Adopted;
use super::context::{Ended, Session};
use super::plan;
use super::writer::Writer;

/// What followed from the applied catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Followed {
    /// Whether another catalog was adopted.
    pub(super) has_adopted: bool,
    /// Whether the checkpoint has another snapshot, or none any more, or one of other targets.
    pub(super) has_other_snapshot: bool,
}

impl Session<'_> {
    /// Adopts the catalog if the store has another `revision`, ends a snapshot that fills nothing, and begins the one
    /// that is due. Called after every look at the positions.
    pub(super) async fn follow_catalog(
        &self,
        writer: &mut Writer<'_>,
        revision: u64,
        lost: &[Lost],
    ) -> Result<Followed, Ended> {
        let is_first = writer.adopted.revision() == 0;
        let has_adopted = self.adopt(writer, revision).await?;
        // A snapshot of the short form continues with the target in the catalog.
        let mut followed = Followed { has_adopted, has_other_snapshot: has_adopted && is_first };
        if writer.adopted.revision() == 0 {
            return Ok(followed);
        }
        let applied = writer.adopted.applied.clone();
        if is_futile(applied.catalog(), &writer.checkpoint, lost) {
            warn!("ending a snapshot: every target that it fills is lost, or no longer exists");
            writer.append(plan::abandon(&writer.checkpoint)).await?;
            followed.has_other_snapshot = true;
        }
        if plan::is_of_short_form(&writer.checkpoint) {
            // It compares everything, and is replaced by the snapshot that the catalog makes due.
            let needs = |_: &TargetId, generation: &Generation| {
                let is_partial = generation.since == 0 && !generation.is_filled() && !generation.needs.sweep;
                is_partial.then_some(Needs::COMPARISON)
            };
            if self.make_due(&writer.adopted, needs).await? {
                return Ok(followed);
            }
        }
        let scope = |documents: &dyn Fn(&IndexName) -> Option<u64>| {
            next_scope(applied.catalog(), &writer.checkpoint, lost, documents)
        };
        let Some(first) = scope(&|_| None) else { return Ok(followed) };
        let is_waiting = |generation: &Generation| generation.state.is_routed() && !generation.is_filled();
        let waiting = applied.catalog().targets().filter(|(_, generation)| is_waiting(generation)).count();
        let scope = if waiting > first.len() {
            let documents = self.documents(&writer.adopted.source, applied.catalog()).await?;
            let known = |index: &IndexName| documents.iter().find(|(name, _)| name == index).map(|(_, count)| *count);
            scope(&known).unwrap_or(first)
        } else {
            first
        };
        let targets = scope.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        info!(targets, "beginning a snapshot");
        // Also not before the time at which the feed was opened for these collections.
        let Checkpoint { last, through, .. } = writer.checkpoint;
        let mut time = self.after(last.0.max(through.before())).await?;
        if needs_later_time(applied.catalog(), &writer.checkpoint, time, &scope) {
            time = self.after(time).await?;
        }
        writer.append(plan::begin(&writer.checkpoint, time, scope)).await?;
        followed.has_other_snapshot = true;
        Ok(followed)
    }

    /// Adopts the applied catalog if it is another one. A catalog that vanished is lost, not withdrawn.
    async fn adopt(&self, writer: &mut Writer<'_>, revision: u64) -> Result<bool, Ended> {
        if revision == 0 || revision == writer.adopted.revision() {
            return Ok(false);
        }
        let applied = self.ports.targets.reload().await?;
        if applied.revision() == writer.adopted.revision() {
            return Ok(false);
        }
        let adopted = Adopted::new(applied, &self.ports.source);
        if !adopted.shares_feed_with(&writer.adopted) {
            return Err(Ended::Adopted);
        }
        writer.adopt(adopted).await?;
        Ok(true)
    }

    /// The estimated number of documents in the collections of each index that waits to be filled. A number that cannot
    /// be determined only decides about an order.
    async fn documents(&self, source: &Covered, catalog: &Catalog) -> Result<Vec<(IndexName, u64)>, Ended> {
        let (mut counted, mut renewed) = (Vec::new(), Instant::now());
        for (name, index) in &catalog.indexes {
            let waits = |generation: &&Generation| generation.state.is_routed() && !generation.is_filled();
            let Some(generation) = index.generations.values().find(waits) else { continue };
            // Indexes may cover thousands of collections.
            if renewed.elapsed() > self.options.lease / 3 {
                self.renew().await?;
                renewed = Instant::now();
            }
            match count(source, generation).await {
                Ok(documents) => counted.push((name.clone(), documents)),
                Err(error) => debug!(index = %name, "failed to estimate the number of documents: {error}"),
            }
        }
        Ok(counted)
    }

    /// Makes targets that changes are routed to due, in the catalog that `adopted` is. Returns whether there were any:
    /// then the next look adopts the catalog that states it.
    pub(super) async fn make_due(
        &self,
        adopted: &Adopted,
        needs: impl Fn(&TargetId, &Generation) -> Option<Needs>,
    ) -> Result<bool, Ended> {
        let Some(ports) = self.ports.targets.ports() else { return Ok(false) };
        let (catalog, now_ms) = ports.store.load().await?;
        if catalog.is_short_form() {
            return Err(PortError::transient("the applied catalog is missing in the store").into());
        }
        if catalog.revision != adopted.revision() {
            return Err(Ended::Adopted);
        }
        let next = catalog.next_revision(now_ms);
        let changed = plan::made_due(&catalog, next, needs);
        if changed.is_empty() {
            return Ok(false);
        }
        let indexes = changed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
        match ports.store.save(Uuid::new_v4(), catalog.revision, next, &changed, None).await? {
            Appended::Saved => {
                info!(indexes, revision = next, "the indexes have to be compared with the source");
                Ok(true)
            }
            Appended::Conflict => Err(Ended::Adopted),
        }
    }

    /// Makes every target due that may have missed changes, and returns the catalog that states it.
    pub(super) async fn make_everything_due(&self, adopted: Adopted) -> Result<Adopted, Ended> {
        if adopted.revision() == 0 {
            return Ok(adopted);
        }
        self.make_due(&adopted, |_, generation| plan::missed(generation)).await?;
        Ok(Adopted::new(self.ports.targets.reload().await?, &self.ports.source))
    }
}

/// Whether the rows of a snapshot of this scope need a later time than `time`.
///
/// The index keeps the rows of the last snapshot over others of the same time; also those of repairs and replays, which an
/// earlier declaration may have rendered. A target that is read for the first time has none of them: then a source at rest,
/// whose time advances every ten seconds, delays nothing.
fn needs_later_time(catalog: &Catalog, last: &Checkpoint, time: ClusterTime, scope: &[Due]) -> bool {
    let (SnapshotState::Running { time: before, .. }
    | SnapshotState::Sweeping { time: before, .. }
    | SnapshotState::Done { time: before, .. }) = last.snapshot;
    let was_read = |target: &TargetId| last.scope.is_empty() || last.scope.iter().any(|due| due.target == *target);
    scope.iter().any(|Due { target, .. }| {
        let Some(generation) = catalog.generation(target) else { return time == before };
        let is_first = generation.filled == 0 && generation.due == generation.since && !was_read(target);
        let is_made_again = generation.filled > 0 && generation.needs.rows > Rows::Missing;
        is_made_again || (time == before && !is_first)
    })
}

/// The estimated number of documents in the collections that a generation covers.
async fn count(source: &Covered, generation: &Generation) -> PortResult<u64> {
    let mut documents = 0;
    for namespace in source.source.collections(&generation.declaration.source).await? {
        documents += source.source.estimate(&namespace).await?;
    }
    Ok(documents)
}

#[cfg(test)]
mod tests {
    use tidewheel_core::catalog::State;
    use tidewheel_testkit::contracts::samples::checkpoint;

    use super::*;
    use crate::targets::samples::{catalog, first};

    #[test]
    fn only_targets_that_were_read_before_wait_for_a_later_time() {
        let (before, later) = (ClusterTime { seconds: 5, increment: 1 }, ClusterTime { seconds: 6, increment: 1 });
        let due = |index: &str| Due { target: first(index), due: 7 };
        let last = Checkpoint {
            snapshot: SnapshotState::Done { time: before, rows: 0 },
            scope: vec![due("notes")],
            ..checkpoint(5)
        };
        let mut applied = catalog(7, &[("notes", State::Serving, false), ("tickets", State::Serving, false)]);
        let needs =
            |applied: &Catalog, last: &Checkpoint, time, index| needs_later_time(applied, last, time, &[due(index)]);
        assert!(!needs(&applied, &last, before, "tickets"), "its first snapshot");
        assert!(needs(&applied, &last, before, "notes") && !needs(&applied, &last, later, "notes"));
        assert!(needs_later_time(&applied, &last, before, &[due("tickets"), due("notes")]));
        assert!(needs(&applied, &last, before, "unknown"));
        let all = Checkpoint { scope: Vec::new(), ..last.clone() };
        assert!(needs(&applied, &all, before, "tickets"), "the last snapshot read everything");

        let mut change = |change: fn(&mut Generation)| {
            let index = applied.indexes.get_mut(&first("tickets").index).unwrap();
            change(index.generations.get_mut(&1).unwrap());
            applied.clone()
        };
        let due_again = change(|tickets| tickets.due = 8);
        assert!(needs(&due_again, &last, before, "tickets") && !needs(&due_again, &last, later, "tickets"));
        let rendered_again = change(|tickets| (tickets.filled, tickets.needs.rows) = (7, Rows::Text));
        assert!(needs(&rendered_again, &last, later, "tickets"), "repairs may have the same time");
    }
}
