//! SHA-256 checksums of files.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use sha2::{Digest, Sha256};
use tidewheel_core::hex::hex;

use super::error::ProvisionError;
use crate::Part;

/// Fits the L2 cache and keeps system calls rare.
const BUFFER_BYTES: usize = 256 * 1024;

/// Returns the SHA-256 of a file's content in lower-case hexadecimal.
pub(super) fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    Ok(hex(&hasher.finalize()))
}

/// Rejects a file whose checksum differs from the pinned one.
pub(super) fn verify(part: Part, path: &Path, expected: &str) -> Result<(), ProvisionError> {
    let found = sha256(path).map_err(ProvisionError::io("read", path))?;
    if found == expected {
        return Ok(());
    }
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Err(ProvisionError::Checksum { part, file, expected: expected.to_owned(), found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_matches_known_digest_and_verify_rejects_other_content() -> io::Result<()> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), "abc")?;
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(file.path())?, abc);
        assert!(verify(Part::MODEL, file.path(), abc).is_ok());
        std::fs::write(file.path(), "abd")?;
        assert!(matches!(verify(Part::MODEL, file.path(), abc), Err(ProvisionError::Checksum { .. })));
        Ok(())
    }
}
