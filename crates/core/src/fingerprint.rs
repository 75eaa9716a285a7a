//! Fingerprints of a vector's input: two texts with the same fingerprint have the same vector.

use sha2::{Digest as _, Sha256};

use crate::hex::hex;

/// Computes fingerprints for one model: the first 128 bits of SHA-256 of its name, its revision, its dimension and the
/// text, in hexadecimal. Each part is length-prefixed, so that different parts never hash the same input.
#[derive(Clone, Debug)]
pub struct Fingerprints(Sha256);

impl Fingerprints {
    /// Fingerprints for texts embedded by this model. `revision` covers everything else that a vector depends on:
    /// weights, prefixes, pooling.
    pub fn new(model: &str, revision: &str, dimension: usize) -> Self {
        let mut hash = Sha256::new();
        for part in [model.as_bytes(), revision.as_bytes(), &(dimension as u64).to_le_bytes()] {
            add(&mut hash, part);
        }
        Self(hash)
    }

    /// The fingerprint of a text.
    pub fn of(&self, text: &str) -> String {
        let mut hash = self.0.clone();
        add(&mut hash, text.as_bytes());
        hex(&hash.finalize()[..16])
    }
}

fn add(hash: &mut Sha256, part: &[u8]) {
    hash.update((part.len() as u64).to_le_bytes());
    hash.update(part);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn fingerprint_depends_on_text_model_revision_and_dimension() {
        let of = |model, revision, dimension, text| Fingerprints::new(model, revision, dimension).of(text);
        let all = [
            of("minilm", "1", 384, "a"),
            of("minilm", "1", 384, "b"),
            of("minilm", "2", 384, "a"),
            of("minilm1", "", 384, "a"),
            of("minilm", "1", 385, "a"),
            of("minilm", "1", 384, ""),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
        assert_eq!(all[0], of("minilm", "1", 384, "a"));
        assert!(all.iter().all(|text| text.len() == 32));
    }
}
