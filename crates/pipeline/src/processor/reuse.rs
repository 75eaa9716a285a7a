//! Decides the origin of each chunk's vector: a collection, another chunk of the batch, or the embedder.
//!
//! Everything is found by fingerprint, which covers the text and the identity of its model. So a text is embedded once for
//! each model, whatever the number of documents and targets that have it.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use tidewheel_core::change::Operation;
use tidewheel_core::embedded::{Vectors, input};
use tidewheel_core::error::PortError;
use tidewheel_core::ports::KnownVector;
use uuid::Uuid;

use super::blank::is_blank;
use super::embed::Outcome;
use super::plan::Job;

/// Points to look up, by the lane of their target.
pub(super) type Wanted = BTreeMap<usize, Vec<Uuid>>;

/// A vector in the collection of a target.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    /// The lane of the target.
    pub(super) lane: usize,
    /// How precisely it is stored; greater is more precise.
    pub(super) precision: u8,
    pub(super) vector: KnownVector,
}

/// The points of the jobs in the collections of their own targets. Inserts are skipped: their documents are not in the
/// index.
pub(super) fn own_points(jobs: &[Job]) -> Wanted {
    let mut wanted = Wanted::new();
    for job in jobs.iter().filter(|job| job.operation != Operation::Insert) {
        for lane in &job.to {
            wanted.entry(*lane).or_default().extend(points(job));
        }
    }
    wanted
}

/// The points of a job, chunk by chunk.
fn points(job: &Job) -> impl Iterator<Item = Uuid> {
    (0..).zip(&job.chunks).map(move |(chunk, _)| job.document.point(chunk))
}

/// The points of the jobs in the collections of other targets, which `sources` names for a job. Only documents that are
/// new to their own targets are looked up there, and rows of a snapshot, which may be.
pub(super) fn points_elsewhere(
    jobs: &[Job],
    prints: &Fingerprinted,
    known: &[Known],
    sources: impl Fn(&Job) -> Vec<usize>,
) -> Wanted {
    let found: HashSet<&str> = known.iter().map(|known| known.vector.fingerprint.as_str()).collect();
    let stored: HashSet<(usize, Uuid)> = known.iter().map(|known| (known.lane, known.vector.id)).collect();
    let mut wanted = Wanted::new();
    for (number, job) in jobs.iter().enumerate() {
        let first = job.document.point(0);
        let is_new = || !job.to.iter().any(|lane| stored.contains(&(*lane, first)));
        if job.operation == Operation::Insert || (job.operation != Operation::Read && !is_new()) {
            continue;
        }
        let of_job = prints.of_job(number).iter().zip(points(job));
        let lacking = of_job.filter(|(print, _)| !print.is_empty() && !found.contains(print.as_str()));
        let lacking: Vec<Uuid> = lacking.map(|(_, point)| point).collect();
        if !lacking.is_empty() {
            for lane in sources(job) {
                wanted.entry(lane).or_default().extend_from_slice(&lacking);
            }
        }
    }
    wanted
}

/// The fingerprints of all chunks of some jobs; that of a blank chunk is empty.
pub(super) struct Fingerprinted {
    all: Vec<String>,
    /// Where those of each job end.
    ends: Vec<usize>,
}

impl Fingerprinted {
    pub(super) fn new(jobs: &[Job]) -> Self {
        let (mut all, mut ends) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        for job in jobs {
            let fingerprints = job.planner.model.fingerprints.prefixed(&job.prefix);
            let of = |text: &String| if is_blank(text) { String::new() } else { fingerprints.of(text) };
            all.extend(job.chunks.iter().map(of));
            ends.push(all.len());
        }
        Self { all, ends }
    }

    fn of_job(&self, job: usize) -> &[String] {
        let start = job.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.all[start..self.ends[job]]
    }
}

/// The origin of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Index into the known vectors.
    Index(usize),
    /// Index into the texts to embed of the job's group.
    Embedder(usize),
    /// None: its text is blank. Represented by zeros, which no embedder returns.
    Nowhere,
}

/// The origins of all vectors of a batch.
#[derive(Debug)]
pub(super) struct Reuse {
    known: Vec<Known>,
    /// For each job, the origin of each chunk.
    origins: Vec<Vec<Origin>>,
    /// For each job, the lanes of its targets whose collections have all its vectors at their points.
    unchanged: Vec<Vec<usize>>,
    /// Chunks with the text of another chunk.
    repeated: Vec<(usize, usize)>,
    /// Texts to embed, for each group: job and chunk.
    todo: Vec<Vec<(usize, usize)>>,
}

/// A text that was not embedded, with its prefix, and its job.
pub(super) type Saved<'j> = (usize, Cow<'j, str>);

impl Reuse {
    /// `known` are the vectors that the collections have of [`own_points`] and [`points_elsewhere`], all of the dimension
    /// of their model. `groups` has the number of each job's model, below `count`; `precision` tells how precisely the
    /// targets of a job store vectors: less precise ones are not used for it.
    pub(super) fn new(
        jobs: &[Job],
        prints: &Fingerprinted,
        known: Vec<Known>,
        groups: &[usize],
        count: usize,
        precision: impl Fn(&Job) -> u8,
    ) -> Self {
        let at: HashMap<(usize, Uuid), &str> =
            known.iter().map(|known| ((known.lane, known.vector.id), known.vector.fingerprint.as_str())).collect();
        let mut stored: HashMap<&str, usize> = HashMap::with_capacity(known.len());
        for (place, found) in known.iter().enumerate() {
            let best = stored.entry(found.vector.fingerprint.as_str()).or_insert(place);
            if known[*best].precision < found.precision {
                *best = place;
            }
        }
        let mut embedded: HashMap<&str, usize> = HashMap::new();
        let (mut origins, mut unchanged) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        let (mut repeated, mut todo) = (Vec::new(), vec![Vec::new(); count]);
        for (number, job) in jobs.iter().enumerate() {
            let (precision, todo) = (precision(job), &mut todo[groups[number]]);
            let prints = prints.of_job(number);
            let mut own = Vec::with_capacity(prints.len());
            for (chunk, print) in prints.iter().enumerate() {
                let is_exact = |place: &&usize| known[**place].precision >= precision;
                own.push(if print.is_empty() {
                    Origin::Nowhere
                } else if let Some(place) = stored.get(print.as_str()).filter(is_exact) {
                    Origin::Index(*place)
                } else {
                    let place = *embedded.entry(print).or_insert(todo.len());
                    if place == todo.len() {
                        todo.push((number, chunk));
                    } else {
                        repeated.push((number, chunk));
                    }
                    Origin::Embedder(place)
                });
            }
            origins.push(own);
            let is_in_place = |lane: &usize| {
                prints.iter().zip(points(job)).all(|(print, point)| at.get(&(*lane, point)) == Some(&print.as_str()))
            };
            let lanes = job.to.iter().copied().filter(|lane| !at.is_empty() && is_in_place(lane));
            unchanged.push(lanes.collect());
        }
        Self { known, origins, unchanged, repeated, todo }
    }

    /// Whether a job needs the embedder.
    pub(super) fn embeds(&self, job: usize) -> bool {
        self.origins[job].iter().any(|origin| matches!(origin, Origin::Embedder(_)))
    }

    /// The jobs of the texts to embed of a group, text by text.
    pub(super) fn embedded(&self, group: usize) -> impl Iterator<Item = usize> {
        self.todo[group].iter().map(|(job, _)| *job)
    }

    /// The texts to embed of a group, each once, with their prefixes. Chunks without a prefix are moved out of the jobs and
    /// moved back by [`Reuse::restore_texts`].
    pub(super) fn take_texts(&self, group: usize, jobs: &mut [Option<Job>]) -> Vec<String> {
        let take = |&(job, chunk): &(usize, usize)| {
            let Job { prefix, chunks, .. } = jobs[job].as_mut()?;
            Some(if prefix.is_empty() {
                std::mem::take(&mut chunks[chunk])
            } else {
                input(prefix, &chunks[chunk]).into_owned()
            })
        };
        self.todo[group].iter().filter_map(take).collect()
    }

    /// Moves the texts of a group back into the jobs.
    pub(super) fn restore_texts(&self, group: usize, jobs: &mut [Option<Job>], texts: Vec<String>) {
        for (&(job, chunk), text) in self.todo[group].iter().zip(texts) {
            if let Some(Job { prefix, chunks, .. }) = &mut jobs[job]
                && prefix.is_empty()
            {
                chunks[chunk] = text;
            }
        }
    }

    /// The texts that are not embedded: those of chunks with vectors from a collection, and those of chunks with the text of
    /// another chunk.
    pub(super) fn saved<'j>(&self, jobs: &'j [Job]) -> (Vec<Saved<'j>>, Vec<Saved<'j>>) {
        let known = self.origins.iter().zip(jobs).enumerate().flat_map(|(number, (origins, job))| {
            let known = origins.iter().zip(&job.chunks).filter(|(origin, _)| matches!(origin, Origin::Index(_)));
            known.map(move |(_, chunk)| (number, input(&job.prefix, chunk)))
        });
        let repeated = self.repeated.iter().map(|&(number, chunk)| {
            let job = &jobs[number];
            (number, input(&job.prefix, &job.chunks[chunk]))
        });
        (known.collect(), repeated.collect())
    }

    /// Number of vectors of this job that are not requested from the embedder.
    pub(super) fn reused(&self, job: usize) -> usize {
        self.origins[job].iter().filter(|origin| !matches!(origin, Origin::Embedder(_))).count()
    }

    /// Takes the lanes of those targets of a job whose collections have all its vectors at their points.
    pub(super) fn take_unchanged(&mut self, job: usize) -> Vec<usize> {
        std::mem::take(&mut self.unchanged[job])
    }

    /// The vectors of a job, or the error; `None` while the outcome of one of its texts is pending. `outcomes` are those of
    /// the embedded texts of its group, in order.
    pub(super) fn vectors(
        &self,
        job: usize,
        outcomes: &[Outcome],
        dimension: usize,
    ) -> Option<Result<Vectors, PortError>> {
        let origins = &self.origins[job];
        let mut values = Vec::with_capacity(origins.len() * dimension);
        for origin in origins {
            match origin {
                Origin::Index(place) => values.extend_from_slice(&self.known[*place].vector.vector),
                Origin::Nowhere => values.resize(values.len() + dimension, 0.0),
                Origin::Embedder(place) => match outcomes[*place].as_ref()? {
                    Ok(vector) => values.extend_from_slice(vector),
                    Err(error) => return Some(Err(error.clone())),
                },
            }
        }
        Some(Ok(Vectors::new(dimension, values).expect("every vector has the dimension")))
    }
}

#[cfg(test)]
mod tests;
