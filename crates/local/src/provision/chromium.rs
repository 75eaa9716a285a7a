//! Provisions Chromium for the tests of the web console.

use std::fs;

use super::apt::{self, Packages};
use super::cache::Workshop;
use super::error::ProvisionError;
use super::{Kind, Program, Provisioner};
use crate::Part;

/// The first version with `light-dark()`, which the pages use.
const OLDEST: (u32, u32) = (123, 0);

/// Uses the fonts in this file's directory, so that pages look the same on every machine.
const FONTS: &str = r#"<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">
<fontconfig>
  <dir prefix="relative">.</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
  <alias><family>sans-serif</family><prefer><family>Liberation Sans</family></prefer></alias>
  <alias><family>system-ui</family><prefer><family>Liberation Sans</family></prefer></alias>
  <alias><family>monospace</family><prefer><family>Liberation Mono</family></prefer></alias>
  <alias><family>ui-monospace</family><prefer><family>Liberation Mono</family></prefer></alias>
  <match target="pattern">
    <edit name="family" mode="append_last" binding="weak"><string>Liberation Sans</string></edit>
  </match>
</fontconfig>
"#;

impl Provisioner {
    /// Provides Chromium, for tests. A fetched one brings its fonts: see [`Program::fonts`].
    ///
    /// # Errors
    /// When it cannot be fetched; see [`ProvisionError::hint`].
    pub async fn chromium(&self) -> Result<Program, ProvisionError> {
        let kind = Kind { part: Part::Chromium, binary: "chromium", oldest: OLDEST };
        if let Some(program) = self.local_program(&kind, None).await? {
            return Ok(program);
        }
        self.cached_program(&kind, |shop| self.make_chromium(shop)).await
    }

    async fn make_chromium(&self, shop: Workshop) -> Result<(), ProvisionError> {
        let packages = Packages {
            part: Part::Chromium,
            what: "Chromium with libraries and fonts, for console tests",
            names: &["chromium", "fonts-liberation"],
            licence: "BSD-3-Clause",
        };
        let tree = apt::fetch(&packages, &shop.scratch, &self.report).await?;
        apt::collect_libraries(&tree, &shop.entry.join("lib"))?;
        // Chromium looks for its resources in its own directory.
        let (packed, bin) = (tree.join("usr/lib/chromium"), shop.entry.join("bin"));
        fs::rename(&packed, &bin).map_err(ProvisionError::io("move", &packed))?;
        let (packed, fonts) = (tree.join("usr/share/fonts/truetype/liberation"), shop.entry.join("fonts"));
        if packed.is_dir() {
            fs::rename(&packed, &fonts).map_err(ProvisionError::io("move", &packed))?;
        } else {
            // Installed on the system, with a configuration that finds them.
            return Ok(());
        }
        let file = fonts.join("fonts.conf");
        fs::write(&file, FONTS).map_err(ProvisionError::io("write", file))
    }
}

impl Program {
    /// Returns a value for `FONTCONFIG_FILE` with the bundled fonts, if there are any.
    #[must_use]
    pub fn fonts(&self) -> Option<std::path::PathBuf> {
        let file = self.path.parent()?.parent()?.join("fonts/fonts.conf");
        file.is_file().then_some(file)
    }
}
