//! Operand forms of matrix products: f32, pairs of bf16, or groups of four 8-bit integers per word.

use super::{Bf16Isa, Int8Isa, Isa, LINE};
use crate::word::Form;

/// Per-column terms that convert a sum into its value: pointers to one number per column.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct ColumnTerms {
    /// Added at the end.
    pub bias: *const f32,
    /// Int8: the quantisation step of the column's weights.
    pub scale: *const f32,
    /// Int8: the sum of the column's weights, for the rows' offsets.
    pub sum: *const f32,
}

/// Dequantisation terms of a row: `low + step · integer`. Unused for other operand forms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub(in super::super) struct RowTerms {
    /// Quantisation step.
    pub step: f32,
    /// The number represented by integer 0.
    pub low: f32,
}

/// An operand form on an instruction set.
///
/// # Safety
/// As the operations of [`Isa`].
pub(in super::super) trait Element<V: Isa>: Copy + Send + Sync + 'static {
    /// Packing format of weights.
    const FORM: Form;
    /// Numbers per word.
    const GROUP: usize;
    /// A vector of sums.
    type Sums: Copy;

    unsafe fn zero() -> Self::Sums;
    /// Accumulates the products of the word at `a` with each lane of `b`.
    unsafe fn dot(sums: Self::Sums, a: *const u32, b: V::Words) -> Self::Sums;
    /// Converts sums to values, for the columns starting at `columns` and one row.
    unsafe fn finish(sums: Self::Sums, columns: ColumnTerms, row: *const RowTerms) -> V::Floats;
    /// Packs a row of `lines · LINE · GROUP` numbers; consecutive lines of words are `stride` words apart.
    unsafe fn pack_row(from: *const f32, lines: usize, to: *mut u32, stride: usize) -> RowTerms;
}

/// An operand form for attention, which needs no terms.
pub(in super::super) trait AttentionElement<V: Isa>: Element<V> {
    /// Returns the sums unchanged.
    unsafe fn plain(sums: Self::Sums) -> V::Floats;
    /// Packs `2^(score - largest)` of one line of scores, and returns the sum of the powers.
    unsafe fn pack_powers(scores: *const f32, largest: V::Floats, to: *mut u32) -> V::Floats;
    /// Writes one row of a weight panel from `GROUP` rows of numbers, `stride` apart, of which the first `rows` exist;
    /// the others are zeros.
    unsafe fn pack_panel_row(from: *const f32, stride: usize, rows: usize, to: *mut u32);
}

/// Single precision.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct F32;

impl<V: Isa> Element<V> for F32 {
    const FORM: Form = Form::F32;
    const GROUP: usize = 1;
    type Sums = V::Floats;

    #[inline(always)]
    unsafe fn zero() -> V::Floats {
        V::splat(0.0)
    }
    #[inline(always)]
    unsafe fn dot(sums: V::Floats, a: *const u32, b: V::Words) -> V::Floats {
        V::mul_add(V::splat(*a.cast::<f32>()), V::as_floats(b), sums)
    }
    #[inline(always)]
    unsafe fn finish(sums: V::Floats, columns: ColumnTerms, _row: *const RowTerms) -> V::Floats {
        V::add(sums, V::load(columns.bias))
    }
    #[inline(always)]
    unsafe fn pack_row(from: *const f32, lines: usize, to: *mut u32, stride: usize) -> RowTerms {
        for line in 0..lines {
            for lane in (0..LINE).step_by(V::LANES) {
                V::store(to.add(line * stride + lane).cast(), V::load(from.add(line * LINE + lane)));
            }
        }
        RowTerms::default()
    }
}

impl<V: Isa> AttentionElement<V> for F32 {
    #[inline(always)]
    unsafe fn plain(sums: V::Floats) -> V::Floats {
        sums
    }
    #[inline(always)]
    unsafe fn pack_powers(scores: *const f32, largest: V::Floats, to: *mut u32) -> V::Floats {
        let mut total = V::splat(0.0);
        for lane in (0..LINE).step_by(V::LANES) {
            let power = V::exp2::<7>(V::sub(V::load(scores.add(lane)), largest));
            total = V::add(total, power);
            V::store(to.add(lane).cast(), power);
        }
        total
    }
    #[inline(always)]
    unsafe fn pack_panel_row(from: *const f32, _stride: usize, rows: usize, to: *mut u32) {
        for half in [0, V::LANES] {
            let values = if rows > 0 { V::load(from.add(half)) } else { V::splat(0.0) };
            V::store(to.add(half).cast(), values);
        }
    }
}

/// Operands rounded to bf16, sums in f32.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Bf16;

impl<V: Bf16Isa> Element<V> for Bf16 {
    const FORM: Form = Form::Bf16;
    const GROUP: usize = 2;
    type Sums = V::Floats;

    #[inline(always)]
    unsafe fn zero() -> V::Floats {
        V::splat(0.0)
    }
    #[inline(always)]
    unsafe fn dot(sums: V::Floats, a: *const u32, b: V::Words) -> V::Floats {
        V::dot_bf16(sums, a, b)
    }
    #[inline(always)]
    unsafe fn finish(sums: V::Floats, columns: ColumnTerms, _row: *const RowTerms) -> V::Floats {
        V::add(sums, V::load(columns.bias))
    }
    #[inline(always)]
    unsafe fn pack_row(from: *const f32, lines: usize, to: *mut u32, stride: usize) -> RowTerms {
        for line in 0..lines {
            for word in (0..LINE).step_by(V::LANES) {
                let from = from.add(2 * (line * LINE + word));
                V::row_to_bf16([V::load(from), V::load(from.add(V::LANES))], to.add(line * stride + word));
            }
        }
        RowTerms::default()
    }
}

impl<V: Bf16Isa> AttentionElement<V> for Bf16 {
    #[inline(always)]
    unsafe fn plain(sums: V::Floats) -> V::Floats {
        sums
    }
    #[inline(always)]
    unsafe fn pack_powers(scores: *const f32, largest: V::Floats, to: *mut u32) -> V::Floats {
        // Rounding to bf16 is a hundred times coarser than five terms.
        let power = |at: usize| V::exp2::<5>(V::sub(V::load(scores.add(at)), largest));
        let mut total = V::splat(0.0);
        for word in (0..LINE).step_by(V::LANES) {
            let powers = [power(2 * word), power(2 * word + V::LANES)];
            total = V::add(total, V::add(powers[0], powers[1]));
            V::row_to_bf16(powers, to.add(word));
        }
        total
    }
    #[inline(always)]
    unsafe fn pack_panel_row(from: *const f32, stride: usize, rows: usize, to: *mut u32) {
        let zero = V::splat(0.0);
        let row = |n: usize| {
            if n < rows { [V::load(from.add(n * stride)), V::load(from.add(n * stride + V::LANES))] } else { [zero; 2] }
        };
        V::pair_to_bf16(row(0), row(1), to);
    }
}

/// Weights as signed 8-bit integers with a scale per column; activations as unsigned 8-bit integers with a scale and an
/// offset per row. Sums are exact.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Int8;

impl<V: Int8Isa> Element<V> for Int8 {
    const FORM: Form = Form::Int8;
    const GROUP: usize = 4;
    type Sums = V::Words;

    #[inline(always)]
    unsafe fn zero() -> V::Words {
        V::zero_words()
    }
    #[inline(always)]
    unsafe fn dot(sums: V::Words, a: *const u32, b: V::Words) -> V::Words {
        V::dot_int8(sums, a, b)
    }
    #[inline(always)]
    unsafe fn finish(sums: V::Words, columns: ColumnTerms, row: *const RowTerms) -> V::Floats {
        let RowTerms { step, low } = *row;
        let constant = V::mul_add(V::load(columns.sum), V::splat(low), V::load(columns.bias));
        let scale = V::mul(V::load(columns.scale), V::splat(step));
        V::mul_add(V::words_to_floats(sums), scale, constant)
    }
    #[inline(always)]
    unsafe fn pack_row(from: *const f32, lines: usize, to: *mut u32, stride: usize) -> RowTerms {
        let (mut low, mut high) = (V::splat(f32::INFINITY), V::splat(f32::NEG_INFINITY));
        for at in (0..lines * LINE * 4).step_by(V::LANES) {
            let values = V::load(from.add(at));
            low = V::min(low, values);
            high = V::max(high, values);
        }
        let (low, high) = (V::smallest(low), V::largest(high));
        let step = (high - low) / 255.0;
        // A constant row is represented by its offset.
        let factor = if step > 0.0 { step.recip() } else { 0.0 };
        for line in 0..lines {
            V::line_to_int8(from.add(line * LINE * 4), low, factor, to.add(line * stride));
        }
        RowTerms { step, low }
    }
}
