//! The files of a model, read with size limits.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::LoadError;

/// Maximum size of a configuration file; real ones have a few kilobytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Maximum size of `tokenizer.json`; the largest multilingual ones have 35 MB.
const MAX_TOKENIZER_BYTES: u64 = 256 << 20;

/// A model's directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    directory: PathBuf,
}

impl Files {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    /// Reads `tokenizer.json` in a folder.
    pub(crate) fn tokenizer(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let path = self.path(name);
        read(&path, MAX_TOKENIZER_BYTES)?.ok_or_else(|| missing(&path))
    }

    /// Reads a required configuration file.
    pub(crate) fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, LoadError> {
        self.optional(name)?.ok_or_else(|| missing(&self.path(name)))
    }

    /// Reads an optional configuration file.
    pub(crate) fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LoadError> {
        let path = self.path(name);
        let Some(text) = read(&path, MAX_CONFIG_BYTES)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|cause| LoadError::malformed(&path, cause.to_string()))
    }
}

fn missing(path: &Path) -> LoadError {
    LoadError::io(path, io::ErrorKind::NotFound.into())
}

/// Reads a file; `None` if it does not exist.
fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, LoadError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(LoadError::io(path, cause)),
    };
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(|cause| LoadError::io(path, cause))?;
    if content.len() as u64 > limit {
        return Err(LoadError::malformed(path, format!("larger than {limit} bytes")));
    }
    Ok(Some(content))
}

/// Whether a path from a configuration file stays inside the model's directory. Rejects absolute paths and `..`.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.starts_with('/') && !path.contains(['\\', '\0']) && path.split('/').all(|part| part != "..")
}

/// Joins a folder of the model and a file name.
pub(crate) fn within(folder: &str, name: &str) -> String {
    match folder.trim_matches('/') {
        "" | "." => name.to_owned(),
        folder => format!("{folder}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{is_inside, within};

    #[test]
    fn paths_outside_the_directory_are_detected() {
        for path in ["", ".", "1_Pooling", "0_Transformer/", "a/b"] {
            assert!(is_inside(path), "{path}");
        }
        for path in ["/etc", "..", "../x", "a/../../b", "a\\b", "a\0"] {
            assert!(!is_inside(path), "{path:?}");
        }
        assert_eq!(within("", "config.json"), "config.json");
        assert_eq!(within(".", "config.json"), "config.json");
        assert_eq!(within("0_Transformer/", "config.json"), "0_Transformer/config.json");
    }
}
