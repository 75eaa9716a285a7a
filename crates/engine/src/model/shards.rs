//! The names of a model's weight files: `model.safetensors` or the shards of its index.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::LoadError;
use super::files::{Files, is_inside, within};
use super::problems::Problems;

const FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Maps tensors to shards.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reports missing safetensors weights, including weights in another format.
pub(super) fn check_present(files: &Files, folder: &str, problems: &mut Problems) {
    let has = |name: &str| files.has(&within(folder, name));
    if has(FILE) || has(INDEX) {
        return;
    }
    let others = ["pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "onnx/model.onnx"];
    problems.other(match others.into_iter().find(|name| has(name)) {
        Some(found) => format!("missing {FILE} (found {found}); save the model as safetensors"),
        None => format!("missing {FILE}"),
    });
}

/// Returns the weight files, in order.
///
/// # Errors
/// The index is malformed, empty, or names a file outside the folder.
pub(super) fn names(files: &Files, folder: &str) -> Result<Vec<String>, LoadError> {
    let single = within(folder, FILE);
    if files.has(&single) {
        return Ok(vec![single]);
    }
    let name = within(folder, INDEX);
    let Some(index) = files.optional::<Index>(&name)? else { return Ok(vec![single]) };
    let mut names: Vec<String> = index.weight_map.into_values().collect();
    names.sort_unstable();
    names.dedup();
    let malformed = |cause: String| LoadError::malformed(&files.path(&name), cause);
    if names.is_empty() {
        return Err(malformed("weight_map is empty".to_owned()));
    }
    if let Some(name) = names.iter().find(|name| !is_inside(name) || name.contains('/')) {
        return Err(malformed(format!("invalid file name {name:?}")));
    }
    Ok(names.iter().map(|name| within(folder, name)).collect())
}
