//! Every instruction set that this CPU supports, compared with [`Portable`] and with definitions in f64, in one process
//! and on shapes that are not multiples of a register.
//!
//! Tests leave no slack after operands: buffers have exactly the documented sizes, so that a sanitizer detects accesses
//! beyond them. Memory that a kernel must not read holds NaN, and memory that it must not write is compared afterwards.
//! Under Miri only [`Portable`] is available, and sizes are small.
//!
//! [`Portable`]: crate::kernel::Portable
#![allow(unsafe_code)]
// Test tasks are sequences of unsafe operations, as in the kernels.
#![allow(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

mod attention;
mod packing;
mod products;
mod rows;
mod thread_pool;
mod vectors;

use proptest::prelude::ProptestConfig;

/// Calls a generic function once for each instruction set with the operations of a trait:
/// `on_every!(Isa, isa, function(isa, …))`.
macro_rules! on_every {
    (Isa, $isa:ident, $call:expr) => {{
        on_every!(portable, $isa, $call);
        #[cfg(target_arch = "x86_64")]
        on_every!(detected, $isa, $call, Avx2 Avx512 Avx512Vnni Avx512Bf16);
        #[cfg(target_arch = "aarch64")]
        on_every!(detected, $isa, $call, Neon);
    }};
    (Int8Isa, $isa:ident, $call:expr) => {{
        on_every!(portable, $isa, $call);
        #[cfg(target_arch = "x86_64")]
        on_every!(detected, $isa, $call, Avx512Vnni Avx512Bf16);
    }};
    (Bf16Isa, $isa:ident, $call:expr) => {{
        on_every!(portable, $isa, $call);
        #[cfg(target_arch = "x86_64")]
        on_every!(detected, $isa, $call, Avx512Bf16);
    }};
    (portable, $isa:ident, $call:expr) => {{
        let $isa = crate::kernel::Portable;
        $call;
    }};
    (detected, $isa:ident, $call:expr, $($name:ident)*) => {$(
        if let Some($isa) = crate::kernel::$name::detect() {
            $call;
        }
    )*};
}
use on_every;

/// Returns a config with this many cases, or fewer under Miri.
fn cases(count: u32) -> ProptestConfig {
    let cases = if cfg!(miri) { 3 } else { count };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Returns the size, or a smaller one under Miri.
const fn up_to(size: usize) -> usize {
    if cfg!(miri) { size / 8 + 2 } else { size }
}

/// A deterministic random number generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Returns a number between -1 and 1.
    #[expect(clippy::cast_precision_loss, reason = "24 bits")]
    fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    fn numbers(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.number() * size).collect()
    }
}

/// Asserts that all values are within `tolerance` of the expected ones.
#[track_caller]
fn assert_close(what: &str, values: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(values.len(), expected.len(), "{what}");
    for (at, (value, expected)) in values.iter().zip(expected).enumerate() {
        assert!((value - expected).abs() <= tolerance, "{what}: {value} at {at}, not {expected}");
    }
}

/// Fills memory that must not be read.
const TABOO: f32 = f32::NAN;

/// Fills memory that must not be written.
const UNTOUCHED: f32 = -7.5;
