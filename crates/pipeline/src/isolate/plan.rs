//! Decides the next step for a failed part of a batch, without I/O.

use std::ops::Range;

use tidewheel_core::error::{Cause, ErrorClass, PortError};

/// Failures of a whole batch before it is halved: most failures are transient.
const TRIES: u32 = 3;

/// Failures alone before an item is parked, if the server explicitly rejects the input.
const REJECTED: u32 = 3;

/// The same, if the server responds with a server error.
const ANSWERED: u32 = 5;

/// The same, if there is no response, or one that blames the client.
const UNANSWERED: u32 = 6;

/// The same, if the server is overloaded: a large item may have to wait longer than small ones. Over a minute of
/// backoff.
const OVERLOADED: u32 = 20;

/// Items of a batch sent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Their range in the batch.
    pub(crate) range: Range<usize>,
    /// Successes of the service when this piece last failed or was created: any later success proves that the server
    /// works for other requests.
    pub(crate) seen: u64,
    failures: u32,
    halved: bool,
}

/// The next step for a failed piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Stop the service: an operator has to intervene.
    Stop,
    /// Retry after a pause.
    Again(Piece),
    /// Send each half.
    Halve(Piece, Piece),
    /// A single item that fails while other requests succeed.
    Suspect(Suspect),
}

impl Piece {
    pub(crate) fn new(range: Range<usize>, seen: u64) -> Self {
        Self { range, seen, failures: 0, halved: false }
    }

    /// The first `count` items of a batch that has failed this often; `halved` if a longer part was halved before.
    pub(crate) fn resumed(count: usize, failures: u32, halved: bool) -> Self {
        Self { range: 0..count, seen: 0, failures, halved }
    }

    /// How often it has failed since it was created.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the next step depends on whether other requests succeed.
    pub(crate) fn needs_proof(&self, error: &PortError) -> bool {
        let patient = error.class == ErrorClass::Transient && !self.halved && self.range.len() > 1;
        isolates(error) && (!patient || self.failures + 1 >= TRIES)
    }

    /// Returns the step after a failure. `works`: other requests are known to have succeeded since the last failure.
    /// `seen`: the number of successes so far.
    pub(crate) fn failed(self, error: PortError, works: bool, seen: u64) -> Step {
        if stops(&error) {
            return Step::Stop;
        }
        let needs_proof = self.needs_proof(&error);
        let again = Self { failures: self.failures + 1, seen, ..self };
        if !works || !needs_proof {
            return Step::Again(again);
        }
        if again.range.len() == 1 {
            return Step::Suspect(Suspect::new(again.range.start, error, seen));
        }
        let Range { start, end } = again.range;
        let middle = start + (end - start) / 2;
        let half = |range| Self { range, seen, failures: 0, halved: true };
        Step::Halve(half(start..middle), half(middle..end))
    }
}

/// An item that fails alone while other requests succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Suspect {
    /// Its index in the batch.
    pub(crate) index: usize,
    /// Its last error.
    pub(crate) error: PortError,
    /// As in [`Piece`].
    pub(crate) seen: u64,
    strikes: u32,
}

impl Suspect {
    /// An item that has failed alone once while other requests succeeded.
    pub(crate) fn new(index: usize, error: PortError, seen: u64) -> Self {
        Self { index, error, seen, strikes: 1 }
    }

    /// Records another failure. It counts only if other requests are known to have succeeded since: an outage parks
    /// nothing.
    pub(crate) fn failed(self, error: PortError, works: bool, seen: u64) -> Self {
        let counts = works && isolates(&error);
        Self { strikes: self.strikes + u32::from(counts), error, seen, ..self }
    }

    /// Its last error, with the number of its failures.
    pub(super) fn into_error(self) -> PortError {
        PortError { attempts: self.strikes, ..self.error }
    }

    /// Whether it has failed often enough to be parked.
    pub(crate) fn must_park(&self) -> bool {
        let enough = match (self.error.class, self.error.cause) {
            (_, Cause::Busy) => OVERLOADED,
            (_, Cause::Unreachable | Cause::Timeout | Cause::Denied) => UNANSWERED,
            (ErrorClass::Transient, _) => ANSWERED,
            _ => REJECTED,
        };
        self.strikes >= enough
    }
}

/// Whether no item can be at fault and waiting does not help: settings contradict the state of the servers, or a
/// server that does not look into documents denies access.
pub(crate) fn stops(error: &PortError) -> bool {
    error.class == ErrorClass::Fatal && (error.cause == Cause::Other || !error.server.judges_documents())
}

/// Whether an item can be at fault. A server without disk space fails for every larger item, and accepts small ones.
fn isolates(error: &PortError) -> bool {
    !stops(error) && error.cause != Cause::Full
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use super::*;
    use proptest::prelude::*;
    use tidewheel_core::error::Server;

    const CAUSES: [Cause; 6] =
        [Cause::Other, Cause::Refused, Cause::Timeout, Cause::Unreachable, Cause::Busy, Cause::Denied];

    fn error(class: ErrorClass, cause: Cause) -> PortError {
        let error = match class {
            ErrorClass::Transient => PortError::transient("injected"),
            ErrorClass::Poison => PortError::poison("injected"),
            ErrorClass::Fatal => PortError::fatal("injected"),
        };
        error.because(Server::named("index"), cause)
    }

    /// A server that rejects requests with a bad item, and all requests during an outage.
    struct FakeServer<'a> {
        bad: &'a BTreeSet<usize>,
        outages: &'a [bool],
        requests: usize,
        successes: u64,
    }

    impl FakeServer<'_> {
        fn is_down(&mut self) -> bool {
            self.requests += 1;
            self.outages.get(self.requests - 1).copied().unwrap_or(false)
        }

        fn takes(&mut self, range: &Range<usize>) -> bool {
            let down = self.is_down();
            let taken = !down && self.bad.range(range.clone()).next().is_none();
            self.successes += u64::from(taken);
            taken
        }

        fn works(&mut self, seen: u64, needed: bool) -> bool {
            needed && (self.successes > seen || !self.is_down())
        }
    }

    /// Returns the items done and the items parked.
    fn run(items: usize, server: &mut FakeServer<'_>, error: &PortError) -> (BTreeSet<usize>, BTreeSet<usize>) {
        let (mut done, mut parked) = (BTreeSet::new(), BTreeSet::new());
        let mut todo = VecDeque::from([Piece::new(0..items, 0)]);
        let mut suspects = Vec::new();
        while let Some(piece) = todo.pop_front() {
            if server.takes(&piece.range) {
                done.extend(piece.range);
                continue;
            }
            let needed = piece.needs_proof(error);
            let works = server.works(piece.seen, needed);
            match piece.failed(error.clone(), works, server.successes) {
                Step::Stop => panic!("unexpected stop"),
                Step::Again(piece) => todo.push_back(piece),
                Step::Halve(first, second) => {
                    todo.push_front(second);
                    todo.push_front(first);
                }
                Step::Suspect(suspect) => suspects.push(suspect),
            }
        }
        while let Some(suspect) = suspects.pop() {
            if suspect.must_park() {
                parked.insert(suspect.index);
            } else if server.takes(&(suspect.index..suspect.index + 1)) {
                done.insert(suspect.index);
            } else {
                let works = server.works(suspect.seen, true);
                suspects.push(suspect.failed(error.clone(), works, server.successes));
            }
        }
        (done, parked)
    }

    proptest! {
        #[test]
        fn bad_items_are_parked_and_all_others_done_for_every_error_class(
            items in 1usize..300,
            bad in prop::collection::btree_set(0usize..300, 0..5),
            class in prop::sample::select(vec![ErrorClass::Transient, ErrorClass::Poison, ErrorClass::Fatal]),
            cause in prop::sample::select(&CAUSES[1..]),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|item| *item < items).collect();
            let mut server = FakeServer { bad: &bad, outages: &[], requests: 0, successes: 0 };
            let (done, parked) = run(items, &mut server, &error(class, cause));
            prop_assert_eq!(&parked, &bad);
            prop_assert_eq!(done, (0..items).filter(|item| !bad.contains(item)).collect());
            // Each bad item costs one path of halvings, with a failure, its proof and a success per level.
            prop_assert!(server.requests <= 8 + bad.len() * (3 * 10 + 2 * 20), "{} requests", server.requests);
        }

        #[test]
        fn outages_park_no_valid_item_and_lose_nothing(
            items in 1usize..100,
            bad in prop::collection::btree_set(0usize..100, 0..3),
            // Outages of at least three requests, and pauses.
            phases in prop::collection::vec((any::<bool>(), 3usize..40), 0..20),
            class in prop::sample::select(vec![ErrorClass::Transient, ErrorClass::Poison, ErrorClass::Fatal]),
            cause in prop::sample::select(&CAUSES[1..]),
        ) {
            let bad: BTreeSet<usize> = bad.into_iter().filter(|item| *item < items).collect();
            let outages: Vec<bool> = phases.iter().flat_map(|(down, length)| vec![*down; *length]).collect();
            let mut server = FakeServer { bad: &bad, outages: &outages, requests: 0, successes: 0 };
            let (done, parked) = run(items, &mut server, &error(class, cause));
            prop_assert_eq!(&parked, &bad);
            prop_assert_eq!(done, (0..items).filter(|item| !bad.contains(item)).collect());
        }
    }

    #[test]
    fn without_proof_nothing_is_halved_or_parked() {
        for class in [ErrorClass::Transient, ErrorClass::Poison] {
            let mut piece = Piece::new(0..256, 0);
            for _ in 0..1_000 {
                piece = match piece.failed(error(class, Cause::Refused), false, 0) {
                    Step::Again(piece) => piece,
                    step => panic!("{step:?}"),
                };
            }
            assert_eq!(piece.range, 0..256);
        }
        let mut suspect = Suspect { index: 7, error: error(ErrorClass::Poison, Cause::Refused), seen: 0, strikes: 1 };
        for _ in 0..1_000 {
            suspect = suspect.failed(error(ErrorClass::Poison, Cause::Refused), false, 0);
        }
        assert!(!suspect.must_park());
    }

    #[test]
    fn parked_item_has_the_number_of_its_failures_with_proof() {
        for (class, cause, attempts) in [
            (ErrorClass::Poison, Cause::Refused, REJECTED),
            (ErrorClass::Transient, Cause::Other, ANSWERED),
            (ErrorClass::Fatal, Cause::Denied, UNANSWERED),
        ] {
            let error = error(class, cause);
            let mut suspect = Suspect { index: 7, error: error.clone(), seen: 0, strikes: 1 };
            for works in [true, false, true].into_iter().cycle() {
                if suspect.must_park() {
                    break;
                }
                suspect = suspect.failed(error.clone(), works, 0);
            }
            assert_eq!(suspect.into_error(), PortError { attempts, ..error });
        }
    }

    #[test]
    fn contradicting_settings_stop_the_service_and_a_full_disk_is_waited_out() {
        let piece = || Piece::new(0..1, 0);
        assert_eq!(piece().failed(error(ErrorClass::Fatal, Cause::Other), true, 1), Step::Stop);
        let full = error(ErrorClass::Transient, Cause::Full);
        assert!(!piece().needs_proof(&full));
        assert!(matches!(piece().failed(full, true, 1), Step::Again(_)));
    }
}
