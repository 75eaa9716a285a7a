//! NEON: every 64-bit ARM CPU.

use std::arch::aarch64::*;

use super::{Isa, Task, exp2_fraction};

/// Proof that this CPU supports NEON.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Neon(());

impl Neon {
    /// Returns the instruction set if this CPU supports it.
    pub(in super::super) fn detect() -> Option<Self> {
        std::arch::is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

impl Isa for Neon {
    const LANES: usize = 4;
    // 24 of 32 registers hold sums, two the columns, and the others rows.
    const ROWS: usize = 12;
    type Floats = float32x4_t;
    type Words = uint32x4_t;

    #[inline(always)]
    unsafe fn run<T: Task<Self>>(self, task: T) {
        #[target_feature(enable = "neon")]
        unsafe fn enabled<T: Task<Neon>>(task: T) {
            task.call();
        }
        enabled(task);
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> float32x4_t {
        vdupq_n_f32(value)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> float32x4_t {
        vld1q_f32(from)
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: float32x4_t) {
        vst1q_f32(to, value);
    }
    #[inline(always)]
    unsafe fn load_words(from: *const u32) -> uint32x4_t {
        vld1q_u32(from)
    }
    #[inline(always)]
    unsafe fn as_floats(words: uint32x4_t) -> float32x4_t {
        vreinterpretq_f32_u32(words)
    }
    #[inline(always)]
    unsafe fn add(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vaddq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn sub(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vsubq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmulq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn div(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vdivq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn max(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vmaxq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn min(a: float32x4_t, b: float32x4_t) -> float32x4_t {
        vminq_f32(a, b)
    }
    #[inline(always)]
    unsafe fn abs(a: float32x4_t) -> float32x4_t {
        vabsq_f32(a)
    }
    #[inline(always)]
    unsafe fn mul_add(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        vfmaq_f32(c, a, b)
    }
    #[inline(always)]
    unsafe fn exp2<const TERMS: usize>(a: float32x4_t) -> float32x4_t {
        let floor = vdupq_n_f32(-126.0);
        let near = vmaxq_f32(a, floor);
        let whole = vrndnq_f32(near);
        let fraction = exp2_fraction::<Self, TERMS>(vsubq_f32(near, whole));
        // Shifted into the exponent of 1.
        let exponent = vshlq_n_s32::<23>(vcvtq_s32_f32(whole));
        let power = vreinterpretq_f32_s32(vaddq_s32(exponent, vdupq_n_s32(0x3f80_0000)));
        let value = vreinterpretq_u32_f32(vmulq_f32(fraction, power));
        vreinterpretq_f32_u32(vandq_u32(value, vcgtq_f32(a, floor)))
    }
    #[inline(always)]
    unsafe fn total(a: float32x4_t) -> f32 {
        vaddvq_f32(a)
    }
    #[inline(always)]
    unsafe fn largest(a: float32x4_t) -> f32 {
        vmaxvq_f32(a)
    }
    #[inline(always)]
    unsafe fn smallest(a: float32x4_t) -> f32 {
        vminvq_f32(a)
    }
}
