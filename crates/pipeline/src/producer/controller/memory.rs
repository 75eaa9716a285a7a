//! What a session remembers of each index between its steps.

use std::collections::BTreeSet;
use std::time::Duration;

use tidewheel_core::catalog::{Compared, Generation, Index, State};
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::retry::Backoff;
use tokio::time::Instant;

use super::steps::{Effect, Outcome};

/// The pause after a step that fails until a person acts, or a comparison without a result.
const BLOCKED: Duration = Duration::from_secs(30);

/// The time after which a step that has succeeded may be repeated, if its effect is still missing.
const AGAIN: Duration = Duration::from_secs(1);

/// What the session remembers of an index.
pub(super) struct Memory {
    /// The last comparison: its generation, what that was due for, and the result.
    compared: Option<(u32, u64, Compared)>,
    /// Generations of which nothing is left but their entries in the catalog.
    pub(super) deleted: BTreeSet<u32>,
    /// What is to be recorded as the problem of a generation; `None` if its last step has succeeded.
    problem: Option<(u32, Option<String>)>,
    /// The last step that has succeeded.
    done: Option<(Effect, Instant)>,
    backoff: Backoff,
    /// When steps that have failed may be repeated. One that keeps failing delays no other.
    retries: Vec<(Effect, Instant)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            compared: None,
            deleted: BTreeSet::new(),
            problem: None,
            done: None,
            backoff: Backoff::for_servers(),
            retries: Vec::new(),
        }
    }
}

impl Memory {
    /// The result of comparing a generation, if it is not due for anything else since.
    pub(super) fn result_for(&self, number: u32, generation: &Generation) -> Option<&Compared> {
        let (of, due, compared) = self.compared.as_ref()?;
        (*of == number && *due == generation.due).then_some(compared)
    }

    /// Takes note of a step that has succeeded; `due` is what its generation was due for when it began.
    pub(super) fn succeeded(&mut self, effect: Effect, due: Option<u64>, outcome: &Outcome) {
        let now = Instant::now();
        self.retries.retain(|(failed, at)| *failed != effect && *at > now);
        if self.retries.is_empty() {
            self.backoff.reset();
        }
        self.problem = effect.generation().map(|number| (number, None));
        self.done = Some((effect, now));
        match outcome {
            Outcome::Done => {}
            Outcome::Compared(compared) => {
                let generation = effect.generation().zip(due);
                self.compared = generation.map(|(number, due)| (number, due, *compared));
            }
            Outcome::Inconclusive => self.retry(effect, BLOCKED),
            Outcome::Deleted(number) => {
                self.deleted.insert(*number);
            }
        }
    }

    /// Takes note of a step that has failed.
    pub(super) fn failed(&mut self, effect: Effect, error: &PortError) {
        let mut pause = self.backoff.next_delay(error.retry_after);
        if error.class != ErrorClass::Transient {
            pause = BLOCKED;
            let text = match &error.hint {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            };
            self.problem = effect.generation().map(|number| (number, Some(text)));
        }
        self.retry(effect, pause);
    }

    fn retry(&mut self, effect: Effect, pause: Duration) {
        let now = Instant::now();
        self.retries.retain(|(failed, at)| *failed != effect && *at > now);
        self.retries.push((effect, now + pause));
    }

    /// Whether a step keeps failing.
    pub(super) fn is_failing(&self) -> bool {
        self.backoff.attempts() > 0
    }

    /// Whether this step has to wait.
    pub(super) fn must_wait(&self, next: Effect) -> bool {
        let is_repeated = self.done.is_some_and(|(effect, at)| effect == next && at.elapsed() < AGAIN);
        is_repeated || self.retries.iter().any(|(failed, at)| *failed == next && *at > Instant::now())
    }

    /// The index with the problem of its last step, once. The verdict of a comparison is left alone.
    pub(super) fn problem_to_save(&mut self, index: &Index) -> Option<Index> {
        let (number, problem) = self.problem.take()?;
        let generation = index.generations.get(&number)?;
        let is_judged = generation.state == State::Comparing && generation.compared.is_some();
        if is_judged || generation.problem == problem {
            return None;
        }
        let mut changed = index.clone();
        changed.generations.get_mut(&number)?.problem = problem;
        Some(changed)
    }
}
