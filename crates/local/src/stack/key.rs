//! The API key of the stack's Qdrant: made once, kept beside its data, readable by its owner alone.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

/// The file below the data directory.
const FILE: &str = "qdrant-api-key";

/// A shorter one was not written by us to its end.
const LENGTH: usize = 64;

/// An API key. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A key that somebody chose.
    pub fn new(key: impl Into<String>) -> Self {
        Self(key.into())
    }

    /// The key in the file of this data directory, if there is one.
    pub fn read(data: &Path) -> Option<Self> {
        let text = fs::read_to_string(Self::file(data)).ok()?;
        let key = text.trim();
        (key.len() >= LENGTH).then(|| Self(key.to_owned()))
    }

    /// The key in the file of this data directory; makes one if there is none.
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

    /// Where the key of this data directory is.
    pub fn file(data: &Path) -> PathBuf {
        data.join(FILE)
    }

    /// The key itself.
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
    fn key_is_made_once_long_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert_eq!(ApiKey::read(&data), None);
        let key = ApiKey::read_or_create(&data).unwrap();
        assert_eq!(key.reveal().len(), LENGTH);
        assert_eq!(ApiKey::read_or_create(&data).unwrap(), key);
        let mode = fs::metadata(ApiKey::file(&data)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{key:?}").contains(key.reveal()));
        // One that was cut short, as a full disk leaves it.
        fs::write(ApiKey::file(&data), "abc").unwrap();
        let other = ApiKey::read_or_create(&data).unwrap();
        assert!(other != key && ApiKey::read(&data) == Some(other));
    }
}
