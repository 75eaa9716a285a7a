//! Fingerprints of a vector's input: two texts with the same fingerprint have the same vector.

use sha2::{Digest as _, Sha256};

use crate::embedded::input;
use crate::hex::hex;

/// Computes fingerprints for one model: the first 128 bits of SHA-256 of its name, its revision, its dimension and the
/// text, in hexadecimal. Each part is length-prefixed, so that different parts never hash the same input.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    hash: Sha256,
    /// Part of the input in front of every text.
    prefix: String,
}

impl Fingerprints {
    /// Fingerprints for texts embedded by this model. `revision` covers everything else that a vector depends on:
    /// weights, prefixes, pooling.
    pub fn new(model: &str, revision: &str, dimension: usize) -> Self {
        let mut hash = Sha256::new();
        for part in [model.as_bytes(), revision.as_bytes(), &(dimension as u64).to_le_bytes()] {
            add(&mut hash, part);
        }
        Self { hash, prefix: String::new() }
    }

    /// The same model, for chunks behind this prefix: the fingerprint is that of the [`input`].
    #[must_use]
    pub fn prefixed(&self, prefix: &str) -> Self {
        Self { hash: self.hash.clone(), prefix: input(prefix, "").into_owned() }
    }

    /// The fingerprint of a text.
    pub fn of(&self, text: &str) -> String {
        let mut hash = self.hash.clone();
        hash.update(((self.prefix.len() + text.len()) as u64).to_le_bytes());
        hash.update(self.prefix.as_bytes());
        hash.update(text.as_bytes());
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

    #[test]
    fn fingerprint_behind_a_prefix_is_that_of_the_input() {
        let plain = Fingerprints::new("minilm", "1", 384);
        for (prefix, text) in [("", "a"), ("Late", "a"), ("Late\nAda", ""), ("Übung", "ü")] {
            assert_eq!(plain.prefixed(prefix).of(text), plain.of(&input(prefix, text)), "{prefix:?}");
        }
        assert_eq!(plain.prefixed("Late").of("a"), plain.of("Late\na"));
        assert_eq!(plain.prefixed("Late").prefixed("").of("a"), plain.of("a"));
    }
}
