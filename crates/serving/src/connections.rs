//! The open connections of one server, their phases, and the eviction order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::limits::{Limits, Phase};
use crate::protocol::Protocol;

/// Length of the bytes with which an HTTP/2 client begins.
const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();

/// Handle to the connections of one server.
#[derive(Clone)]
pub(crate) struct Connections {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    protocol: Protocol,
    open: Mutex<HashMap<u64, Arc<State>>>,
    next: AtomicU64,
    ended: Notify,
}

/// One connection.
pub(crate) struct State {
    now: Mutex<Now>,
    multiplexed: bool,
    closed: CancellationToken,
}

struct Now {
    phase: Phase,
    since: Instant,
    /// When pending writes first blocked because the client stopped reading.
    blocked: Option<Instant>,
    exchanges: Exchanges,
    /// Bytes of the HTTP/2 preface that are missing.
    preface: usize,
}

/// Numbers of requests in each of their phases. HTTP/1 has one at a time.
#[derive(Default)]
struct Exchanges {
    body: usize,
    working: usize,
    sending: usize,
}

/// A request and its response, until both are dropped.
pub(crate) struct Exchange {
    state: Arc<State>,
    phase: Mutex<Phase>,
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
    pub(crate) fn new(limits: Limits, protocol: Protocol) -> Self {
        let inner = Inner { limits, protocol, open: Mutex::default(), next: AtomicU64::new(0), ended: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// Registers a connection; `None` if the limit is reached and every connection has a request in progress.
    pub(crate) fn admit(&self, now: Instant) -> Option<Slot> {
        let live = self.open().values().filter(|state| !state.closed.is_cancelled()).count();
        if live >= self.inner.limits.connections && !self.evict(now) {
            return None;
        }
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        let multiplexed = matches!(self.inner.protocol, Protocol::Http2 { .. });
        let preface = if multiplexed { PREFACE } else { 0 };
        let now = Now { phase: Phase::New, since: now, blocked: None, exchanges: Exchanges::default(), preface };
        let state = Arc::new(State { now: Mutex::new(now), multiplexed, closed: CancellationToken::new() });
        self.open().insert(number, state.clone());
        Some(Slot { number, state, of: self.clone() })
    }

    /// Closes the first connection in eviction order. Returns whether one was closed.
    pub(crate) fn evict(&self, at: Instant) -> bool {
        let open = self.open();
        let waiting = open.values().filter(|state| !state.closed.is_cancelled()).filter_map(|state| {
            let now = state.now();
            now.phase.may_yield(at.saturating_duration_since(now.since)).then_some(((now.phase, now.since), state))
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

    /// Records bytes received from the client.
    pub(crate) fn received(&self, count: usize) {
        let mut now = self.now();
        if self.multiplexed && now.preface > 0 {
            now.preface = now.preface.saturating_sub(count);
            let phase = if now.preface == 0 { Phase::Idle } else { Phase::Headers };
            now.enter(phase);
        } else if !self.multiplexed && matches!(now.phase, Phase::New | Phase::Idle) {
            now.enter(Phase::Headers);
        }
    }

    /// Records whether a write made progress or is blocked by the client.
    pub(crate) fn wrote(&self, progress: bool) {
        let mut now = self.now();
        now.blocked = if progress { None } else { now.blocked.or_else(|| Some(Instant::now())) };
    }

    /// Whether the connection can be closed at once. Between two requests an HTTP/2 client is notified first, because
    /// its next request may be on the way.
    pub(crate) fn is_idle(&self) -> bool {
        let phase = self.now().phase;
        matches!(phase, Phase::New | Phase::Headers) || (phase == Phase::Idle && !self.multiplexed)
    }
}

impl Now {
    fn enter(&mut self, phase: Phase) {
        if self.phase != phase {
            (self.phase, self.since) = (phase, Instant::now());
        }
    }

    /// Enters the phase of the requests: the one of them that may be interrupted least.
    fn follow(&mut self) {
        let Exchanges { body, working, sending } = self.exchanges;
        self.enter(match (working, sending, body) {
            (1.., _, _) => Phase::Working,
            (0, 1.., _) => Phase::Sending,
            (0, 0, 1..) => Phase::Body,
            (0, 0, 0) => Phase::Idle,
        });
    }
}

impl Exchanges {
    fn of(&mut self, phase: Phase) -> &mut usize {
        match phase {
            Phase::Body => &mut self.body,
            Phase::Sending => &mut self.sending,
            _ => &mut self.working,
        }
    }
}

impl Exchange {
    /// Begins an exchange with the body of a request, or with the work if it has none.
    pub(crate) fn begin(state: &Arc<State>, has_body: bool) -> Arc<Self> {
        let phase = if has_body { Phase::Body } else { Phase::Working };
        let mut now = state.now();
        *now.exchanges.of(phase) += 1;
        now.follow();
        drop(now);
        Arc::new(Self { state: state.clone(), phase: Mutex::new(phase) })
    }

    /// The body is complete, or not needed.
    pub(crate) fn received(&self) {
        self.change(Phase::Body, Phase::Working);
    }

    /// A part of the response is complete and waits for the client. HTTP/1 watches the socket instead.
    pub(crate) fn sends(&self) {
        if self.state.multiplexed {
            self.change(Phase::Working, Phase::Sending);
            let mut now = self.state.now();
            if now.phase == Phase::Sending {
                now.since = Instant::now();
            }
        }
    }

    /// The client waits for the next part of the response.
    pub(crate) fn works(&self) {
        self.change(Phase::Sending, Phase::Working);
    }

    fn change(&self, from: Phase, to: Phase) {
        let mut phase = self.phase();
        if *phase == from {
            *phase = to;
            let mut now = self.state.now();
            *now.exchanges.of(from) -= 1;
            *now.exchanges.of(to) += 1;
            now.follow();
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let phase = *self.phase();
        let mut now = self.state.now();
        *now.exchanges.of(phase) -= 1;
        now.follow();
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
        Connections::new(Limits { connections: most, ..Limits::default() }, Protocol::Http1)
    }

    fn multiplexed(most: usize) -> Connections {
        Connections::new(Limits { connections: most, ..Limits::default() }, Protocol::Http2 { window: 1 << 16 })
    }

    impl State {
        fn enter(&self, phase: Phase) {
            let mut now = self.now();
            (now.phase, now.since) = (phase, Instant::now());
        }
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
    fn http2_connection_is_new_until_its_preface_is_complete() {
        let connections = multiplexed(10);
        let slot = connections.admit(Instant::now()).unwrap();
        let phase = || slot.state().now().phase;
        slot.state().received(PREFACE - 1);
        assert_eq!(phase(), Phase::Headers);
        slot.state().received(1);
        assert_eq!(phase(), Phase::Idle);
        slot.state().received(9);
        assert_eq!(phase(), Phase::Idle, "settings and pings are not requests");
        connections.expire(Instant::now() + Limits::default().headers);
        assert!(!slot.state().closed.is_cancelled());
        connections.expire(Instant::now() + Limits::default().idle);
        assert!(slot.state().closed.is_cancelled());
    }

    #[test]
    fn http2_connection_is_working_while_any_of_its_requests_is() {
        let connections = multiplexed(1);
        let slot = connections.admit(Instant::now()).unwrap();
        slot.state().received(PREFACE);
        let phase = || slot.state().now().phase;
        let (upload, search) = (Exchange::begin(slot.state(), true), Exchange::begin(slot.state(), false));
        assert_eq!(phase(), Phase::Working);
        assert!(connections.admit(Instant::now()).is_none());
        drop(search);
        assert_eq!(phase(), Phase::Body);
        upload.received();
        assert_eq!(phase(), Phase::Working);
        drop(upload);
        assert_eq!(phase(), Phase::Idle);
        assert!(connections.admit(Instant::now()).is_some());
    }

    #[test]
    fn http2_client_with_closed_window_makes_room_after_five_seconds() {
        let connections = multiplexed(1);
        let slot = connections.admit(Instant::now()).unwrap();
        slot.state().received(PREFACE);
        let answered = Exchange::begin(slot.state(), false);
        answered.sends();
        assert!(connections.admit(Instant::now()).is_none());
        answered.works();
        assert!(connections.admit(Instant::now() + Duration::from_secs(5)).is_none(), "the server is slow");
        answered.sends();
        assert!(connections.admit(Instant::now() + Duration::from_secs(5)).is_some());
        assert!(slot.state().closed.is_cancelled());
    }

    #[test]
    fn http2_client_with_closed_window_is_disconnected_after_write_limit() {
        let connections = multiplexed(1);
        let slot = connections.admit(Instant::now()).unwrap();
        let answered = Exchange::begin(slot.state(), false);
        answered.sends();
        connections.expire(Instant::now() + Limits::default().write / 2);
        assert!(!slot.state().closed.is_cancelled());
        connections.expire(Instant::now() + Limits::default().write);
        assert!(slot.state().closed.is_cancelled());
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
