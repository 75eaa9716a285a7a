//! The open connections of one server: what each is doing, and which one makes room.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::limits::{Limits, Phase};

/// Handle to the connections of one server.
#[derive(Clone)]
pub(crate) struct Connections {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    open: Mutex<HashMap<u64, Arc<State>>>,
    next: AtomicU64,
    ended: Notify,
}

/// One connection.
pub(crate) struct State {
    now: Mutex<Now>,
    closed: CancellationToken,
}

struct Now {
    phase: Phase,
    since: Instant,
    /// Since when the client has not read anything that is waiting for it.
    blocked: Option<Instant>,
}

/// A connection's place in the table, given back when it is dropped.
pub(crate) struct Slot {
    number: u64,
    state: Arc<State>,
    of: Connections,
}

/// Closes every connection when it is dropped.
pub(crate) struct CloseOnDrop(Connections);

impl Connections {
    pub(crate) fn new(limits: Limits) -> Self {
        let inner = Inner { limits, open: Mutex::default(), next: AtomicU64::new(0), ended: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// A place for one more connection; `None` if every other one has a request in progress.
    pub(crate) fn admit(&self, now: Instant) -> Option<Slot> {
        let live = self.open().values().filter(|state| !state.closed.is_cancelled()).count();
        if live >= self.inner.limits.connections && !self.evict() {
            return None;
        }
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let now = Mutex::new(Now { phase: Phase::New, since: now, blocked: None });
        let state = Arc::new(State { now, closed: CancellationToken::new() });
        self.open().insert(number, state.clone());
        Some(Slot { number, state, of: self.clone() })
    }

    /// Closes the connection that is first in line to make room. Returns whether there was one.
    pub(crate) fn evict(&self) -> bool {
        let open = self.open();
        let waiting = open.values().filter(|state| !state.closed.is_cancelled()).filter_map(|state| {
            let now = state.now();
            now.phase.may_yield().then_some(((now.phase, now.since), state))
        });
        let first = waiting.min_by_key(|(rank, _)| *rank);
        first.inspect(|(_, state)| state.closed.cancel()).is_some()
    }

    /// Closes what is over a limit.
    pub(crate) fn expire(&self, now: Instant) {
        let limits = &self.inner.limits;
        for state in self.open().values() {
            let at = state.now();
            let late = limits.deadline(at.phase, at.since).is_some_and(|deadline| deadline <= now);
            let stuck = at.blocked.is_some_and(|since| since + limits.write <= now);
            if late || stuck {
                state.closed.cancel();
            }
        }
    }

    /// Waits until no connection is open.
    pub(crate) async fn ended(&self) {
        loop {
            let ended = self.inner.ended.notified();
            if self.open().is_empty() {
                return;
            }
            ended.await;
        }
    }

    /// Closes everything when the guard is dropped.
    pub(crate) fn close_on_drop(&self) -> CloseOnDrop {
        CloseOnDrop(self.clone())
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<State>>> {
        self.inner.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        for state in self.0.open().values() {
            state.closed.cancel();
        }
    }
}

impl State {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a phase.
    pub(crate) fn enter(&self, phase: Phase) {
        let mut now = self.now();
        (now.phase, now.since) = (phase, Instant::now());
    }

    /// Bytes came from the client.
    pub(crate) fn received(&self) {
        let mut now = self.now();
        if matches!(now.phase, Phase::New | Phase::Idle) {
            (now.phase, now.since) = (Phase::Headers, Instant::now());
        }
    }

    /// Whether the client took what was written, or has yet to read.
    pub(crate) fn wrote(&self, progress: bool) {
        let mut now = self.now();
        now.blocked = if progress { None } else { now.blocked.or_else(|| Some(Instant::now())) };
    }

    /// Whether no request is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.now().phase, Phase::New | Phase::Headers | Phase::Idle)
    }
}

impl Slot {
    pub(crate) fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Waits until the connection has to be closed.
    pub(crate) async fn closed(&self) {
        self.state.closed.cancelled().await;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.of.open().remove(&self.number);
        self.of.inner.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn connections(most: usize) -> Connections {
        Connections::new(Limits { connections: most, ..Limits::default() })
    }

    #[test]
    fn a_connection_without_a_request_makes_room_and_one_with_a_request_does_not() {
        let connections = connections(3);
        let now = Instant::now();
        let slots: Vec<_> = (0..3).map(|_| connections.admit(now).unwrap()).collect();
        slots[0].state().enter(Phase::Working);
        slots[1].state().enter(Phase::Idle);
        let fourth = connections.admit(now).unwrap();
        let closed = |slot: &Slot| slot.state().closed.is_cancelled();
        // The one that never sent anything goes before the one that is between two requests.
        assert_eq!(slots.iter().map(closed).collect::<Vec<_>>(), [false, false, true]);
        fourth.state().enter(Phase::Working);
        slots[1].state().enter(Phase::Working);
        assert!(connections.admit(now).is_none());
        drop(slots);
        assert!(connections.admit(now).is_some());
    }

    #[test]
    fn the_longest_idle_connection_makes_room_first() {
        let connections = connections(3);
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let slots: Vec<_> = [2, 0, 1].map(|seconds| connections.admit(later(seconds)).unwrap()).into();
        let _fourth = connections.admit(later(3)).unwrap();
        let closed: Vec<_> = slots.iter().map(|slot| slot.state().closed.is_cancelled()).collect();
        assert_eq!(closed, [false, true, false]);
    }

    #[test]
    fn connections_beyond_their_deadline_are_closed() {
        let connections = connections(10);
        let limits = Limits::default();
        let slot = |phase| {
            let slot = connections.admit(Instant::now()).unwrap();
            slot.state().enter(phase);
            slot
        };
        let slots = [Phase::New, Phase::Headers, Phase::Body, Phase::Idle, Phase::Working].map(slot);
        let stuck = slot(Phase::Working);
        stuck.state().wrote(false);
        let closed = || slots.iter().map(|slot| slot.state().closed.is_cancelled()).collect::<Vec<_>>();
        let after = |limit: Duration| Instant::now() + limit;
        connections.expire(after(limits.headers / 2));
        assert_eq!(closed(), [false; 5]);
        connections.expire(after(limits.headers));
        assert_eq!(closed(), [true, true, false, false, false]);
        connections.expire(after(limits.body));
        assert_eq!(closed(), [true, true, true, false, false]);
        connections.expire(after(limits.idle));
        assert_eq!(closed(), [true, true, true, true, false]);
        assert!(stuck.state().closed.is_cancelled());
    }

    #[test]
    fn a_client_that_reads_again_is_not_stuck() {
        let connections = connections(1);
        let slot = connections.admit(Instant::now()).unwrap();
        slot.state().enter(Phase::Working);
        slot.state().wrote(false);
        slot.state().wrote(true);
        connections.expire(Instant::now() + Limits::default().write * 2);
        assert!(!slot.state().closed.is_cancelled());
    }
}
