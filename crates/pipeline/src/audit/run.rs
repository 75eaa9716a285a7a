//! Reads both sides, checks differences a second time, and repairs them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::key;
use tidewheel_core::payload::digest;
use tidewheel_core::ports::{IndexedPoint, PortResult, SnapshotState, SourceRow};
use tidewheel_core::version::ClusterTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::judge::{Kind, Seen, Target, judge};
use super::place::Place;
use super::{AuditOptions, AuditPorts, Difference, Found, Progress, Report, look};
use crate::offload::offload;
use crate::processor::LeftOut;
use crate::upserter::PayloadOptions;

/// Index points per page.
const PAGE: usize = 1_000;

/// Index points read per position when only a sample is audited.
const SAMPLE: usize = 50;

/// Number of suspects at which they are settled before the audit continues.
const MOST_SUSPECTS: usize = 10_000;

/// Documents checked together for the second time: their rows are in memory at once.
pub(super) const BATCH: usize = 20;

/// Documents that a blocking thread renders in one go: seconds at most, because it cannot be interrupted.
const SLICE: usize = 10;

/// How often a document that keeps changing is checked.
const ROUNDS: usize = 5;

/// Minimum delay before a difference is checked again.
const MOMENT: Duration = Duration::from_millis(500);

/// How often the audit polls whether earlier commits have reached the index.
const LOOK: Duration = Duration::from_millis(100);

/// How long to wait for that after it has timed out once.
const IN_VAIN: Duration = Duration::from_secs(2);

/// Compares source and index, and repairs differences if a repair port is given.
pub async fn audit(ports: &AuditPorts, options: &AuditOptions, report: &Report) -> PortResult<Found> {
    let begun = Instant::now();
    let place = if options.resumes { Some(Place::load(&*ports.journal).await?) } else { None };
    let found = place.as_ref().map_or_else(|| Found { settled: true, ..Found::default() }, Place::found);
    let run = Run {
        ports,
        options,
        judging: Arc::new(Judging { left_out: options.left_out.clone(), payload: options.payload.clone() }),
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
        ports.journal.save_audit(None).await?;
    }
    let mut found = run.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.differences.sort_by(|a, b| (a.kind, &a.namespace, &a.key).cmp(&(b.kind, &b.namespace, &b.key)));
    found.seconds = begun.elapsed().as_secs_f64();
    Ok(found)
}

/// A document that differed at the first check.
#[derive(Clone, Debug)]
struct Suspect {
    target: Target,
    /// The digest of the source's document at the last check; `None` if it did not exist.
    source: Option<String>,
    /// Points outside the ids of the document's points.
    points: Vec<Uuid>,
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
    state: Option<String>,
}

/// The settings of comparisons.
struct Judging {
    left_out: LeftOut,
    payload: Option<PayloadOptions>,
}

impl Judging {
    fn verdict(&self, (row, points): Sides) -> Verdict {
        let left_out = |row: &&SourceRow| row.document.as_ref().is_ok_and(|document| self.left_out.holds(document));
        let difference = judge(row.as_ref().filter(|row| !left_out(row)), points, self.payload.as_ref());
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
    judging: Arc<Judging>,
    report: &'a Report,
    progress: Mutex<Progress>,
    suspects: Mutex<Vec<Suspect>>,
    found: Mutex<Found>,
    /// The position of a resumable audit.
    place: Mutex<Option<Place>>,
}

impl Run<'_> {
    fn progress(&self) -> MutexGuard<'_, Progress> {
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

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Advances the position, and saves it periodically once everything up to there is settled.
    async fn passed(&self, pass: impl FnOnce(&mut Place)) -> PortResult<()> {
        let place = self.place().as_mut().and_then(|place| {
            pass(place);
            place.is_to_be_saved().then(|| place.clone())
        });
        let Some(place) = place else { return Ok(()) };
        self.settle().await?;
        let found = Found { differences: Vec::new(), ..self.found().clone() };
        place.save(&found, &*self.ports.journal).await
    }

    async fn namespaces(&self) -> PortResult<Vec<Namespace>> {
        let all = self.ports.source.collections().await?;
        let wanted = &self.options.scope.namespaces;
        Ok(all.into_iter().filter(|namespace| wanted.is_empty() || wanted.contains(namespace)).collect())
    }

    async fn suspect(&self, suspects: Vec<Suspect>) -> PortResult<()> {
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

    /// Compares the source's documents with their points.
    async fn read_source(&self, namespaces: &[Namespace]) -> PortResult<()> {
        let AuditPorts { source, index, .. } = self.ports;
        let (filter, whole) = (self.options.scope.filter(), self.options.payload.is_some());
        for namespace in namespaces {
            let after = match &*self.place() {
                Some(place) => place.row_after(namespace).map(|after| after.map(str::to_owned)),
                None => Some(None),
            };
            let Some(after) = after else { continue };
            let now = source.now().await?;
            let mut scan = source.scan(namespace, after.as_deref(), now, filter.as_ref()).await?;
            loop {
                let rows = scan.next().await?;
                if rows.is_empty() {
                    break;
                }
                let target = |row: &SourceRow| Target { namespace: namespace.clone(), key: row.key.clone() };
                let targets: Vec<Target> = rows.iter().map(target).collect();
                let refs: Vec<&Target> = targets.iter().collect();
                let mut points = look::points(&**index, &refs, &[], whole, false).await?;
                let sides = targets.iter().zip(rows).map(|(target, row)| {
                    let points = points.remove(target).unwrap_or_default();
                    (Some(row), points)
                });
                let verdicts = self.judge(sides.collect()).await?;
                let differing = targets.iter().zip(verdicts).filter(|(_, verdict)| verdict.difference.is_some());
                let suspects = differing.map(|(target, Verdict { state: source, .. })| Suspect {
                    target: target.clone(),
                    source,
                    points: Vec::new(),
                });
                let suspects: Vec<Suspect> = suspects.collect();
                self.progress().documents += targets.len() as u64;
                self.found().documents += targets.len() as u64;
                self.suspect(suspects).await?;
                if let Some(last) = targets.last() {
                    self.passed(|place| place.pass_row(namespace, &last.key)).await?;
                }
                (self.report)(*self.progress());
                tokio::time::sleep(self.options.pause).await;
            }
        }
        Ok(())
    }

    /// Checks whether the source has the documents of the index's points.
    async fn read_index(&self, count: u64) -> PortResult<()> {
        let index = &self.ports.index;
        let Some(share) = self.options.scope.share else {
            let mut after = self.place().as_ref().and_then(|place| place.index);
            loop {
                let page = index.page(after, PAGE, look::fields(false)).await?;
                let Some(last) = page.last() else { return Ok(()) };
                let last = last.id;
                after = Some(last);
                self.compare_page(page).await?;
                self.passed(|place| place.pass_point(last)).await?;
            }
        };
        // Ids are hashes, so any position is a random sample.
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let places = (count as f64 * share / SAMPLE as f64).ceil() as u64;
        for place in 0..places {
            let name = [seed.to_be_bytes().as_slice(), &place.to_be_bytes()].concat();
            let from = Uuid::new_v5(&Uuid::NAMESPACE_OID, &name);
            self.compare_page(index.page(Some(from), SAMPLE, look::fields(false)).await?).await?;
        }
        Ok(())
    }

    async fn compare_page(&self, page: Vec<IndexedPoint>) -> PortResult<()> {
        let AuditPorts { source, index, .. } = self.ports;
        let (count, scope) = (page.len() as u64, &self.options.scope);
        let seen: Vec<Seen> = page.into_iter().filter_map(Seen::read).collect();
        let ours = |seen: &&Seen| source.coverage.reaches_database_of(&seen.stamp.namespace);
        let foreign = count - seen.iter().filter(ours).count() as u64;
        let seen: Vec<&Seen> =
            seen.iter().filter(ours).filter(|seen| scope.contains(&seen.stamp.namespace, &seen.stamp.key)).collect();
        // Chunk 0 determines whether a later chunk belongs to its document.
        let later = seen.iter().filter(|seen| seen.stamp.chunk > 0).map(|seen| seen.document().point(0));
        let first: Vec<Uuid> = later.collect::<BTreeSet<_>>().into_iter().collect();
        let first: HashMap<Uuid, Seen> = index
            .points(&first, look::fields(false))
            .await?
            .into_iter()
            .filter_map(|point| Some((point.id, Seen::read(point)?)))
            .collect();
        let mut suspects: BTreeMap<Target, Vec<Uuid>> = BTreeMap::new();
        let mut asked: BTreeMap<Namespace, BTreeSet<String>> = BTreeMap::new();
        for seen in seen {
            let target = Target { namespace: seen.stamp.namespace.clone(), key: seen.stamp.key.clone() };
            let belongs = seen.stamp.chunk == 0
                || first.get(&target.document().point(0)).is_some_and(|first| {
                    first.stamp.version == seen.stamp.version && seen.stamp.chunk < first.stamp.chunks
                });
            if !belongs || seen.is_stray() {
                suspects.entry(target.clone()).or_default().push(seen.point.id);
            }
            asked.entry(target.namespace).or_default().insert(target.key);
        }
        let now = source.now().await?;
        for (namespace, keys) in asked {
            let keys: Vec<String> = keys.into_iter().collect();
            let exist = source.existing(&namespace, &keys, now).await?;
            for (key, _) in keys.into_iter().zip(exist).filter(|(_, exists)| !exists) {
                suspects.entry(Target { namespace: namespace.clone(), key }).or_default();
            }
        }
        let suspects = self.with_source(suspects, now).await?;
        {
            let mut progress = self.progress();
            progress.points += count;
            let mut found = self.found();
            found.points += count;
            found.foreign += foreign;
        }
        self.suspect(suspects).await?;
        (self.report)(*self.progress());
        tokio::time::sleep(self.options.pause).await;
        Ok(())
    }

    /// Adds the current state in the source, to detect later changes.
    async fn with_source(&self, suspects: BTreeMap<Target, Vec<Uuid>>, now: ClusterTime) -> PortResult<Vec<Suspect>> {
        let suspects: Vec<(Target, Vec<Uuid>)> = suspects.into_iter().collect();
        let mut all = Vec::with_capacity(suspects.len());
        for batch in suspects.chunks(BATCH) {
            let targets: Vec<&Target> = batch.iter().map(|(target, _)| target).collect();
            let rows = look::rows(&self.ports.source, &targets, now).await?;
            let bytes = bytes(rows.values());
            let states = move || rows.into_iter().map(|(target, row)| (target, state(&row))).collect();
            let mut states: HashMap<Target, String> = off_thread(bytes, states).await?;
            all.extend(batch.iter().map(|(target, points)| Suspect {
                target: target.clone(),
                source: states.remove(target),
                points: points.clone(),
            }));
        }
        Ok(all)
    }

    /// Checks the suspects again once earlier commits have reached the index.
    async fn settle(&self) -> PortResult<()> {
        let suspects = std::mem::take(&mut *self.suspects.lock().unwrap_or_else(PoisonError::into_inner));
        let mut open = merged(suspects);
        let mut confirmed = Vec::new();
        for _ in 0..ROUNDS {
            if open.is_empty() {
                break;
            }
            let now = self.ports.source.now().await?;
            tokio::time::sleep(MOMENT).await;
            self.arrived(now).await?;
            let mut changing = Vec::new();
            for batch in open.chunks(BATCH) {
                self.look_again(batch, now, &mut confirmed, &mut changing).await?;
            }
            open = changing;
        }
        // Keys with invalid UTF-8 cannot be queried: their state is undetermined too.
        self.found().unsettled += open.len() as u64;
        if self.ports.repair.is_some() && !confirmed.is_empty() {
            self.repair(&confirmed).await?;
        }
        Ok(())
    }

    async fn look_again(
        &self,
        suspects: &[Suspect],
        since: ClusterTime,
        confirmed: &mut Vec<Confirmed>,
        changing: &mut Vec<Suspect>,
    ) -> PortResult<()> {
        let targets: Vec<&Target> = suspects.iter().map(|suspect| &suspect.target).collect();
        let more: Vec<Uuid> = suspects.iter().flat_map(|suspect| suspect.points.iter().copied()).collect();
        // The index first: its state is then never newer than the row that it is compared with.
        let whole = self.options.payload.is_some();
        let mut points = look::points(&*self.ports.index, &targets, &more, whole, true).await?;
        let mut rows = look::rows(&self.ports.source, &targets, self.ports.source.now().await?).await?;
        let sides = targets.iter().map(|target| (rows.remove(*target), points.remove(*target).unwrap_or_default()));
        let sides: Vec<Sides> = sides.collect();
        let is_newer = |(_, points): &Sides| points.iter().any(|seen| seen.stamp.version.time > since);
        let newer: Vec<bool> = sides.iter().map(is_newer).collect();
        for ((suspect, verdict), newer) in suspects.iter().zip(self.judge(sides).await?).zip(newer) {
            let Verdict { difference, state: source } = verdict;
            let Some((kind, what)) = difference else { continue };
            if source != suspect.source || newer {
                changing.push(Suspect { source, ..suspect.clone() });
                continue;
            }
            self.count(&suspect.target, kind, what);
            let (target, points) = (suspect.target.clone(), suspect.points.clone());
            confirmed.push(Confirmed { target, points });
        }
        Ok(())
    }

    fn count(&self, target: &Target, kind: Kind, what: String) {
        let mut found = self.found();
        *match kind {
            Kind::Missing => &mut found.missing,
            Kind::Stale => &mut found.stale,
            Kind::Extra => &mut found.extra,
            Kind::Surplus => &mut found.surplus,
        } += 1;
        if found.differences.len() < self.options.named {
            found.differences.push(difference(target, kind, what));
        }
    }

    /// Waits until everything committed at or before this time is in the index.
    async fn arrived(&self, time: ClusterTime) -> PortResult<()> {
        let limit = if self.found().settled { self.options.settle } else { IN_VAIN.min(self.options.settle) };
        let begun = Instant::now();
        loop {
            let applied = self.ports.journal.applied().await?;
            let arrived = applied.is_some_and(|applied| {
                matches!(applied.snapshot, SnapshotState::Done { .. }) && applied.through >= time
            });
            if arrived {
                return Ok(());
            }
            if begun.elapsed() >= limit {
                self.found().settled = false;
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Returns a value that changes with the row.
fn state(row: &SourceRow) -> String {
    row.document.as_ref().map_or_else(Clone::clone, |document| digest(document))
}

/// Size of the documents of these rows.
fn bytes<'a>(rows: impl Iterator<Item = &'a SourceRow>) -> usize {
    rows.filter_map(|row| row.document.as_ref().ok()).map(String::len).sum()
}

/// Runs `work` on the blocking thread pool; inline if it is small.
async fn off_thread<T: Send + 'static>(bytes: usize, work: impl FnOnce() -> T + Send + 'static) -> PortResult<T> {
    offload(bytes, work).await.map_err(|_| PortError::transient("the audit was interrupted by the shutdown"))
}

pub(super) fn difference(target: &Target, kind: Kind, what: String) -> Difference {
    let key = &target.key;
    let key = if key.len() > key::MAX_BYTES { key::clipped(key) } else { key.clone() };
    Difference { kind, namespace: target.namespace.to_string(), key, what }
}

/// Merges suspects of the same document.
fn merged(suspects: Vec<Suspect>) -> Vec<Suspect> {
    let mut of: BTreeMap<Target, Suspect> = BTreeMap::new();
    for suspect in suspects {
        match of.get_mut(&suspect.target) {
            Some(known) => known.points.extend(suspect.points),
            None => drop(of.insert(suspect.target.clone(), suspect)),
        }
    }
    of.into_values().collect()
}

/// The error of a stalled repair.
pub(super) fn stuck(message: &str, hint: &str) -> PortError {
    PortError::transient(message).with_hint(hint)
}
