//! Measures at load how fast this CPU computes one layer with this model's sizes.
//!
//! CPU features do not tell which operand form is fastest: some CPUs run bf16 instructions at twice the speed of f32,
//! others at half of it. Speed does not depend on the values of the weights, so one layer of random numbers represents all
//! layers, and no weights are read twice.

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use super::forward::Pass;
use super::shape::{Layout, Shape};
use super::{Network, TILE_TOKENS};
use crate::buffer::Workspace;
use crate::kernel::{AttentionElement, Element, Isa};
use crate::model::{Description, Layer, Linear, Norm};
use crate::{Measurement, Precision, Text};

/// Tokens of the measured texts, unless the model's maximum is lower.
const TEXT_TOKENS: usize = 128;

/// Multiplications per turn: about ten milliseconds on one core.
const TURN: usize = 700_000_000;

/// Turns per candidate: the best counts, because other load only slows it down.
const TURNS: usize = 5;

/// Time limit of all turns, once each candidate has had two.
const TIME_LIMIT: Duration = Duration::from_millis(200);

/// Required speedup of a candidate over the more exact ones before it.
const MARGIN: f64 = 1.02;

/// A precision and kernel to measure.
pub(in super::super) struct Candidate {
    precision: Precision,
    kernel: &'static str,
    tokens: usize,
    turn: Box<dyn FnMut() -> Duration>,
}

impl Candidate {
    /// Creates a candidate; `None` if the sizes are too large.
    pub(in super::super) fn new<V: Isa, E: Element<V>, A: AttentionElement<V>>(
        isa: V,
        model: &Description,
        precision: Precision,
        kernel: &'static str,
    ) -> Option<Self> {
        let (hidden, intermediate) = (model.hidden, model.intermediate);
        let per_token = hidden.checked_mul(4 * hidden + 2 * intermediate)?;
        let length = TEXT_TOKENS.min(model.max_tokens);
        let tokens = (TURN / per_token.max(1)).clamp(length.min(TILE_TOKENS / 4), TILE_TOKENS);
        let length = length.min(tokens);
        let count = tokens / length;
        let shape = Shape::new::<V, E, A>(model)?;
        let layout = Layout::new::<V, E, A>(&shape, length * count, length, 1)?;
        let network = network::<V, E, A>(isa, shape, model, length);
        let mut workspace = Workspace::default();
        let ids = vec![0; length];
        let turn = move || {
            let texts = vec![Text::plain(&ids); count];
            let mut pass = Pass::new(&network, &layout, &texts, workspace.places(layout.places));
            let start = Instant::now();
            pass.alone();
            let took = start.elapsed();
            std::hint::black_box(pass.residual());
            took
        };
        Some(Self { precision, kernel, tokens: length * count, turn: Box::new(turn) })
    }
}

/// Creates a network of one layer and one word.
fn network<V: Isa, E: Element<V>, A: AttentionElement<V>>(
    isa: V,
    shape: Shape,
    model: &Description,
    length: usize,
) -> Network<V, E, A> {
    let mut state = 1u32;
    let mut numbers = |count: usize, size: f32| -> Vec<f32> {
        let number = || {
            // The linear congruential generator of Numerical Recipes; its high bits are random enough.
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from_bits(0x3f80_0000 | state >> 9) - 1.5
        };
        std::iter::repeat_with(number).take(count).map(|value| value * size).collect()
    };
    let (hidden, intermediate) = (model.hidden, model.intermediate);
    let mut linear = |outputs: usize, inputs: usize| {
        #[expect(clippy::cast_precision_loss, reason = "sizes of a model")]
        let size = (inputs as f32).sqrt().recip();
        Linear { weight: numbers(outputs * inputs, size), bias: vec![0.0; outputs], outputs, inputs }
    };
    let norm = || Norm { scale: vec![1.0; hidden], shift: vec![0.0; hidden] };
    let layer = Layer {
        query: linear(hidden, hidden),
        key: linear(hidden, hidden),
        value: linear(hidden, hidden),
        output: linear(hidden, hidden),
        attention_norm: norm(),
        up: linear(intermediate, hidden),
        down: linear(hidden, intermediate),
        output_norm: norm(),
    };
    Network {
        isa,
        shape,
        activation: model.activation,
        norm_epsilon: model.norm_epsilon,
        max_tokens: length,
        vocabulary: 1,
        padding: None,
        words: numbers(hidden, 1.0),
        places: numbers(length * hidden, 1.0),
        embedding_norm: Network::<V, E, A>::norm(&shape, &norm()),
        layers: vec![Network::<V, E, A>::layer(&shape, intermediate, &layer)],
        forms: PhantomData,
    }
}

/// Measures all candidates in interleaved turns, so that all see the same machine load. Returns the index of the chosen
/// candidate, and all measurements. Candidates are ordered by exactness.
pub(in super::super) fn fastest(mut candidates: Vec<Candidate>, layers: usize) -> (usize, Vec<Measurement>) {
    let mut best = vec![Duration::MAX; candidates.len()];
    let start = Instant::now();
    for turn in 0..=TURNS {
        if turn > 2 && start.elapsed() > TIME_LIMIT {
            break;
        }
        for (candidate, best) in candidates.iter_mut().zip(&mut best) {
            let took = (candidate.turn)();
            // The first turn warms the caches.
            if turn > 0 {
                *best = took.min(*best);
            }
        }
    }
    let measured: Vec<Measurement> = candidates
        .iter()
        .zip(&best)
        .map(|(candidate, best)| {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a measurement"
            )]
            let speed = (candidate.tokens as f64 / (best.as_secs_f64().max(1e-9) * layers.max(1) as f64)) as u64;
            Measurement {
                precision: candidate.precision,
                kernel: candidate.kernel.to_owned(),
                tokens_per_second: speed,
            }
        })
        .collect();
    (choose(&measured), measured)
}

/// Returns the index of the fastest candidate; among about equally fast ones, of the most exact.
fn choose(measured: &[Measurement]) -> usize {
    #[expect(clippy::cast_precision_loss, reason = "a measurement")]
    let speed = |place: usize| measured[place].tokens_per_second as f64;
    (0..measured.len()).fold(0, |chosen, place| if speed(place) > speed(chosen) * MARGIN { place } else { chosen })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::{Candidate, choose, fastest};
    use crate::kernel::{Bf16, F32, Int8, Portable};
    use crate::model::{Activation, Description, Pooling, Prompts, TokenizerSettings};
    use crate::{Measurement, Precision};

    #[test]
    #[cfg_attr(miri, ignore = "it measures time")]
    fn every_candidate_is_measured_with_model_sizes() {
        // Short texts, widths that are not multiples of a register, and more tokens than the model's maximum.
        for (hidden, heads, intermediate, max_tokens) in [(12, 2, 20, 5), (84, 3, 150, 70), (64, 4, 256, 512)] {
            let model = Description {
                directory: PathBuf::new(),
                folder: String::new(),
                hidden,
                heads,
                layers: 3,
                intermediate,
                activation: Activation::Gelu,
                norm_epsilon: 1e-12,
                vocabulary: 9,
                positions: max_tokens + 2,
                padding: Some(1),
                max_tokens,
                tokenizer: TokenizerSettings::default(),
                pooling: Pooling::Mean,
                include_prompt: true,
                normalize: true,
                prompts: Prompts::default(),
            };
            let candidates = [
                Candidate::new::<_, F32, F32>(Portable, &model, Precision::F32, "a"),
                Candidate::new::<_, Bf16, Bf16>(Portable, &model, Precision::Bf16, "b"),
                Candidate::new::<_, Int8, F32>(Portable, &model, Precision::Int8, "c"),
            ];
            let (chosen, measured) = fastest(candidates.into_iter().flatten().collect(), model.layers);
            let names: Vec<&str> = measured.iter().map(|measurement| &measurement.kernel[..]).collect();
            assert_eq!(names, ["a", "b", "c"]);
            assert!(measured.iter().all(|measurement| measurement.tokens_per_second > 0), "{measured:?}");
            assert_eq!(chosen, choose(&measured));
        }
    }

    #[test]
    fn choice_prefers_fastest_then_most_exact() {
        let chosen = |speeds: &[u64]| {
            let measured = speeds.iter().map(|&tokens_per_second| Measurement {
                precision: Precision::F32,
                kernel: String::new(),
                tokens_per_second,
            });
            choose(&measured.collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[1000, 680]), 0);
        assert_eq!(chosen(&[1000, 1010]), 0);
        assert_eq!(chosen(&[1000, 1900]), 1);
        assert_eq!(chosen(&[1000, 1900, 1910]), 1);
        assert_eq!(chosen(&[1000, 900, 1500]), 2);
        assert_eq!(chosen(&[0, 0]), 0);
    }
}
