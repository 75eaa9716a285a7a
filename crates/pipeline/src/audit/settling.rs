//! The second look: checks differences again once earlier commits are in the index.

use std::collections::BTreeMap;
use std::time::Duration;

use tidewheel_core::ports::{Checkpoint, PortResult, SnapshotState};
use tidewheel_core::version::ClusterTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::judge::{Kind, Target};
use super::look;
use super::run::{BATCH, Confirmed, Run, Sides, Suspect, Verdict, difference};

/// How often a document that keeps changing is checked.
const ROUNDS: usize = 5;

/// Minimum delay before a difference is checked again.
const MOMENT: Duration = Duration::from_millis(500);

/// How often the audit polls whether earlier commits have reached the index.
const LOOK: Duration = Duration::from_millis(100);

/// How long to wait for that after it has timed out once.
const IN_VAIN: Duration = Duration::from_secs(2);

impl Run<'_> {
    /// Checks the suspects again once earlier commits have reached the index.
    pub(super) async fn settle(&self) -> PortResult<()> {
        let mut open = merged(self.take_suspects());
        let mut confirmed = Vec::new();
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            let now = self.members.now().await?;
            tokio::time::sleep(MOMENT).await;
            self.arrived(now).await?;
            let mut changing = Vec::new();
            for batch in open.chunks(BATCH) {
                self.look_again(batch, now, &mut confirmed, &mut changing).await?;
            }
            open = changing;
        }
        // Keys with invalid UTF-8 cannot be queried: their state is undetermined too.
        self.found().unsettled += open.len() as u64;
        if self.ports.repair.is_some() && !confirmed.is_empty() {
            self.repair(&confirmed).await?;
        }
        Ok(())
    }

    async fn look_again(
        &self,
        suspects: &[Suspect],
        since: ClusterTime,
        confirmed: &mut Vec<Confirmed>,
        changing: &mut Vec<Suspect>,
    ) -> PortResult<()> {
        let targets: Vec<&Target> = suspects.iter().map(|suspect| &suspect.target).collect();
        let more: Vec<Uuid> = suspects.iter().flat_map(|suspect| suspect.points.iter().copied()).collect();
        // The index first: its state is then never newer than the row that it is compared with.
        let whole = self.options.payload.is_some();
        let mut points = look::points(&*self.ports.index, &targets, &more, whole, true).await?;
        let mut rows = look::rows(&self.members, &targets, self.members.now().await?).await?;
        let sides = targets.iter().map(|target| (rows.remove(*target), points.remove(*target).unwrap_or_default()));
        let sides: Vec<Sides> = sides.collect();
        let is_newer = |(_, points): &Sides| points.iter().any(|seen| seen.stamp.version.time > since);
        let newer: Vec<bool> = sides.iter().map(is_newer).collect();
        for ((suspect, verdict), newer) in suspects.iter().zip(self.judge(sides).await?).zip(newer) {
            let Verdict { difference, state: source } = verdict;
            let Some((kind, what)) = difference else { continue };
            if source != suspect.source || newer {
                changing.push(Suspect { source, ..suspect.clone() });
                continue;
            }
            self.count(&suspect.target, kind, what);
            let (target, points) = (suspect.target.clone(), suspect.points.clone());
            confirmed.push(Confirmed { target, points });
        }
        Ok(())
    }

    fn count(&self, target: &Target, kind: Kind, what: String) {
        let mut found = self.found();
        *match kind {
            Kind::Missing => &mut found.missing,
            Kind::Stale => &mut found.stale,
            Kind::Extra => &mut found.extra,
            Kind::Surplus => &mut found.surplus,
        } += 1;
        if found.differences.len() < self.options.named {
            found.differences.push(difference(target, kind, what));
        }
    }

    /// Waits until everything committed at or before this time is in the index.
    async fn arrived(&self, time: ClusterTime) -> PortResult<()> {
        let limit = if self.found().settled { self.options.settle } else { IN_VAIN.min(self.options.settle) };
        let begun = Instant::now();
        loop {
            let applied = self.ports.journal.applied().await?;
            let arrived = applied.is_some_and(|applied| !self.is_being_filled(&applied) && applied.through >= time);
            if arrived {
                return Ok(());
            }
            if begun.elapsed() >= limit {
                self.found().settled = false;
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether a snapshot is running that may append to what is compared.
    fn is_being_filled(&self, checkpoint: &Checkpoint) -> bool {
        let is_running = !matches!(checkpoint.snapshot, SnapshotState::Done { .. });
        let is_of_others = self.options.target.as_ref().is_some_and(|target| {
            !checkpoint.scope.is_empty() && checkpoint.scope.iter().all(|due| due.target != target.id)
        });
        is_running && !is_of_others
    }
}

/// Merges suspects of the same document.
fn merged(suspects: Vec<Suspect>) -> Vec<Suspect> {
    let mut of: BTreeMap<Target, Suspect> = BTreeMap::new();
    for suspect in suspects {
        match of.get_mut(&suspect.target) {
            Some(known) => known.points.extend(suspect.points),
            None => drop(of.insert(suspect.target.clone(), suspect)),
        }
    }
    of.into_values().collect()
}
