//! Peak throughput of this machine, as a reference for the engine's.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

use super::kernel::{self, Element, Isa, Peak};
use super::{Precision, threads_or_all};

/// Measures, for about `duration`, the multiplications and additions per second of the fastest kernel's inner loop on
/// `threads` threads (0: all cores), with all operands in the L1 cache.
#[must_use]
#[cfg_attr(not(target_arch = "x86_64"), expect(unused_variables, reason = "other architectures have only f32 kernels"))]
pub fn measure_peak(precision: Precision, threads: usize, duration: Duration) -> f64 {
    let threads = threads_or_all(threads);
    #[cfg(target_arch = "x86_64")]
    {
        if let (Some(isa), true) =
            (kernel::Avx512Bf16::detect(), matches!(precision, Precision::Auto | Precision::Bf16))
        {
            return on_all::<_, kernel::Bf16>(isa, threads, duration);
        }
        if let (Some(isa), Precision::Int8) = (kernel::Avx512Vnni::detect(), precision) {
            return on_all::<_, kernel::Int8>(isa, threads, duration);
        }
        if let Some(isa) = kernel::Avx512::detect() {
            return on_all::<_, kernel::F32>(isa, threads, duration);
        }
        if let Some(isa) = kernel::Avx2::detect() {
            return on_all::<_, kernel::F32>(isa, threads, duration);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(isa) = kernel::Neon::detect() {
        return on_all::<_, kernel::F32>(isa, threads, duration);
    }
    on_all::<_, kernel::F32>(kernel::Portable, threads, duration)
}

fn on_all<V: Isa, E: Element<V>>(isa: V, threads: usize, duration: Duration) -> f64 {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(|| on_one::<V, E>(isa, duration))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(0.0)).sum()
    })
}

/// Returns the best of many short measurements: other load only slows them down.
fn on_one<V: Isa, E: Element<V>>(isa: V, duration: Duration) -> f64 {
    let peak = Peak::<E>::new::<V>(1000);
    let start = Instant::now();
    let mut best = 0f64;
    while start.elapsed() < duration {
        let turn = Instant::now();
        // SAFETY: the task owns its operands, which have the size that it reads.
        unsafe { isa.run(&peak) };
        best = best.max(peak.operations::<V>() / turn.elapsed().as_secs_f64());
    }
    best
}
