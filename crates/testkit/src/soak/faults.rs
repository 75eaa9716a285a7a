//! Plans faults from the seed.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tidewheel_local::ServerKind;

use super::service::Kind;

/// A connection between the services and a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Link {
    MongoDb,
    Redis,
    Qdrant,
    Embedder,
}

/// The target of a fault. A target has at most one fault at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Target {
    /// A service, with its index in the list of instances.
    Service(Kind, usize),
    Server(Server),
    Link(Link),
}

/// [`ServerKind`] with an order, for tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Server {
    Mongod,
    Redis,
    Qdrant,
}

impl Server {
    pub(super) fn kind(self) -> ServerKind {
        match self {
            Self::Mongod => ServerKind::Mongod,
            Self::Redis => ServerKind::Redis,
            Self::Qdrant => ServerKind::Qdrant,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(kind, _) => f.write_str(kind.name()),
            Self::Server(server) => server.kind().fmt(f),
            Self::Link(Link::MongoDb) => f.write_str("to MongoDB"),
            Self::Link(Link::Redis) => f.write_str("to Redis"),
            Self::Link(Link::Qdrant) => f.write_str("to Qdrant"),
            Self::Link(Link::Embedder) => f.write_str("to embedder"),
        }
    }
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL, restarted after the duration.
    Kill,
    /// SIGTERM, restarted after the duration.
    Stop,
    /// SIGSTOP, then SIGCONT after the duration.
    Pause,
    /// All connections break.
    Cut,
    /// Traffic is delayed by this much.
    Slow(Duration),
    /// Nothing passes.
    Freeze,
    /// Requests arrive, responses are dropped; then the connections break.
    Swallow,
    /// This many connections break at the response.
    CutAnswers(u32),
    /// Connections break and new ones are refused.
    Refuse,
}

impl Fault {
    /// Its row in the report.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Stop => "stop",
            Self::Pause => "pause",
            Self::Cut => "cut connections",
            Self::Slow(_) => "slow connections",
            Self::Freeze => "frozen connections",
            Self::Swallow => "swallowed answers",
            Self::CutAnswers(_) => "cut answers",
            Self::Refuse => "refused connections",
        }
    }
}

/// A fault to inject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    pub(super) target: Target,
    pub(super) fault: Fault,
    /// Its duration.
    pub(super) lasts: Duration,
}

/// The producers' lease is 10 s: a producer paused for longer resumes after another has taken over.
const BEYOND_LEASE: std::ops::Range<u64> = 11_000..13_000;
/// Processors and upserters claim entries idle for two and three seconds.
const BEYOND_CLAIM: std::ops::Range<u64> = 2_500..5_500;
/// The adapters give up on a silent server after 4 (embedder), 5 (Qdrant), 10 (MongoDB) and 15 s (Redis).
const BEYOND_TIMEOUTS: std::ops::Range<u64> = 11_000..17_000;

/// Draws faults.
pub(super) struct Planner {
    rng: StdRng,
    services: Vec<Target>,
}

impl Planner {
    /// A planner for these instances.
    pub(super) fn new(seed: u64, services: impl IntoIterator<Item = Kind>) -> Self {
        let services = services.into_iter().enumerate().map(|(place, kind)| Target::Service(kind, place)).collect();
        // A different random stream than the writer's.
        Self { rng: StdRng::seed_from_u64(seed ^ 0xfa17), services }
    }

    /// The next fault on a free target; `None` if no free one was drawn. The sequence of draws depends on the seed
    /// alone: busy targets are skipped.
    pub(super) fn next(&mut self, busy: &HashSet<Target>) -> Option<Planned> {
        /// With half of the targets busy, this many draws fail to find a free one once in a thousand times.
        const DRAWS: usize = 10;
        (0..DRAWS).map(|_| self.draw()).find(|planned| !busy.contains(&planned.target))
    }

    fn draw(&mut self) -> Planned {
        let target = self.target();
        self.fault(target)
    }

    fn target(&mut self) -> Target {
        const SERVERS: [Server; 3] = [Server::Mongod, Server::Redis, Server::Qdrant];
        const LINKS: [Link; 4] = [Link::MongoDb, Link::Redis, Link::Qdrant, Link::Embedder];
        match self.rng.random_range(0..100) {
            0..45 => *self.services.choose(&mut self.rng).expect("there are services"),
            45..60 => Target::Server(*SERVERS.choose(&mut self.rng).expect("three")),
            _ => Target::Link(*LINKS.choose(&mut self.rng).expect("four")),
        }
    }

    fn fault(&mut self, target: Target) -> Planned {
        let (fault, lasts) = match target {
            Target::Service(kind, _) => self.service_fault(kind),
            Target::Server(_) => match self.rng.random_range(0..4) {
                0 | 1 => (Fault::Kill, self.millis(0..2_500)),
                2 => (Fault::Stop, self.millis(0..1_500)),
                _ => (Fault::Pause, self.millis(1_000..6_000)),
            },
            Target::Link(_) => self.link_fault(),
        };
        Planned { target, fault, lasts }
    }

    fn service_fault(&mut self, kind: Kind) -> (Fault, Duration) {
        match self.rng.random_range(0..10) {
            // A longer embedder outage has to be buffered by stage 1.
            0..5 if kind == Kind::Embedder => (Fault::Kill, self.millis(0..6_000)),
            0..5 => (Fault::Kill, self.millis(0..2_000)),
            5 | 6 => (Fault::Stop, self.millis(0..1_500)),
            7 if kind == Kind::Producer => (Fault::Pause, self.millis(BEYOND_LEASE)),
            _ => (Fault::Pause, self.millis(BEYOND_CLAIM)),
        }
    }

    fn link_fault(&mut self) -> (Fault, Duration) {
        match self.rng.random_range(0..12) {
            0 | 1 => (Fault::Cut, Duration::ZERO),
            2 | 3 => {
                let delay = self.millis(20..250);
                (Fault::Slow(delay), self.millis(2_000..5_000))
            }
            4 => (Fault::Freeze, self.millis(BEYOND_TIMEOUTS)),
            5 | 6 => (Fault::Freeze, self.millis(500..5_000)),
            7 | 8 => (Fault::Swallow, self.millis(500..3_500)),
            9 | 10 => {
                let times = self.rng.random_range(1..=6);
                (Fault::CutAnswers(times), self.millis(1_500..4_000))
            }
            _ => (Fault::Refuse, self.millis(500..4_000)),
        }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.random_range(range))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 4] = [Kind::Embedder, Kind::Producer, Kind::Processor, Kind::Upserter];

    #[test]
    fn seed_determines_faults_and_every_kind_occurs() {
        let plan = |seed| {
            let mut planner = Planner::new(seed, KINDS);
            std::iter::from_fn(|| planner.next(&HashSet::new())).take(500).collect::<Vec<_>>()
        };
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let plan = plan(3);
        let kinds: HashSet<_> = plan.iter().map(|planned| (planned.fault.name(), planned.target.to_string())).collect();
        // Three faults for each of four services and three servers, six for each of four links.
        assert_eq!(kinds.len(), 3 * 7 + 6 * 4);
    }

    #[test]
    fn busy_targets_are_skipped() {
        let mut planner = Planner::new(1, KINDS);
        let busy = HashSet::from([Target::Link(Link::Redis), Target::Service(Kind::Producer, 1)]);
        assert!((0..500).filter_map(|_| planner.next(&busy)).all(|planned| !busy.contains(&planned.target)));
    }
}
