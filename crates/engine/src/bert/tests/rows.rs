//! Row-wise embedding and layer normalisation.

use std::marker::PhantomData;

use proptest::prelude::*;

use super::packing::unpack_rows;
use super::{Random, TABOO, UNTOUCHED, assert_close, cases, on_every, up_to};
use crate::kernel::{Bf16, Element, EmbedRows, F32, Int8, Isa, LINE, NormRows, NormTerms, Packed, RowTerms};

const EPSILON: f32 = 1e-5;

/// The padding id, which always has position 0.
const PADDING: Option<u32> = Some(3);

/// Rows to normalise, with scale and shift.
struct Case {
    width: usize,
    rows: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Case {
    fn new(width: usize, rows: usize, offset: f32, random: &mut Random) -> Self {
        let rows = random.numbers(rows * width, 1.0).into_iter().map(|value| value + offset).collect();
        Self { width, rows, scale: random.numbers(width, 2.0), shift: random.numbers(width, 1.0) }
    }

    fn exact(&self) -> Vec<f32> {
        let mut out = Vec::new();
        for row in self.rows.chunks(self.width) {
            #[expect(clippy::cast_precision_loss, reason = "small")]
            let width = self.width as f64;
            let mean = row.iter().map(|value| f64::from(*value)).sum::<f64>() / width;
            let variance = row.iter().map(|value| (f64::from(*value) - mean).powi(2)).sum::<f64>() / width;
            let factor = (variance + f64::from(EPSILON)).sqrt().recip();
            out.extend(row.iter().zip(&self.scale).zip(&self.shift).map(|((value, scale), shift)| {
                ((f64::from(*value) - mean) * factor * f64::from(*scale) + f64::from(*shift)) as f32
            }));
        }
        out
    }
}

/// Pads rows of `width` values with zeros to `padded`.
fn pad(values: &[f32], width: usize, padded: usize) -> Vec<f32> {
    let row = |row: &[f32]| [row, &vec![0.0; padded - width]].concat();
    values.chunks(width).flat_map(row).collect()
}

/// The source of embedded rows: ids, the position of the first, and the word and position tables.
type Embedded<'a> = (&'a [u32], usize, [&'a [f32]; 2]);

/// Normalises all rows except the first, which must stay unchanged, or embeds all rows.
fn check<V: Isa, E: Element<V>>(isa: V, case: &Case, embedded: Option<Embedded<'_>>) {
    let name = format!("{} {}", std::any::type_name::<V>(), std::any::type_name::<E>());
    let Case { width, .. } = *case;
    let padded = width.next_multiple_of(V::PANEL.max(LINE * E::GROUP));
    let count = case.rows.len() / width;
    let (scale, shift) = (pad(&case.scale, width, padded), pad(&case.shift, width, padded));
    let norm = NormTerms { scale: scale.as_ptr(), shift: shift.as_ptr(), width, padded, epsilon: EPSILON };
    let lines = padded / (LINE * E::GROUP);
    let capacity = count.next_multiple_of(V::ROWS);
    let mut operand = vec![TABOO.to_bits(); capacity * lines * LINE];
    let mut terms = vec![RowTerms { step: UNTOUCHED, low: UNTOUCHED }; capacity];
    let packed = Packed { words: operand.as_mut_ptr(), terms: terms.as_mut_ptr(), lines, element: PhantomData::<E> };
    let mut values = pad(&case.rows, width, padded);
    let first = if let Some((ids, place, [words, places])) = embedded {
        values.fill(TABOO);
        let values = values.as_mut_ptr();
        let task = EmbedRows { ids, place, padding: PADDING, row: 0, words, places, values, norm, packed };
        // SAFETY: the buffers have the sizes required by the task, the tables contain its ids and positions.
        unsafe { isa.run(task) };
        0
    } else {
        // SAFETY: likewise.
        unsafe { isa.run(NormRows { values: values.as_mut_ptr(), rows: 1..count, norm, packed }) };
        assert_eq!(values[..padded], pad(&case.rows[..width], width, padded), "{name}: row 0 was modified");
        1
    };
    let exact = pad(&case.exact(), width, padded);
    assert_close(&name, &values[first * padded..], &exact[first * padded..], 1e-4);
    // The packed operand contains exactly these rows.
    let unpacked = unpack_rows::<V, E>(&operand, &terms, lines, count);
    for row in first..count {
        let own = row * padded..(row + 1) * padded;
        assert_close(&name, &unpacked[own.clone()], &values[own], E::FORM.error_of(6.0));
    }
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn normalisation_of_any_width(rows in 2usize..up_to(30), width in 4usize..up_to(300), offset in -3f32..3.0, seed: u64) {
        let case = Case::new(width, rows, offset, &mut Random(seed));
        on_every!(Isa, isa, check::<_, F32>(isa, &case, None));
        on_every!(Bf16Isa, isa, check::<_, Bf16>(isa, &case, None));
        on_every!(Int8Isa, isa, check::<_, Int8>(isa, &case, None));
    }

    #[test]
    fn embedding_of_any_ids(
        ids in prop::collection::vec(0u32..20, 1..up_to(30)),
        place in 0usize..10,
        width in 4usize..up_to(200),
        seed: u64,
    ) {
        let mut random = Random(seed);
        let (table, places) = (random.numbers(20 * width, 1.0), random.numbers((place + ids.len()) * width, 1.0));
        let mut case = Case::new(width, ids.len(), 0.0, &mut random);
        let mut next = place;
        for (n, id) in ids.iter().enumerate() {
            let place = if Some(*id) == PADDING { 0 } else { next };
            next += usize::from(Some(*id) != PADDING);
            for column in 0..width {
                case.rows[n * width + column] = table[*id as usize * width + column] + places[place * width + column];
            }
        }
        on_every!(Isa, isa, check::<_, F32>(isa, &case, Some((&ids, place, [&table, &places]))));
    }
}

/// A constant row has no variance, so that only the shift remains.
#[test]
fn constant_row_normalises_to_its_shift() {
    let mut case = Case::new(100, 3, 0.0, &mut Random(1));
    case.rows.fill(0.5);
    assert_close("exact", &case.exact()[..100], &case.shift, 1e-6);
    on_every!(Isa, isa, check::<_, F32>(isa, &case, None));
}
