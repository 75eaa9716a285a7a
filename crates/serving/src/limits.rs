//! Connection limits and timeouts.

use std::time::{Duration, Instant};

/// Connection limits and timeouts of a server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum number of concurrent connections.
    pub connections: usize,
    /// Time from connect to the first byte of a request, including the TLS handshake; and from that byte to the end of
    /// the headers, or of the HTTP/2 preface.
    pub headers: Duration,
    /// Time to receive a body.
    pub body: Duration,
    /// Time between a response and the next request.
    pub idle: Duration,
    /// Time without write progress while the client does not read its response, or keeps its HTTP/2 window closed.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: connections_for(open_files()),
            headers: Duration::from_secs(10),
            body: Duration::from_secs(60),
            // Longer than clients keep an idle connection (90 s in reqwest), so that they do not send a request
            // on a connection that is being closed.
            idle: Duration::from_secs(120),
            write: Duration::from_secs(60),
        }
    }
}

/// How long a client may keep its HTTP/2 window closed before its connection makes room for others.
const UNREAD: Duration = Duration::from_secs(5);

impl Limits {
    /// Interval between checks for expired connections.
    pub(crate) fn check_interval(&self) -> Duration {
        let shortest = self.headers.min(self.body).min(self.idle).min(self.write);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    /// Returns the deadline of a connection in this phase; `None` for no deadline.
    pub(crate) fn deadline(&self, phase: Phase, since: Instant) -> Option<Instant> {
        let limit = match phase {
            Phase::New | Phase::Headers => self.headers,
            Phase::Idle => self.idle,
            Phase::Body => self.body,
            Phase::Sending => self.write,
            Phase::Working => return None,
        };
        Some(since + limit)
    }
}

/// The phase of a connection, in eviction order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nothing received yet.
    New,
    /// Headers partially received.
    Headers,
    /// Idle between two requests.
    Idle,
    /// Headers received, body incomplete.
    Body,
    /// HTTP/2: the client accepts no more of a complete response.
    Sending,
    /// A request is in progress.
    Working,
}

impl Phase {
    /// Whether a connection in this phase for this time may be evicted. A request in progress is not lost; a response may be
    /// that its client does not read.
    pub(crate) fn may_yield(self, lasted: Duration) -> bool {
        match self {
            Self::Working => false,
            Self::Sending => lasted >= UNREAD,
            Self::New | Self::Headers | Self::Idle | Self::Body => true,
        }
    }
}

/// Returns an eighth of the process's open-file limit: several servers share it with database connections and files.
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
    fn every_phase_except_working_has_a_deadline() {
        let (limits, now) = (Limits::default(), Instant::now());
        for phase in [Phase::New, Phase::Headers, Phase::Idle, Phase::Body, Phase::Sending] {
            assert!(limits.deadline(phase, now).is_some_and(|deadline| deadline > now), "{phase:?}");
            assert!(phase.may_yield(UNREAD));
            assert_eq!(phase.may_yield(Duration::ZERO), phase != Phase::Sending, "{phase:?}");
        }
        assert_eq!(limits.deadline(Phase::Working, now), None);
        assert!(!Phase::Working.may_yield(Duration::MAX));
    }

    #[test]
    fn connection_limit_follows_open_file_limit() {
        for (files, connections) in [(256, 64), (1024, 128), (4096, 512), (1 << 20, 2048), (u64::MAX, 2048)] {
            assert_eq!(connections_for(files), connections);
        }
    }
}
