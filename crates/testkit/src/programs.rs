//! Programs that only tests need: from PATH, tidewheel's cache, or Debian packages.

use std::fs;
use std::path::PathBuf;

use tidewheel_local::provision::{Kind, Packages, Program, ProvisionError, Provisioner, VersionQuery, Workshop};
use tidewheel_local::{Part, silent};

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

/// Provides Chromium, the first version with `light-dark()`, which the pages use, or a newer one. A fetched one brings its
/// fonts: see [`fonts`].
///
/// # Errors
/// When it cannot be fetched; see [`ProvisionError::hint`].
pub async fn chromium() -> Result<Program, ProvisionError> {
    let part = Part { name: "chromium", by_hand: "install the Debian package chromium" };
    let packages = Packages {
        part,
        what: "Chromium with libraries and fonts, for console tests",
        names: &["chromium", "fonts-liberation"],
        licence: "BSD-3-Clause",
    };
    let provisioner = Provisioner::new(silent())?;
    let make = |shop: Workshop| {
        let (provisioner, packages) = (&provisioner, &packages);
        async move {
            let tree = provisioner.fetch_packages(packages, &shop).await?;
            shop.collect_libraries(&tree)?;
            // Chromium looks for its resources in its own directory.
            let (packed, bin) = (tree.join("usr/lib/chromium"), shop.entry.join("bin"));
            fs::rename(&packed, &bin).map_err(ProvisionError::io("move", &packed))?;
            let (packed, fonts) = (tree.join("usr/share/fonts/truetype/liberation"), shop.entry.join("fonts"));
            if !packed.is_dir() {
                // Installed on the system, with a configuration that finds them.
                return Ok(());
            }
            fs::rename(&packed, &fonts).map_err(ProvisionError::io("move", &packed))?;
            let file = fonts.join("fonts.conf");
            fs::write(&file, FONTS).map_err(ProvisionError::io("write", file))
        }
    };
    provisioner.program(&Kind::new(part, "chromium", (123, 0)), make).await
}

/// Returns a value for `FONTCONFIG_FILE` with the fonts of a fetched Chromium, if there are any.
#[must_use]
pub fn fonts(chromium: &Program) -> Option<PathBuf> {
    let file = chromium.path.parent()?.parent()?.join("fonts/fonts.conf");
    file.is_file().then_some(file)
}

/// Provides tmux, in which tests capture terminal output.
///
/// # Errors
/// When it cannot be fetched; see [`ProvisionError::hint`].
pub async fn tmux() -> Result<Program, ProvisionError> {
    let part = Part { name: "tmux", by_hand: "install the Debian package tmux" };
    let packages =
        Packages { part, what: "tmux with its libraries, for terminal tests", names: &["tmux"], licence: "ISC" };
    let version = VersionQuery { argument: "-V", parse: tmux_version };
    from_packages(&Kind { version, ..Kind::new(part, "tmux", (3, 0)) }, &packages).await
}

/// The version of `tmux 3.3a`, without the letter.
fn tmux_version(output: &str) -> Option<String> {
    let version = output.trim().strip_prefix("tmux ")?.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    Some(version.to_owned())
}

/// Provides `promtool`, which checks alert rules and metrics.
///
/// # Errors
/// When it cannot be fetched; see [`ProvisionError::hint`].
pub async fn promtool() -> Result<Program, ProvisionError> {
    of_prometheus("promtool").await
}

/// Provides Prometheus' server.
///
/// # Errors
/// When it cannot be fetched; see [`ProvisionError::hint`].
pub async fn prometheus() -> Result<Program, ProvisionError> {
    of_prometheus("prometheus").await
}

async fn of_prometheus(name: &'static str) -> Result<Program, ProvisionError> {
    let part = Part { name, by_hand: "install the Debian package prometheus" };
    let packages = Packages { part, what: "Prometheus, for tests", names: &["prometheus"], licence: "Apache-2.0" };
    from_packages(&Kind::new(part, name, (2, 40)), &packages).await
}

async fn from_packages(kind: &Kind, packages: &Packages<'_>) -> Result<Program, ProvisionError> {
    let provisioner = Provisioner::new(silent())?;
    let make = |shop: Workshop| {
        let provisioner = &provisioner;
        async move {
            let tree = provisioner.fetch_packages(packages, &shop).await?;
            shop.collect_libraries(&tree)?;
            shop.install(&tree, kind.part, kind.binary)
        }
    };
    provisioner.program(kind, make).await
}

#[cfg(test)]
mod tests {
    use super::tmux_version;

    #[test]
    fn tmux_version_has_no_letter() {
        assert_eq!(tmux_version("tmux 3.3a\n").as_deref(), Some("3.3"));
        assert_eq!(tmux_version("tmux 3.5").as_deref(), Some("3.5"));
        assert_eq!(tmux_version("usage: tmux"), None);
    }
}
