//! Provisions tmux, in which tests capture terminal output.

use std::fs;
use std::path::Path;

use tokio::process::Command;

use super::apt::{self, Packages};
use super::cache::{self, Found, Workshop};
use super::{Origin, Program, ProvisionError, Provisioner, library_path_with, make_executable, tool};
use crate::Part;

impl Provisioner {
    /// Provides tmux, for tests, from PATH, the cache, or the Debian package.
    ///
    /// # Errors
    /// When it cannot be fetched; see [`ProvisionError::hint`].
    pub async fn tmux(&self) -> Result<Program, ProvisionError> {
        for path in if self.search_path { tool::on_path("tmux") } else { Vec::new() } {
            match version(&path, None).await {
                Ok(version) => return Ok(Program { path, library_path: None, version, origin: Origin::Path }),
                Err(error) => self.report_skip(Part::Tmux, format!("{} does not run: {error}", path.display())),
            }
        }
        let place = |entry: &Path| (entry.join("bin/tmux"), entry.join("lib"));
        let probe = |entry: std::path::PathBuf| async move {
            let (path, libraries) = place(&entry);
            version(&path, Some(&libraries)).await
        };
        let make = |shop: Workshop| self.make_tmux(shop);
        let found: Found<String> = cache::entry(&self.cache, "tmux", Part::Tmux, &self.report, probe, make).await?;
        let (path, libraries) = place(&found.dir);
        let origin = if found.made { Origin::Fetched } else { Origin::Cache };
        Ok(Program { path, library_path: Some(libraries), version: found.knowledge, origin })
    }

    async fn make_tmux(&self, shop: Workshop) -> Result<(), ProvisionError> {
        let packages = Packages {
            part: Part::Tmux,
            what: "tmux with its libraries, for terminal tests",
            names: &["tmux"],
            licence: "ISC",
        };
        let tree = apt::fetch(&packages, &shop.scratch, &self.report).await?;
        apt::collect_libraries(&tree, &shop.entry.join("lib"))?;
        let bin = shop.entry.join("bin");
        fs::create_dir_all(&bin).map_err(ProvisionError::io("create", &bin))?;
        let binary = bin.join("tmux");
        fs::copy(tree.join("usr/bin/tmux"), &binary).map_err(ProvisionError::io("write", &binary))?;
        make_executable(&binary)
    }
}

/// Returns the version, such as `3.3a`: two numbers and an optional letter. tmux' flag is `-V`.
async fn version(program: &Path, libraries: Option<&Path>) -> Result<String, ProvisionError> {
    let mut command = Command::new(program);
    command.arg("-V");
    if let Some(dir) = libraries {
        let existing = std::env::var_os("LD_LIBRARY_PATH");
        command.env("LD_LIBRARY_PATH", library_path_with(dir, existing.as_deref()));
    }
    let output = tool::run(Part::Tmux, "tmux -V", command).await?;
    Ok(output.trim().trim_start_matches("tmux ").to_owned())
}
