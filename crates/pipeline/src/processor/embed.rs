//! Embeds the texts of one model in a batch, isolating texts that fail.

use std::ops::Range;

use tidewheel_core::embedded::{Vectors, check_vectors};
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::ports::{PortResult, Purpose};

use super::model::Model;
use crate::isolate::{Failure, Isolation, Sifted, Suspect};
use crate::metric;
use crate::retry::{RetryError, RetryPolicy};

/// Maximum number of texts per request. Enough to fill the embedder's tiles many times over, few enough that a request
/// takes seconds on two cores with a real model.
const TEXTS: usize = 256;

/// A text that every model embeds.
const PROBE: &str = "tidewheel";

/// The fix for a replaced model, before a catalog is applied.
const HINT: &str = "if its model has changed, restart the processors and set qdrant.collection to a new name";

/// The same for a declared index.
const HINT_DECLARED: &str = "if its model has changed, restart the processors and run `tidewheel apply --generation`";

/// The vector of a text, or the permanent error.
pub(super) type Answer = Result<Vec<f32>, PortError>;

/// The answer for each text; `None` while it is pending.
pub(super) type Outcome = Option<Answer>;

/// Requests vectors from the embedder of a model.
pub(super) struct Embedding<'a> {
    pub(super) model: &'a Model,
    pub(super) retry: &'a RetryPolicy,
    /// Whether a catalog is applied.
    pub(super) is_declared: bool,
}

impl Embedding<'_> {
    /// Embeds the texts; returns those that fail alone while other requests succeed as suspects.
    pub(super) async fn of(&self, texts: &[String]) -> Result<(Vec<Outcome>, Vec<Suspect>), RetryError> {
        let ranges = (0..texts.len()).step_by(TEXTS).map(|start| start..(start + TEXTS).min(texts.len()));
        let (attempt, probe) = (|range: Range<usize>| self.attempt(&texts[range]), || self.probe());
        let Sifted { done, suspects } = self.isolation(attempt, probe).sift(ranges).await?;
        let mut outcomes: Vec<Outcome> = vec![None; texts.len()];
        for (range, answers) in done {
            for (outcome, answer) in outcomes[range].iter_mut().zip(answers) {
                *outcome = Some(answer);
            }
        }
        Ok((outcomes, suspects))
    }

    /// Retries the suspects until each has its vector or has failed permanently, and returns these with their places.
    /// `texts` are theirs, in the same order.
    pub(super) async fn settle(
        &self,
        suspects: Vec<Suspect>,
        texts: &[String],
    ) -> Result<Vec<(usize, Answer)>, RetryError> {
        let places: Vec<usize> = suspects.iter().map(|suspect| suspect.index).collect();
        let own = |range: Range<usize>| {
            let place = places.binary_search(&range.start).expect("a suspect is in the list");
            self.attempt(&texts[place..=place])
        };
        let settled = self.isolation(own, || self.probe()).settle(suspects).await?;
        let answered = settled.into_iter().map(|(index, outcome)| {
            let answer = outcome.and_then(|mut answers| answers.pop().expect("one text has one answer"));
            (index, answer.inspect_err(rejected))
        });
        Ok(answered.collect())
    }

    fn isolation<A, P>(&self, attempt: A, probe: P) -> Isolation<'_, A, P> {
        Isolation { retry: self.retry, successes: &self.model.successes, what: "embed texts", attempt, probe }
    }

    /// A too-long error of a single text is an answer: the embedder works, and the text need not be retried. Of several
    /// texts it does not identify the one, so the list is split.
    async fn attempt(&self, texts: &[String]) -> Result<Vec<Answer>, Failure> {
        let mut answers = Vec::with_capacity(texts.len());
        let mut todo = vec![texts];
        while let Some(part) = todo.pop() {
            match self.embed(part).await {
                Ok(vectors) => answers.extend(vectors.iter().map(|vector| Ok(vector.to_vec()))),
                Err(error) if error.cause != Cause::TooLong => return Err(error.into()),
                Err(error) if part.len() == 1 => answers.push(Err(error)),
                Err(_) => {
                    let (first, second) = part.split_at(part.len() / 2);
                    todo.extend([second, first]);
                }
            }
        }
        Ok(answers)
    }

    async fn probe(&self) -> PortResult<()> {
        self.embed(&[PROBE.to_owned()]).await.map(drop)
    }

    async fn embed(&self, texts: &[String]) -> PortResult<Vectors> {
        let vectors = self.model.embedder.embed(texts, Purpose::Passage).await?;
        self.fits(&vectors, texts.len()).await?;
        check_vectors(vectors.values(), vectors.dimension(), 0)?;
        Ok(vectors)
    }

    /// Vectors of another dimension than announced do not fit the index, and missing vectors cannot be assigned to
    /// texts. If the probe has another dimension too, the embedder was replaced; otherwise a text is at fault.
    async fn fits(&self, vectors: &Vectors, texts: usize) -> PortResult<()> {
        let (found, count, dimension) = (vectors.dimension(), vectors.len(), self.model.dimension());
        let refused = |message| Err(PortError::poison(message).because(Server::EMBEDDER, Cause::Refused));
        if found != dimension && count > 0 {
            metric::rejected("dimension", count as u64);
            let message =
                format!("the embedder returned vectors of dimension {found}, but announced dimension {dimension}");
            let probe = self.model.embedder.embed(&[PROBE.to_owned()], Purpose::Passage).await;
            if probe.is_ok_and(|probe| !probe.is_empty() && probe.dimension() != dimension) {
                return Err(PortError::fatal(message).with_hint(if self.is_declared { HINT_DECLARED } else { HINT }));
            }
            return refused(message);
        }
        if count != texts {
            return refused(format!("the embedder returned {count} vectors for {texts} texts"));
        }
        Ok(())
    }
}

/// Counts a rejected vector.
fn rejected(error: &PortError) {
    if matches!(error.cause, Cause::NotFinite | Cause::Zero) {
        metric::rejected(error.cause.name(), 1);
    }
}
