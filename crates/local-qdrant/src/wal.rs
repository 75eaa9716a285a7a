//! Bounds the size of the engine's own write-ahead log.
//!
//! The engine appends every operation to `wal/`, but never reads or truncates it: this server's log replaces it. Only
//! the newest closed file and the open one are required, which determine the number of the next operation. All older
//! files are unused. The engine maps them while it runs, so their blocks are released by punching holes; on start they
//! are deleted.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// The engine's `wal/` directory.
#[derive(Debug)]
pub(crate) struct EngineWal {
    directory: PathBuf,
    released: HashSet<PathBuf>,
}

impl EngineWal {
    pub(crate) fn new(shard: &Path) -> Self {
        Self { directory: shard.join("wal"), released: HashSet::new() }
    }

    /// Releases the space of all closed files except the newest. `delete` removes the files themselves, which is safe
    /// only while the engine does not have them open.
    pub(crate) fn release(&mut self, delete: bool) {
        if let Err(error) = self.try_release(delete) {
            let directory = self.directory.display();
            tracing::warn!(%directory, %error, "failed to release old files of the engine's log");
        }
    }

    fn try_release(&mut self, delete: bool) -> io::Result<()> {
        let mut closed = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if let Some(start) = closed_start(&path) {
                closed.push((start, path));
            }
        }
        closed.sort_unstable();
        closed.pop();
        for (_, path) in closed {
            if delete {
                fs::remove_file(&path)?;
            } else if !self.released.contains(&path) {
                let file = File::options().write(true).open(&path)?;
                let length = file.metadata()?.len();
                if length > 0 {
                    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, length)?;
                }
                self.released.insert(path);
            }
        }
        Ok(())
    }
}

/// Returns the first operation of a closed file from its name, such as `closed-128`.
fn closed_start(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix("closed-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_keeps_newest_closed_file() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("wal");
        fs::create_dir(&wal).unwrap();
        for name in ["closed-9", "closed-100", "closed-20", "open-4", "first-index"] {
            fs::write(wal.join(name), vec![1; 8192]).unwrap();
        }
        let mut engine_wal = EngineWal::new(dir.path());
        engine_wal.try_release(false).unwrap();
        let content = |name: &str| fs::read(wal.join(name)).unwrap();
        assert_eq!(content("closed-9"), vec![0; 8192], "blocks released");
        assert_eq!(content("closed-20"), vec![0; 8192]);
        assert_eq!(content("closed-100"), vec![1; 8192], "newest closed file kept");
        assert_eq!(content("open-4"), vec![1; 8192]);

        engine_wal.try_release(true).unwrap();
        let mut left: Vec<_> = fs::read_dir(&wal).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["closed-100", "first-index", "open-4"]);
    }
}
