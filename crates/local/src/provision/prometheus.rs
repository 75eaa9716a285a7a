//! Prometheus' server and `promtool`, which checks alert rules and metrics. Only tests need them.

use std::fs;

use super::apt::{self, Packages};
use super::cache::Workshop;
use super::{Kind, Program, ProvisionError, Provisioner, make_executable};
use crate::Part;

impl Provisioner {
    /// Provides a `promtool` of version 2.40 or newer, from PATH, the cache, or the Debian package `prometheus`.
    ///
    /// # Errors
    /// When it cannot be fetched; see [`ProvisionError::hint`].
    pub async fn promtool(&self) -> Result<Program, ProvisionError> {
        self.of_prometheus(Part::Promtool, "promtool").await
    }

    /// Provides a `prometheus` of version 2.40 or newer, from the same sources.
    ///
    /// # Errors
    /// When it cannot be fetched; see [`ProvisionError::hint`].
    pub async fn prometheus(&self) -> Result<Program, ProvisionError> {
        self.of_prometheus(Part::Prometheus, "prometheus").await
    }

    async fn of_prometheus(&self, part: Part, binary: &'static str) -> Result<Program, ProvisionError> {
        let kind = Kind { part, binary, oldest: (2, 40) };
        if let Some(program) = self.local_program(&kind, None).await? {
            return Ok(program);
        }
        self.cached_program(&kind, |shop| self.make_of_prometheus(part, binary, shop)).await
    }

    async fn make_of_prometheus(&self, part: Part, binary: &str, shop: Workshop) -> Result<(), ProvisionError> {
        let packages = Packages { part, what: "Prometheus, for tests", names: &["prometheus"], licence: "Apache-2.0" };
        let tree = apt::fetch(&packages, &shop.scratch, &self.report).await?;
        let bin = shop.entry.join("bin");
        fs::create_dir_all(&bin).map_err(ProvisionError::io("create", &bin))?;
        let path = bin.join(binary);
        fs::copy(tree.join("usr/bin").join(binary), &path).map_err(ProvisionError::io("write", &path))?;
        make_executable(&path)
    }
}
