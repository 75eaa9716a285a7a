//! The real model.
#![allow(unexpected_cfgs, reason = "engine_alone is set from outside; see Cargo.toml")]

use std::path::PathBuf;

#[cfg(not(engine_alone))]
use tidewheel_local::provision::Provisioner;

/// The directory of all-MiniLM-L6-v2, fetched if this machine has not got it.
///
/// # Panics
/// It cannot be had.
#[cfg(not(engine_alone))]
pub fn model_directory() -> PathBuf {
    let provisioner = Provisioner::new(tidewheel_local::silent()).expect("a cache directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(provisioner.model("sentence-transformers/all-MiniLM-L6-v2")).expect("the model")
}

/// The directory of all-MiniLM-L6-v2: without the local stack there is nobody to fetch it.
///
/// # Panics
/// The variable that names it is not set.
#[cfg(engine_alone)]
pub fn model_directory() -> PathBuf {
    std::env::var_os("ENGINE_TEST_MODEL").expect("ENGINE_TEST_MODEL names the model's directory").into()
}
