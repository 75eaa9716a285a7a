//! The hash behind the vectors of `hash:DIM` and the revisions of models. Stable across machines and releases.

/// 2^64 divided by the golden ratio: odd and without structure.
pub(crate) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// An order-dependent hash of 64-bit words. Not for attacker-controlled keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher(u64);

impl Hasher {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed ^ GOLDEN)
    }

    pub(crate) fn write(&mut self, word: u64) {
        // The high half of the product mixes upwards, the low half downwards; together every bit reaches every other.
        let product = u128::from(self.0 ^ word) * u128::from(GOLDEN);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
        let folded = (product >> 64) as u64 ^ product as u64;
        self.0 = folded.wrapping_add(GOLDEN);
    }

    pub(crate) fn finish(self) -> u64 {
        mix(self.0)
    }
}

/// Hashes bytes, including their number.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hasher = Hasher::new(bytes.len() as u64);
    let (words, rest) = bytes.as_chunks();
    for word in words {
        hasher.write(u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    hasher.write(u64::from_le_bytes(last));
    hasher.finish()
}

/// The finaliser of Steele, Lea and Flood's SplitMix64: a bijection whose output bits each depend on all input bits.
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
