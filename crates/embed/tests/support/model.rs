//! The real model.

use std::path::PathBuf;

use tidewheel_local::provision::Provisioner;

/// The directory of all-MiniLM-L6-v2, fetched if this machine has not got it.
///
/// # Panics
/// It cannot be had.
pub fn model_directory() -> PathBuf {
    let provisioner = Provisioner::new(tidewheel_local::silent()).expect("a cache directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(provisioner.model("sentence-transformers/all-MiniLM-L6-v2")).expect("the model")
}
