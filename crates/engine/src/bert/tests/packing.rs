//! Packed values can be read back from their documented positions.

use std::marker::PhantomData;

use proptest::prelude::*;

use super::{Random, TABOO, assert_close, cases, on_every, up_to};
use crate::bert::weights::{PackedLinear, places};
use crate::kernel::{Bf16, Element, F32, Int8, Isa, LINE, PackRows, Packed, RowTerms};
use crate::model::Linear;
use crate::word::Form;

impl Form {
    /// Returns the maximum packing error in a row of numbers up to this size, of both signs.
    pub(super) fn error_of(self, size: f32) -> f32 {
        match self {
            Self::F32 => 0.0,
            // Half of the last of eight significant bits.
            Self::Bf16 => size / 256.0,
            // Half of one of 255 steps, plus the rounding of the sums.
            Self::Int8 => size / 250.0,
        }
    }

    /// Decodes the number at `place` of a word; integers are returned unscaled.
    fn decode(self, word: u32, place: usize, signed: bool) -> f32 {
        match self {
            Self::F32 => f32::from_bits(word),
            Self::Bf16 => f32::from_bits(word >> (16 * place) << 16),
            Self::Int8 if signed => f32::from(word.to_le_bytes()[place].cast_signed()),
            Self::Int8 => f32::from(word.to_le_bytes()[place]),
        }
    }
}

/// Unpacks the rows of a packed operand.
pub(super) fn unpack_rows<V: Isa, E: Element<V>>(
    words: &[u32],
    terms: &[RowTerms],
    lines: usize,
    rows: usize,
) -> Vec<f32> {
    let width = lines * LINE * E::GROUP;
    let at = |row: usize, n: usize| {
        let word = n / E::GROUP;
        let line = row / V::ROWS * lines + word / LINE;
        let value = E::FORM.decode(words[(line * V::ROWS + row % V::ROWS) * LINE + word % LINE], n % E::GROUP, false);
        if E::FORM == Form::Int8 { terms[row].low + terms[row].step * value } else { value }
    };
    (0..rows).flat_map(|row| (0..width).map(move |n| (row, n))).map(|(row, n)| at(row, n)).collect()
}

fn rows<V: Isa, E: Element<V>>(isa: V, lines: usize, count: usize, size: f32, random: &mut Random) {
    let name = format!("{} {}", std::any::type_name::<V>(), std::any::type_name::<E>());
    let (width, stride) = (lines * LINE * E::GROUP, lines * LINE * E::GROUP + 7);
    let values = random.numbers((count - 1) * stride + width, size);
    let capacity = count.next_multiple_of(V::ROWS);
    let mut words = vec![TABOO.to_bits(); capacity * lines * LINE];
    let mut terms = vec![RowTerms::default(); capacity];
    let packed = Packed { words: words.as_mut_ptr(), terms: terms.as_mut_ptr(), lines, element: PhantomData::<E> };
    // Starts with the second row, as another thread would.
    for own in [1..count, 0..1] {
        let from = values[own.start.min(count - 1) * stride..].as_ptr();
        // SAFETY: the buffers have the sizes required by the task.
        unsafe { isa.run(PackRows { from, from_stride: stride, rows: own, packed }) };
    }
    let plain: Vec<f32> = values.chunks(stride).flat_map(|row| &row[..width]).copied().collect();
    assert_close(&name, &unpack_rows::<V, E>(&words, &terms, lines, count), &plain, E::FORM.error_of(size));
}

/// Checks that columns and inputs are packed to their positions, padding is zero, and each panel is as documented.
fn weights<V: Isa, E: Element<V>>(_isa: V, inputs: usize, outputs: usize, random: &mut Random) {
    let name = format!("{} {}", std::any::type_name::<V>(), std::any::type_name::<E>());
    let source =
        Linear { weight: random.numbers(outputs * inputs, 2.0), bias: random.numbers(outputs, 1.0), outputs, inputs };
    let unit = V::PANEL.max(LINE * E::GROUP);
    // Inputs in two groups, each followed by padding, as for heads.
    let half = inputs / 2;
    let padded = unit * (1 + inputs / unit);
    let in_places = [places(0, half, padded), places(half, inputs - half, padded)].concat();
    let out_places = places(0, outputs, outputs.next_multiple_of(V::PANEL));
    let other = places(1, outputs - 1, outputs.next_multiple_of(V::PANEL));
    let parts = [(&source, out_places.clone(), 1.0), (&source, other.clone(), -0.5)];
    let packed = PackedLinear::new::<V, E>(&parts, &in_places, true);
    assert_eq!(packed.lines * LINE * E::GROUP, in_places.len());
    assert_eq!(packed.panels * V::PANEL, out_places.len() + other.len());

    let (words, terms) = (packed.words.words(), packed.column_terms());
    let all = out_places.iter().map(|out| (out, 1.0)).chain(other.iter().map(|out| (out, -0.5)));
    for (column, (output, factor)) in all.enumerate() {
        // SAFETY: the terms are as long as there are columns.
        let [bias, scale, sum] = [terms.bias, terms.scale, terms.sum].map(|from| unsafe { *from.add(column) });
        assert_eq!(bias, output.map_or(0.0, |output| source.bias[output] * factor), "{name}: bias");
        let mut total = 0.0;
        for (n, input) in in_places.iter().enumerate() {
            let panel = column / V::PANEL * packed.lines * LINE + n / E::GROUP;
            let word = words[panel * V::PANEL + column % V::PANEL];
            let scale = if E::FORM == Form::Int8 { scale } else { 1.0 };
            let value = E::FORM.decode(word, n % E::GROUP, true) * scale;
            let expected = match (output, input) {
                (Some(output), Some(input)) => source.weight[output * inputs + input] * factor,
                _ => 0.0,
            };
            let error = (value - expected).abs();
            assert!(error <= E::FORM.error_of(2.0), "{name}: {value} at {column}, {n}, not {expected}");
            assert!(output.is_some() && input.is_some() || value == 0.0, "{name}: nonzero padding");
            total += value;
        }
        if E::FORM == Form::Int8 {
            assert!((total - sum).abs() <= 1e-3, "{name}: the sum of column {column} is {total}, not {sum}");
        }
    }
}

proptest! {
    #![proptest_config(cases(48))]

    #[test]
    fn rows_of_any_length(lines in 1usize..up_to(20), count in 1usize..up_to(40), size in 0.01f32..50.0, seed: u64) {
        on_every!(Isa, isa, rows::<_, F32>(isa, lines, count, size, &mut Random(seed)));
        on_every!(Bf16Isa, isa, rows::<_, Bf16>(isa, lines, count, size, &mut Random(seed)));
        on_every!(Int8Isa, isa, rows::<_, Int8>(isa, lines, count, size, &mut Random(seed)));
    }

    #[test]
    fn weights_of_any_shape(inputs in 2usize..up_to(150), outputs in 2usize..up_to(100), seed: u64) {
        on_every!(Isa, isa, weights::<_, F32>(isa, inputs, outputs, &mut Random(seed)));
        on_every!(Bf16Isa, isa, weights::<_, Bf16>(isa, inputs, outputs, &mut Random(seed)));
        on_every!(Int8Isa, isa, weights::<_, Int8>(isa, inputs, outputs, &mut Random(seed)));
    }
}
