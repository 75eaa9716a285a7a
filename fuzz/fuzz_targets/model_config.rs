#![no_main]
//! Fuzzes the configuration files. The first byte selects the file.

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use tidewheel_fuzz::{Model, quiet};

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

thread_local! {
    static MODEL: OnceCell<Model> = const { OnceCell::new() };
}

fuzz_target!(init: quiet(), |data: &[u8]| {
    let Some((which, content)) = data.split_first() else { return };
    MODEL.with(|model| model.get_or_init(Model::new).with(FILES[usize::from(*which) % FILES.len()], content));
});
