//! A small model in memory-backed files; the fuzzer replaces one of them.

#[path = "../../crates/embed/tests/support/madeup.rs"]
mod madeup;

use std::path::{Path, PathBuf};

use madeup::{Dtype, Madeup};
use tidewheel_engine::{Kernel, ModelSource, ModelSpec, Precision, Text, load};

/// A directory with a valid model.
pub struct Model {
    directory: tempfile::TempDir,
}

impl Model {
    /// Writes the model to memory-backed storage where available.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let directory = tempfile::tempdir_in(parent).expect("a directory");
        let model = Madeup {
            hidden: 12,
            heads: 2,
            layers: 2,
            intermediate: 20,
            max_tokens: 24,
            activation: "gelu",
            pooling: "mean_tokens",
            normalize: true,
            kind: "bert",
            prefix: "",
            dtype: Dtype::F32,
        };
        model.write(directory.path());
        Self { directory }
    }

    /// The path of a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Loads the model with one file replaced, embeds if loading succeeds, and restores the file.
    pub fn with(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
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
