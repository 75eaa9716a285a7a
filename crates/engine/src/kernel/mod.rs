//! Instruction sets, and the kernels generic over them.
//!
//! Everything below is generic over [`Isa`], the vector instructions of a CPU, and over [`Element`], the operand form.
//! [`Portable`] is the plain-Rust instruction set: the reference for all others, and the one that tests run under Miri.
//!
//! Invariants required by the `unsafe` code of this module:
//! * A value of an [`Isa`] type exists only if the CPU supports its instructions; its operations are called only inside
//!   [`Isa::run`].
//! * A packed operand holds [`LINE`] words for each row and line: `rows` (a multiple of [`Isa::ROWS`]) times `lines`
//!   of them for activations, and [`Isa::PANEL`] columns for each word row for weights.
//! * Pointers handed to a task are valid for the rows, columns and lines that the task names, and no other thread
//!   writes to what a task reads, or touches what it writes, while it runs.
#![allow(unsafe_code)]
// Whole functions here are sequences of unsafe operations, all under the invariants above.
#![allow(unsafe_op_in_unsafe_fn)]
// Indices run over registers, side by side with addresses.
#![allow(clippy::needless_range_loop)]

mod activation;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
mod matmul;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod peak;
mod portable;

pub(super) use activation::Activate;
pub(super) use attention::{Attention, AttentionScratch};
#[cfg(target_arch = "x86_64")]
pub(super) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(super) use avx512::{Avx512, Avx512Bf16, Avx512Vnni};
pub(super) use element::{AttentionElement, Bf16, ColumnTerms, Element, F32, Int8, RowTerms};
pub(super) use matmul::{Add, Epilogue, MatMul, Output, Store};
#[cfg(target_arch = "aarch64")]
pub(super) use neon::Neon;
pub(super) use norm::{EmbedRows, NormRows, NormTerms, PackRows, Packed};
pub(super) use peak::Peak;
pub(super) use portable::Portable;

pub(super) use super::buffer::LINE;

/// Work compiled for one instruction set.
pub(super) trait Task<V: Isa> {
    /// Executes the task.
    ///
    /// # Safety
    /// Called only by [`Isa::run`]; the module's invariants hold for everything in the task.
    unsafe fn call(self);
}

/// A set of vector instructions. A value of the type proves that this CPU supports them.
///
/// # Safety
/// All operations: only inside [`Isa::run`]; pointers are valid for a vector.
pub(super) trait Isa: Copy + Send + Sync + 'static {
    /// 32-bit values per vector: a divisor of [`LINE`].
    const LANES: usize;
    /// Columns of a weight panel: two vectors.
    const PANEL: usize = 2 * Self::LANES;
    /// Rows of the block kept in registers: with two vectors of columns, as many sums as fit into the registers.
    const ROWS: usize;
    /// A vector of f32.
    type Floats: Copy;
    /// A vector of 32-bit words.
    type Words: Copy;

    /// Runs the task with the instructions enabled.
    ///
    /// # Safety
    /// The module's invariants hold for everything in the task.
    unsafe fn run<T: Task<Self>>(self, task: T);

    unsafe fn splat(value: f32) -> Self::Floats;
    unsafe fn load(from: *const f32) -> Self::Floats;
    unsafe fn store(to: *mut f32, value: Self::Floats);
    unsafe fn load_words(from: *const u32) -> Self::Words;
    unsafe fn as_floats(words: Self::Words) -> Self::Floats;
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn div(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn max(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn min(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn abs(a: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once where the CPU supports it.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;
    /// `2^a` with this many terms of a series, and 0 below -126; invalid above 126. The relative error is 3e-7 with seven
    /// terms, 6e-5 with five.
    unsafe fn exp2<const TERMS: usize>(a: Self::Floats) -> Self::Floats;
    /// The sum of all lanes.
    unsafe fn total(a: Self::Floats) -> f32;
    /// The largest lane.
    unsafe fn largest(a: Self::Floats) -> f32;
    /// The smallest lane.
    unsafe fn smallest(a: Self::Floats) -> f32;

    /// Writes the transpose of `PANEL` rows of `words` words, `stride` apart, to `words` rows of `PANEL`.
    /// `words` is a multiple of [`LINE`].
    #[inline(always)]
    unsafe fn transpose(from: *const u32, stride: usize, words: usize, to: *mut u32) {
        for word in 0..words {
            for row in 0..Self::PANEL {
                *to.add(word * Self::PANEL + row) = *from.add(row * stride + word);
            }
        }
    }
}

/// An instruction set that multiplies pairs of bf16.
pub(super) trait Bf16Isa: Isa {
    /// `sum + a₀·b₀ + a₁·b₁` in each lane, with the word at `a` broadcast to all lanes.
    unsafe fn dot_bf16(sum: Self::Floats, a: *const u32, b: Self::Words) -> Self::Floats;
    /// Rounds two vectors to nearest even, and writes them consecutively as a vector of words.
    unsafe fn row_to_bf16(values: [Self::Floats; 2], to: *mut u32);
    /// Writes one panel row of pairs: each lane holds the rounded numbers of both rows, the first in the low half.
    unsafe fn pair_to_bf16(first: [Self::Floats; 2], second: [Self::Floats; 2], to: *mut u32);
}

/// An instruction set that multiplies groups of four 8-bit integers.
pub(super) trait Int8Isa: Isa {
    /// `sum + Σ aᵢ·bᵢ` in each lane, with the word at `a` broadcast to all lanes; `a` is unsigned, `b` signed.
    unsafe fn dot_int8(sum: Self::Words, a: *const u32, b: Self::Words) -> Self::Words;
    unsafe fn zero_words() -> Self::Words;
    /// Converts signed integers to floats.
    unsafe fn words_to_floats(words: Self::Words) -> Self::Floats;
    /// `round((x - low) · factor)` of one line of 64 numbers, each between 0 and 255.
    unsafe fn line_to_int8(from: *const f32, low: f32, factor: f32, to: *mut u32);
}

/// ln(2)^n / n!
const EXP2_TERMS: [f32; 7] =
    [1.0, std::f32::consts::LN_2, 0.240_226_5, 5.550_411e-2, 9.618_129e-3, 1.333_355_8e-3, 1.540_353e-4];

/// The polynomial part of `2^x` for x between -1/2 and 1/2: the Taylor series, truncated after this many terms.
#[inline(always)]
unsafe fn exp2_fraction<V: Isa, const TERMS: usize>(x: V::Floats) -> V::Floats {
    let mut sum = V::splat(EXP2_TERMS[TERMS - 1]);
    for term in EXP2_TERMS[..TERMS - 1].iter().rev() {
        sum = V::mul_add(sum, x, V::splat(*term));
    }
    sum
}
