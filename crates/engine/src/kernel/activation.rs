//! Activation functions of the feed-forward layer.

use super::Isa;
use super::matmul::Epilogue;
use crate::model::Activation;

/// Applies an activation and writes the result.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Activate(pub Activation);

impl<V: Isa> Epilogue<V> for Activate {
    #[inline(always)]
    unsafe fn apply(self, value: V::Floats, to: *mut f32) {
        let value = match self.0 {
            Activation::Gelu => gelu::<V>(value),
            Activation::GeluTanh => gelu_tanh::<V>(value),
            Activation::Relu => V::max(value, V::splat(0.0)),
        };
        V::store(to, value);
    }
}

/// Beyond this, `|x| · Φ(-|x|)` is below 4e-7 and its value here is used.
const GELU_END: f32 = 5.3;

/// `a · Φ(-a)` for a between 0 and [`GELU_END`], as a polynomial in `2a / GELU_END - 1`: the Chebyshev interpolation of
/// degree 15 in powers, the highest first. In f32 its error is at most 6e-7.
const GELU_TERMS: [f32; 16] = [
    0.003_569_354_3,
    0.022_638_84,
    -0.048_826_754,
    -0.088_498_816,
    0.217_557_33,
    0.059_815_4,
    -0.441_454_38,
    0.278_990_95,
    0.297_046,
    -0.596_484_1,
    0.341_009,
    0.102_847_7,
    -0.295_911_8,
    0.210_024_92,
    -0.072_988_726,
    0.010_665_554,
];

/// `x · Φ(x)`, absolute error at most 1e-6.
///
/// Written as `max(x, 0) - |x| · Φ(-|x|)`: handles both signs at once, and the remainder is smooth and small, so that a
/// polynomial suffices, without division or exponential.
#[inline(always)]
unsafe fn gelu<V: Isa>(x: V::Floats) -> V::Floats {
    let size = V::min(V::abs(x), V::splat(GELU_END));
    let place = V::mul_add(size, V::splat(2.0 / GELU_END), V::splat(-1.0));
    let mut sum = V::splat(GELU_TERMS[0]);
    for term in &GELU_TERMS[1..] {
        sum = V::mul_add(sum, place, V::splat(*term));
    }
    V::sub(V::max(x, V::splat(0.0)), sum)
}

/// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`, written with the logistic function.
#[inline(always)]
unsafe fn gelu_tanh<V: Isa>(x: V::Floats) -> V::Floats {
    // Beyond this the logistic function is 1 in f32, and the power would overflow.
    let near = V::max(x, V::splat(-9.0));
    let cube = V::mul_add(V::mul(near, near), V::splat(0.044_715), V::splat(1.0));
    // -2 · √(2/π) · log2(e)
    let exponent = V::mul(V::mul(near, V::splat(-2.302_208_2)), cube);
    let exponent = V::min(exponent, V::splat(126.0));
    V::div(x, V::add(V::exp2::<7>(exponent), V::splat(1.0)))
}
