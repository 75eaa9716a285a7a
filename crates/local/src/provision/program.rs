//! Programs: what is looked for, what is found, and how one is added to a cache entry.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{apt, cache::Workshop, error::ProvisionError, tool::VersionQuery};
use crate::Part;

/// Where a program was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Configured by the user.
    Given,
    /// On PATH.
    Path,
    /// Fetched by an earlier run.
    Cache,
    /// Fetched by this run.
    Fetched,
}

/// A program that was verified to run on this machine.
#[derive(Debug, Clone)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// A directory with shared libraries that the system lacks, for `LD_LIBRARY_PATH`.
    pub library_path: Option<PathBuf>,
    /// The version that the program reports, as `major.minor.patch`.
    pub version: String,
    /// Where it was found.
    pub origin: Origin,
}

/// A program to look for.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name in events and errors.
    pub part: Part,
    /// The name of its executable and of its cache entry.
    pub binary: &'static str,
    /// The oldest supported version, major and minor.
    pub oldest: (u32, u32),
    /// How it reports its version.
    pub version: VersionQuery,
}

impl Kind {
    /// A program that prints its version on `--version`.
    #[must_use]
    pub fn new(part: Part, binary: &'static str, oldest: (u32, u32)) -> Self {
        Self { part, binary, oldest, version: VersionQuery::default() }
    }

    /// Returns the oldest supported version as `major.minor`.
    pub(super) fn needed(&self) -> String {
        format!("{}.{}", self.oldest.0, self.oldest.1)
    }

    /// Returns the executable of a cache entry, and its library directory if it has one.
    pub(super) fn locate(&self, entry: &Path) -> (PathBuf, Option<PathBuf>) {
        let libraries = entry.join("lib");
        (entry.join("bin").join(self.binary), libraries.is_dir().then_some(libraries))
    }
}

impl Workshop {
    /// Copies an executable of unpacked Debian packages to `bin`, following symlinks.
    ///
    /// # Errors
    /// When the packages lack it, or it cannot be written.
    pub fn install(&self, tree: &Path, part: Part, binary: &str) -> Result<(), ProvisionError> {
        let bin = self.entry.join("bin");
        fs::create_dir_all(&bin).map_err(ProvisionError::io("create", &bin))?;
        let file = bin.join(binary);
        fs::copy(tree.join("usr/bin").join(binary), &file).map_err(|error| ProvisionError::Unpack {
            part,
            file: format!("the packages of {binary}"),
            reason: format!("usr/bin/{binary}: {error}"),
        })?;
        make_executable(&file)
    }

    /// Copies the shared libraries of unpacked Debian packages to `lib`.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn collect_libraries(&self, tree: &Path) -> Result<(), ProvisionError> {
        apt::collect_libraries(tree, &self.entry.join("lib"))
    }
}

pub(super) fn make_executable(file: &Path) -> Result<(), ProvisionError> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).map_err(ProvisionError::io("make executable", file))
}
