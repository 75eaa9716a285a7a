//! Decides the origin of each chunk's vector: the index, another chunk of the batch, or the embedder.

use std::borrow::Cow;
use std::collections::HashMap;

use tidewheel_core::change::Operation;
use tidewheel_core::embedded::{Vectors, input};
use tidewheel_core::error::PortError;
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::ports::KnownVector;
use uuid::Uuid;

use super::blank::is_blank;
use super::embed::Outcome;
use super::plan::Job;

/// The points whose vectors may be reusable for these jobs. Inserts are skipped: their documents are not in the index.
pub(super) fn reusable_points(jobs: &[Job]) -> Vec<Uuid> {
    let known = jobs.iter().filter(|job| job.change.operation != Operation::Insert);
    known.flat_map(|job| points(job).map(|(_, point)| point)).collect()
}

/// The chunks of a job with their points.
fn points(job: &Job) -> impl Iterator<Item = (&String, Uuid)> {
    let document = job.change.document_id();
    (0..).zip(&job.chunks).map(move |(chunk, text)| (text, document.point(chunk)))
}

/// The origin of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Index into the known vectors.
    Index(usize),
    /// Index into the texts to embed.
    Embedder(usize),
    /// None: its text is blank. Represented by zeros, which no embedder returns.
    Nowhere,
}

/// The origins of all vectors of a batch.
#[derive(Debug)]
pub(super) struct Reuse {
    known: Vec<KnownVector>,
    /// For each job, the origin of each chunk.
    origins: Vec<Vec<Origin>>,
    /// For each job, whether the index has all its vectors at their points.
    unchanged: Vec<bool>,
    /// Chunks with the text of another chunk.
    repeated: Vec<(usize, usize)>,
    /// Texts to embed: job and chunk.
    todo: Vec<(usize, usize)>,
}

impl Reuse {
    /// `known` are the vectors that the index has of [`reusable_points`]. Vectors of another dimension than the model's
    /// are not used.
    pub(super) fn new(
        jobs: &[Job],
        mut known: Vec<KnownVector>,
        fingerprints: &Fingerprints,
        dimension: usize,
    ) -> Self {
        known.retain(|known| known.vector.len() == dimension);
        let at: HashMap<Uuid, &str> = known.iter().map(|known| (known.id, known.fingerprint.as_str())).collect();
        let mut places: HashMap<String, Origin> = HashMap::new();
        places.extend(known.iter().enumerate().map(|(i, known)| (known.fingerprint.clone(), Origin::Index(i))));
        let (mut origins, mut unchanged) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        let (mut repeated, mut todo) = (Vec::new(), Vec::new());
        for (number, job) in jobs.iter().enumerate() {
            let fingerprints = fingerprints.prefixed(&job.prefix);
            let mut in_place = true;
            let mut own = Vec::with_capacity(job.chunks.len());
            for (chunk, (text, point)) in points(job).enumerate() {
                if is_blank(text) {
                    in_place = false;
                    own.push(Origin::Nowhere);
                    continue;
                }
                let fingerprint = fingerprints.of(text);
                in_place &= at.get(&point) == Some(&fingerprint.as_str());
                let mut fresh = false;
                let origin = *places.entry(fingerprint).or_insert_with(|| {
                    fresh = true;
                    todo.push((number, chunk));
                    Origin::Embedder(todo.len() - 1)
                });
                if !fresh && matches!(origin, Origin::Embedder(_)) {
                    repeated.push((number, chunk));
                }
                own.push(origin);
            }
            origins.push(own);
            unchanged.push(in_place);
        }
        Self { known, origins, unchanged, repeated, todo }
    }

    /// The texts to embed, each once, with their prefixes. Chunks without a prefix are moved out of the jobs and moved back
    /// by [`Reuse::restore_texts`].
    pub(super) fn take_texts(&self, jobs: &mut [Job]) -> Vec<String> {
        let take = |&(job, chunk): &(usize, usize)| {
            let Job { prefix, chunks, .. } = &mut jobs[job];
            if prefix.is_empty() {
                std::mem::take(&mut chunks[chunk])
            } else {
                input(prefix, &chunks[chunk]).into_owned()
            }
        };
        self.todo.iter().map(take).collect()
    }

    /// Moves the texts back into the jobs.
    pub(super) fn restore_texts(&self, jobs: &mut [Job], texts: Vec<String>) {
        for ((job, chunk), text) in self.todo.iter().zip(texts) {
            if jobs[*job].prefix.is_empty() {
                jobs[*job].chunks[*chunk] = text;
            }
        }
    }

    /// The texts that were not embedded, with their prefixes: those of chunks with vectors from the index, and those of
    /// chunks with the text of another chunk.
    pub(super) fn saved<'j>(&self, jobs: &'j [Job]) -> (Vec<Cow<'j, str>>, Vec<Cow<'j, str>>) {
        let known = self.origins.iter().zip(jobs).flat_map(|(origins, job)| {
            let known = origins.iter().zip(&job.chunks).filter(|(origin, _)| matches!(origin, Origin::Index(_)));
            known.map(move |(_, chunk)| input(&job.prefix, chunk))
        });
        let repeated = self.repeated.iter().map(|(job, chunk)| input(&jobs[*job].prefix, &jobs[*job].chunks[*chunk]));
        (known.collect(), repeated.collect())
    }

    /// Number of vectors of this job that were not requested from the embedder.
    pub(super) fn reused(&self, job: usize) -> usize {
        self.origins[job].iter().filter(|origin| !matches!(origin, Origin::Embedder(_))).count()
    }

    /// The vectors of a job, or the error, and whether the index has them all at their points; `None` while the outcome
    /// of one of its texts is pending. `outcomes` are those of the embedded texts, in order.
    pub(super) fn vectors(
        &self,
        job: usize,
        outcomes: &[Outcome],
        dimension: usize,
    ) -> Option<(Result<Vectors, PortError>, bool)> {
        let origins = &self.origins[job];
        let mut values = Vec::with_capacity(origins.len() * dimension);
        for origin in origins {
            match origin {
                Origin::Index(place) => values.extend_from_slice(&self.known[*place].vector),
                Origin::Nowhere => values.resize(values.len() + dimension, 0.0),
                Origin::Embedder(place) => match outcomes[*place].as_ref()? {
                    Ok(vector) => values.extend_from_slice(vector),
                    Err(error) => return Some((Err(error.clone()), false)),
                },
            }
        }
        let vectors = Vectors::new(dimension, values).expect("every vector has the dimension");
        Some((Ok(vectors), self.unchanged[job]))
    }
}

#[cfg(test)]
mod tests {
    use tidewheel_core::change::{Change, Route};
    use tidewheel_core::identity::Namespace;
    use tidewheel_core::ports::EntryId;
    use tidewheel_core::version::{ClusterTime, Version};

    use super::*;

    fn job(key: &str, prefix: &str, chunk: &str) -> Job {
        let change = Change {
            operation: Operation::Update,
            namespace: Namespace::new("shop", "tickets"),
            key: key.to_owned(),
            id: key.to_owned(),
            version: Version { epoch: 0, time: ClusterTime { seconds: 1, increment: 1 }, ordinal: 1, replay: 0 },
            committed_at: 0,
            document: Some("{}".to_owned()),
            route: Route::Plain,
        };
        let entries = vec![EntryId(format!("{key}-0"))];
        Job { change, chunks: vec![chunk.to_owned()], prefix: prefix.to_owned(), limit: 256, entries }
    }

    #[test]
    fn chunks_are_embedded_and_found_again_with_their_prefix() {
        let fingerprints = Fingerprints::new("hash:2", "1", 2);
        let mut jobs =
            vec![job("1", "Late", "x"), job("2", "Early", "x"), job("3", "Late", "x"), job("4", "", "Late\nx")];
        let before = jobs.clone();
        let reuse = Reuse::new(&jobs, Vec::new(), &fingerprints, 2);
        let texts = reuse.take_texts(&mut jobs);
        assert_eq!(texts, ["Late\nx", "Early\nx"]);
        reuse.restore_texts(&mut jobs, texts);
        assert_eq!(jobs, before);
        assert_eq!(reuse.saved(&jobs).1, ["Late\nx", "Late\nx"], "equal inputs are embedded once");

        let point = before[0].change.document_id().point(0);
        let known = KnownVector { id: point, fingerprint: fingerprints.of("Late\nx"), vector: vec![1.0, 0.0] };
        let reuse = Reuse::new(&jobs, vec![known], &fingerprints, 2);
        assert_eq!(reuse.take_texts(&mut jobs), ["Early\nx"]);
        let (vectors, unchanged) = reuse.vectors(0, &[], 2).unwrap();
        assert_eq!((vectors.unwrap().values(), unchanged), (&[1.0, 0.0][..], true));
    }
}
