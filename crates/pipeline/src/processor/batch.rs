//! The state of a batch while its texts are embedded, one model beside the other.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidewheel_core::error::PortError;
use tidewheel_core::ports::{DeadLetter, EntryId};

use super::lane::Lanes;
use super::plan::{Job, Plan};
use super::planner::TooLong;
use super::traced::{self, EmbedCall, SharedSpans};
use super::unit::{Part, Unit};

/// A batch whose units wait for their jobs.
pub(super) struct Batch {
    pub(super) lanes: Arc<Lanes>,
    pub(super) spans: SharedSpans,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    /// `None` for one that has been taken.
    units: Vec<Option<Unit>>,
    letters: Vec<DeadLetter>,
    superfluous: Vec<EntryId>,
}

/// What can be settled.
pub(super) struct Decided {
    pub(super) units: Vec<Unit>,
    pub(super) letters: Vec<DeadLetter>,
    pub(super) superfluous: Vec<EntryId>,
}

impl Batch {
    /// A batch with this plan, whose jobs are returned.
    pub(super) fn new(lanes: Arc<Lanes>, spans: SharedSpans, plan: Plan) -> (Self, Vec<Job>) {
        let Plan { units, jobs, letters, retired } = plan;
        spans.with(|spans| traced::retired(spans, &retired));
        let superfluous = retired.into_iter().map(|(_, entry)| entry).collect();
        let units = units.into_iter().map(Some).collect();
        let waiting = Mutex::new(Waiting { units, letters, superfluous });
        (Self { lanes, spans, waiting }, jobs)
    }

    /// Takes the units whose jobs are decided, and, once, everything else that needs no job.
    pub(super) fn decided(&self) -> Decided {
        let decided = {
            let mut waiting = self.waiting();
            let Waiting { units, letters, superfluous } = &mut *waiting;
            Decided {
                units: units.iter_mut().filter_map(|unit| unit.take_if(|unit| unit.open == 0)).collect(),
                letters: std::mem::take(letters),
                superfluous: std::mem::take(superfluous),
            }
        };
        self.spans.with(|spans| {
            for unit in &decided.units {
                traced::decided(spans, unit);
            }
        });
        decided
    }

    /// Adds the outcome of a job of this unit.
    pub(super) fn decide(&self, unit: usize, part: Part) {
        if let Some(unit) = self.waiting().unit(unit) {
            unit.decide(part);
        }
    }

    /// Records a call of the embedder for a job of a unit.
    pub(super) fn note_call(&self, call: &EmbedCall, job: &Job, reused: usize, error: Option<&PortError>) {
        let mut waiting = self.waiting();
        let Some(unit) = waiting.unit(job.unit) else { return };
        let of_unit = (&unit.entries[..], unit.change.version);
        self.spans.with(|spans| call.record(spans, of_unit, (job.chunks.len(), reused), error));
    }

    /// Adds their documents to jobs with a chunk that is too long.
    pub(super) fn with_documents(&self, rejected: Vec<(Job, PortError)>) -> Vec<TooLong> {
        let mut with_documents = Vec::with_capacity(rejected.len());
        for (job, error) in rejected {
            let document = self.waiting().unit(job.unit).and_then(|unit| unit.change.document.clone());
            with_documents.push((job, error, document.unwrap_or_default()));
        }
        with_documents
    }

    /// The lanes of other targets whose collections may have the vectors of a job.
    pub(super) fn sources(&self, job: &Job) -> Vec<usize> {
        let mut waiting = self.waiting();
        let unit = waiting.unit(job.unit);
        unit.map(|unit| self.lanes.sources(job, &unit.change.namespace)).unwrap_or_default()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// A unit, unless it has been taken.
    fn unit(&mut self, number: usize) -> Option<&mut Unit> {
        self.units.get_mut(number)?.as_mut()
    }
}
