//! AVX-512: the foundation, and the extensions for bf16 and 8-bit integers.

use std::arch::x86_64::*;

use super::{Bf16Isa, Int8Isa, Isa, LINE, Task, exp2_fraction};

/// Declares an instruction set with the base operations: the proof type, its detection, and running with its features
/// enabled.
macro_rules! avx512 {
    ($(#[$doc:meta])* $name:ident: $($feature:tt)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub(in super::super) struct $name(());

        impl $name {
            /// Returns the instruction set if this CPU supports it.
            pub(in super::super) fn detect() -> Option<Self> {
                let found = $(std::arch::is_x86_feature_detected!($feature))&&*;
                found.then_some(Self(()))
            }
        }

        impl Isa for $name {
            const LANES: usize = 16;
            // 24 of 32 registers hold sums, two the columns, and one the row.
            const ROWS: usize = 12;
            type Floats = __m512;
            type Words = __m512i;

            #[inline(always)]
            unsafe fn run<T: Task<Self>>(self, task: T) {
                $(#[target_feature(enable = $feature)])*
                unsafe fn enabled<T: Task<$name>>(task: T) {
                    task.call();
                }
                enabled(task);
            }

            #[inline(always)]
            unsafe fn splat(value: f32) -> __m512 {
                _mm512_set1_ps(value)
            }
            #[inline(always)]
            unsafe fn load(from: *const f32) -> __m512 {
                _mm512_loadu_ps(from)
            }
            #[inline(always)]
            unsafe fn store(to: *mut f32, value: __m512) {
                _mm512_storeu_ps(to, value);
            }
            #[inline(always)]
            unsafe fn load_words(from: *const u32) -> __m512i {
                _mm512_loadu_si512(from.cast())
            }
            #[inline(always)]
            unsafe fn as_floats(words: __m512i) -> __m512 {
                _mm512_castsi512_ps(words)
            }
            #[inline(always)]
            unsafe fn add(a: __m512, b: __m512) -> __m512 {
                _mm512_add_ps(a, b)
            }
            #[inline(always)]
            unsafe fn sub(a: __m512, b: __m512) -> __m512 {
                _mm512_sub_ps(a, b)
            }
            #[inline(always)]
            unsafe fn mul(a: __m512, b: __m512) -> __m512 {
                _mm512_mul_ps(a, b)
            }
            #[inline(always)]
            unsafe fn div(a: __m512, b: __m512) -> __m512 {
                _mm512_div_ps(a, b)
            }
            #[inline(always)]
            unsafe fn max(a: __m512, b: __m512) -> __m512 {
                _mm512_max_ps(a, b)
            }
            #[inline(always)]
            unsafe fn min(a: __m512, b: __m512) -> __m512 {
                _mm512_min_ps(a, b)
            }
            #[inline(always)]
            unsafe fn abs(a: __m512) -> __m512 {
                _mm512_abs_ps(a)
            }
            #[inline(always)]
            unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
                _mm512_fmadd_ps(a, b, c)
            }
            #[inline(always)]
            unsafe fn exp2<const TERMS: usize>(a: __m512) -> __m512 {
                // The difference to the nearest integer; the result is then scaled by the power of that integer.
                let whole = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a);
                let fraction = exp2_fraction::<Self, TERMS>(_mm512_sub_ps(a, whole));
                _mm512_scalef_ps(fraction, whole)
            }
            #[inline(always)]
            unsafe fn total(a: __m512) -> f32 {
                _mm512_reduce_add_ps(a)
            }
            #[inline(always)]
            unsafe fn largest(a: __m512) -> f32 {
                _mm512_reduce_max_ps(a)
            }
            #[inline(always)]
            unsafe fn smallest(a: __m512) -> f32 {
                _mm512_reduce_min_ps(a)
            }

            #[inline(always)]
            unsafe fn transpose(from: *const u32, stride: usize, words: usize, to: *mut u32) {
                for word in (0..words).step_by(LINE) {
                    for row in (0..Self::PANEL).step_by(LINE) {
                        transpose_square(from.add(row * stride + word), stride, to.add(word * Self::PANEL + row), Self::PANEL);
                    }
                }
            }
        }
    };
}

avx512! {
    /// The base: supported by every AVX-512 CPU since Skylake.
    Avx512: "avx512f" "avx512bw" "avx512vl" "avx512dq"
}
avx512! {
    /// With products of 8-bit integers, since Cascade Lake and Zen 4.
    Avx512Vnni: "avx512f" "avx512bw" "avx512vl" "avx512dq" "avx512vnni"
}
avx512! {
    /// Also with products of bf16, since Cooper Lake and Zen 4.
    Avx512Bf16: "avx512f" "avx512bw" "avx512vl" "avx512dq" "avx512vnni" "avx512bf16"
}

/// Transposes 16 by 16 words in steps: by words, double words, and quarters of registers.
#[inline(always)]
unsafe fn transpose_square(from: *const u32, stride: usize, to: *mut u32, to_stride: usize) {
    let mut rows = [_mm512_setzero_si512(); 16];
    for (n, row) in rows.iter_mut().enumerate() {
        *row = _mm512_loadu_si512(from.add(n * stride).cast());
    }
    let mut next = rows;
    for n in 0..8 {
        next[2 * n] = _mm512_unpacklo_epi32(rows[2 * n], rows[2 * n + 1]);
        next[2 * n + 1] = _mm512_unpackhi_epi32(rows[2 * n], rows[2 * n + 1]);
    }
    for n in 0..4 {
        for half in 0..2 {
            rows[4 * n + 2 * half] = _mm512_unpacklo_epi64(next[4 * n + half], next[4 * n + half + 2]);
            rows[4 * n + 2 * half + 1] = _mm512_unpackhi_epi64(next[4 * n + half], next[4 * n + half + 2]);
        }
    }
    // Row 4n + k now holds, in quarter q, column 4q + k of the rows 4n to 4n + 3.
    for k in 0..4 {
        let low = _mm512_shuffle_i32x4::<0x88>(rows[k], rows[4 + k]);
        let high = _mm512_shuffle_i32x4::<0xdd>(rows[k], rows[4 + k]);
        let low2 = _mm512_shuffle_i32x4::<0x88>(rows[8 + k], rows[12 + k]);
        let high2 = _mm512_shuffle_i32x4::<0xdd>(rows[8 + k], rows[12 + k]);
        next[k] = _mm512_shuffle_i32x4::<0x88>(low, low2);
        next[8 + k] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
        next[4 + k] = _mm512_shuffle_i32x4::<0x88>(high, high2);
        next[12 + k] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
    }
    for (n, row) in next.iter().enumerate() {
        _mm512_storeu_si512(to.add(n * to_stride).cast(), *row);
    }
}

impl Bf16Isa for Avx512Bf16 {
    #[inline(always)]
    unsafe fn dot_bf16(sum: __m512, a: *const u32, b: __m512i) -> __m512 {
        _mm512_dpbf16_ps(sum, as_bf16(_mm512_set1_epi32((*a).cast_signed())), as_bf16(b))
    }
    #[inline(always)]
    unsafe fn row_to_bf16(values: [__m512; 2], to: *mut u32) {
        _mm512_storeu_si512(to.cast(), from_bf16(_mm512_cvtne2ps_pbh(values[1], values[0])));
    }
    #[inline(always)]
    unsafe fn pair_to_bf16(first: [__m512; 2], second: [__m512; 2], to: *mut u32) {
        // Per lane: element n of the first vector, then element n of the second, which are 16 apart.
        let order = _mm512_set_epi16(
            31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17,
            1, 16, 0,
        );
        for half in 0..2 {
            let both = from_bf16(_mm512_cvtne2ps_pbh(second[half], first[half]));
            _mm512_storeu_si512(to.add(half * 16).cast(), _mm512_permutexvar_epi16(order, both));
        }
    }
}

#[inline(always)]
unsafe fn as_bf16(words: __m512i) -> __m512bh {
    // Both types are 512 bits wide.
    std::mem::transmute(words)
}

#[inline(always)]
unsafe fn from_bf16(values: __m512bh) -> __m512i {
    std::mem::transmute(values)
}

macro_rules! int8 {
    ($name:ident) => {
        impl Int8Isa for $name {
            #[inline(always)]
            unsafe fn dot_int8(sum: __m512i, a: *const u32, b: __m512i) -> __m512i {
                _mm512_dpbusd_epi32(sum, _mm512_set1_epi32((*a).cast_signed()), b)
            }
            #[inline(always)]
            unsafe fn zero_words() -> __m512i {
                _mm512_setzero_si512()
            }
            #[inline(always)]
            unsafe fn words_to_floats(words: __m512i) -> __m512 {
                _mm512_cvtepi32_ps(words)
            }
            #[inline(always)]
            unsafe fn line_to_int8(from: *const f32, low: f32, factor: f32, to: *mut u32) {
                let (low, factor) = (_mm512_set1_ps(low), _mm512_set1_ps(factor));
                for quarter in 0..4 {
                    let value = _mm512_sub_ps(_mm512_loadu_ps(from.add(quarter * 16)), low);
                    let integers = _mm512_cvtps_epi32(_mm512_mul_ps(value, factor));
                    _mm_storeu_si128(to.add(quarter * 4).cast(), _mm512_cvtusepi32_epi8(integers));
                }
            }
        }
    };
}

int8!(Avx512Vnni);
int8!(Avx512Bf16);
