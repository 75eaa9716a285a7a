//! A fixed team of threads that work on one thing together, and sleep otherwise.
//!
//! Members meet at a [`Barrier`] between the steps of a job. While a job runs they wait there actively, since a step
//! takes microseconds; between jobs they are parked and cost nothing.
#![allow(unsafe_code)]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Turns of the waiting loop before the core is offered to others: some 20 µs, longer than members are apart when
/// each has a core.
const SPINS: u32 = 1000;

/// Where the members of a team meet.
#[derive(Debug)]
pub(crate) struct Barrier {
    members: usize,
    arrived: AtomicUsize,
    round: AtomicUsize,
    /// A member has panicked and will not come.
    broken: AtomicBool,
}

impl Barrier {
    fn new(members: usize) -> Self {
        Self { members, arrived: AtomicUsize::new(0), round: AtomicUsize::new(0), broken: AtomicBool::new(false) }
    }

    /// Returns when all members have called it as often. What they wrote before, all of them see after.
    ///
    /// # Panics
    /// Another member has panicked.
    pub(crate) fn wait(&self) {
        if self.members == 1 {
            return;
        }
        let round = self.round.load(Ordering::Relaxed);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.members {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round.wrapping_add(1), Ordering::Release);
            return;
        }
        let mut spins = 0;
        while self.round.load(Ordering::Acquire) == round {
            assert!(!self.broken.load(Ordering::Relaxed), "another member of the team has panicked");
            if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }
}

type Job<'a> = dyn Fn(usize, &Barrier) + Sync + 'a;

/// A job whose borrow has been forgotten; see [`Team::run`].
#[derive(Clone, Copy)]
struct Posted(*const Job<'static>);

// SAFETY: the job behind the pointer is `Sync`, so that it may be called from another thread.
unsafe impl Send for Posted {}

#[derive(Default)]
struct State {
    /// Counts the jobs, so that each member does each once.
    number: usize,
    job: Option<(Posted, Arc<Barrier>)>,
    /// Members that have not finished the job.
    busy: usize,
    panic: Option<Box<dyn Any + Send>>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    posted: Condvar,
    finished: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and the state is sound at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The team: whoever calls [`Team::run`], and threads of its own.
pub(crate) struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Team").field("size", &self.size()).finish()
    }
}

impl Team {
    /// A team of `size` members, the caller of [`Team::run`] included.
    pub(crate) fn new(size: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let threads = (1..size)
            .map_while(|member| {
                let shared = Arc::clone(&shared);
                let body = move || work(member, &shared);
                // A machine that is out of threads has a smaller team.
                std::thread::Builder::new().name(format!("embed-one-{member}")).spawn(body).ok()
            })
            .collect();
        Self { shared, threads }
    }

    /// Number of members.
    pub(crate) fn size(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `job` once for each member, with the member's number, and returns when all have returned.
    ///
    /// # Panics
    /// With the panic of a member, when all have stopped.
    pub(crate) fn run(&mut self, job: &Job<'_>) {
        let barrier = Arc::new(Barrier::new(self.size()));
        // SAFETY: only the lifetime changes. The pointer is used by members that count as busy, and this function
        // does not return or unwind before none is; then the pointer is dropped. So the borrow outlives all uses.
        let posted = Posted(unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) });
        {
            let mut state = self.shared.state();
            state.number += 1;
            state.busy = self.threads.len();
            state.job = Some((posted, Arc::clone(&barrier)));
        }
        self.shared.posted.notify_all();
        let own = catch_unwind(AssertUnwindSafe(|| job(0, &barrier)));
        if own.is_err() {
            barrier.broken.store(true, Ordering::Relaxed);
        }
        let mut state = self.shared.state();
        while state.busy > 0 {
            state = self.shared.finished.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.job = None;
        let panic = state.panic.take();
        drop(state);
        // A member's own panic says more than "another member has panicked", but either will do.
        if let Some(panic) = own.err().or(panic) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.posted.notify_all();
        for thread in self.threads.drain(..) {
            // `work` catches the panics of jobs.
            let _ = thread.join();
        }
    }
}

fn work(member: usize, shared: &Shared) {
    let mut done = 0;
    loop {
        let (job, barrier) = {
            let mut state = shared.state();
            loop {
                if state.stop {
                    return;
                }
                match &state.job {
                    Some((job, barrier)) if state.number != done => {
                        let found = (*job, Arc::clone(barrier));
                        done = state.number;
                        break found;
                    }
                    _ => state = shared.posted.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        // SAFETY: this member counts as busy until it says otherwise below, so `run` keeps the job borrowed.
        let result = catch_unwind(AssertUnwindSafe(|| unsafe { (*job.0)(member, &barrier) }));
        if result.is_err() {
            barrier.broken.store(true, Ordering::Relaxed);
        }
        let mut state = shared.state();
        if let Err(panic) = result {
            state.panic.get_or_insert(panic);
        }
        state.busy -= 1;
        if state.busy == 0 {
            shared.finished.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Team;

    #[test]
    fn all_members_see_what_the_others_wrote_before_the_barrier() {
        for size in 1..5 {
            let mut team = Team::new(size);
            let steps: Vec<AtomicUsize> = (0..20).map(|_| AtomicUsize::new(0)).collect();
            for job in 1..4 {
                team.run(&|_, barrier| {
                    for step in &steps {
                        step.fetch_add(1, Ordering::Relaxed);
                        barrier.wait();
                        assert_eq!(step.load(Ordering::Relaxed), job * size);
                    }
                });
            }
        }
    }

    #[test]
    fn a_panic_stops_all_members_and_reaches_the_caller() {
        let mut team = Team::new(3);
        for culprit in 0..3 {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                team.run(&|member, barrier| {
                    assert_ne!(member, culprit);
                    barrier.wait();
                });
            }));
            assert!(outcome.is_err());
        }
        // The team is whole again.
        let count = AtomicUsize::new(0);
        team.run(&|_, barrier| {
            count.fetch_add(1, Ordering::Relaxed);
            barrier.wait();
        });
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
