//! Gets Chromium, which the tests of the web console drive.

use std::fs;

use super::apt::{self, Packages};
use super::cache::Workshop;
use super::error::ProvisionError;
use super::{Kind, Program, Provisioner};
use crate::Part;

/// The pages use `light-dark()`, which is this old.
const OLDEST: (u32, u32) = (123, 0);

/// Finds the fonts beside this file, wherever the cache is, so that pages look the same on every machine.
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
    /// A Chromium, for tests. One that was fetched has fonts of its own: see [`Program::fonts`].
    ///
    /// # Errors
    /// When none can be fetched; the error's hint says what to do.
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
            what: "Chromium with its libraries and fonts, for the console's tests",
            names: &["chromium", "fonts-liberation"],
            licence: "BSD-3-Clause",
        };
        let tree = apt::fetch(&packages, &shop.scratch, &self.report).await?;
        apt::collect_libraries(&tree, &shop.entry.join("lib"))?;
        // It looks for its resources beside itself.
        let (packed, bin) = (tree.join("usr/lib/chromium"), shop.entry.join("bin"));
        fs::rename(&packed, &bin).map_err(ProvisionError::io("move", &packed))?;
        let (packed, fonts) = (tree.join("usr/share/fonts/truetype/liberation"), shop.entry.join("fonts"));
        if packed.is_dir() {
            fs::rename(&packed, &fonts).map_err(ProvisionError::io("move", &packed))?;
        } else {
            // The system has them already, with a configuration that finds them.
            return Ok(());
        }
        let file = fonts.join("fonts.conf");
        fs::write(&file, FONTS).map_err(ProvisionError::io("write", file))
    }
}

impl Program {
    /// A configuration for `FONTCONFIG_FILE` with the fonts that came with the program, if any did.
    #[must_use]
    pub fn fonts(&self) -> Option<std::path::PathBuf> {
        let file = self.path.parent()?.parent()?.join("fonts/fonts.conf");
        file.is_file().then_some(file)
    }
}
