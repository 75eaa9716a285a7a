#![no_main]
//! Fuzzes `model.safetensors`. The input is the header, completed with its length and valid tensors. If the first byte is
//! `!`, the rest of the input is the whole file.

use std::cell::OnceCell;

use libfuzzer_sys::fuzz_target;
use tidewheel_fuzz::{Model, quiet};

thread_local! {
    static MODEL: OnceCell<(Model, Vec<u8>)> = const { OnceCell::new() };
}

fn with_tensors() -> (Model, Vec<u8>) {
    let model = Model::new();
    let file = std::fs::read(model.path("model.safetensors")).expect("weights");
    let header = u64::from_le_bytes(file[..8].try_into().expect("eight bytes"));
    let data = file[8 + usize::try_from(header).expect("small")..].to_vec();
    (model, data)
}

fuzz_target!(init: quiet(), |data: &[u8]| {
    let Some((whole, content)) = data.split_first() else { return };
    MODEL.with(|model| {
        let (model, tensors) = model.get_or_init(with_tensors);
        if *whole == b'!' {
            model.with("model.safetensors", content);
        } else {
            let file = [&(data.len() as u64).to_le_bytes()[..], data, tensors].concat();
            model.with("model.safetensors", &file);
        }
    });
});
