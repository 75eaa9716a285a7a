//! Embeds the texts of a batch, whatever of it can be embedded.

use std::ops::Range;

use tidewheel_core::embedded::Vectors;
use tidewheel_core::error::{Cause, ErrorClass, PortError, Server};
use tidewheel_core::ports::{Embedder, Purpose};

use crate::meters;
use crate::retry::{GivenUp, Patience};

/// Most texts in one request. Enough to fill the embedder's tiles many times over, few enough that a request is done
/// in seconds on two cores with a real model.
const TEXTS: usize = 256;

/// The vector of each text, or why it can never have one.
pub(super) type Outcome = Result<Vec<f32>, PortError>;

/// Embeds `texts`, with an outcome for each. A request that fails for the sake of one text is halved until the text is
/// found; its neighbours are embedded. Transient failures are waited out.
pub(super) async fn embed_all(
    embedder: &dyn Embedder,
    patience: &Patience,
    dimension: usize,
    texts: &[String],
) -> Result<Vec<Outcome>, GivenUp> {
    let mut outcomes: Vec<Option<Outcome>> = vec![None; texts.len()];
    let mut todo: Vec<Range<usize>> =
        (0..texts.len()).step_by(TEXTS).map(|start| start..(start + TEXTS).min(texts.len())).collect();
    while let Some(range) = todo.pop() {
        let slice = &texts[range.clone()];
        match patience.call("embed texts", || embedder.embed(slice, Purpose::Passage)).await {
            Ok(vectors) => {
                fits(&vectors, slice.len(), dimension).map_err(GivenUp::Failed)?;
                for (outcome, vector) in outcomes[range].iter_mut().zip(vectors.iter()) {
                    *outcome = Some(usable(vector).inspect_err(rejected).map(|()| vector.to_vec()));
                }
            }
            Err(GivenUp::Failed(error)) if error.class == ErrorClass::Poison => {
                if range.len() == 1 {
                    rejected(&error);
                    outcomes[range.start] = Some(Err(error));
                } else {
                    let middle = range.start + range.len() / 2;
                    todo.extend([range.start..middle, middle..range.end]);
                }
            }
            Err(given_up) => return Err(given_up),
        }
    }
    Ok(outcomes.into_iter().map(|outcome| outcome.expect("every range was worked off")).collect())
}

/// An embedder that answers with another shape than it announced has been exchanged: nothing it says fits the index.
fn fits(vectors: &Vectors, texts: usize, dimension: usize) -> Result<(), PortError> {
    if vectors.dimension() == dimension && vectors.len() == texts {
        return Ok(());
    }
    meters::rejected("dimension", vectors.len() as u64);
    let (found, count) = (vectors.dimension(), vectors.len());
    Err(PortError::fatal(format!(
        "the embedder answered {texts} texts with {count} vectors of dimension {found}, but announced dimension {dimension}"
    ))
    .with_hint("if its model was changed, restart the processors; the collection needs the new dimension too"))
}

/// Counts a vector that is not taken. Usually the client refuses it; one that does not leaves it to [`usable`].
fn rejected(error: &PortError) {
    if matches!(error.cause, Cause::NotFinite | Cause::Zero) {
        meters::rejected(error.cause.name(), 1);
    }
}

/// Refuses vectors that would poison the index: cosine similarity with them is undefined.
fn usable(vector: &[f32]) -> Result<(), PortError> {
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
