//! The engine's vectors equal those of sentence-transformers, on every kernel and at every precision.

#[path = "support/model.rs"]
mod model;

use std::sync::Arc;

use model::model_directory;
use tidewheel_engine::tokens::Encoding;
use tidewheel_engine::{Engine, Kernel, ModelSource, ModelSpec, Precision, Text, Workspace, load};

fn minilm(precision: Precision, kernel: Kernel) -> Arc<dyn Engine> {
    let mut spec = ModelSpec::new(ModelSource::Directory(model_directory()));
    spec.precision = precision;
    spec.kernel = Some(kernel);
    spec.threads = 2;
    load(&spec).unwrap()
}

fn texts() -> Vec<String> {
    serde_json::from_str(include_str!("data/reference_texts.json")).unwrap()
}

/// Vectors of sentence-transformers for [`texts`], computed in f32 with texts truncated at 256 tokens.
fn expected() -> Vec<Vec<f32>> {
    vectors(include_bytes!("data/reference_embeddings.f32"))
}

/// Edge cases: empty, one token, the maximum, one more, other scripts, and texts of 100,000 characters, each with the
/// vector of sentence-transformers.
fn odd() -> Vec<(String, Vec<f32>)> {
    let texts: Vec<(String, usize)> = serde_json::from_str(include_str!("data/odd_texts.json")).unwrap();
    let texts = texts.into_iter().map(|(text, times)| text.repeat(times));
    texts.zip(vectors(include_bytes!("data/odd_embeddings.f32"))).collect()
}

fn vectors(bytes: &[u8]) -> Vec<Vec<f32>> {
    let values: Vec<f32> = bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    values.chunks(384).map(<[f32]>::to_vec).collect()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Returns the minimum and mean cosine with the reference, over batches and single texts.
fn agreement(engine: &dyn Engine) -> (f64, f64) {
    // The portable kernel is a reference, not fast.
    let count = if engine.info().kernel == "portable" { 3 } else { 50 };
    let encodings: Vec<_> = texts()[..count].iter().map(|text| engine.tokenize(text)).collect();
    let batch: Vec<Text<'_>> = encodings.iter().map(Encoding::text).collect();
    let together = engine.embed(&batch, 2);
    let mut cosines = Vec::new();
    for ((text, vector), expected) in batch.iter().zip(together.chunks(384)).zip(expected()) {
        let mut alone = vec![0.0; 384];
        engine.embed_one(*text, &mut alone);
        assert_eq!(alone, vector, "vector depends on other texts in the batch");
        cosines.push(cosine(vector, &expected));
    }
    let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
    (least, cosines.iter().sum::<f64>() / cosines.len() as f64)
}

#[test]
fn f32_matches_reference_on_every_kernel() {
    for kernel in Kernel::available() {
        let engine = minilm(Precision::F32, kernel);
        let (least, _) = agreement(&*engine);
        assert!(least >= 0.99999, "{}: {least}", engine.info().kernel);
    }
}

#[test]
fn bf16_matches_reference_to_four_digits() {
    for kernel in [Kernel::available()[0], Kernel::Portable] {
        let engine = minilm(Precision::Bf16, kernel);
        let (least, _) = agreement(&*engine);
        assert!(least >= 0.9999, "{}: {least}", engine.info().kernel);
    }
}

#[test]
fn int8_error_is_within_documented_bound() {
    for kernel in [Kernel::available()[0], Kernel::Portable] {
        let engine = minilm(Precision::Int8, kernel);
        let (least, mean) = agreement(&*engine);
        assert!(mean >= 0.998 && least >= 0.995, "{}: least {least}, mean {mean}", engine.info().kernel);
    }
}

#[test]
fn engine_info_matches_model() {
    let engine = minilm(Precision::F32, Kernel::Portable);
    let info = engine.info();
    assert_eq!((info.dimension, info.max_tokens, info.pooling, info.normalized), (384, 256, "mean", true));
    assert_eq!(info.precision, Precision::F32);
    assert_eq!(info.revision, minilm(Precision::Auto, Kernel::available()[0]).info().revision);
}

#[test]
fn any_text_has_a_unit_vector() {
    let engine = minilm(Precision::Auto, Kernel::available()[0]);
    let long = "All work and no play makes Jack a dull boy. ".repeat(2500);
    let word = "x".repeat(100_000);
    let cases = ["", " ", "a", "日本語のテキスト", "🙂🙃 ﷽ Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢", "\u{0}\u{7f}\u{200b}", &long, &word];
    let mut workspace = Workspace::default();
    for text in cases {
        let encoding = engine.tokenize(text);
        assert!((2..=256).contains(&encoding.ids.len()), "{:.20}: {} tokens", text, encoding.ids.len());
        let mut vector = vec![0.0; 384];
        engine.embed_tile(&[encoding.text()], &mut workspace, &mut vector);
        assert!((cosine(&vector, &vector).sqrt() - 1.0).abs() < 1e-5);
        let length = vector.iter().map(|value| value * value).sum::<f32>();
        assert!((length - 1.0).abs() < 1e-4, "{text:.20}: {length}");
    }
    assert_eq!(engine.tokenize(&long).ids.len(), 256);
    // An empty token list yields zeros.
    let mut nothing = vec![7.0; 384];
    engine.embed_tile(&[Text::default()], &mut workspace, &mut nothing);
    assert!(nothing.iter().all(|value| *value == 0.0));
    engine.embed_one(Text::default(), &mut nothing);
    assert!(engine.embed(&[], 0).is_empty());
}

#[test]
fn edge_case_texts_match_reference() {
    let cases = odd();
    assert_eq!(cases.len(), 17);
    for (precision, least) in [(Precision::F32, 0.99999), (Precision::Bf16, 0.9999), (Precision::Int8, 0.99)] {
        let engine = minilm(precision, Kernel::available()[0]);
        for (text, expected) in &cases {
            let mut vector = vec![0.0; 384];
            engine.embed_one(engine.tokenize(text).text(), &mut vector);
            let cosine = cosine(&vector, expected);
            assert!(cosine >= least, "{precision:?}: {cosine} for {text:.30?}");
        }
    }
}

#[test]
fn result_is_bit_identical_for_any_thread_count() {
    let texts = texts();
    let mut spec = ModelSpec::new(ModelSource::Directory(model_directory()));
    let mut answers = Vec::new();
    for threads in [1, 2, 5] {
        spec.threads = threads;
        let engine = load(&spec).unwrap();
        let encodings: Vec<_> = texts[..20].iter().map(|text| engine.tokenize(text)).collect();
        let batch: Vec<Text<'_>> = encodings.iter().map(Encoding::text).collect();
        answers.push(engine.embed(&batch, threads));
        let mut singles = vec![0.0; batch.len() * 384];
        for (text, out) in batch.iter().zip(singles.chunks_mut(384)) {
            engine.embed_one(*text, out);
        }
        answers.push(singles);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[test]
fn batch_of_mixed_lengths_equals_single_texts() {
    for precision in [Precision::F32, Precision::Bf16, Precision::Int8] {
        let engine = minilm(precision, Kernel::available()[0]);
        let source = engine.tokenize(&texts().join(" "));
        let lengths = (1..40).chain((40..256).step_by(23)).chain([255, 256]);
        let batch: Vec<Text<'_>> = lengths.map(|length| Text::plain(&source.ids[..length])).collect();
        let together = engine.embed(&batch, 2);
        let mut workspace = Workspace::default();
        let mut alone = vec![0.0; 384];
        for (text, vector) in batch.iter().zip(together.chunks(384)) {
            engine.embed_tile(&[*text], &mut workspace, &mut alone);
            assert_eq!(alone, vector, "{precision:?}: {} tokens", text.ids.len());
        }
        // More than one tile in one call.
        let mut out = vec![0.0; batch.len() * 384];
        engine.embed_tile(&batch, &mut workspace, &mut out);
        assert_eq!(out, together);
    }
}
