//! Operands packed into 32-bit words. The first number is in the low bits.

/// Rounds to the nearest bf16, ties to even, as its upper sixteen bits.
#[must_use]
pub(crate) fn bf16(value: f32) -> u32 {
    let bits = value.to_bits();
    // A carry out of an all-ones fraction correctly increments the exponent.
    bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16
}

/// Packs two numbers as bf16.
#[must_use]
pub(crate) fn bf16_pair([low, high]: [f32; 2]) -> u32 {
    bf16(low) | bf16(high) << 16
}

/// Rounds a number far below 2^22 to the nearest integer, ties to even: adding 1.5·2^23 leaves no bits for a fraction. The
/// standard library's function compiles to a call on baselines without a rounding instruction.
pub(crate) fn round(value: f32) -> f32 {
    const ROOM: f32 = 12_582_912.0;
    value + ROOM - ROOM
}

/// The packing format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One f32.
    F32,
    /// Two bf16.
    Bf16,
    /// Four signed 8-bit integers.
    Int8,
}

/// The scale of a packed row of weights, and its sum.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Encoded {
    /// The quantisation step; 1 for unquantised values.
    pub scale: f32,
    /// The sum of the values as packed.
    pub sum: f32,
}

impl Form {
    /// Packs a row of weights into words.
    pub(crate) fn encode(self, values: &[f32], to: &mut [u32]) -> Encoded {
        match self {
            Self::F32 => {
                for (to, value) in to.iter_mut().zip(values) {
                    *to = value.to_bits();
                }
                Encoded { scale: 1.0, sum: values.iter().sum() }
            }
            Self::Bf16 => {
                for (to, pair) in to.iter_mut().zip(values.as_chunks().0) {
                    *to = bf16_pair(*pair);
                }
                Encoded { scale: 1.0, sum: values.iter().sum() }
            }
            Self::Int8 => {
                let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
                let scale = if largest > 0.0 { largest / 127.0 } else { 1.0 };
                let mut sum = 0;
                for (to, group) in to.iter_mut().zip(values.as_chunks::<4>().0) {
                    #[expect(clippy::cast_possible_truncation, reason = "at most 127")]
                    let integers = group.map(|value| round(value / scale) as i8);
                    sum += integers.iter().map(|&integer| i32::from(integer)).sum::<i32>();
                    *to = u32::from_le_bytes(integers.map(i8::cast_unsigned));
                }
                #[expect(clippy::cast_precision_loss, reason = "below 2^24 for any row shorter than 130,000")]
                let sum = sum as f32 * scale;
                Encoded { scale, sum }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, bf16};

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for (value, bits) in [
            (1.0, 0x3f80),
            (-2.5, 0xc020),
            (f32::from_bits(0x3f80_8000), 0x3f80),
            (f32::from_bits(0x3f81_8000), 0x3f82),
            (f32::from_bits(0x3f80_8001), 0x3f81),
            (f32::from_bits(0x3fff_ffff), 0x4000),
        ] {
            assert_eq!(bf16(value), bits, "{value}");
        }
    }

    #[test]
    fn int8_encoding_covers_range_of_row() {
        let mut words = [0; 2];
        let encoded = Form::Int8.encode(&[1.0, -2.0, 0.5, 0.0, 2.0, 0.004, 0.0, -1.0], &mut words);
        let bytes: Vec<i8> = words.iter().flat_map(|word| word.to_le_bytes()).map(u8::cast_signed).collect();
        assert_eq!(bytes, [64, -127, 32, 0, 127, 0, 0, -64]);
        assert!((encoded.scale - 2.0 / 127.0).abs() < 1e-9 && (encoded.sum - 32.0 * encoded.scale).abs() < 1e-6);
        assert_eq!(Form::Int8.encode(&[0.0; 8], &mut words).sum.to_bits(), 0);
    }
}
