//! Finds the program that serves Qdrant's API for the stack.
//!
//! ```text
//! tidewheel-local-qdrant beside this executable ─▶ qdrant on PATH ─▶ cargo build, in a source checkout ─▶ error
//! ```

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;

use super::{error::StackError, qdrant::QdrantProgram};
use crate::{Event, Report, provision};

/// The program, and the package that it is built from.
const NAME: &str = "tidewheel-local-qdrant";

/// This crate in the source tree that it was built from, which is on another machine for most users.
const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// Finds Qdrant, or builds the local one.
///
/// # Errors
/// When there is none and this executable was not built in a source checkout of this machine, or the build fails.
pub(super) async fn find(report: &Report) -> Result<QdrantProgram, StackError> {
    let this = std::env::current_exe().map_err(StackError::io("find", "this executable"))?;
    let local = |program: PathBuf| QdrantProgram::Command(vec![program.into()]);
    if let Some(program) = beside(&this) {
        return Ok(local(program));
    }
    if let Some(program) = provision::on_path("qdrant") {
        return Ok(QdrantProgram::Binary(program));
    }
    let build = Build::of(&this, Path::new(SOURCE)).ok_or(StackError::NoQdrant)?;
    build.run(report).await?;
    beside(&this).map(local).ok_or(StackError::NoQdrant)
}

/// Returns the local Qdrant in the directory of an executable, if there is one. Cargo keeps tests and examples one directory below the programs.
pub fn beside(executable: &Path) -> Option<PathBuf> {
    let directory = executable.parent()?;
    let of_tests = directory.parent().filter(|_| directory.ends_with("deps") || directory.ends_with("examples"));
    [Some(directory), of_tests].into_iter().flatten().map(|directory| directory.join(NAME)).find(|path| path.is_file())
}

/// A build into the directory of an executable that Cargo has built.
#[derive(Debug, PartialEq, Eq)]
struct Build {
    /// Of the workspace.
    manifest: PathBuf,
    target: PathBuf,
    profile: String,
}

impl Build {
    /// `None` where the source is gone, or the executable is not in a target directory of Cargo.
    fn of(executable: &Path, source: &Path) -> Option<Self> {
        let crates = source.parent()?;
        let manifest = crates.parent()?.join("Cargo.toml");
        let mut directory = executable.parent()?;
        if directory.ends_with("deps") || directory.ends_with("examples") {
            directory = directory.parent()?;
        }
        let target = directory.parent()?;
        if !crates.join("local-qdrant/Cargo.toml").is_file() || !target.join("CACHEDIR.TAG").is_file() {
            return None;
        }
        let profile = match directory.file_name()?.to_str()? {
            "debug" => "dev",
            other => other,
        };
        Some(Self { manifest, target: target.to_owned(), profile: profile.to_owned() })
    }

    /// Builds the package. Nothing but Cargo's own lock keeps two builds apart.
    async fn run(&self, report: &Report) -> Result<(), StackError> {
        let started = Instant::now();
        let total = self.crates().await?;
        report(Event::Compiling { what: NAME, done: 0, total });
        let mut command = self.cargo("build");
        // `--bin` and not `--package`, which would select other features for the crates that the two programs share and
        // compile those again.
        command.args([
            "--bin",
            NAME,
            "--profile",
            &self.profile,
            "--message-format",
            "json",
            "--quiet",
            "--target-dir",
        ]);
        let mut child = command
            .arg(&self.target)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(StackError::io("run", "cargo"))?;
        let (Some(stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(self.failed(&"no output"));
        };
        let count = async {
            let mut lines = BufReader::new(stdout).lines();
            let mut done = 0;
            while let Ok(Some(line)) = lines.next_line().await {
                if is_library(&line) {
                    done += 1;
                    report(Event::Compiling { what: NAME, done, total: total.max(done) });
                }
            }
        };
        let mut errors = String::new();
        let (status, (), _) = tokio::join!(child.wait(), count, stderr.read_to_string(&mut errors));
        match status {
            Ok(status) if status.success() => {
                report(Event::Compiled { what: NAME, took: started.elapsed() });
                Ok(())
            }
            Ok(status) => Err(self.failed(&format_args!("{}, {status}", last_line(&errors)))),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// The number of crates that the build takes.
    async fn crates(&self) -> Result<usize, StackError> {
        let mut command = self.cargo("tree");
        command.args([
            "--package",
            NAME,
            "--edges",
            "normal,build",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{p}",
        ]);
        let output = command.output().await.map_err(StackError::io("run", "cargo"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Err(self.failed(&last_line(&String::from_utf8_lossy(&output.stderr))));
        }
        Ok(text.lines().collect::<std::collections::HashSet<_>>().len())
    }

    fn cargo(&self, subcommand: &str) -> Command {
        // Cargo sets the variable for what it runs.
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.arg(subcommand).arg("--manifest-path").arg(&self.manifest).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    fn failed(&self, reason: &dyn std::fmt::Display) -> StackError {
        StackError::Build { package: NAME, manifest: self.manifest.clone(), reason: reason.to_string() }
    }
}

/// Whether a message of Cargo says that a library was compiled or was there already.
fn is_library(message: &str) -> bool {
    let Ok(message) = serde_json::from_str::<serde_json::Value>(message) else { return false };
    let kinds = message["target"]["kind"].as_array();
    message["reason"] == "compiler-artifact"
        && kinds.is_some_and(|kinds| kinds.iter().all(|kind| kind != "custom-build"))
}

fn last_line(text: &str) -> &str {
    text.trim().lines().next_back().unwrap_or("no output")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn program_is_found_beside_programs_tests_and_examples() {
        let target = tempfile::tempdir().unwrap();
        let release = target.path().join("release");
        fs::create_dir_all(release.join("deps")).unwrap();
        let executables = ["tidewheel", "deps/e2e-1234", "examples/search"].map(|name| release.join(name));
        assert!(executables.iter().all(|executable| beside(executable).is_none()));
        fs::write(release.join(NAME), "").unwrap();
        assert!(executables.iter().all(|executable| beside(executable) == Some(release.join(NAME))));
        assert_eq!(beside(&release.join("elsewhere/tidewheel")), None);
    }

    #[test]
    fn build_needs_a_source_checkout_and_a_target_directory() {
        let tree = tempfile::tempdir().unwrap();
        let (source, target) = (tree.path().join("crates/local"), tree.path().join("target"));
        let executable = target.join("release/tidewheel");
        fs::create_dir_all(tree.path().join("crates/local-qdrant")).unwrap();
        fs::create_dir_all(target.join("release")).unwrap();
        assert_eq!(Build::of(&executable, &source), None);
        let manifest = tree.path().join("Cargo.toml");
        fs::write(tree.path().join("crates/local-qdrant/Cargo.toml"), "").unwrap();
        assert_eq!(Build::of(&executable, &source), None, "installed elsewhere");
        fs::write(target.join("CACHEDIR.TAG"), "").unwrap();
        let of =
            |profile: &str| Some(Build { manifest: manifest.clone(), target: target.clone(), profile: profile.into() });
        assert_eq!(Build::of(&executable, &source), of("release"));
        assert_eq!(Build::of(&target.join("debug/deps/e2e-1234"), &source), of("dev"));
    }

    #[test]
    fn libraries_are_counted_and_build_scripts_are_not() {
        let message = |kind: &str| format!(r#"{{"reason":"compiler-artifact","target":{{"kind":["{kind}"]}}}}"#);
        assert!(is_library(&message("lib")) && is_library(&message("proc-macro")));
        assert!(!is_library(&message("custom-build")));
        assert!(!is_library(r#"{"reason":"build-script-executed"}"#) && !is_library("warning: unused"));
    }
}
