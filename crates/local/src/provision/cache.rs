//! The cache directory: one entry per provisioned part.
//!
//! Guarantees: an entry is either absent or complete (it is built in a temporary directory and renamed into place); two
//! processes never build the same entry at once (one holds the entry's lock, the other waits and then finds it
//! complete); a corrupted entry is detected and rebuilt.

use std::{
    env,
    fs::{self, File, TryLockError},
    future::Future,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};

use super::{checksum, error::ProvisionError, tool};
use crate::{Event, Part, Report, modes};

/// Lists the files of an entry. Written last: an entry without it is incomplete.
const MANIFEST: &str = "tidewheel-entry.json";

/// Returns `$TIDEWHEEL_CACHE`, else `$XDG_CACHE_HOME/tidewheel`, else `~/.cache/tidewheel`.
///
/// # Errors
/// [`ProvisionError::NoCacheDirectory`] when none of the variables is set.
pub fn default_cache() -> Result<PathBuf, ProvisionError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("TIDEWHEEL_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("tidewheel")))
        .or_else(|| Some(set("HOME")?.join(".cache/tidewheel")))
        .ok_or(ProvisionError::NoCacheDirectory)
}

/// The directories in which a new entry is built. Both exist; only `entry` is kept.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// Becomes the entry.
    pub entry: PathBuf,
    /// For downloads; removed afterwards.
    pub scratch: PathBuf,
}

/// A complete entry.
#[derive(Debug)]
pub(super) struct Found<T> {
    pub(super) dir: PathBuf,
    /// Whether this call built it.
    pub(super) made: bool,
    /// The probe's result.
    pub(super) knowledge: T,
}

/// Finds the entry `name` or builds it.
///
/// `probe` verifies that an entry works on this machine; an entry that fails the probe counts as corrupted. `make`
/// fills the workshop.
pub(super) async fn entry<T, P, PF, M, MF>(
    root: &Path,
    name: &str,
    part: Part,
    report: &Report,
    probe: P,
    make: M,
) -> Result<Found<T>, ProvisionError>
where
    P: Fn(PathBuf) -> PF,
    PF: Future<Output = Result<T, ProvisionError>>,
    M: FnOnce(Workshop) -> MF,
    MF: Future<Output = Result<(), ProvisionError>>,
{
    fs::create_dir_all(root).map_err(ProvisionError::io("create", root))?;
    modes::close(root).map_err(ProvisionError::io("restrict the permissions of", root))?;
    let dir = root.join(name);
    let _lock = lock(root, name, part, report).await?;
    let there = dir.clone();
    if tool::blocking(move || is_whole(&there)).await
        && let Ok(knowledge) = probe(dir.clone()).await
    {
        return Ok(Found { dir, made: false, knowledge });
    }

    // Leftovers of a process that died: this one holds the lock.
    let prefix = format!(".{name}.making-");
    for stale in fs::read_dir(root).map_err(ProvisionError::io("read", root))?.flatten() {
        if stale.file_name().to_string_lossy().starts_with(&prefix) {
            let path = stale.path();
            fs::remove_dir_all(&path).map_err(ProvisionError::io("remove", path))?;
        }
    }
    let aside = tempfile::Builder::new()
        .prefix(&prefix)
        .tempdir_in(root)
        .map_err(ProvisionError::io("create a directory in", root))?;
    let workshop = Workshop { entry: aside.path().join("entry"), scratch: aside.path().join("scratch") };
    for new in [&workshop.entry, &workshop.scratch] {
        fs::create_dir(new).map_err(ProvisionError::io("create", new))?;
    }
    make(workshop.clone()).await?;
    let knowledge = probe(workshop.entry.clone()).await?;
    let entry = workshop.entry.clone();
    tool::blocking(move || write_manifest(&entry)).await?;
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(ProvisionError::io("remove", &dir))?;
    }
    fs::rename(&workshop.entry, &dir).map_err(ProvisionError::io("write", &dir))?;
    Ok(Found { dir, made: true, knowledge })
}

/// Takes the entry's lock. The kernel releases it with the file, even if this process is killed.
async fn lock(root: &Path, name: &str, part: Part, report: &Report) -> Result<File, ProvisionError> {
    let path = root.join(format!("{name}.lock"));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(ProvisionError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => report(Event::Waiting { part }),
        Err(TryLockError::Error(source)) => return Err(ProvisionError::Io { action: "lock", path, source }),
    }
    tool::blocking(move || file.lock().map(|()| file)).await.map_err(ProvisionError::io("lock", path))
}

#[derive(Serialize, Deserialize)]
struct Manifest {
    files: Vec<Listed>,
}

/// A file as it was when the entry was built. Its checksum is only recomputed when the modification time differs:
/// hashing hundreds of megabytes at every start would be slow.
#[derive(Serialize, Deserialize, PartialEq)]
struct Listed {
    path: PathBuf,
    bytes: u64,
    modified_ns: u64,
    sha256: String,
}

fn write_manifest(entry: &Path) -> Result<(), ProvisionError> {
    let mut files = Vec::new();
    let mut dirs = vec![entry.to_owned()];
    while let Some(dir) = dirs.pop() {
        for child in fs::read_dir(&dir).map_err(ProvisionError::io("read", &dir))?.flatten() {
            let path = child.path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let (bytes, modified_ns) = stat(&path).map_err(ProvisionError::io("read", &path))?;
            let sha256 = checksum::sha256(&path).map_err(ProvisionError::io("read", &path))?;
            let path = path.strip_prefix(entry).unwrap_or(&path).to_owned();
            files.push(Listed { path, bytes, modified_ns, sha256 });
        }
    }
    let path = entry.join(MANIFEST);
    let json = serde_json::to_vec_pretty(&Manifest { files }).map_err(std::io::Error::other);
    json.and_then(|json| fs::write(&path, json)).map_err(ProvisionError::io("write", &path))
}

fn stat(path: &Path) -> std::io::Result<(u64, u64)> {
    let meta = fs::metadata(path)?;
    let modified = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok((meta.len(), u64::try_from(modified.as_nanos()).unwrap_or(0)))
}

/// Whether every file of the entry is unchanged.
pub(super) fn is_whole(entry: &Path) -> bool {
    let Ok(json) = fs::read(entry.join(MANIFEST)) else { return false };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&json) else { return false };
    !manifest.files.is_empty()
        && manifest.files.iter().all(|file| {
            let path = entry.join(&file.path);
            match stat(&path) {
                Ok((bytes, modified)) if bytes == file.bytes => {
                    modified == file.modified_ns || checksum::sha256(&path).is_ok_and(|sum| sum == file.sha256)
                }
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::silent;

    struct Bench {
        root: tempfile::TempDir,
        made: AtomicUsize,
    }

    impl Bench {
        fn new() -> Self {
            Self { root: tempfile::tempdir().expect("a temporary directory"), made: AtomicUsize::new(0) }
        }

        async fn get(&self) -> Result<Found<String>, ProvisionError> {
            let read = |dir: PathBuf| async move {
                let file = dir.join("sub/file");
                fs::read_to_string(&file).map_err(ProvisionError::io("read", file))
            };
            let make = |shop: Workshop| async move {
                self.made.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                fs::write(shop.scratch.join("download"), "x").expect("write");
                fs::create_dir(shop.entry.join("sub")).expect("create");
                fs::write(shop.entry.join("sub/file"), "content").expect("write");
                Ok(())
            };
            entry(self.root.path(), "thing", Part::MODEL, &silent(), read, make).await
        }

        fn made(&self) -> usize {
            self.made.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn concurrent_requests_build_entry_once_and_leave_no_temporary_files() {
        let bench = Bench::new();
        let (first, second) = tokio::join!(bench.get(), bench.get());
        let (first, second) = (first.expect("first"), second.expect("second"));
        assert!(first.made != second.made, "one builds it, the other waits");
        assert_eq!((first.knowledge.as_str(), second.knowledge.as_str()), ("content", "content"));
        assert_eq!(bench.made(), 1);
        let mut left: Vec<_> =
            fs::read_dir(bench.root.path()).expect("read").flatten().map(|e| e.file_name()).collect();
        left.sort();
        assert_eq!(left, ["thing", "thing.lock"]);
    }

    #[tokio::test]
    async fn corrupted_entry_is_rebuilt() {
        let bench = Bench::new();
        let dir = bench.get().await.expect("made").dir;
        type Damage = fn(&Path) -> std::io::Result<()>;
        let damages: [Damage; 4] = [
            |dir| fs::write(dir.join("sub/file"), "CONTENT"),
            |dir| fs::write(dir.join("sub/file"), "cont"),
            |dir| fs::remove_file(dir.join("sub/file")),
            |dir| fs::remove_file(dir.join(MANIFEST)),
        ];
        for (index, damage) in damages.iter().enumerate() {
            damage(&dir).expect("damage");
            let found = bench.get().await.expect("repaired");
            assert_eq!((found.made, found.knowledge.as_str()), (true, "content"));
            assert_eq!(bench.made(), index + 2);
        }
    }

    #[tokio::test]
    async fn touched_file_keeps_entry_valid() {
        let bench = Bench::new();
        let dir = bench.get().await.expect("made").dir;
        let file = File::options().write(true).open(dir.join("sub/file")).expect("open");
        file.set_modified(UNIX_EPOCH).expect("touch");
        assert!(!bench.get().await.expect("found").made);
    }

    #[tokio::test]
    async fn failed_build_leaves_no_entry() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let fail = |_: Workshop| async { Err(ProvisionError::NoTool { part: Part::MODEL, tool: "none" }) };
        let found = entry(root.path(), "thing", Part::MODEL, &silent(), |_| async { Ok(()) }, fail).await;
        assert!(matches!(found, Err(ProvisionError::NoTool { .. })));
        assert!(!root.path().join("thing").exists());
    }
}
