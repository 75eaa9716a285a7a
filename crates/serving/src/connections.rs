//! The open connections of one server, their phases, and the eviction order.

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
    /// When pending writes first blocked because the client stopped reading.
    blocked: Option<Instant>,
}

/// A connection's entry in the table, released on drop.
pub(crate) struct Slot {
    number: u64,
    state: Arc<State>,
    of: Connections,
}

/// Closes every connection on drop.
pub(crate) struct CloseOnDrop(Connections);

impl Connections {
    pub(crate) fn new(limits: Limits) -> Self {
        let inner = Inner { limits, open: Mutex::default(), next: AtomicU64::new(0), ended: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Registers a connection; `None` if the limit is reached and every connection has a request in progress.
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

    /// Closes the first connection in eviction order. Returns whether one was closed.
    pub(crate) fn evict(&self) -> bool {
        let open = self.open();
        let waiting = open.values().filter(|state| !state.closed.is_cancelled()).filter_map(|state| {
            let now = state.now();
            now.phase.may_yield().then_some(((now.phase, now.since), state))
        });
        let first = waiting.min_by_key(|(rank, _)| *rank);
        first.inspect(|(_, state)| state.closed.cancel()).is_some()
    }

    /// Closes connections that exceed a limit.
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

    /// Returns a guard that closes every connection on drop.
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

    /// Records bytes received from the client.
    pub(crate) fn received(&self) {
        let mut now = self.now();
        if matches!(now.phase, Phase::New | Phase::Idle) {
            (now.phase, now.since) = (Phase::Headers, Instant::now());
        }
    }

    /// Records whether a write made progress or is blocked by the client.
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
    fn connection_limit_evicts_idle_connections_and_keeps_active_requests() {
        let connections = connections(3);
        let now = Instant::now();
        let slots: Vec<_> = (0..3).map(|_| connections.admit(now).unwrap()).collect();
        slots[0].state().enter(Phase::Working);
        slots[1].state().enter(Phase::Idle);
        let fourth = connections.admit(now).unwrap();
        let closed = |slot: &Slot| slot.state().closed.is_cancelled();
        // A connection that never sent anything is evicted before one between two requests.
        assert_eq!(slots.iter().map(closed).collect::<Vec<_>>(), [false, false, true]);
        fourth.state().enter(Phase::Working);
        slots[1].state().enter(Phase::Working);
        assert!(connections.admit(now).is_none());
        drop(slots);
        assert!(connections.admit(now).is_some());
    }

    #[test]
    fn connection_limit_evicts_longest_idle_connection_first() {
        let connections = connections(3);
        let now = Instant::now();
        let later = |seconds| now + Duration::from_secs(seconds);
        let slots: Vec<_> = [2, 0, 1].map(|seconds| connections.admit(later(seconds)).unwrap()).into();
        let _fourth = connections.admit(later(3)).unwrap();
        let closed: Vec<_> = slots.iter().map(|slot| slot.state().closed.is_cancelled()).collect();
        assert_eq!(closed, [false, true, false]);
    }

    #[test]
    fn connections_past_deadline_are_closed() {
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
    fn client_that_resumes_reading_is_not_disconnected() {
        let connections = connections(1);
        let slot = connections.admit(Instant::now()).unwrap();
        slot.state().enter(Phase::Working);
        slot.state().wrote(false);
        slot.state().wrote(true);
        connections.expire(Instant::now() + Limits::default().write * 2);
        assert!(!slot.state().closed.is_cancelled());
    }
}
