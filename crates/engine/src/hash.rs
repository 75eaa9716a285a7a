//! `hash:DIM`: vectors without a model, for tests and for benchmarks of everything around the model.
//!
//! Guarantees: equal texts have equal vectors on every machine and in every release; texts that differ in more than
//! white space have nearly orthogonal vectors; every vector has unit length. Meaning is ignored. Embedding a text costs
//! about as much as copying it.

use std::ops::Range;

use tidewheel_core::tokens::{Tokens, Words};

use crate::hasher::{GOLDEN, Hasher, hash_bytes, mix};
use crate::tokens::Encoding;
use crate::{Engine, EngineInfo, Precision, Text, Workspace};

/// The limit of the default model, so that texts are split into the same number of chunks.
const MAX_TOKENS: usize = 256;

/// Texts of a tile share nothing here; the value only keeps the batches of both engines alike.
const TILE_TOKENS: usize = 256;

/// The engine behind `hash:DIM`.
#[derive(Debug)]
pub struct HashEngine {
    info: EngineInfo,
}

impl HashEngine {
    /// Creates an engine with vectors of `dimension` values, at least one.
    #[must_use]
    pub fn new(dimension: usize) -> Self {
        assert!(dimension > 0, "a vector has at least one dimension");
        Self {
            info: EngineInfo {
                model: format!("hash:{dimension}"),
                revision: "1".to_owned(),
                dimension,
                max_tokens: MAX_TOKENS,
                tile_tokens: TILE_TOKENS,
                pooling: "none",
                normalized: true,
                precision: Precision::F32,
                kernel: "splitmix64",
                query_prefix: String::new(),
                passage_prefix: String::new(),
                include_prompt: true,
                measured: Vec::new(),
            },
        }
    }

    fn fill(ids: &[u32], out: &mut [f32]) {
        let mut hasher = Hasher::new(ids.len() as u64);
        for &id in ids {
            hasher.write(u64::from(id));
        }
        let mut state = hasher.finish();
        let mut squares = 0f32;
        for pair in out.chunks_mut(2) {
            state = state.wrapping_add(GOLDEN);
            let bits = mix(state);
            for (value, half) in pair.iter_mut().zip([bits >> 32, bits & 0xffff_ffff]) {
                // Uniform between -1 and 1, never both ends, and never 0: half is at most 2^32 - 1.
                #[expect(clippy::cast_precision_loss, reason = "24 of 32 bits are plenty")]
                let uniform = (half as f32 + 0.5) * 2f32.powi(-31) - 1.0;
                *value = uniform;
                squares += uniform * uniform;
            }
        }
        let scale = if squares > 0.0 { squares.sqrt().recip() } else { 0.0 };
        for value in out {
            *value *= scale;
        }
    }
}

impl Engine for HashEngine {
    fn info(&self) -> &EngineInfo {
        &self.info
    }

    fn tokenize(&self, text: &str) -> Encoding {
        let spans = Words.spans(text);
        #[expect(clippy::cast_possible_truncation, reason = "32 bits of a hash")]
        let ids = spans.into_iter().take(MAX_TOKENS).map(|span| hash_bytes(&text.as_bytes()[span]) as u32).collect();
        Encoding::new(ids)
    }

    fn token_spans(&self, text: &str) -> Vec<Range<usize>> {
        Words.spans(text)
    }

    fn embed_tile(&self, batch: &[Text<'_>], _workspace: &mut Workspace, out: &mut [f32]) {
        assert_eq!(out.len(), batch.len() * self.info.dimension, "one vector for each text");
        for (text, out) in batch.iter().zip(out.chunks_exact_mut(self.info.dimension)) {
            Self::fill(text.ids, out);
        }
    }

    fn embed_one(&self, text: Text<'_>, out: &mut [f32]) {
        assert_eq!(out.len(), self.info.dimension, "one vector");
        Self::fill(text.ids, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn embed(engine: &HashEngine, text: &str) -> Vec<f32> {
        let encoding = engine.tokenize(text);
        engine.embed(&[encoding.text()], 1)
    }

    fn dot(a: &[f32], b: &[f32]) -> f32 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    #[test]
    fn equal_texts_have_equal_vectors_and_others_are_nearly_orthogonal() {
        let engine = HashEngine::new(384);
        let texts: Vec<String> = (0..100).map(|n| format!("order {n} was shipped")).collect();
        let vectors: Vec<_> = texts.iter().map(|text| embed(&engine, text)).collect();
        for (n, vector) in vectors.iter().enumerate() {
            assert!((dot(vector, vector) - 1.0).abs() < 1e-5);
            assert_eq!(vector, &embed(&engine, &texts[n]));
            for other in &vectors[..n] {
                // Five standard deviations of a random pair's cosine: 5 / sqrt(384).
                assert!(dot(vector, other).abs() < 0.256);
            }
        }
    }

    #[test]
    fn hash_vectors_are_stable_across_releases() {
        // An index filled by one release must be searchable by the next.
        let vector = embed(&HashEngine::new(4), "tidewheel");
        assert_eq!(vector, [-0.353_832_63, -0.440_431_83, 0.815_931_9, 0.122_790_016]);
    }

    #[test]
    fn vectors_of_any_dimension_have_unit_length() {
        for dimension in [1, 2, 3, 7, 768] {
            for text in ["", "a", "日本語 🙂", &"word ".repeat(20_000)] {
                let vector = embed(&HashEngine::new(dimension), text);
                assert_eq!(vector.len(), dimension);
                assert!((dot(&vector, &vector) - 1.0).abs() < 1e-5, "{dimension} {text:.10}");
            }
        }
    }
}
