//! The producer's side of stage 1, in memory.

use std::time::Duration;

use async_trait::async_trait;
use tidewheel_core::change::Change;
use tidewheel_core::ports::{
    Appended, AuditPosition, Checkpoint, Damage, Journal, ParkedChange, PortResult, Positions, Repair,
};
use tidewheel_stores::redis::keys::{RAW, STAGE_1, STAGE_2};
use tokio::time::Instant;

use super::state::FakeStreams;

/// The producer's view of stage 1; its entries are read through [`FakeStreams::changes`].
#[derive(Clone)]
pub struct FakeJournal(FakeStreams);

impl FakeJournal {
    pub(super) fn new(streams: FakeStreams) -> Self {
        Self(streams)
    }
}

#[async_trait]
impl AuditPosition for FakeJournal {
    async fn audit(&self) -> PortResult<Option<String>> {
        self.0.plain_target().audit().await
    }

    async fn save_audit(&self, place: Option<&str>) -> PortResult<()> {
        self.0.plain_target().save_audit(place).await
    }
}

#[async_trait]
impl Journal for FakeJournal {
    async fn load(&self) -> PortResult<Option<Checkpoint>> {
        self.0.faults().around("load", || Ok(self.0.state().checkpoint.clone())).await
    }

    async fn append_and_park(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[ParkedChange],
        next: &Checkpoint,
    ) -> PortResult<Appended> {
        let append = || {
            let mut state = self.0.state();
            state.takes(changes, parked)?;
            if state.checkpoint.as_ref() == expected {
                for change in changes {
                    state.add_record(RAW, change);
                }
                state.park(parked);
                state.checkpoint = Some(next.clone());
                Ok(Appended::Saved)
            } else if state.checkpoint.as_ref() == Some(next) {
                Ok(Appended::Saved)
            } else {
                Ok(Appended::Conflict)
            }
        };
        let result = self.0.faults().around("append", append).await;
        self.0.arrived.notify_waiters();
        result
    }

    async fn most_bytes(&self) -> PortResult<Option<usize>> {
        self.0.faults().around("most_bytes", || Ok(self.0.state().most_bytes)).await
    }

    async fn applied(&self) -> PortResult<Option<Checkpoint>> {
        self.0.faults().around("applied", || Ok(self.0.state().applied.clone())).await
    }

    async fn confirm(&self, expected: &Checkpoint, applied: &Checkpoint) -> PortResult<Appended> {
        let confirm = || {
            let mut state = self.0.state();
            if state.checkpoint.as_ref() != Some(expected) {
                return Ok(Appended::Conflict);
            }
            state.applied = Some(applied.clone());
            Ok(Appended::Saved)
        };
        self.0.faults().around("confirm", confirm).await
    }

    async fn restart(
        &self,
        expected: Option<&Checkpoint>,
        changes: &[Change],
        parked: &[ParkedChange],
        next: &Checkpoint,
        repair: Repair,
    ) -> PortResult<Appended> {
        let restart = || {
            let mut state = self.0.state();
            state.takes(changes, parked)?;
            if state.checkpoint.as_ref() != expected {
                let done = state.checkpoint.as_ref() == Some(next);
                return Ok(if done { Appended::Saved } else { Appended::Conflict });
            }
            for change in changes {
                state.add_record(RAW, change);
            }
            state.park(parked);
            state.accept();
            if repair == Repair::Everything {
                state.applied = None;
            }
            if repair == Repair::Everything || !matches!(state.damage, Some(Damage::Collection(_))) {
                state.damage = None;
            }
            state.checkpoint = Some(next.clone());
            Ok(Appended::Saved)
        };
        let result = self.0.faults().around("restart", restart).await;
        self.0.arrived.notify_waiters();
        result
    }

    async fn positions(&self) -> PortResult<Positions> {
        let positions = || {
            let state = self.0.state();
            let damage = state.damage.clone().or_else(|| state.harm(STAGE_1)).or_else(|| state.harm(STAGE_2));
            let (raw, embedded) = (state.position(STAGE_1), state.position(STAGE_2));
            let lost = state.lost.iter().map(|(target, text)| (target.clone(), text.clone())).collect();
            Ok(Positions { raw, embedded, damage, at: state.now(), catalog: state.catalog.revision, lost })
        };
        self.0.faults().around("positions", positions).await
    }

    async fn lease(&self, owner: &str, time_to_live: Duration) -> PortResult<bool> {
        let lease = || {
            let mut state = self.0.state();
            let now = Instant::now();
            if state.lease.as_ref().is_some_and(|(holder, until)| holder != owner && *until > now) {
                return Ok(false);
            }
            state.lease = Some((owner.to_owned(), now + time_to_live));
            Ok(true)
        };
        self.0.faults().around("lease", lease).await
    }

    async fn release(&self, owner: &str) -> PortResult<()> {
        let release = || {
            let mut state = self.0.state();
            if state.lease.as_ref().is_some_and(|(holder, _)| holder == owner) {
                state.lease = None;
            }
            Ok(())
        };
        self.0.faults().around("release", release).await
    }
}
