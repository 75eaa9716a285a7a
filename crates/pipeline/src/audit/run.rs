//! One audit: its state, and how documents are compared.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tidewheel_core::catalog::Made;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::payload::digest;
use tidewheel_core::ports::{AuditPosition, PortResult, SourceRow};
use tokio::time::Instant;
use uuid::Uuid;

use super::judge::{Kind, Seen, Target, judge};
use super::place::Place;
use super::{AuditOptions, AuditPorts, Difference, Found, Progress, Report};
use crate::members::Members;
use crate::offload::offload;
use crate::processor::LeftOut;
use crate::upserter::PayloadOptions;

/// Number of suspects at which they are settled before the audit continues.
const MOST_SUSPECTS: usize = 10_000;

/// Documents checked together for the second time: their rows are in memory at once.
pub(super) const BATCH: usize = 20;

/// Documents that a blocking thread renders in one go: seconds at most, because it cannot be interrupted.
const SLICE: usize = 10;

/// Compares source and index, and repairs differences if a repair port is given.
pub async fn audit(ports: &AuditPorts, options: &AuditOptions, report: &Report) -> PortResult<Found> {
    let begun = Instant::now();
    let position = ports.stored_position();
    let place = if options.resumes { Some(Place::load(position).await?) } else { None };
    let target = options.target.as_ref();
    let found = place.as_ref().map_or_else(|| Found { settled: true, ..Found::default() }, Place::found);
    let run = Run {
        ports,
        options,
        members: Members::new(ports.source.clone(), target.and_then(|target| target.filter.clone())),
        judging: Arc::new(Judging {
            left_out: options.left_out.clone(),
            made: target.map(|target| target.made),
            payload: options.payload.clone(),
        }),
        report,
        progress: Mutex::default(),
        suspects: Mutex::default(),
        found: Mutex::new(found),
        place: Mutex::new(place),
    };
    let namespaces = run.namespaces().await?;
    let mut of_documents = 0;
    for namespace in &namespaces {
        of_documents += ports.source.estimate(namespace).await?;
    }
    let share = options.scope.share.unwrap_or(1.0);
    let of_points = ports.index.count().await?.unwrap_or(0);
    *run.progress() = Progress {
        of_documents: (of_documents as f64 * share) as u64,
        of_points: (of_points as f64 * share) as u64,
        ..Progress::default()
    };
    if options.resumes {
        // Sequentially, so that there is a single position.
        run.read_source(&namespaces).await?;
        run.place().as_mut().expect("it was loaded").source_is_done = true;
        run.read_index(of_points).await?;
    } else {
        tokio::try_join!(run.read_source(&namespaces), run.read_index(of_points))?;
    }
    run.settle().await?;
    if options.resumes {
        position.save_audit(None).await?;
    }
    let mut found = run.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.differences.sort_by(|a, b| (a.kind, &a.namespace, &a.key).cmp(&(b.kind, &b.namespace, &b.key)));
    found.seconds = begun.elapsed().as_secs_f64();
    Ok(found)
}

/// A document that differed at the first check.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub(super) target: Target,
    /// The digest of the source's document at the last check; `None` if it did not exist, or did not belong to the
    /// target.
    pub(super) source: Option<String>,
    /// Points outside the ids of the document's points.
    pub(super) points: Vec<Uuid>,
}

/// A suspect that still differed once earlier commits were in the index.
#[derive(Clone, Debug)]
pub(super) struct Confirmed {
    pub(super) target: Target,
    pub(super) points: Vec<Uuid>,
}

/// A document of the source and its points.
pub(super) type Sides = (Option<SourceRow>, Vec<Seen>);

/// The result of a comparison.
pub(super) struct Verdict {
    /// The difference, if there is one.
    pub(super) difference: Option<(Kind, String)>,
    /// The [`state`] of the source's document, if there is a difference.
    pub(super) state: Option<String>,
}

/// The settings of comparisons.
struct Judging {
    left_out: LeftOut,
    made: Option<Made>,
    payload: Option<PayloadOptions>,
}

impl Judging {
    fn verdict(&self, (row, points): Sides) -> Verdict {
        let left_out = |row: &&SourceRow| row.document.as_ref().is_ok_and(|document| self.left_out.holds(document));
        let row_of_source = row.as_ref().filter(|row| !left_out(row));
        let difference = judge(row_of_source, points, self.made.as_ref(), self.payload.as_ref());
        let state = row.as_ref().filter(|_| difference.is_some()).map(state);
        Verdict { difference, state }
    }

    /// Approximate number of bytes to process; `usize::MAX` if a template may compute for long.
    fn cost(&self, documents: &[Sides]) -> usize {
        if self.left_out.computes() {
            return usize::MAX;
        }
        bytes(documents.iter().filter_map(|(row, _)| row.as_ref()))
    }
}

pub(super) struct Run<'a> {
    pub(super) ports: &'a AuditPorts,
    pub(super) options: &'a AuditOptions,
    /// The documents that belong to the target.
    pub(super) members: Members,
    judging: Arc<Judging>,
    pub(super) report: &'a Report,
    progress: Mutex<Progress>,
    suspects: Mutex<Vec<Suspect>>,
    found: Mutex<Found>,
    /// The position of a resumable audit.
    place: Mutex<Option<Place>>,
}

impl AuditPorts {
    /// Where the position of an audit that resumes is stored.
    fn stored_position(&self) -> &dyn AuditPosition {
        self.position.as_deref().unwrap_or(&*self.journal)
    }
}

impl Run<'_> {
    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compares documents with their points, off the async threads: a producer has to renew its lease meanwhile.
    pub(super) async fn judge(&self, documents: Vec<Sides>) -> PortResult<Vec<Verdict>> {
        let slice = if self.judging.left_out.computes() { SLICE } else { usize::MAX };
        let mut verdicts = Vec::with_capacity(documents.len());
        let mut documents = documents.into_iter();
        while documents.len() > 0 {
            let some: Vec<Sides> = documents.by_ref().take(slice).collect();
            let (judging, cost) = (self.judging.clone(), self.judging.cost(&some));
            let work = move || some.into_iter().map(|sides| judging.verdict(sides)).collect::<Vec<_>>();
            verdicts.extend(off_thread(cost, work).await?);
        }
        Ok(verdicts)
    }

    pub(super) fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Advances the position, and saves it periodically once everything up to there is settled.
    pub(super) async fn passed(&self, pass: impl FnOnce(&mut Place)) -> PortResult<()> {
        let place = self.place().as_mut().and_then(|place| {
            pass(place);
            place.is_to_be_saved().then(|| place.clone())
        });
        let Some(place) = place else { return Ok(()) };
        self.settle().await?;
        let found = Found { differences: Vec::new(), ..self.found().clone() };
        place.save(&found, self.ports.stored_position()).await
    }

    async fn namespaces(&self) -> PortResult<Vec<Namespace>> {
        let all = self.ports.source.collections().await?;
        let wanted = &self.options.scope.namespaces;
        Ok(all.into_iter().filter(|namespace| wanted.is_empty() || wanted.contains(namespace)).collect())
    }

    /// Takes the suspects so far.
    pub(super) fn take_suspects(&self) -> Vec<Suspect> {
        std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds suspects, and settles all of them once there are many.
    pub(super) async fn suspect(&self, suspects: Vec<Suspect>) -> PortResult<()> {
        if suspects.is_empty() {
            return Ok(());
        }
        self.progress().suspects += suspects.len() as u64;
        let many = {
            let mut all = self.suspects.lock().unwrap_or_else(PoisonError::into_inner);
            all.extend(suspects);
            all.len() >= MOST_SUSPECTS
        };
        if many { self.settle().await } else { Ok(()) }
    }
}

/// Returns a value that changes with the row.
pub(super) fn state(row: &SourceRow) -> String {
    row.document.as_ref().map_or_else(Clone::clone, |document| digest(document))
}

/// Size of the documents of these rows.
pub(super) fn bytes<'a>(rows: impl Iterator<Item = &'a SourceRow>) -> usize {
    rows.filter_map(|row| row.document.as_ref().ok()).map(String::len).sum()
}

/// Runs `work` on the blocking thread pool; inline if it is small.
pub(super) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> PortResult<T> {
    offload(bytes, work).await.map_err(|_| PortError::transient("the audit was interrupted by the shutdown"))
}

pub(super) fn difference(target: &Target, kind: Kind, what: String) -> Difference {
    let key = &target.key;
    let key = if key.len() > key::MAX_BYTES { key::clipped(key) } else { key.clone() };
    Difference { kind, namespace: target.namespace.to_string(), key, what }
}

/// The error of a stalled repair.
pub(super) fn stuck(message: &str, hint: &str) -> PortError {
    PortError::transient(message).with_hint(hint)
}
