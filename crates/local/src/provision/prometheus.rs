//! `promtool`, which checks alert rules. Only tests need it.

use std::fs;

use super::apt::{self, Packages};
use super::cache::Workshop;
use super::{Kind, Program, ProvisionError, Provisioner, make_executable};
use crate::Part;

impl Provisioner {
    /// A `promtool` of version 2.40 or newer, from PATH, the cache, or Debian's package `prometheus`.
    ///
    /// # Errors
    /// When none can be fetched; the error's hint says what to do.
    pub async fn promtool(&self) -> Result<Program, ProvisionError> {
        let kind = Kind { part: Part::Promtool, binary: "promtool", oldest: (2, 40) };
        if let Some(program) = self.local_program(&kind, None).await? {
            return Ok(program);
        }
        self.cached_program(&kind, |shop| self.make_promtool(shop)).await
    }

    async fn make_promtool(&self, shop: Workshop) -> Result<(), ProvisionError> {
        let packages = Packages {
            part: Part::Promtool,
            what: "prometheus, for its promtool",
            names: &["prometheus"],
            licence: "Apache-2.0",
        };
        let tree = apt::fetch(&packages, &shop.scratch, &self.report).await?;
        let bin = shop.entry.join("bin");
        fs::create_dir_all(&bin).map_err(ProvisionError::io("create", &bin))?;
        let binary = bin.join("promtool");
        fs::copy(tree.join("usr/bin/promtool"), &binary).map_err(ProvisionError::io("write", &binary))?;
        make_executable(&binary)
    }
}
