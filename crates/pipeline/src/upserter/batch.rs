//! Applies the part of a batch that belongs to one target.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{Delivery, EntryId, Fence, Gap};
use tracing::{debug, warn};

use super::apply::Applier;
use super::lane::Lane;
use super::plan::{Plan, Removal, Shape, Write, plan};
use super::traced::Traced;
use super::{NAME, Worker};
use crate::breaker::Ended;
use crate::isolate::Suspect;
use crate::metric::{self, Commits};
use crate::newest::bytes;
use crate::offload::offload;
use crate::parking::{self, letter, park};
use crate::retry::{RetryError, RetryPolicy};
use crate::targets::{Applied, Target};

/// Where, and under which policy, the records of one target are applied.
struct Destination<'a> {
    target: &'a Arc<Target>,
    lane: &'a Lane,
    /// For calls of the index.
    retry: RetryPolicy,
    /// Set when the catalog no longer routes the target.
    gone: &'a AtomicBool,
}

impl Worker {
    /// Applies the records of a target. Those of one that must not delay the others are skipped while its collection is
    /// unavailable.
    pub(super) async fn apply(
        &self,
        applied: &Applied,
        target: &Arc<Target>,
        deliveries: Vec<Delivery<Embedded>>,
    ) -> Result<(), RetryError> {
        let lane = self.lanes.of(target, applied);
        let gone = AtomicBool::new(false);
        let to = |retry: RetryPolicy| Destination { target, lane: &lane, retry, gone: &gone };
        let mut traced = Traced::begin(self.tracer.as_ref(), &deliveries, target.ports.index.name());
        if target.is_local() {
            // If a catalog without it is applied meanwhile, its entries stay pending until they are claimed.
            return self.upsert(to(self.retry.clone()), deliveries, &mut traced).await;
        }
        let entries = ids(&deliveries);
        let ended = if applied.may_skip(target) {
            let spans = &mut traced;
            let work = move |retry| self.upsert(to(retry), deliveries, spans);
            lane.breaker.run(&self.retry, work).await
        } else {
            tokio::select! {
                biased;
                ended = self.upsert(to(self.retry.clone()), deliveries, &mut traced) => ended.map(Ended::Done),
                () = self.until_unneeded(target) => {
                    gone.store(true, Ordering::Relaxed);
                    Err(RetryError::Shutdown)
                }
            }
        };
        match ended {
            Ok(Ended::Done(())) => Ok(()),
            Ok(Ended::Skipped(reason)) => self.skip(target, &entries, reason, traced).await,
            Err(RetryError::Shutdown) if gone.load(Ordering::Relaxed) => {
                self.retire(target.id.index.as_str(), &entries, traced).await
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until writes fail that the catalog does not ask for any more: an index is dropped because its collection is
    /// broken, and is deleted when nothing waits for it.
    async fn until_unneeded(&self, target: &Target) {
        self.targets.until(|applied| applied.target(Some(&target.id)).is_none()).await;
        self.retry.until_failing().await;
    }

    /// Settles the records of a target that the catalog does not route: acknowledges them without effect.
    pub(super) async fn retire(
        &self,
        index: &str,
        entries: &[EntryId],
        traced: Option<Traced>,
    ) -> Result<(), RetryError> {
        if entries.is_empty() {
            return Ok(());
        }
        if let Some(queue) = &self.acknowledge {
            self.retry.call("acknowledge entries", || queue.acknowledge(entries)).await?;
        }
        debug!(index, entries = entries.len(), "acknowledged records of a retired target");
        metric::retired(index, entries.len());
        if let Some(mut traced) = traced {
            traced.spans.end_as(entries, "retired");
        }
        Ok(())
    }

    /// Leaves out the records of a target, which is lost from then on.
    async fn skip(
        &self,
        target: &Target,
        entries: &[EntryId],
        reason: String,
        traced: Option<Traced>,
    ) -> Result<(), RetryError> {
        let gaps = [Gap { target: target.id.clone(), reason }];
        if let Some(queue) = &self.acknowledge {
            self.retry.call("acknowledge entries", || queue.skip(entries, &gaps)).await?;
        }
        metric::skipped(target.id.index.as_str(), entries.len());
        if let Some(mut traced) = traced {
            traced.spans.end_as(entries, "skipped");
        }
        Ok(())
    }

    async fn upsert(
        &self,
        to: Destination<'_>,
        deliveries: Vec<Delivery<Embedded>>,
        traced: &mut Option<Traced>,
    ) -> Result<(), RetryError> {
        let Destination { target, lane, retry, gone } = to;
        let commits = Commits::of(&deliveries);
        let (bytes, shaping) = (bytes(&deliveries), target.clone());
        let mut plan = offload(bytes, move || plan(deliveries, Shape::from(&*shaping))).await?;
        let (writes, removals) = (std::mem::take(&mut plan.writes), std::mem::take(&mut plan.removals));
        let outcomes = traced.as_ref().map(Traced::outcomes);
        let applier = Applier {
            targets: &self.targets,
            target,
            lane,
            retry: &retry,
            streams: &self.retry,
            gone,
            outcomes: outcomes.as_deref(),
        };
        let fences: Vec<Fence> = removals.iter().map(|removal| removal.fence.clone()).collect();
        // Concurrently: no document is in both, and the fence of a collection holds in either order.
        let (unremoved, unwritten) = tokio::join!(applier.remove(&fences), applier.write(&writes));
        let (unremoved, unwritten) = (unremoved?, unwritten?);
        if unremoved.is_empty() && unwritten.is_empty() {
            let (written, removed) = (writes.iter().collect(), removals.iter().collect());
            return self.settle(target, lane, Done { written, removed }, plan, &commits, traced).await;
        }
        // Items that still fail while other requests succeed come last, so that they block no others.
        let written = without(&writes, &unwritten);
        let removed = without(&removals, &unremoved);
        self.settle(target, lane, Done { written, removed }, plan, &commits, traced).await?;

        let (unremoved, unwritten) =
            tokio::join!(applier.settle_removals(&fences, unremoved), applier.settle_writes(&writes, unwritten));
        let (mut done, mut plan) = (Done::default(), Plan::default());
        for (index, outcome) in unremoved? {
            match outcome {
                Ok(()) => done.removed.push(&removals[index]),
                Err(error) => plan.letters.extend(removals[index].entries.iter().map(|id| letter(id.clone(), &error))),
            }
        }
        for (index, outcome) in unwritten? {
            let Write { points, entries, deletion, .. } = &writes[index];
            match outcome {
                Ok(()) => done.written.push(&writes[index]),
                Err(error) => {
                    let policy = target.on_dead_letter();
                    plan.park(points.document, park(policy, points.version, entries.clone(), *deletion, &error));
                }
            }
        }
        let removals = std::mem::take(&mut plan.removals);
        let fences: Vec<Fence> = removals.iter().map(|removal| removal.fence.clone()).collect();
        let unremoved = applier.remove(&fences).await?;
        // Their tombstones are raised: points that could not be deleted are removed with the next write of the
        // document.
        for (index, outcome) in applier.settle_removals(&fences, unremoved).await? {
            if let Err(error) = outcome {
                warn!(fence = ?fences[index].target, "failed to remove an older version of a parked document: {error}");
            }
        }
        done.removed.extend(&removals);
        self.settle(target, lane, done, plan, &commits, traced).await
    }

    /// Acknowledges finished entries, then parks failed ones.
    async fn settle(
        &self,
        target: &Target,
        lane: &Lane,
        done: Done<'_>,
        plan: Plan,
        commits: &Commits,
        traced: &mut Option<Traced>,
    ) -> Result<(), RetryError> {
        let Done { written, removed } = done;
        let Plan { letters, superfluous, .. } = plan;
        let (documents, removals) = (written.len(), removed.len());
        if let Some(traced) = traced {
            traced.note(&written, &removed);
        }
        let entries = written.iter().map(|write| &write.entries).chain(removed.iter().map(|removal| &removal.entries));
        let mut done: Vec<EntryId> = entries.flatten().cloned().collect();
        done.extend(superfluous);
        if !done.is_empty() {
            if let Some(queue) = &self.acknowledge {
                self.retry.call("acknowledge entries", || queue.acknowledge(&done)).await?;
            }
            commits.searchable(&done, &lane.latency);
            debug!(documents, removals, entries = done.len(), "in the index");
            if let Some(traced) = traced {
                traced.spans.end(&done);
            }
        }
        let spans = traced.as_mut().map(|traced| &mut traced.spans);
        parking::send(NAME, letters, &*self.park, &self.retry, spans, Some(&target.id.index)).await
    }
}

/// The entries of these deliveries.
pub(super) fn ids(deliveries: &[Delivery<Embedded>]) -> Vec<EntryId> {
    deliveries.iter().map(|delivery| delivery.id.clone()).collect()
}

/// All items except the suspects.
fn without<'a, T>(items: &'a [T], suspects: &[Suspect]) -> Vec<&'a T> {
    let suspects: HashSet<usize> = suspects.iter().map(|suspect| suspect.index).collect();
    items.iter().enumerate().filter(|(index, _)| !suspects.contains(index)).map(|(_, item)| item).collect()
}

/// The finished part of a batch.
#[derive(Default)]
struct Done<'a> {
    written: Vec<&'a Write>,
    removed: Vec<&'a Removal>,
}
