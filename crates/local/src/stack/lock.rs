//! The lock on a data directory.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::Path,
};

use super::StackError;
use crate::modes;

/// Held as long as a stack uses the directory. The system releases it when the process ends, however that happens.
#[derive(Debug)]
pub(super) struct DataLock {
    _file: File,
}

impl DataLock {
    pub(super) fn take(data: &Path) -> Result<Self, StackError> {
        fs::create_dir_all(data).map_err(StackError::io("create", data))?;
        // An older release left it readable for others.
        modes::make_private(data).map_err(StackError::io("take others' rights to", data))?;
        let path = data.join("lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(StackError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).ok().map(|pid| pid.trim().to_owned());
                let holder = holder.filter(|pid| !pid.is_empty()).map(|pid| format!("pid {pid}"));
                return Err(StackError::Locked { path: data.to_owned(), holder });
            }
            Err(TryLockError::Error(source)) => return Err(StackError::Io { action: "lock", path, source }),
        }
        // Only for the message above, so a failure does no harm.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once_and_free_afterwards() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lock = DataLock::take(dir.path()).expect("the first");
        let error = DataLock::take(dir.path()).expect_err("the second");
        let message = error.to_string();
        assert!(message.contains(&format!("by pid {}", std::process::id())), "{message}");
        drop(lock);
        DataLock::take(dir.path()).expect("the third");
    }
}
