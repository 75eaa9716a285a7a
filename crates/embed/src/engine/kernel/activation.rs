//! The functions between the two halves of the feed-forward layer.

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

/// `x · Φ(x)`, absolute error at most 4e-7.
///
/// Φ(-|x|) is half the complementary error function of |x|/√2, here by Abramowitz and Stegun's formula 7.1.26. Written
/// as `max(x, 0) - |x| · Φ(-|x|)`, both signs are one case.
#[inline(always)]
unsafe fn gelu<V: Isa>(x: V::Floats) -> V::Floats {
    let size = V::abs(x);
    // p / √2
    let t = V::div(V::splat(1.0), V::mul_add(size, V::splat(0.231_641_9), V::splat(1.0)));
    // Half of the published coefficients.
    let mut sum = V::splat(0.530_702_7);
    for term in [-0.726_576, 0.710_706_9, -0.142_248_37, 0.127_414_8] {
        sum = V::mul_add(sum, t, V::splat(term));
    }
    // e^(-x²/2) = 2^(-x² · log2(e) / 2)
    let power = V::exp2(V::mul(V::mul(size, V::splat(-0.721_347_5)), size));
    V::sub(V::max(x, V::splat(0.0)), V::mul(V::mul(sum, t), V::mul(power, size)))
}

/// `x / 2 · (1 + tanh(√(2/π) · (x + 0.044715 · x³)))`, written with the logistic function.
#[inline(always)]
unsafe fn gelu_tanh<V: Isa>(x: V::Floats) -> V::Floats {
    // Beyond this the logistic function is 1 in f32, and the power would leave its range.
    let near = V::max(x, V::splat(-9.0));
    let cube = V::mul_add(V::mul(near, near), V::splat(0.044_715), V::splat(1.0));
    // -2 · √(2/π) · log2(e)
    let exponent = V::mul(V::mul(near, V::splat(-2.302_208_2)), cube);
    let exponent = V::min(exponent, V::splat(126.0));
    V::div(x, V::add(V::exp2(exponent), V::splat(1.0)))
}
