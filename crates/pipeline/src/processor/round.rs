//! One pass over the jobs of a batch as they are currently split: reads known vectors, embeds the other texts of each model
//! concurrently, and hands over the units that are ready.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{join_all, try_join_all};
use tidewheel_core::catalog::EmbedderIdentity;
use tidewheel_core::error::{Cause, PortError};
use uuid::Uuid;

use super::Worker;
use super::batch::Batch;
use super::embed::{Embedding, Outcome};
use super::lane::{Lane, Lanes};
use super::metric::Saved;
use super::model::{Model, guarded};
use super::plan::Job;
use super::reuse::{self, Fingerprinted, Known, Reuse, Wanted};
use super::traced::EmbedCall;
use super::unit::{Part, Texts};
use crate::breaker::{Breaker, Ended};
use crate::offload::beside;
use crate::retry::{RetryError, RetryPolicy};
use crate::targets::Target;

/// The jobs of a pass.
struct Round {
    /// `None` for one that is decided, or too long.
    jobs: Vec<Option<Job>>,
    /// The number of the model of each job.
    groups: Vec<usize>,
    reuse: Reuse,
    too_long: Vec<(Job, PortError)>,
}

/// The jobs of one model: targets that share its identity.
struct Group {
    number: usize,
    model: Arc<Model>,
    /// Skips them, if all targets that wait for texts may be skipped.
    breaker: Option<Arc<Breaker>>,
    texts: Vec<String>,
    /// The targets that wait for texts.
    targets: Vec<Arc<Target>>,
}

/// The answers of a model.
#[derive(Clone, Copy)]
enum Answers<'a> {
    Outcomes(&'a [Outcome]),
    /// None for the texts that are open, for this reason.
    Skipped(&'a str),
}

impl Worker {
    /// Embeds the jobs, and hands over what is ready. Returns those with a chunk that is too long.
    pub(super) async fn round(&self, batch: &Batch, jobs: Vec<Job>) -> Result<Vec<(Job, PortError)>, RetryError> {
        let prints = Fingerprinted::new(&jobs);
        let known = self.recall(batch, &jobs, &prints).await;
        let (groups, count) = by_model(&jobs);
        let precision = |job: &Job| job.to.iter().map(|lane| batch.lanes.get(*lane).precision()).max().unwrap_or(0);
        let reuse = Reuse::new(&jobs, &prints, known, &groups, count, precision);
        let (known, repeated) = reuse.saved(&jobs);
        count_saved(&batch.lanes, |lane| &lane.metrics.known, &jobs, &known);
        count_saved(&batch.lanes, |lane| &lane.metrics.repeated, &jobs, &repeated);
        let jobs = jobs.into_iter().map(Some).collect();
        let mut round = Round { jobs, groups, reuse, too_long: Vec::new() };
        let groups: Vec<Group> = (0..count).filter_map(|number| self.group(batch, &mut round, number)).collect();
        let round = Mutex::new(round);
        try_join_all(groups.into_iter().map(|group| self.embed_group(batch, &round, group))).await?;
        Ok(round.into_inner().unwrap_or_else(PoisonError::into_inner).too_long)
    }

    /// Reads vectors that may be reusable: first of the targets themselves, then of others, for what is still missing.
    async fn recall(&self, batch: &Batch, jobs: &[Job], prints: &Fingerprinted) -> Vec<Known> {
        let mut known = ask(&batch.lanes, reuse::own_points(jobs)).await;
        if batch.lanes.len() > 1 {
            let elsewhere = reuse::points_elsewhere(jobs, prints, &known, |job| batch.sources(job));
            known.append(&mut ask(&batch.lanes, elsewhere).await);
        }
        known
    }

    /// The group of this number, with the texts of its jobs.
    fn group(&self, batch: &Batch, round: &mut Round, number: usize) -> Option<Group> {
        let texts = round.reuse.take_texts(number, &mut round.jobs);
        let (mut chosen, mut must_wait): (Option<&Lane>, bool) = (None, false);
        let mut targets: Vec<Arc<Target>> = Vec::new();
        for (place, job) in round.jobs.iter().enumerate() {
            let Some(job) = job.as_ref().filter(|_| round.groups[place] == number) else { continue };
            let embeds = round.reuse.embeds(place);
            for lane in job.to.iter().map(|lane| batch.lanes.get(*lane)) {
                must_wait |= !lane.may_skip && embeds;
                if embeds && !targets.iter().any(|target| Arc::ptr_eq(target, &lane.target)) {
                    targets.push(lane.target.clone());
                }
                // The embedder of a target that others wait for, if there is one.
                if chosen.is_none_or(|chosen| chosen.may_skip && !lane.may_skip) {
                    chosen = Some(lane);
                }
            }
        }
        let lane = chosen?;
        let breaker = (!must_wait && !texts.is_empty()).then(|| self.models.breaker(&lane.target));
        Some(Group { number, model: lane.ready()?.model.clone(), breaker, texts, targets })
    }

    /// Embeds the texts of a group, and hands over the units that are ready then. Texts that fail while other requests
    /// succeed come last, so that they block no others.
    async fn embed_group(&self, batch: &Batch, round: &Mutex<Round>, group: Group) -> Result<(), RetryError> {
        let Group { number, model, breaker, texts, targets } = group;
        let (model, breaker, is_declared) = (&*model, breaker.as_deref(), !batch.lanes.is_short_form());
        let call = batch.spans.are_on().then(|| EmbedCall::begin(&model.info, texts.len()));
        let (all, retry) = (&texts[..], &self.retry);
        let embed =
            move |retry: RetryPolicy| async move { Embedding { model, retry: &retry, is_declared }.of(all).await };
        let embedded = self.while_needed(&targets, guarded(breaker, retry, embed)).await?;
        let call = call.map(EmbedCall::end);
        let (mut outcomes, suspects) = match embedded {
            Ended::Done(done) => done,
            Ended::Skipped(reason) => {
                lock(round).decide(batch, number, Answers::Skipped(&reason), None);
                return self.settle(batch, batch.decided()).await;
            }
        };
        let suspected: Vec<String> = suspects.iter().map(|suspect| texts[suspect.index].clone()).collect();
        {
            let mut round = lock(round);
            for lane in round.embedded(number).filter_map(|job| job.to.first()) {
                batch.lanes.get(*lane).metrics.embedded.increment(1);
            }
            round.restore_texts(number, texts);
            round.decide(batch, number, Answers::Outcomes(&outcomes), call.as_ref());
        }
        self.settle(batch, batch.decided()).await?;
        if suspects.is_empty() {
            return Ok(());
        }
        let all = &suspected[..];
        let settle = move |retry: RetryPolicy| async move {
            Embedding { model, retry: &retry, is_declared }.settle(suspects, all).await
        };
        match self.while_needed(&targets, guarded(breaker, retry, settle)).await? {
            Ended::Done(settled) => {
                for (text, answer) in settled {
                    outcomes[text] = Some(answer);
                }
                lock(round).decide(batch, number, Answers::Outcomes(&outcomes), call.as_ref());
            }
            Ended::Skipped(reason) => lock(round).decide(batch, number, Answers::Skipped(&reason), None),
        }
        self.settle(batch, batch.decided()).await
    }
}

impl Round {
    /// For each text of a group that is embedded, the job that it belongs to first.
    fn embedded(&self, group: usize) -> impl Iterator<Item = &Job> {
        self.reuse.embedded(group).filter_map(move |job| self.jobs[job].as_ref())
    }

    fn restore_texts(&mut self, group: usize, texts: Vec<String>) {
        self.reuse.restore_texts(group, &mut self.jobs, texts);
    }

    /// Decides the jobs of a group that have all their answers.
    fn decide(&mut self, batch: &Batch, group: usize, answers: Answers<'_>, call: Option<&EmbedCall>) {
        for number in 0..self.jobs.len() {
            if self.groups[number] != group {
                continue;
            }
            let Some(job) = self.jobs[number].take() else { continue };
            let outcomes: &[Outcome] = match answers {
                Answers::Skipped(reason) if self.reuse.embeds(number) => {
                    batch.decide(job.unit, Part::Skipped { to: job.to, reason: reason.to_owned() });
                    continue;
                }
                Answers::Skipped(_) => &[],
                Answers::Outcomes(outcomes) => outcomes,
            };
            let model = &job.planner.model;
            let Some(vectors) = self.reuse.vectors(number, outcomes, model.dimension()) else {
                self.jobs[number] = Some(job);
                continue;
            };
            let reused = self.reuse.reused(number);
            if let Some(call) = call {
                batch.note_call(call, &job, reused, vectors.as_ref().err());
            }
            match vectors {
                Err(error) if error.cause == Cause::TooLong => self.too_long.push((job, error)),
                Err(error) => batch.decide(job.unit, Part::Failed { to: job.to, error }),
                Ok(vectors) => {
                    let (model, unchanged) = (model.clone(), self.reuse.take_unchanged(number));
                    let Job { unit, to, chunks, prefix, .. } = job;
                    let texts = Texts { model, chunks, prefix, vectors, reused, unchanged };
                    batch.decide(unit, Part::Embedded { to, texts });
                }
            }
        }
    }
}

/// Numbers the models of the jobs, by identity; returns the number of each job's, and how many there are.
fn by_model(jobs: &[Job]) -> (Vec<usize>, usize) {
    let mut models: Vec<&EmbedderIdentity> = Vec::new();
    let mut groups = Vec::with_capacity(jobs.len());
    for job in jobs {
        let identity = &job.planner.model.identity;
        let known = models.iter().position(|known| *known == identity);
        groups.push(known.unwrap_or(models.len()));
        if known.is_none() {
            models.push(identity);
        }
    }
    (groups, models.len())
}

/// Looks up points in the collections of several targets.
async fn ask(lanes: &Lanes, wanted: Wanted) -> Vec<Known> {
    let answers = join_all(wanted.into_iter().map(|(lane, points)| ask_one(lanes, lane, points))).await;
    answers.into_iter().flatten().collect()
}

/// Vectors of another dimension than the model's are not used.
async fn ask_one(lanes: &Lanes, number: usize, points: Vec<Uuid>) -> Vec<Known> {
    let lane = lanes.get(number);
    let (dimension, precision) = (lane.dimension(), lane.precision());
    let mut vectors = lane.recall.ask(&points).await;
    vectors.retain(|known| dimension.is_none_or(|dimension| known.vector.len() == dimension));
    vectors.into_iter().map(|vector| Known { lane: number, precision, vector }).collect()
}

/// Counts texts that need not be embedded, for the first index that has each. Their tokens are counted in the background.
fn count_saved(lanes: &Lanes, counters: impl Fn(&Lane) -> &Saved, jobs: &[Job], texts: &[reuse::Saved<'_>]) {
    if texts.is_empty() {
        return;
    }
    let mut counted = Vec::with_capacity(texts.len());
    for (job, text) in texts {
        let job = &jobs[*job];
        let Some(lane) = job.to.first() else { continue };
        let saved = counters(lanes.get(*lane));
        saved.texts.increment(1);
        counted.push((saved.tokens.clone(), job.planner.clone(), text.clone().into_owned()));
    }
    let bytes = counted.iter().map(|(_, _, text)| text.len()).sum();
    beside(bytes, move || {
        for (tokens, planner, text) in counted {
            tokens.increment(planner.count(&text) as u64);
        }
    });
}

fn lock(round: &Mutex<Round>) -> MutexGuard<'_, Round> {
    round.lock().unwrap_or_else(PoisonError::into_inner)
}
