//! Provides the real model.
#![allow(unexpected_cfgs, reason = "engine_alone is set from outside; see Cargo.toml")]

use std::path::PathBuf;

#[cfg(not(engine_alone))]
use tidewheel_local::provision::Provisioner;

/// Returns the directory of all-MiniLM-L6-v2, downloading it if missing.
///
/// # Panics
/// The model cannot be downloaded.
#[cfg(not(engine_alone))]
pub fn model_directory() -> PathBuf {
    let provisioner = Provisioner::new(tidewheel_local::silent()).expect("cache directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(provisioner.model("sentence-transformers/all-MiniLM-L6-v2")).expect("model")
}

/// Returns the directory of all-MiniLM-L6-v2. Without the local stack it must be provided.
///
/// # Panics
/// `ENGINE_TEST_MODEL` is not set.
#[cfg(engine_alone)]
pub fn model_directory() -> PathBuf {
    std::env::var_os("ENGINE_TEST_MODEL").expect("ENGINE_TEST_MODEL is set to the model's directory").into()
}
