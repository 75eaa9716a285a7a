//! A fixed team of threads that work on one thing together, and sleep otherwise.
//!
//! A job is a row of steps, each of some units. Whoever is free takes the next unit; a step begins when all units of the
//! one before are done. The caller works like the others and never waits for one that has not come yet: on a busy
//! machine it does most of the job itself, and what it waits for at most is a unit that somebody has begun.
//!
//! Everything rests on one word, the ticket: the current step, how many units it has, and which is next.
//! * A unit is taken by counting the ticket up. Until it is reported as done, its step cannot end, and so the job with
//!   everything that it borrows stays alive. A thread without a unit touches nothing of the job.
//! * The one that reports the last unit of a step writes the ticket of the next, or [`IDLE`] at the end. What units have
//!   written is thus seen by those of later steps, and by the caller.
//! * Between jobs the ticket is [`IDLE`], nobody has a unit, and the caller may post another job.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Turns of the waiting loop before the core is offered to others: some 20 µs, longer than a unit takes.
const SPINS: u32 = if cfg!(miri) { 1 } else { 1000 };

/// No job.
const IDLE: u64 = u64::MAX;

/// The current step, its units, and the next of them, in 24, 20 and 20 bits.
#[derive(Clone, Copy)]
struct Ticket {
    step: usize,
    units: usize,
    next: usize,
}

impl Ticket {
    const BITS: u32 = 20;

    /// The first unit of the first step from `step` on that has any.
    fn open(steps: &[usize], step: usize) -> u64 {
        let found = steps.iter().enumerate().skip(step).find(|(_, units)| **units > 0);
        found.map_or(IDLE, |(step, &units)| (step as u64) << (2 * Self::BITS) | (units as u64) << Self::BITS)
    }

    #[expect(clippy::cast_possible_truncation, reason = "20 and 24 bits")]
    fn read(word: u64) -> Self {
        let mask = (1 << Self::BITS) - 1;
        Self {
            step: (word >> (2 * Self::BITS)) as usize,
            units: (word >> Self::BITS) as usize & mask,
            next: word as usize & mask,
        }
    }
}

/// Computes the unit of a step, as the member with this number: `job(step, unit, member)`.
type Job<'a> = dyn Fn(usize, usize, usize) + Sync + 'a;

/// A job and the units of its steps, whose borrows have been forgotten; see the module's head.
#[derive(Clone, Copy)]
struct Posted {
    job: *const Job<'static>,
    steps: *const [usize],
}

struct Shared {
    ticket: AtomicU64,
    /// Units of the current step that are done.
    done: AtomicUsize,
    /// Written while the ticket is [`IDLE`], read by those who have a unit.
    posted: UnsafeCell<Option<Posted>>,
    /// A unit has panicked: those that are left are not computed.
    broken: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether the team is to end.
    stop: Mutex<bool>,
    wake: Condvar,
}

// SAFETY: `posted` is shared as the module's head says; the job is `Sync` and may be called from any thread.
unsafe impl Sync for Shared {}
// SAFETY: likewise; whatever thread drops it, the pointers in `posted` are not followed then.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Takes units until the job is done.
    fn work(&self, member: usize) {
        let mut spins = 0;
        loop {
            let word = self.ticket.load(Ordering::Acquire);
            if word == IDLE {
                return;
            }
            let Ticket { step, units, next } = Ticket::read(word);
            if next == units {
                if spins < SPINS {
                    spins += 1;
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
                continue;
            }
            // A word that was read long ago may be that of another job by now: who gets the unit gets it of that one.
            if self.ticket.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            spins = 0;
            self.unit(step, next, units, member);
        }
    }

    /// Computes a unit that has been taken, and reports it.
    fn unit(&self, step: usize, unit: usize, units: usize, member: usize) {
        // SAFETY: this thread has a unit, so nobody writes to `posted`, and the job in it is alive.
        let posted = unsafe { *self.posted.get() };
        let Some(Posted { job, steps }) = posted else { unreachable!("a ticket without a job") };
        if !self.broken.load(Ordering::Relaxed) {
            // SAFETY: likewise.
            let job = unsafe { &*job };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(step, unit, member))) {
                lock(&self.panic).get_or_insert(panic);
                self.broken.store(true, Ordering::Relaxed);
            }
        }
        if self.done.fetch_add(1, Ordering::AcqRel) + 1 == units {
            self.done.store(0, Ordering::Relaxed);
            // SAFETY: the caller waits for this ticket, so the steps are alive.
            let next = Ticket::open(unsafe { &*steps }, step + 1);
            self.ticket.store(next, Ordering::Release);
        }
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
    /// Each step has fewer units than this.
    pub(crate) const MOST_UNITS: usize = 1 << Ticket::BITS;

    /// A team of `size` members, the caller of [`Team::run`] included.
    pub(crate) fn new(size: usize) -> Self {
        let shared = Arc::new(Shared {
            ticket: AtomicU64::new(IDLE),
            done: AtomicUsize::new(0),
            posted: UnsafeCell::new(None),
            broken: AtomicBool::new(false),
            panic: Mutex::default(),
            stop: Mutex::default(),
            wake: Condvar::new(),
        });
        let threads = (1..size)
            .map_while(|member| {
                let shared = Arc::clone(&shared);
                let body = move || serve(member, &shared);
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

    /// Computes as many units of each step as `steps` says, and returns when all are done.
    ///
    /// # Panics
    /// With the panic of a unit, when nobody is at work any more; or if a step has more than a million units.
    pub(crate) fn run(&mut self, steps: &[usize], job: &Job<'_>) {
        let shared = &*self.shared;
        assert!(steps.len() >> 23 == 0 && steps.iter().all(|units| units >> Ticket::BITS == 0), "too large a job");
        // SAFETY: only the lifetime changes. The pointer is followed by those who have a unit, and `work` does not
        // return before the ticket is `IDLE` again: then nobody has one, and nobody gets one before the next job.
        let job = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) };
        // SAFETY: the ticket is `IDLE`, since jobs are posted only here, with the team borrowed mutably.
        unsafe { *shared.posted.get() = Some(Posted { job, steps }) };
        shared.broken.store(false, Ordering::Relaxed);
        shared.ticket.store(Ticket::open(steps, 0), Ordering::Release);
        // With the lock taken in between, a member either sees the ticket or hears the call.
        drop(lock(&shared.stop));
        shared.wake.notify_all();
        shared.work(0);
        let panic = lock(&shared.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // `unit` catches the panics of jobs.
            let _ = thread.join();
        }
    }
}

/// A member's life.
fn serve(member: usize, shared: &Shared) {
    loop {
        {
            let mut stop = lock(&shared.stop);
            while !*stop && shared.ticket.load(Ordering::Relaxed) == IDLE {
                stop = shared.wake.wait(stop).unwrap_or_else(PoisonError::into_inner);
            }
            if *stop {
                return;
            }
        }
        shared.work(member);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Team;

    #[test]
    fn every_unit_is_computed_once_and_sees_the_steps_before() {
        for size in 1..5 {
            let mut team = Team::new(size);
            let steps = [3, 0, 1, 7, 0, 0, 4, 2];
            let done: Vec<Vec<AtomicUsize>> =
                steps.iter().map(|units| (0..*units).map(|_| AtomicUsize::new(0)).collect()).collect();
            for job in 1..if cfg!(miri) { 4 } else { 200 } {
                team.run(&steps, &|step, unit, member| {
                    assert!(member < size);
                    for earlier in done[..step].iter().flatten() {
                        assert_eq!(earlier.load(Ordering::Relaxed), job);
                    }
                    done[step][unit].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().flatten().all(|count| count.load(Ordering::Relaxed) == job));
            }
            team.run(&[], &|_, _, _| panic!("nothing to do"));
            team.run(&[0], &|_, _, _| panic!("nothing to do"));
        }
    }

    #[test]
    fn a_step_ends_when_its_last_unit_does() {
        // The other member may take a unit and be slow; the next step must not begin.
        let mut team = Team::new(2);
        let mut values = [0u32; 8];
        let places: Vec<_> = values.iter_mut().map(std::sync::Mutex::new).collect();
        team.run(&[8, 8], &|step, unit, _| {
            if step == 0 {
                std::thread::sleep(std::time::Duration::from_millis(unit as u64 % 3));
                **places[unit].lock().unwrap() = 1;
            } else {
                assert_eq!(**places[(unit + 1) % 8].lock().unwrap(), 1);
            }
        });
    }

    #[test]
    fn a_panic_stops_the_job_and_reaches_the_caller() {
        let mut team = Team::new(3);
        for culprit in 0..3 {
            let later = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                team.run(&[3, 5], &|step, unit, _| {
                    assert_ne!((step, unit), (0, culprit), "as the test asked");
                    later.fetch_add(step, Ordering::Relaxed);
                });
            }));
            assert!(outcome.is_err());
            assert_eq!(later.into_inner(), 0, "a step after the panic was computed");
        }
        // The team is whole again.
        let count = AtomicUsize::new(0);
        team.run(&[3], &|_, _, _| _ = count.fetch_add(1, Ordering::Relaxed));
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
