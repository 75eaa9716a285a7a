//! The API key of the stack's Qdrant: generated once, stored in the data directory, readable by its owner only.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The file name in the data directory.
const FILE: &str = "qdrant-api-key";

/// A shorter key was not written completely.
const LENGTH: usize = 64;

/// An API key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps a configured key.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// Returns the key stored in this data directory, if there is one.
    pub fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(Self::file(data)).ok()?;
        let key = text.trim();
        (key.len() >= LENGTH).then(|| Self(key.to_owned()))
    }

    /// Returns the key stored in this data directory; generates one if there is none.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn read_or_create(data: &Path) -> io::Result<Self> {
        if let Some(key) = Self::read(data) {
            return Ok(key);
        }
        let key = Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()));
        fs::create_dir_all(data)?;
        let (file, aside) = (Self::file(data), data.join(format!("{FILE}.new")));
        match fs::remove_file(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
        new.write_all(key.0.as_bytes())?;
        new.sync_all()?;
        fs::rename(aside, file)?;
        Ok(key)
    }

    /// Returns the path of the key file in this data directory.
    pub fn file(data: &Path) -> PathBuf {
        data.join(FILE)
    }

    /// Returns the key in plain text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn key_is_generated_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert_eq!(ApiKey::read(&data), None);
        let key = ApiKey::read_or_create(&data).unwrap();
        assert_eq!(key.reveal().len(), LENGTH);
        assert_eq!(ApiKey::read_or_create(&data).unwrap(), key);
        let mode = fs::metadata(ApiKey::file(&data)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{key:?}").contains(key.reveal()));
        // A truncated key, as a full disk leaves it.
        fs::write(ApiKey::file(&data), "abc").unwrap();
        let other = ApiKey::read_or_create(&data).unwrap();
        assert!(other != key && ApiKey::read(&data) == Some(other));
    }
}
