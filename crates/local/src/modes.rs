//! Directories that are private to one user.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Permission bits of group and others.
const OTHERS: u32 = 0o077;

/// Removes the permissions of group and others from a directory tree. Skips symlinks and files of other users.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_symlink() {
        return Ok(());
    }
    close(path)?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            match make_private(&entry?.path()) {
                // Removed concurrently.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                closed => closed?,
            }
        }
    }
    Ok(())
}

/// Removes the permissions of group and others from one file or directory.
pub(crate) fn close(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        closed => closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("it exists").permissions().mode() & 0o777
    }

    #[test]
    fn make_private_tightens_modes_and_skips_symlinks() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let outside = dir.path().join("outside");
        fs::write(&outside, "").expect("write");
        let data = dir.path().join("data");
        fs::create_dir_all(data.join("sub")).expect("create");
        for (name, before) in [("file", 0o644), ("sub/program", 0o755), ("sub/open", 0o666), ("sub/closed", 0o400)] {
            fs::write(data.join(name), "").expect("write");
            fs::set_permissions(data.join(name), Permissions::from_mode(before)).expect("chmod");
        }
        for (directory, before) in [("sub", 0o777), ("", 0o755)] {
            fs::set_permissions(data.join(directory), Permissions::from_mode(before)).expect("chmod");
        }
        std::os::unix::fs::symlink(&outside, data.join("link")).expect("link");
        fs::set_permissions(&outside, Permissions::from_mode(0o644)).expect("chmod");
        make_private(&data).expect("owned by this user");
        for (name, after) in [("", 0o700), ("sub", 0o700), ("file", 0o600), ("sub/program", 0o700), ("sub/open", 0o600)]
        {
            assert_eq!(mode(&data.join(name)), after, "{name:?}");
        }
        assert_eq!((mode(&data.join("sub/closed")), mode(&outside)), (0o400, 0o644));
    }
}
