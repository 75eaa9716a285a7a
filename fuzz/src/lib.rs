//! A small model in memory-backed files; the fuzzer replaces one of them. The engine's tests run every seed through the same code.

#[path = "../../crates/engine/tests/support/madeup.rs"]
#[allow(dead_code, reason = "the engine's own tests use the rest")]
mod madeup;

use std::path::Path;

use madeup::Madeup;
use tidewheel_engine::{Kernel, ModelSource, ModelSpec, Precision, Text, load};

const FILES: [&str; 8] = [
    "config.json",
    "modules.json",
    "1_Pooling/config.json",
    "sentence_bert_config.json",
    "tokenizer_config.json",
    "config_sentence_transformers.json",
    "special_tokens_map.json",
    "added_tokens.json",
];

/// A directory with a valid model.
pub struct Model {
    directory: tempfile::TempDir,
    /// The weights without their header.
    tensors: Vec<u8>,
}

impl Model {
    /// Writes the model to memory-backed storage where available.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::tempdir_in(parent).expect("a directory");
        Madeup::SMALL.write(directory.path());
        let weights = std::fs::read(directory.path().join("model.safetensors")).expect("weights");
        let header = u64::from_le_bytes(weights[..8].try_into().expect("eight bytes"));
        let tensors = weights[8 + usize::try_from(header).expect("small")..].to_vec();
        Self { directory, tensors }
    }

    /// Replaces a configuration file. The first byte selects it.
    pub fn configuration(&self, data: &[u8]) {
        let Some((which, content)) = data.split_first() else { return };
        self.with(FILES[usize::from(*which) % FILES.len()], content);
    }

    /// Replaces the tokenizer.
    pub fn tokenizer(&self, data: &[u8]) {
        self.with("tokenizer.json", data);
    }

    /// Replaces the weights: all of them behind a `!`, else only their header.
    pub fn safetensors(&self, data: &[u8]) {
        match data.strip_prefix(b"!") {
            Some(content) => self.with("model.safetensors", content),
            None => {
                let length = (data.len() as u64).to_le_bytes();
                self.with("model.safetensors", &[&length, data, &self.tensors].concat());
            }
        }
    }

    /// Loads the model with one file replaced, embeds if loading succeeds, and restores the file.
    fn with(&self, name: &str, content: &[u8]) {
        let path = self.directory.path().join(name);
        let before = std::fs::read(&path).ok();
        std::fs::write(&path, content).expect("written");
        let mut spec = ModelSpec::new(ModelSource::Directory(self.directory.path().to_owned()));
        spec.kernel = Some(Kernel::Portable);
        spec.precision = Precision::F32;
        spec.threads = 1;
        if let Ok(engine) = load(&spec) {
            let mut vector = vec![0.0; engine.info().dimension];
            let long = "the tides turn . ".repeat(20);
            for text in ["", "the tide", "a [SEP] b\u{301} 水 \0", &long] {
                let encoding = engine.tokenize(text);
                engine.embed_one(encoding.text(), &mut vector);
                engine.embed(&[encoding.text(), Text::default()], 1);
                let _ = engine.token_spans(text);
            }
        }
        match before {
            Some(before) => std::fs::write(&path, before).expect("restored"),
            None => std::fs::remove_file(&path).expect("removed"),
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self::new()
    }
}

/// Silences panic messages: panics of the tokenizers library are caught by the caller. Uncaught panics still abort.
pub fn quiet() {
    std::panic::set_hook(Box::new(|_| {}));
}
