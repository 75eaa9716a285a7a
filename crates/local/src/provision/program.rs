//! Programs: where they are found, and how their version is checked.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{
    Provisioner, apt,
    cache::{self, Workshop},
    error::ProvisionError,
    tool,
};
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

/// How a program reports its version.
#[derive(Debug, Clone, Copy)]
pub struct VersionQuery {
    /// The argument that prints it.
    pub argument: &'static str,
    /// Returns the version in the output.
    pub parse: fn(&str) -> Option<String>,
}

impl Default for VersionQuery {
    fn default() -> Self {
        Self { argument: "--version", parse: tool::find_version }
    }
}

impl Kind {
    /// A program that prints its version on `--version`.
    #[must_use]
    pub fn new(part: Part, binary: &'static str, oldest: (u32, u32)) -> Self {
        Self { part, binary, oldest, version: VersionQuery::default() }
    }

    fn needed(&self) -> String {
        format!("{}.{}", self.oldest.0, self.oldest.1)
    }

    /// Returns the executable of a cache entry, and its library directory if it has one.
    fn locate(&self, entry: &Path) -> (PathBuf, Option<PathBuf>) {
        let libraries = entry.join("lib");
        (entry.join("bin").join(self.binary), libraries.is_dir().then_some(libraries))
    }
}

impl Provisioner {
    /// Provides a program from PATH or the cache, or lets `make` build its cache entry.
    ///
    /// # Errors
    /// When it cannot be fetched, or does not run; see [`ProvisionError::hint`].
    pub async fn program<M, MF>(&self, kind: &Kind, make: M) -> Result<Program, ProvisionError>
    where
        M: FnOnce(Workshop) -> MF,
        MF: Future<Output = Result<(), ProvisionError>>,
    {
        match self.local_program(kind, None).await? {
            Some(program) => Ok(program),
            None => self.cached_program(kind, make).await,
        }
    }

    /// Returns the configured program, or one on PATH that is new enough.
    pub(super) async fn local_program(
        &self,
        kind: &Kind,
        given: Option<&Path>,
    ) -> Result<Option<Program>, ProvisionError> {
        let part = kind.part;
        if let Some(path) = given {
            let path = path.to_owned();
            return match tool::version(&path, None, &kind.version).await {
                Ok(version) if tool::at_least(&version, kind.oldest) => {
                    Ok(Some(Program { path, library_path: None, version, origin: Origin::Given }))
                }
                Ok(found) => Err(ProvisionError::TooOld { part, path, found, needed: kind.needed() }),
                Err(reason) => Err(ProvisionError::Given { part, path, reason }),
            };
        }
        let candidates = if self.search_path { tool::on_path(kind.binary) } else { Vec::new() };
        for path in candidates {
            match tool::version(&path, None, &kind.version).await {
                Ok(version) if tool::at_least(&version, kind.oldest) => {
                    return Ok(Some(Program { path, library_path: None, version, origin: Origin::Path }));
                }
                Ok(version) => self.report_skip(
                    part,
                    format!("{} has version {version}, {} or newer is required", path.display(), kind.needed()),
                ),
                Err(reason) => self.report_skip(part, format!("{} does not run: {reason}", path.display())),
            }
        }
        Ok(None)
    }

    /// Returns the cache entry of a program, built by `make` if none runs.
    pub(super) async fn cached_program<M, MF>(&self, kind: &Kind, make: M) -> Result<Program, ProvisionError>
    where
        M: FnOnce(Workshop) -> MF,
        MF: Future<Output = Result<(), ProvisionError>>,
    {
        let part = kind.part;
        let probe = |dir: PathBuf| async move {
            let (path, library_path) = kind.locate(&dir);
            let version = tool::version(&path, library_path.as_deref(), &kind.version)
                .await
                .map_err(|reason| ProvisionError::DoesNotRun { part, reason })?;
            if tool::at_least(&version, kind.oldest) {
                Ok(version)
            } else {
                Err(ProvisionError::TooOld { part, path, found: version, needed: kind.needed() })
            }
        };
        let found = cache::entry(&self.cache, kind.binary, part, &self.report, probe, make).await?;
        let (path, library_path) = kind.locate(&found.dir);
        let origin = if found.made { Origin::Fetched } else { Origin::Cache };
        Ok(Program { path, library_path, version: found.knowledge, origin })
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
