//! The files of a model, each read with a limit on its size.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::LoadError;

/// Largest configuration file that is read; real ones have some kilobytes.
const MAX_CONFIG_BYTES: u64 = 4 << 20;
/// Largest `tokenizer.json` that is read; the largest multilingual ones have 35 MB.
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

    /// The content of `tokenizer.json` in a folder.
    pub(crate) fn tokenizer(&self, name: &str) -> Result<Vec<u8>, LoadError> {
        let path = self.path(name);
        read(&path, MAX_TOKENIZER_BYTES)?.ok_or_else(|| missing(&path))
    }

    /// A configuration file that must exist.
    pub(crate) fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, LoadError> {
        self.optional(name)?.ok_or_else(|| missing(&self.path(name)))
    }

    /// A configuration file, if it exists.
    pub(crate) fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, LoadError> {
        let path = self.path(name);
        let Some(text) = read(&path, MAX_CONFIG_BYTES)? else { return Ok(None) };
        serde_json::from_slice(&text).map(Some).map_err(|cause| LoadError::malformed(&path, cause.to_string()))
    }
}

fn missing(path: &Path) -> LoadError {
    LoadError::io(path, io::ErrorKind::NotFound.into())
}

/// The content of a file; `None` if there is none.
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

/// A path inside the model's directory, as configuration files name it. Absolute paths and `..` are rejected.
pub(crate) fn is_inside(path: &str) -> bool {
    !path.starts_with('/') && !path.contains(['\\', '\0']) && path.split('/').all(|part| part != "..")
}

/// A name inside a folder of the model.
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
    fn paths_that_leave_the_directory_are_recognised() {
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
