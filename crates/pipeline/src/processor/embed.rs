//! Embeds the texts of a batch, whatever of it can be embedded.

use std::ops::Range;

use tidewheel_core::embedded::Vectors;
use tidewheel_core::error::{Cause, PortError, Server};
use tidewheel_core::ports::{Embedder, PortResult, Purpose};

use crate::isolate::{Failure, Isolation, Sifted, Successes, Suspect};
use crate::meters;
use crate::retry::{GivenUp, Patience};

/// Most texts in one request. Enough to fill the embedder's tiles many times over, few enough that a request is done
/// in seconds on two cores with a real model.
const TEXTS: usize = 256;

/// What every model embeds.
const PROBE: &str = "tidewheel";

/// The vector of a text, or why it can never have one.
type Answer = Result<Vec<f32>, PortError>;

/// The answer for each text; `None` while it is not known.
pub(super) type Outcome = Option<Answer>;

/// Asks the embedder for vectors.
pub(super) struct Embedding<'a> {
    pub(super) embedder: &'a dyn Embedder,
    pub(super) patience: &'a Patience,
    pub(super) successes: &'a Successes,
    pub(super) dimension: usize,
}

impl Embedding<'_> {
    /// Embeds the texts, all but those that fail alone while the embedder works for others: these are given back.
    pub(super) async fn of(&self, texts: &[String]) -> Result<(Vec<Outcome>, Vec<Suspect>), GivenUp> {
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

    /// Tries the suspects until each has its vector or is given up. Theirs are the texts in the same order.
    pub(super) async fn settle(
        &self,
        suspects: Vec<Suspect>,
        texts: &[String],
        outcomes: &mut [Outcome],
    ) -> Result<(), GivenUp> {
        let places: Vec<usize> = suspects.iter().map(|suspect| suspect.index).collect();
        let own = |range: Range<usize>| {
            let place = places.binary_search(&range.start).expect("a suspect is in the list");
            self.attempt(&texts[place..=place])
        };
        for (index, outcome) in self.isolation(own, || self.probe()).settle(suspects).await? {
            let answer = outcome.and_then(|mut answers| answers.pop().expect("one text has one answer"));
            outcomes[index] = Some(answer.inspect_err(rejected));
        }
        Ok(())
    }

    fn isolation<A, P>(&self, attempt: A, probe: P) -> Isolation<'_, A, P> {
        Isolation { patience: self.patience, successes: self.successes, what: "embed texts", attempt, probe }
    }

    /// That a text is too long is an answer: the embedder works, and the text need not be tried again. Of a list it says nothing
    /// of any one text.
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
        let vectors = self.embedder.embed(texts, Purpose::Passage).await?;
        fits(&vectors, texts.len(), self.dimension)?;
        vectors.iter().try_for_each(usable)?;
        Ok(vectors)
    }
}

/// An embedder whose vectors have another dimension than it announced has been exchanged: nothing of it fits the index. One
/// that leaves out vectors does not say of which texts.
fn fits(vectors: &Vectors, texts: usize, dimension: usize) -> PortResult<()> {
    let (found, count) = (vectors.dimension(), vectors.len());
    if found != dimension && count > 0 {
        meters::rejected("dimension", count as u64);
        return Err(PortError::fatal(format!(
            "the embedder answered with vectors of dimension {found}, but announced dimension {dimension}"
        ))
        .with_hint("if its model was changed, restart the processors; the collection needs the new dimension too"));
    }
    if count != texts {
        let error = PortError::poison(format!("the embedder answered {texts} texts with {count} vectors"));
        return Err(error.because(Server::Embedder, Cause::Refused));
    }
    Ok(())
}

/// Counts a vector that is not taken.
fn rejected(error: &PortError) {
    if matches!(error.cause, Cause::NotFinite | Cause::Zero) {
        meters::rejected(error.cause.name(), 1);
    }
}

/// Refuses vectors that would poison the index: cosine similarity with them is undefined.
fn usable(vector: &[f32]) -> PortResult<()> {
    if let Some(at) = vector.iter().position(|value| !value.is_finite()) {
        let message = format!("the embedder's vector has {} at position {at}", vector[at]);
        return Err(PortError::poison(message).because(Server::Embedder, Cause::NotFinite));
    }
    if vector.iter().all(|value| *value == 0.0) {
        let error = PortError::poison("the embedder's vector is all zeros");
        return Err(error.because(Server::Embedder, Cause::Zero));
    }
    Ok(())
}
