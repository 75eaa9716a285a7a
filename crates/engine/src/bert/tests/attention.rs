//! Attention of one head, compared with the definition.

use std::marker::PhantomData;

use proptest::prelude::*;

use super::{Random, UNTOUCHED, assert_close, cases, on_every, up_to};
use crate::buffer::Buffer;
use crate::kernel::{Attention, AttentionElement, AttentionScratch, Bf16, F32, Isa, LINE, Portable};

/// Queries, keys and values of one head: `tokens` rows of `width`.
struct Case {
    tokens: usize,
    width: usize,
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    /// The scratch memory is sized for texts longer by this many tokens.
    spare: usize,
}

impl Case {
    fn new(tokens: usize, width: usize, sharpness: f32, spare: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut rows = |size| random.numbers(tokens * width, size);
        Self { tokens, width, queries: rows(sharpness), keys: rows(1.0), values: rows(1.0), spare }
    }

    /// Computes the definition, with powers of two of the scores, because queries are pre-multiplied.
    fn exact(&self) -> Vec<f32> {
        let mut out = Vec::new();
        for query in self.queries.chunks(self.width) {
            let dot = |key: &[f32]| query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
            let scores: Vec<f64> = self.keys.chunks(self.width).map(dot).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp2()).collect();
            let total: f64 = weights.iter().sum();
            for n in 0..self.width {
                let column = self.values.iter().skip(n).step_by(self.width);
                let sum: f64 = weights.iter().zip(column).map(|(weight, value)| weight * f64::from(*value)).sum();
                out.push((sum / total) as f32);
            }
        }
        out
    }

    fn compute<V: Isa, A: AttentionElement<V>>(&self, isa: V) -> Vec<f32> {
        let Self { tokens, width, .. } = *self;
        let padded = width.next_multiple_of(V::PANEL.max(LINE * A::GROUP));
        let pad = |rows: &[f32], stride: usize| {
            let mut out = vec![UNTOUCHED; (tokens - 1) * stride + padded];
            for (to, row) in out.chunks_mut(stride).zip(rows.chunks(width)) {
                to[..width].copy_from_slice(row);
                to[width..padded].fill(0.0);
            }
            out
        };
        // The other heads of a row are interleaved with the queries of this head.
        let stride = padded + 5;
        let mut queries = pad(&self.queries, stride);
        let (keys, values) = (pad(&self.keys, padded), pad(&self.values, padded));
        let sizes = AttentionScratch::new::<V, A>(tokens + self.spare, padded);
        let mut scratch = Buffer::zeroed(sizes.places());
        // Leftovers of an earlier text.
        scratch.floats_mut().fill(f32::NAN);
        let task = Attention {
            queries: queries.as_mut_ptr(),
            query_stride: stride,
            keys: keys.as_ptr(),
            values: values.as_ptr(),
            tokens,
            width: padded,
            scratch: scratch.words_mut().as_mut_ptr(),
            sizes,
            element: PhantomData::<A>,
        };
        // SAFETY: the buffers have the sizes required by the task.
        unsafe { isa.run(task) };
        for row in queries.chunks(stride) {
            assert!(row[width..padded].iter().all(|value| *value == 0.0), "the padding of a head must stay zero");
            assert!(row[padded..].iter().all(|value| *value == UNTOUCHED), "wrote to another head");
        }
        queries.chunks(stride).flat_map(|row| &row[..width]).copied().collect()
    }
}

fn check<V: Isa, A: AttentionElement<V> + AttentionElement<Portable>>(isa: V, case: &Case, errors: [f32; 2]) {
    let name = format!("{} {}", std::any::type_name::<V>(), std::any::type_name::<A>());
    let values = case.compute::<V, A>(isa);
    assert_close(&name, &values, &case.exact(), errors[0]);
    assert_close(&name, &values, &case.compute::<Portable, A>(Portable), errors[1]);
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn attention_of_any_shape(
        tokens in 1usize..up_to(90),
        width in 1usize..up_to(100),
        spare in 0usize..50,
        seed: u64,
    ) {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let case = Case::new(tokens, width, 4.0 / (width as f32).sqrt(), spare, seed);
        on_every!(Isa, isa, check::<_, F32>(isa, &case, [2e-6, 2e-6]));
        // Powers rounded to eight bits may be off by one step.
        on_every!(Bf16Isa, isa, check::<_, Bf16>(isa, &case, [3e-2, 4e-3]));
    }

    #[test]
    fn attention_with_extreme_scores(tokens in 1usize..up_to(40), seed: u64) {
        // Scores of hundreds: one key gets all the weight, the others zero or nearly zero.
        let case = Case::new(tokens, 32, 100.0, 0, seed);
        on_every!(Isa, isa, check::<_, F32>(isa, &case, [3e-4, 3e-4]));
    }
}

#[test]
fn attention_of_the_longest_texts() {
    for tokens in if cfg!(miri) { [16, 17] } else { [256, 511] } {
        let case = Case::new(tokens, 32, 1.0, 1, tokens as u64);
        on_every!(Isa, isa, check::<_, F32>(isa, &case, [2e-6, 2e-6]));
        on_every!(Bf16Isa, isa, check::<_, Bf16>(isa, &case, [2e-2, 4e-3]));
    }
}
