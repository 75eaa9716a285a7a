//! The harness of the fuzz targets, which are outside the workspace, compiles and handles every seed.

#[path = "../../../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "the targets use the rest")]
mod harness;

use std::path::Path;

use harness::Model;

fn run(target: &str, load: fn(&Model, &[u8])) {
    let model = Model::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "{} has no seeds", directory.display());
    for seed in seeds {
        let data = std::fs::read(seed).unwrap();
        for end in [data.len(), data.len() / 2, 0] {
            load(&model, &data[..end]);
        }
    }
}

#[test]
fn configuration_seeds_load_or_fail_without_a_crash() {
    run("model_config", Model::configuration);
}

#[test]
fn tokenizer_seeds_load_or_fail_without_a_crash() {
    run("tokenizer", Model::tokenizer);
}

#[test]
fn safetensors_seeds_load_or_fail_without_a_crash() {
    run("safetensors", Model::safetensors);
}
