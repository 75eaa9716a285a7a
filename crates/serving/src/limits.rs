//! How many connections, and how long a client may take for each step.

use std::time::{Duration, Instant};

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// From the connection to the first byte of a request, the TLS handshake included; and from that byte to the end of
    /// the headers.
    pub headers: Duration,
    /// For a body.
    pub body: Duration,
    /// Between a response and the next request.
    pub idle: Duration,
    /// Without progress while the client does not read its response.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: connections_for(open_files()),
            headers: Duration::from_secs(10),
            body: Duration::from_secs(60),
            // Longer than clients keep an unused connection (90 s in reqwest), so that they do not send a request
            // on one that is being closed.
            idle: Duration::from_secs(120),
            write: Duration::from_secs(60),
        }
    }
}

impl Limits {
    /// How often to look for connections that are over their limit.
    pub(crate) fn check_interval(&self) -> Duration {
        let shortest = self.headers.min(self.body).min(self.idle).min(self.write);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// When a connection in this phase is over its limit; `None` for never.
    pub(crate) fn deadline(&self, phase: Phase, since: Instant) -> Option<Instant> {
        let limit = match phase {
            Phase::New | Phase::Headers => self.headers,
            Phase::Idle => self.idle,
            Phase::Body => self.body,
            Phase::Working => return None,
        };
        Some(since + limit)
    }
}

/// What a connection is doing. The order is that in which connections make room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nothing has come from the client yet.
    New,
    /// A part of the headers has come.
    Headers,
    /// The last response is sent, and no other request has begun.
    Idle,
    /// The headers have come, and not all of the body.
    Body,
    /// A request is in progress.
    Working,
}

impl Phase {
    /// Whether the connection may be closed to make room: no whole request would be lost.
    pub(crate) fn may_yield(self) -> bool {
        self != Self::Working
    }
}

/// Several servers share a process with database connections and files, so that each may have an eighth of the files
/// that the process may open.
fn connections_for(open_files: u64) -> usize {
    usize::try_from(open_files / 8).unwrap_or(usize::MAX).clamp(64, 2048)
}

fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_but_work_has_a_deadline() {
        let (limits, now) = (Limits::default(), Instant::now());
        for phase in [Phase::New, Phase::Headers, Phase::Idle, Phase::Body] {
            assert!(limits.deadline(phase, now).is_some_and(|deadline| deadline > now), "{phase:?}");
            assert!(phase.may_yield());
        }
        assert_eq!(limits.deadline(Phase::Working, now), None);
        assert!(!Phase::Working.may_yield());
    }

    #[test]
    fn connection_limit_follows_the_limit_of_open_files() {
        for (files, connections) in [(256, 64), (1024, 128), (4096, 512), (1 << 20, 2048), (u64::MAX, 2048)] {
            assert_eq!(connections_for(files), connections);
        }
    }
}
