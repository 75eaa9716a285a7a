//! The operations of an instruction set, checked per lane.

use proptest::prelude::*;

use super::{Random, cases, on_every};
use crate::kernel::{Activate, Bf16Isa, Epilogue, Int8Isa, Isa, LINE, Task};
use crate::model::Activation;
use crate::word::bf16_pair;

/// Runs a closure with the instructions enabled; it must be `#[inline(always)]` all the way, or small.
struct Run<F>(F);

impl<V: Isa, F: FnOnce()> Task<V> for Run<F> {
    #[inline(always)]
    unsafe fn call(self) {
        self.0();
    }
}

/// Three vectors as operands.
struct Lanes<V> {
    isa: V,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl<V: Isa> Lanes<V> {
    fn new(isa: V, random: &mut Random) -> Self {
        let mut numbers = || {
            // Various magnitudes.
            (0..V::LANES).map(|_| random.number() * 2f32.powi((random.next() % 24) as i32 - 12)).collect()
        };
        Self { isa, a: numbers(), b: numbers(), c: numbers() }
    }

    fn map(
        &self,
        operation: unsafe fn(V::Floats, V::Floats, V::Floats) -> V::Floats,
        expected: impl Fn(f32, f32, f32) -> [f32; 2],
        name: &str,
    ) {
        let mut out = vec![0.0; V::LANES];
        let (a, b, c, to) = (self.a.as_ptr(), self.b.as_ptr(), self.c.as_ptr(), out.as_mut_ptr());
        unsafe { self.isa.run(Run(move || V::store(to, operation(V::load(a), V::load(b), V::load(c))))) };
        for (lane, value) in out.iter().enumerate() {
            let either = expected(self.a[lane], self.b[lane], self.c[lane]);
            assert!(
                either.iter().any(|either| either.to_bits() == value.to_bits()),
                "{name} in {}: {value} is not in {either:?}",
                std::any::type_name::<V>()
            );
        }
    }

    fn reduce(&self, operation: unsafe fn(V::Floats) -> f32) -> f32 {
        let (a, mut out) = (self.a.as_ptr(), 0.0);
        let to = &raw mut out;
        unsafe { self.isa.run(Run(move || *to = operation(V::load(a)))) };
        out
    }
}

fn arithmetic<V: Isa>(isa: V, seed: u64) {
    let lanes = Lanes::new(isa, &mut Random(seed));
    let same = |value: f32| [value; 2];
    lanes.map(|a, b, _| unsafe { V::add(a, b) }, |a, b, _| same(a + b), "add");
    lanes.map(|a, b, _| unsafe { V::sub(a, b) }, |a, b, _| same(a - b), "sub");
    lanes.map(|a, b, _| unsafe { V::mul(a, b) }, |a, b, _| same(a * b), "mul");
    lanes.map(|a, b, _| unsafe { V::div(a, b) }, |a, b, _| same(a / b), "div");
    lanes.map(|a, b, _| unsafe { V::max(a, b) }, |a, b, _| same(a.max(b)), "max");
    lanes.map(|a, b, _| unsafe { V::min(a, b) }, |a, b, _| same(a.min(b)), "min");
    lanes.map(|a, _, _| unsafe { V::abs(a) }, |a, _, _| same(a.abs()), "abs");
    lanes.map(|a, b, c| unsafe { V::mul_add(a, b, c) }, |a, b, c| [a.mul_add(b, c), a * b + c], "mul_add");
    let total: f64 = lanes.a.iter().map(|a| f64::from(*a)).sum();
    let sizes: f32 = lanes.a.iter().map(|a| a.abs()).sum();
    assert!((f64::from(lanes.reduce(V::total)) - total).abs() <= f64::from(sizes * 1e-6), "total");
    assert_eq!(lanes.reduce(V::largest), lanes.a.iter().copied().fold(f32::NEG_INFINITY, f32::max), "largest");
    assert_eq!(lanes.reduce(V::smallest), lanes.a.iter().copied().fold(f32::INFINITY, f32::min), "smallest");
}

/// Applies the operation to `values` in vectors.
fn on_all<V: Isa>(isa: V, values: &[f32], operation: unsafe fn(V::Floats, *mut f32)) -> Vec<f32> {
    let mut padded = values.to_vec();
    padded.resize(values.len().next_multiple_of(V::LANES), 0.0);
    let mut out = vec![0.0; padded.len()];
    for (from, to) in padded.chunks(V::LANES).zip(out.chunks_mut(V::LANES)) {
        let (from, to) = (from.as_ptr(), to.as_mut_ptr());
        unsafe { isa.run(Run(move || operation(V::load(from), to))) };
    }
    out.truncate(values.len());
    out
}

fn powers<V: Isa>(isa: V, values: &[f32]) {
    let name = std::any::type_name::<V>();
    let seven = on_all(isa, values, |a, to| unsafe { V::store(to, V::exp2::<7>(a)) });
    let five = on_all(isa, values, |a, to| unsafe { V::store(to, V::exp2::<5>(a)) });
    for (n, &value) in values.iter().enumerate() {
        let expected = f64::from(value).exp2();
        for (power, error) in [(seven[n], 3e-7), (five[n], 6e-5)] {
            if value < -127.0 {
                // A CPU may keep subnormals instead of flushing them to zero.
                assert!((0.0..1e-38).contains(&power), "{name}: 2^{value} = {power}");
            } else if value > -126.0 {
                assert!((f64::from(power) / expected - 1.0).abs() <= error, "{name}: 2^{value} = {power}");
            }
        }
        if value < -1e6 {
            assert_eq!((seven[n].to_bits(), five[n].to_bits()), (0, 0), "{name}: 2^{value}");
        }
    }
}

/// Computes the error function by its series, or returns 1 where that is the nearest float.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 1.0);
    while term.abs() > 1e-18 {
        n += 2.0;
        term *= 2.0 * x * x / n;
        sum += term;
    }
    sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
}

fn activations<V: Isa>(isa: V, values: &[f32]) {
    let name = std::any::type_name::<V>();
    let gelu = on_all(isa, values, |a, to| unsafe { Epilogue::<V>::apply(Activate(Activation::Gelu), a, to) });
    let tanh = on_all(isa, values, |a, to| unsafe { Epilogue::<V>::apply(Activate(Activation::GeluTanh), a, to) });
    let relu = on_all(isa, values, |a, to| unsafe { Epilogue::<V>::apply(Activate(Activation::Relu), a, to) });
    for (n, &value) in values.iter().enumerate() {
        let x = f64::from(value);
        let exact = x / 2.0 * (1.0 + erf(x / std::f64::consts::SQRT_2));
        // Plus half a unit in the last place, for large numbers.
        let error = 1e-6 + x.abs() * 1e-7;
        assert!((f64::from(gelu[n]) - exact).abs() <= error, "{name}: gelu({value}) = {}, not {exact}", gelu[n]);
        let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
        let exact = x / 2.0 * (1.0 + inner.tanh());
        let error = 1e-6 + x.abs() * 1e-6;
        assert!((f64::from(tanh[n]) - exact).abs() <= error, "{name}: gelu_tanh({value}) = {}, not {exact}", tanh[n]);
        assert_eq!(relu[n], value.max(0.0), "{name}: relu({value})");
    }
}

fn transposes<V: Isa>(isa: V, lines: usize, gap: usize) {
    let (words, stride) = (lines * LINE, lines * LINE + gap);
    let from: Vec<u32> = (0..(V::PANEL - 1) * stride + words).map(|n| n as u32).collect();
    let mut to = vec![0; words * V::PANEL];
    let (source, target) = (from.as_ptr(), to.as_mut_ptr());
    unsafe { isa.run(Run(move || V::transpose(source, stride, words, target))) };
    for (n, value) in to.into_iter().enumerate() {
        assert_eq!(value, from[n % V::PANEL * stride + n / V::PANEL], "{} at {n}", std::any::type_name::<V>());
    }
}

fn bf16<V: Bf16Isa>(isa: V, seed: u64) {
    let mut random = Random(seed);
    let numbers = random.numbers(4 * V::LANES, 100.0);
    let pair = |n: usize, m: usize| bf16_pair([numbers[n], numbers[m]]);
    let from = numbers.as_ptr();

    let mut row = vec![0; V::LANES];
    let to = row.as_mut_ptr();
    unsafe { isa.run(Run(move || V::row_to_bf16([V::load(from), V::load(from.add(V::LANES))], to))) };
    assert_eq!(row, (0..V::LANES).map(|n| pair(2 * n, 2 * n + 1)).collect::<Vec<_>>());

    let mut rows = vec![0; V::PANEL];
    let to = rows.as_mut_ptr();
    unsafe {
        isa.run(Run(move || {
            let at = |n: usize| V::load(from.add(n * V::LANES));
            V::pair_to_bf16([at(0), at(1)], [at(2), at(3)], to);
        }));
    };
    assert_eq!(rows, (0..V::PANEL).map(|n| pair(n, n + V::PANEL)).collect::<Vec<_>>());

    let (word, sums) = (row[0], random.numbers(V::LANES, 10.0));
    let mut out = vec![0.0; V::LANES];
    let (a, b, sum, to) = (&raw const word, rows.as_ptr(), sums.as_ptr(), out.as_mut_ptr());
    unsafe { isa.run(Run(move || V::store(to, V::dot_bf16(V::load(sum), a, V::load_words(b))))) };
    let halves = |word: u32| [f32::from_bits(word << 16), f32::from_bits(word & 0xffff_0000)].map(f64::from);
    for lane in 0..V::LANES {
        let (a, b) = (halves(word), halves(rows[lane]));
        let expected = f64::from(sums[lane]) + a[0] * b[0] + a[1] * b[1];
        let size = (a[0] * b[0]).abs() + (a[1] * b[1]).abs() + f64::from(sums[lane].abs());
        assert!((f64::from(out[lane]) - expected).abs() <= size * 3e-7, "{} is not {expected}", out[lane]);
    }
}

fn int8<V: Int8Isa>(isa: V, seed: u64) {
    let mut random = Random(seed);
    // Any bit pattern is four integers.
    let (word, columns, sums) = (random.next() as u32, words::<V>(&mut random), words::<V>(&mut random));
    let sums: Vec<u32> = sums.into_iter().map(|sum| sum >> 8).collect();
    let mut out = vec![0.0; V::LANES];
    let (a, b, sum, to) = (&raw const word, columns.as_ptr(), sums.as_ptr(), out.as_mut_ptr());
    unsafe {
        isa.run(Run(move || {
            let sums = V::dot_int8(V::load_words(sum), a, V::load_words(b));
            V::store(to, V::words_to_floats(sums));
        }));
    };
    for lane in 0..V::LANES {
        let products = word.to_le_bytes().into_iter().zip(columns[lane].to_le_bytes());
        let total: i32 = products.map(|(a, b)| i32::from(a) * i32::from(b.cast_signed())).sum();
        assert_eq!(out[lane], (total + sums[lane].cast_signed()) as f32, "{}", std::any::type_name::<V>());
    }

    let numbers = random.numbers(4 * LINE, 3.0);
    let mut line = vec![0u32; LINE];
    let (from, to) = (numbers.as_ptr(), line.as_mut_ptr());
    let (low, factor) = (-3.0, 255.0 / 6.0);
    unsafe { isa.run(Run(move || V::line_to_int8(from, low, factor, to))) };
    let bytes = line.into_iter().flat_map(u32::to_le_bytes);
    for (byte, number) in bytes.zip(&numbers) {
        assert_eq!(f32::from(byte), ((number - low) * factor).round_ties_even(), "{number}");
    }
}

fn words<V: Isa>(random: &mut Random) -> Vec<u32> {
    (0..V::LANES).map(|_| random.next() as u32).collect()
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn lane_arithmetic_matches_scalar_arithmetic(seed: u64) {
        on_every!(Isa, isa, arithmetic(isa, seed));
    }

    #[test]
    fn powers_and_activations_meet_documented_error(
        near in prop::collection::vec(-12f32..12.0, 16),
        far in prop::collection::vec(-200f32..126.0, 16),
    ) {
        let edges = [0.0, -0.0, -126.0, -125.999, -126.001, -127.5, -1e30, -5.3, 5.3, 125.9];
        let values = [&near[..], &far, &edges].concat();
        on_every!(Isa, isa, powers(isa, &values));
        on_every!(Isa, isa, activations(isa, &[&values[..], &[1e4, -1e4, 1e-20]].concat()));
    }

    #[test]
    fn transposes_of_any_stride(lines in 1usize..4, gap in 0usize..40) {
        on_every!(Isa, isa, transposes(isa, lines, gap));
    }

    #[test]
    fn products_of_bf16_and_of_integers(seed: u64) {
        on_every!(Bf16Isa, isa, bf16(isa, seed));
        on_every!(Int8Isa, isa, int8(isa, seed));
    }
}
