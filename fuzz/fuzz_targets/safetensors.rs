#![no_main]
//! Fuzzes the weights: their header, or behind a `!` the whole file.

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use tidewheel_fuzz::{Model, quiet};

thread_local! {
    static MODEL: OnceCell<Model> = const { OnceCell::new() };
}

fuzz_target!(init: quiet(), |data: &[u8]| MODEL.with(|model| model.get_or_init(Model::new).safetensors(data)));
