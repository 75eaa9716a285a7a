//! The lock on a data directory.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    path::Path,
};

use super::error::StackError;
use crate::modes;

/// Held as long as a stack uses the directory. The kernel releases it when the process ends, also after a kill.
#[derive(Debug)]
pub(super) struct DataLock {
    _file: File,
}

impl DataLock {
    pub(super) fn take(data: &Path) -> Result<Self, StackError> {
        fs::create_dir_all(data).map_err(StackError::io("create", data))?;
        // Older releases left it readable for others.
        modes::make_private(data).map_err(StackError::io("restrict the permissions of", data))?;
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
        // Only for the message above, so a failure is ignored.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_fails_until_first_is_dropped() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let lock = DataLock::take(dir.path()).expect("the first");
        let error = DataLock::take(dir.path()).expect_err("the second");
        let message = error.to_string();
        assert!(message.contains(&format!("(pid {})", std::process::id())), "{message}");
        drop(lock);
        DataLock::take(dir.path()).expect("the third");
    }
}
