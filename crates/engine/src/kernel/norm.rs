//! Row-wise operations: embedding, layer normalisation, packing.

use std::marker::PhantomData;
use std::ops::Range;

use super::element::RowTerms;
use super::{Element, Isa, LINE, Task};

/// The destination of a packed operand.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Packed<E> {
    /// The words of row 0.
    pub words: *mut u32,
    /// One for each row.
    pub terms: *mut RowTerms,
    /// Lines of words per row.
    pub lines: usize,
    pub element: PhantomData<E>,
}

impl<E> Packed<E> {
    #[inline(always)]
    unsafe fn row<V: Isa>(&self, row: usize, from: *const f32)
    where
        E: Element<V>,
    {
        let block = self.words.add(row / V::ROWS * V::ROWS * self.lines * LINE);
        let terms = E::pack_row(from, self.lines, block.add(row % V::ROWS * LINE), V::ROWS * LINE);
        *self.terms.add(row) = terms;
    }
}

/// Packs rows of numbers.
#[derive(Clone, Debug)]
pub(in super::super) struct PackRows<E> {
    /// Row 0 of the packed operand, at `lines · LINE · GROUP` numbers a row.
    pub from: *const f32,
    pub from_stride: usize,
    pub rows: Range<usize>,
    pub packed: Packed<E>,
}

impl<V: Isa, E: Element<V>> Task<V> for PackRows<E> {
    #[inline(always)]
    unsafe fn call(self) {
        for (n, row) in self.rows.enumerate() {
            self.packed.row::<V>(row, self.from.add(n * self.from_stride));
        }
    }
}

/// Scale, shift and epsilon of a layer normalisation.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct NormTerms {
    /// Zero in the padding, so that padding stays zero.
    pub scale: *const f32,
    /// Likewise.
    pub shift: *const f32,
    /// Values per row.
    pub width: usize,
    /// Values per row, including padding.
    pub padded: usize,
    pub epsilon: f32,
}

impl NormTerms {
    #[inline(always)]
    unsafe fn row<V: Isa>(&self, row: *mut f32) {
        let mut total = V::splat(0.0);
        for at in (0..self.padded).step_by(V::LANES) {
            total = V::add(total, V::load(row.add(at)));
        }
        #[expect(clippy::cast_precision_loss, reason = "the width of a model")]
        let width = self.width as f32;
        let mean = V::total(total) / width;
        let means = V::splat(mean);
        let mut squares = V::splat(0.0);
        // The padding must not contribute to the variance: a partial vector is summed separately.
        let whole = self.width / V::LANES * V::LANES;
        for at in (0..whole).step_by(V::LANES) {
            let deviation = V::sub(V::load(row.add(at)), means);
            squares = V::mul_add(deviation, deviation, squares);
        }
        let mut squares = V::total(squares);
        for at in whole..self.width {
            let deviation = *row.add(at) - mean;
            squares += deviation * deviation;
        }
        let variance = squares / width;
        let factor = V::splat((variance + self.epsilon).sqrt().recip());
        for at in (0..self.padded).step_by(V::LANES) {
            let deviation = V::mul(V::sub(V::load(row.add(at)), means), factor);
            let value = V::mul_add(deviation, V::load(self.scale.add(at)), V::load(self.shift.add(at)));
            V::store(row.add(at), value);
        }
    }
}

/// Normalises rows in place, and packs them.
#[derive(Clone, Debug)]
pub(in super::super) struct NormRows<E> {
    pub values: *mut f32,
    pub rows: Range<usize>,
    pub norm: NormTerms,
    pub packed: Packed<E>,
}

impl<V: Isa, E: Element<V>> Task<V> for NormRows<E> {
    #[inline(always)]
    unsafe fn call(self) {
        for row in self.rows {
            let values = self.values.add(row * self.norm.padded);
            self.norm.row::<V>(values);
            self.packed.row::<V>(row, values);
        }
    }
}

/// Adds word and position embeddings, normalises and packs.
#[derive(Clone, Debug)]
pub(in super::super) struct EmbedRows<'a, E> {
    /// The ids of the rows.
    pub ids: &'a [u32],
    /// Position of the first id in its text; the others follow.
    pub place: usize,
    /// The padding id, which always has position 0 and does not advance the other positions.
    pub padding: Option<u32>,
    /// The row of the first id.
    pub row: usize,
    /// `width` values per word.
    pub words: &'a [f32],
    /// `width` values per position.
    pub places: &'a [f32],
    pub values: *mut f32,
    pub norm: NormTerms,
    pub packed: Packed<E>,
}

impl<V: Isa, E: Element<V>> Task<V> for EmbedRows<'_, E> {
    #[inline(always)]
    unsafe fn call(self) {
        let NormTerms { width, padded, .. } = self.norm;
        let mut next = self.place;
        for (n, &id) in self.ids.iter().enumerate() {
            let word = &self.words[id as usize * width..][..width];
            let place = if Some(id) == self.padding {
                0
            } else {
                next += 1;
                next - 1
            };
            let place = &self.places[place * width..][..width];
            let row = self.row + n;
            let values = std::slice::from_raw_parts_mut(self.values.add(row * padded), padded);
            for ((value, word), place) in values.iter_mut().zip(word).zip(place) {
                *value = word + place;
            }
            values[width..].fill(0.0);
            let values = values.as_mut_ptr();
            self.norm.row::<V>(values);
            self.packed.row::<V>(row, values);
        }
    }
}
