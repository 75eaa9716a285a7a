//! Fetches Debian packages with their missing dependencies, without installing anything.
//!
//! apt itself resolves, downloads and verifies, with the user's sources, proxies and keys; signature checks stay
//! enabled. Package lists and archives go to a private directory, so that neither root nor the system's (often empty)
//! lists are needed and the system is not modified. Installed packages are not fetched.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use tokio::process::Command;

use super::{error::ProvisionError, progress, tool};
use crate::{Event, Part, Report};

/// Packages to fetch, with display texts.
pub struct Packages<'a> {
    /// The part that they belong to.
    pub part: Part,
    /// Display name.
    pub what: &'a str,
    /// Their names.
    pub names: &'a [&'a str],
    /// SPDX identifiers of their licences.
    pub licence: &'static str,
}

/// Downloads the packages, unpacks them over one another into `dir/tree` and returns that path.
pub(super) async fn fetch(packages: &Packages<'_>, dir: &Path, report: &Report) -> Result<PathBuf, ProvisionError> {
    let part = packages.part;
    for tool in ["apt-get", "dpkg-deb"] {
        if tool::on_path(tool).is_empty() {
            return Err(ProvisionError::NoTool { part, tool });
        }
    }
    let state = dir.join("apt");
    let archives = state.join("archives");
    for new in [archives.join("partial"), state.join("lists/partial")] {
        fs::create_dir_all(&new).map_err(ProvisionError::io("create", new))?;
    }
    let config = state.join("apt.conf");
    fs::write(&config, configuration(&state)).map_err(ProvisionError::io("write", &config))?;
    let apt_get = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.arg("--config-file").arg(&config).args(arguments).env("LC_ALL", "C");
        command
    };

    let begun = Instant::now();
    // One bad source fails the whole update; the others may suffice. Unsigned lists are never used.
    let update = tool::run(part, "apt-get update", apt_get(&["--quiet=2", "update"])).await;
    let mut install = vec!["--quiet=2", "--download-only", "--no-upgrade", "install"];
    install.extend(packages.names);
    let mut plan = install.clone();
    plan.insert(0, "--print-uris");
    let plan = tool::run(part, "apt-get install --print-uris", apt_get(&plan)).await;
    let bytes = planned_bytes(&plan.map_err(|error| update.err().unwrap_or(error))?);
    report(Event::Fetching {
        part,
        what: packages.what.into(),
        from: "the system's package sources",
        bytes: Some(bytes),
        licence: packages.licence,
    });
    let step = format!("apt-get download of {}", packages.names.join(", "));
    progress::watch(part, &archives, Some(bytes), report, tool::run(part, &step, apt_get(&install))).await?;

    let tree = dir.join("tree");
    fs::create_dir_all(&tree).map_err(ProvisionError::io("create", &tree))?;
    for entry in fs::read_dir(&archives).map_err(ProvisionError::io("read", &archives))?.flatten() {
        let deb = entry.path();
        if deb.extension().is_some_and(|extension| extension == "deb") {
            let mut command = Command::new("dpkg-deb");
            command.arg("--extract").arg(&deb).arg(&tree);
            tool::run(part, "dpkg-deb --extract", command).await?;
        }
    }
    report(Event::Fetched { part, took: begun.elapsed() });
    Ok(tree)
}

/// Returns apt's configuration, which overrides the system's.
///
/// - Hooks are cleared: they would modify the system (refresh desktop caches, empty the system's archive).
/// - No locks and no sandbox user: the directories are private to this run.
/// - Options that disable signature checks are off, regardless of the system's configuration.
fn configuration(state: &Path) -> String {
    let state = state.display();
    format!(
        r##"#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
Dir::Cache "{state}";
Dir::Cache::archives "{state}/archives";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Dir::State::Lists "{state}/lists";
Dir::Log "{state}";
Debug::NoLocking "true";
APT::Sandbox::User "";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::IndexTargets::deb-src::Sources::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
APT::Get::Assume-Yes "true";
APT::Install-Recommends "false";
APT::Install-Suggests "false";
"##
    )
}

/// Sums the sizes in `apt-get --print-uris` output, whose lines are `'URI' name size checksum`.
fn planned_bytes(output: &str) -> u64 {
    output
        .lines()
        .filter(|line| line.starts_with('\''))
        .filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok())
        .sum()
}

/// Copies every shared library of an unpacked tree into one flat directory, following symlinks.
///
/// Skips libc and the dynamic loader, which have to match the system's.
pub(super) fn collect_libraries(tree: &Path, into: &Path) -> Result<(), ProvisionError> {
    fs::create_dir_all(into).map_err(ProvisionError::io("create", into))?;
    let mut dirs = vec![tree.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).map_err(ProvisionError::io("read", &dir))?.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push(path);
            } else if is_library(&entry.file_name().to_string_lossy()) && path.is_file() {
                let target = into.join(entry.file_name());
                fs::copy(&path, &target).map_err(ProvisionError::io("write", target))?;
            }
        }
    }
    Ok(())
}

fn is_library(name: &str) -> bool {
    let libc = ["libc.so", "ld-linux", "libm.so", "libpthread.so", "libdl.so", "librt.so", "libresolv.so"];
    (name.ends_with(".so") || name.contains(".so.")) && !libc.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planned_bytes_sums_sizes_and_ignores_other_lines() {
        let output = "Reading package lists...\n'http://host/a.deb' a_1_amd64.deb 275000 SHA256:aa\n\
                      'http://host/b.deb' b_5%3a7_amd64.deb 10192 SHA256:bb\n";
        assert_eq!(planned_bytes(output), 285_192);
        assert_eq!(planned_bytes(""), 0);
    }

    #[test]
    fn libc_is_never_collected() {
        assert!(is_library("libjemalloc.so.2"));
        assert!(is_library("liblzf.so"));
        assert!(!is_library("libc.so.6"));
        assert!(!is_library("ld-linux-x86-64.so.2"));
        assert!(!is_library("libfoo.a"));
    }
}
