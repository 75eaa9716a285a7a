//! Synthetic models of various sizes, poolings, activations and families on every kernel, compared with the definition in
//! f64.

#[path = "support/madeup.rs"]
mod madeup;

use std::path::Path;
use std::sync::Arc;

use madeup::{Dtype, Madeup};
use proptest::prelude::*;
use tidewheel_engine::model::LoadError;
use tidewheel_engine::{Engine, Kernel, ModelSource, ModelSpec, Precision, Text, Workspace, load};

/// Head and feed-forward widths that are not multiples of a register.
const ODD: Madeup =
    Madeup { hidden: 84, heads: 3, intermediate: 150, max_tokens: 70, pooling: "cls_token", ..Madeup::SMALL };

fn open(directory: &Path, kernel: Kernel, precision: Precision) -> Result<Arc<dyn Engine>, LoadError> {
    let mut spec = ModelSpec::new(ModelSource::Directory(directory.to_owned()));
    spec.kernel = Some(kernel);
    spec.precision = precision;
    spec.threads = 3;
    load(&spec)
}

fn cosine(a: &[f32], b: &[f64]) -> f64 {
    let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * b).sum();
    let squares = (a.iter().map(|a| f64::from(*a).powi(2)).sum::<f64>(), b.iter().map(|b| b * b).sum::<f64>());
    dot / (squares.0 * squares.1).sqrt()
}

/// Returns texts of these lengths with rarely repeating ids.
fn texts(model: &Madeup, lengths: &[usize]) -> Vec<Vec<u32>> {
    let text =
        |n: usize, length: usize| (0..length).map(move |at| ((at * 7 + at * at * n + n) % model.vocabulary()) as u32);
    lengths.iter().enumerate().map(|(n, length)| text(n, *length).collect()).collect()
}

/// Checks that all kernels at all precisions match the definition: packed together, on several threads, and in any order.
fn check(model: &Madeup, lengths: &[usize]) {
    let directory = tempfile::tempdir().unwrap();
    model.write(directory.path());
    let texts = texts(model, lengths);
    let expected: Vec<Vec<f64>> = texts.iter().map(|ids| model.expected(ids)).collect();
    let batch: Vec<Text<'_>> = texts.iter().map(|ids| Text::plain(ids)).collect();
    for kernel in Kernel::available() {
        for (precision, least) in [(Precision::F32, 0.999_999), (Precision::Bf16, 0.999_7), (Precision::Int8, 0.99)] {
            let engine = open(directory.path(), kernel, precision).unwrap();
            let name = format!("{} {:?}", engine.info().kernel, engine.info().precision);
            if precision == Precision::Int8 && kernel == Kernel::available()[0] {
                assert_eq!(engine.info().precision == Precision::Int8, Kernel::computes_int8(), "{name}");
            }
            let together = engine.embed(&batch, 2);
            let mut tile = vec![0.0; together.len()];
            engine.embed_tile(&batch, &mut Workspace::default(), &mut tile);
            assert_eq!(tile, together, "{name}: text order changed a vector");
            for ((text, vector), expected) in batch.iter().zip(together.chunks(model.hidden)).zip(&expected) {
                let mut alone = vec![0.0; model.hidden];
                engine.embed_one(*text, &mut alone);
                assert_eq!(alone, vector, "{name}: multi-threaded vector differs");
                let cosine = cosine(vector, expected);
                assert!(cosine >= least, "{name}: {} tokens: {cosine}", text.ids.len());
                if precision == Precision::F32 {
                    for (value, expected) in vector.iter().zip(expected) {
                        assert!((f64::from(*value) - expected).abs() < 2e-4, "{name}: {value} for {expected}");
                    }
                }
            }
        }
    }
}

#[test]
fn odd_sizes_and_cls_pooling() {
    check(&ODD, &[1, 2, 5, 13, 31, 32, 33, 64, 70, 7, 70, 3]);
}

#[test]
fn wide_heads_max_pooling_and_no_normalisation() {
    let model = Madeup {
        hidden: 192,
        heads: 2,
        intermediate: 768,
        layers: 1,
        activation: "relu",
        pooling: "max_tokens",
        normalize: false,
        ..ODD
    };
    check(&model, &[1, 17, 40, 70]);
}

#[test]
fn roberta_with_a_prefix_in_half_precision() {
    let model = Madeup {
        hidden: 64,
        heads: 4,
        layers: 3,
        activation: "gelu_new",
        pooling: "mean_tokens",
        kind: "xlm-roberta",
        prefix: "roberta.",
        dtype: Dtype::F16,
        ..ODD
    };
    check(&model, &[70, 12, 24, 25]);
    check(&Madeup { dtype: Dtype::Bf16, prefix: "model.", ..model }, &[9]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn any_sizes(
        head in 1usize..50,
        heads in 1usize..5,
        intermediate in 1usize..300,
        lengths in prop::collection::vec(1usize..70, 1..6),
    ) {
        check(&Madeup { hidden: head * heads + heads, heads, intermediate, layers: 1, ..ODD }, &lengths);
    }
}

#[test]
fn tokenizer_uses_limits_of_model_instead_of_its_file() {
    let directory = tempfile::tempdir().unwrap();
    ODD.write(directory.path());
    let engine = open(directory.path(), Kernel::Portable, Precision::F32).unwrap();
    // tokenizer.json truncates at 5 and pads to 9.
    assert_eq!(engine.tokenize("").ids, [2, 3]);
    assert_eq!(engine.tokenize("The TIDES turn.").ids, [2, 4, 5, 6, 7, 15, 3]);
    let long = "the  tides\n\nturn ".repeat(1000);
    let ids = engine.tokenize(&long).ids;
    assert_eq!((ids.len(), ids[0], ids[69]), (70, 2, 3));
    assert_eq!(ids[1..69], engine.tokenize(&long[..400]).ids[1..69]);
    // One endless word outside the vocabulary.
    assert_eq!(engine.tokenize(&"é".repeat(100_000)).ids, [2, 1, 3]);

    let text = "The tides, as they turn, grind.";
    let spans: Vec<&str> = engine.token_spans(text).into_iter().map(|span| &text[span]).collect();
    assert_eq!(spans, ["The", "tide", "s", ",", "a", "s", "they", "turn", ",", "grind", "."]);
    assert_eq!(engine.token_spans(&long).len(), 4000);
    let text = "Ü tide 日本";
    let spans: Vec<&str> = engine.token_spans(text).into_iter().map(|span| &text[span]).collect();
    assert_eq!(spans, ["Ü", "tide", "日", "本"]);
}

#[test]
fn changed_weight_changes_revision() {
    let directory = tempfile::tempdir().unwrap();
    ODD.write(directory.path());
    let revision = || open(directory.path(), Kernel::Portable, Precision::F32).unwrap().info().revision.clone();
    let before = revision();
    let path = directory.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_ne!(revision(), before);
}
