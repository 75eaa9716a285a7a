//! Plain Rust: the reference for all other instruction sets, and the fallback for other CPUs.

use super::{Bf16Isa, Int8Isa, Isa, LINE, Task, exp2_fraction};
use crate::word::{bf16_pair, round};

/// Only instructions of the architecture's baseline.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Portable;

const LANES: usize = 8;

#[inline(always)]
fn zip<T: Copy, U: Copy, R>(a: [T; LANES], b: [U; LANES], f: impl Fn(T, U) -> R) -> [R; LANES] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

impl Isa for Portable {
    const LANES: usize = LANES;
    // Current CPUs have at least sixteen registers of four lanes: eight hold the sums.
    const ROWS: usize = 4;
    type Floats = [f32; LANES];
    type Words = [u32; LANES];

    #[inline(always)]
    unsafe fn run<T: Task<Self>>(self, task: T) {
        task.call();
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self::Floats {
        [value; LANES]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Floats {
        from.cast::<Self::Floats>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: Self::Floats) {
        to.cast::<Self::Floats>().write_unaligned(value);
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> Self::Words {
        from.cast::<Self::Words>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn as_floats(words: Self::Words) -> Self::Floats {
        words.map(f32::from_bits)
    }
    #[inline(always)]
    unsafe fn add(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(a: Self::Floats, b: Self::Floats) -> Self::Floats {
        zip(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn abs(a: Self::Floats) -> Self::Floats {
        a.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // Not `f32::mul_add`, which calls a library function on CPUs without FMA.
        std::array::from_fn(|lane| a[lane] * b[lane] + c[lane])
    }
    #[inline(always)]
    unsafe fn exp2<const TERMS: usize>(a: Self::Floats) -> Self::Floats {
        let a = Self::max(a, Self::splat(-126.0));
        // Adding 1.5·2^23 rounds to an integer, which is then in the low bits.
        let shifted = a.map(|a| a + 12_582_912.0);
        let whole = shifted.map(|shifted| shifted - 12_582_912.0);
        let fraction = exp2_fraction::<Self, TERMS>(Self::sub(a, whole));
        let power = shifted.map(|shifted| f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000)));
        // 2^-126 and below are flushed to zero.
        let power = zip(a, power, |a, power| if a > -126.0 { power } else { 0.0 });
        Self::mul(fraction, power)
    }
    #[inline(always)]
    unsafe fn total(a: Self::Floats) -> f32 {
        a.iter().sum()
    }
    #[inline(always)]
    unsafe fn largest(a: Self::Floats) -> f32 {
        a.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b))
    }
    #[inline(always)]
    unsafe fn smallest(a: Self::Floats) -> f32 {
        a.iter().fold(f32::INFINITY, |a, &b| a.min(b))
    }
}

impl Bf16Isa for Portable {
    #[inline(always)]
    unsafe fn dot_bf16(sum: Self::Floats, a: *const u32, b: Self::Words) -> Self::Floats {
        let a = *a;
        zip(sum, b, |sum, b| {
            let low = f32::from_bits(a << 16) * f32::from_bits(b << 16);
            let high = f32::from_bits(a & 0xffff_0000) * f32::from_bits(b & 0xffff_0000);
            sum + high + low
        })
    }
    #[inline(always)]
    unsafe fn row_to_bf16(values: [Self::Floats; 2], to: *mut u32) {
        for (n, pair) in values.as_flattened().as_chunks().0.iter().enumerate() {
            *to.add(n) = bf16_pair(*pair);
        }
    }
    #[inline(always)]
    unsafe fn pair_to_bf16(first: [Self::Floats; 2], second: [Self::Floats; 2], to: *mut u32) {
        for half in 0..2 {
            for lane in 0..LANES {
                *to.add(half * LANES + lane) = bf16_pair([first[half][lane], second[half][lane]]);
            }
        }
    }
}

impl Int8Isa for Portable {
    #[inline(always)]
    unsafe fn dot_int8(sum: Self::Words, a: *const u32, b: Self::Words) -> Self::Words {
        let a = (*a).to_le_bytes();
        zip(sum, b, |sum, b| {
            let products = a.iter().zip(b.to_le_bytes()).map(|(&a, b)| i32::from(a) * i32::from(b.cast_signed()));
            sum.wrapping_add(products.sum::<i32>().cast_unsigned())
        })
    }
    #[inline(always)]
    unsafe fn zero_words() -> Self::Words {
        [0; LANES]
    }
    #[inline(always)]
    unsafe fn words_to_floats(words: Self::Words) -> Self::Floats {
        #[expect(clippy::cast_precision_loss, reason = "sums of products stay below 2^31; converted to f32")]
        words.map(|word| word.cast_signed() as f32)
    }
    #[inline(always)]
    unsafe fn line_to_int8(from: *const f32, low: f32, factor: f32, to: *mut u32) {
        for word in 0..LINE {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "`as` saturates")]
            let bytes = std::array::from_fn(|byte| round((*from.add(4 * word + byte) - low) * factor) as u8);
            *to.add(word) = u32::from_le_bytes(bytes);
        }
    }
}
