//! A fixed-size thread pool that runs one job at a time and sleeps between jobs.
//!
//! A job is a sequence of steps, each of some units. Idle threads take the next unit; a step begins when all units of the
//! previous one are done. The caller works too and never waits for a thread that has not woken up yet: on a busy machine
//! it does most of the job itself, and waits at most for units already started by other threads.
//!
//! Synchronisation uses one atomic word, the ticket: the current step, its number of units, and the next unit.
//! * A unit is claimed by incrementing the ticket. Until it is reported as done, its step cannot end, so the job and
//!   everything it borrows stay alive. A thread without a unit does not access the job.
//! * The thread that reports the last unit of a step stores the ticket of the next step, or [`IDLE`] at the end. Writes of
//!   units are therefore visible to later steps and to the caller.
//! * Between jobs the ticket is [`IDLE`], no thread has a unit, and the caller may post the next job.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Spin iterations before yielding the core: about 20 µs, longer than a unit takes.
const SPINS: u32 = if cfg!(miri) { 1 } else { 1000 };

/// No job.
const IDLE: u64 = u64::MAX;

/// The current step, its number of units, and the next unit, in 24, 20 and 20 bits.
#[derive(Clone, Copy)]
struct Ticket {
    step: usize,
    units: usize,
    next: usize,
}

impl Ticket {
    const BITS: u32 = 20;

    /// Returns the ticket of the first step from `step` on that has units.
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

/// Computes a unit of a step on the thread with this index: `job(step, unit, member)`.
type Job<'a> = dyn Fn(usize, usize, usize) + Sync + 'a;

/// A job and the units of its steps, with lifetimes erased; see the module documentation.
#[derive(Clone, Copy)]
struct Posted {
    job: *const Job<'static>,
    steps: *const [usize],
}

struct Shared {
    ticket: AtomicU64,
    /// Units of the current step that are done.
    done: AtomicUsize,
    /// Written while the ticket is [`IDLE`], read by threads that have a unit.
    posted: UnsafeCell<Option<Posted>>,
    /// A unit has panicked: remaining units are skipped.
    broken: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Whether the threads must exit.
    stop: Mutex<bool>,
    wake: Condvar,
}

// SAFETY: `posted` is shared as described in the module documentation; the job is `Sync` and may be called from any thread.
unsafe impl Sync for Shared {}
// SAFETY: likewise; dropping it on any thread does not dereference the pointers in `posted`.
unsafe impl Send for Shared {}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while holding one of these locks.
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
            // A stale word may equal the ticket of a newer job: the claimed unit then belongs to that job.
            if self.ticket.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            spins = 0;
            self.unit(step, next, units, member);
        }
    }

    /// Computes a claimed unit and reports it as done.
    fn unit(&self, step: usize, unit: usize, units: usize, member: usize) {
        // SAFETY: this thread has a unit, so no thread writes to `posted`, and the job in it is alive.
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

/// The thread pool: its own threads and the caller of [`ThreadPool::run`].
pub(crate) struct ThreadPool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for ThreadPool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("ThreadPool").field("size", &self.size()).finish()
    }
}

impl ThreadPool {
    /// Exclusive upper bound of units per step.
    pub(crate) const MOST_UNITS: usize = 1 << Ticket::BITS;

    /// Creates a pool of `size` threads, including the caller of [`ThreadPool::run`].
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
                // If a thread cannot be started, the pool is smaller.
                std::thread::Builder::new().name(format!("embed-one-{member}")).spawn(body).ok()
            })
            .collect();
        Self { shared, threads }
    }

    /// Returns the number of threads, including the caller.
    pub(crate) fn size(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs a job with `steps[i]` units in step `i`, and returns when all are done.
    ///
    /// # Panics
    /// Resumes the panic of a unit once all threads have stopped, or if a step has more than a million units.
    pub(crate) fn run(&mut self, steps: &[usize], job: &Job<'_>) {
        let shared = &*self.shared;
        assert!(steps.len() >> 23 == 0 && steps.iter().all(|units| units >> Ticket::BITS == 0), "too large a job");
        // SAFETY: only the lifetime changes. Only threads with a unit dereference the pointer, and `work` does not return
        // before the ticket is `IDLE` again: then no thread has a unit, and none gets one before the next job.
        let job = unsafe { std::mem::transmute::<*const Job<'_>, *const Job<'static>>(job) };
        // SAFETY: the ticket is `IDLE`, because jobs are posted only here, with the pool borrowed mutably.
        unsafe { *shared.posted.get() = Some(Posted { job, steps }) };
        shared.broken.store(false, Ordering::Relaxed);
        shared.ticket.store(Ticket::open(steps, 0), Ordering::Release);
        // Taking the lock in between ensures that a thread either sees the ticket or receives the notification.
        drop(lock(&shared.stop));
        shared.wake.notify_all();
        shared.work(0);
        let panic = lock(&shared.panic).take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        *lock(&self.shared.stop) = true;
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // `unit` catches the panics of jobs.
            let _ = thread.join();
        }
    }
}

/// The loop of a pool thread.
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

    use super::ThreadPool;

    #[test]
    fn every_unit_runs_once_after_all_earlier_steps() {
        for size in 1..5 {
            let mut pool = ThreadPool::new(size);
            let steps = [3, 0, 1, 7, 0, 0, 4, 2];
            let done: Vec<Vec<AtomicUsize>> =
                steps.iter().map(|units| (0..*units).map(|_| AtomicUsize::new(0)).collect()).collect();
            for job in 1..if cfg!(miri) { 4 } else { 200 } {
                pool.run(&steps, &|step, unit, member| {
                    assert!(member < size);
                    for earlier in done[..step].iter().flatten() {
                        assert_eq!(earlier.load(Ordering::Relaxed), job);
                    }
                    done[step][unit].fetch_add(1, Ordering::Relaxed);
                });
                assert!(done.iter().flatten().all(|count| count.load(Ordering::Relaxed) == job));
            }
            pool.run(&[], &|_, _, _| panic!("no units"));
            pool.run(&[0], &|_, _, _| panic!("no units"));
        }
    }

    #[test]
    fn step_ends_with_its_last_unit() {
        // Another thread may claim a unit and be slow; the next step must not begin.
        let mut pool = ThreadPool::new(2);
        let mut values = [0u32; 8];
        let places: Vec<_> = values.iter_mut().map(std::sync::Mutex::new).collect();
        pool.run(&[8, 8], &|step, unit, _| {
            if step == 0 {
                std::thread::sleep(std::time::Duration::from_millis(unit as u64 % 3));
                **places[unit].lock().unwrap() = 1;
            } else {
                assert_eq!(**places[(unit + 1) % 8].lock().unwrap(), 1);
            }
        });
    }

    #[test]
    fn panic_stops_job_and_propagates_to_caller() {
        let mut pool = ThreadPool::new(3);
        for culprit in 0..3 {
            let later = AtomicUsize::new(0);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run(&[3, 5], &|step, unit, _| {
                    assert_ne!((step, unit), (0, culprit), "requested by the test");
                    later.fetch_add(step, Ordering::Relaxed);
                });
            }));
            assert!(outcome.is_err());
            assert_eq!(later.into_inner(), 0, "step after the panic was computed");
        }
        // The pool is usable again.
        let count = AtomicUsize::new(0);
        pool.run(&[3], &|_, _, _| _ = count.fetch_add(1, Ordering::Relaxed));
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }
}
