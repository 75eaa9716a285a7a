//! Runs external programs and finds programs on PATH.

use std::{env, ffi::OsStr, os::unix::fs::PermissionsExt, path::Path, path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;

use super::error::ProvisionError;
use crate::Part;

/// Lines of output quoted in an error message: enough to see the cause, few enough for one message.
const TAIL_LINES: usize = 6;

/// Printing a version takes milliseconds; the margin is for a loaded machine.
const VERSION_TIMEOUT: Duration = Duration::from_secs(30);

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
        Self { argument: "--version", parse: find_version }
    }
}

/// Returns every executable of that name on PATH, in order.
pub(super) fn on_path(name: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|dir| dir.join(name)).filter(|file| is_executable(file)).collect()
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Runs a program to completion and returns its stdout. Dropping the future kills the program.
pub(super) async fn run(part: Part, step: &str, mut command: Command) -> Result<String, ProvisionError> {
    let failed = |output: String| ProvisionError::Tool { part, step: step.to_owned(), output };
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| failed(format!("{}: {error}", command.as_std().get_program().display())))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
    Err(failed(format!("{} ({})", tail(&String::from_utf8_lossy(text)), output.status)))
}

/// Runs CPU- or disk-bound work, such as hashing or unpacking, off the async threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Returns the last lines of a program's output as one line.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join(" / ")
}

/// Asks a program for its version, which also proves that it runs on this machine.
pub(super) async fn version(
    program: &Path,
    library_path: Option<&Path>,
    query: &VersionQuery,
) -> Result<String, String> {
    let VersionQuery { argument, parse } = query;
    let mut command = Command::new(program);
    command.arg(argument).stdin(Stdio::null()).kill_on_drop(true);
    if let Some(dir) = library_path {
        command.env("LD_LIBRARY_PATH", library_path_with(dir, env::var_os("LD_LIBRARY_PATH").as_deref()));
    }
    let output = tokio::time::timeout(VERSION_TIMEOUT, command.output())
        .await
        .map_err(|_| format!("`{argument}` timed out after {} s", VERSION_TIMEOUT.as_secs()))?
        .map_err(|error| error.to_string())?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(format!("{} ({})", tail(&String::from_utf8_lossy(&output.stderr)), output.status));
    }
    parse(&stdout).ok_or_else(|| format!("no version in the output of `{argument}`: {}", tail(&stdout)))
}

/// Returns `LD_LIBRARY_PATH` with `dir` prepended to the existing value.
pub(crate) fn library_path_with(dir: &Path, existing: Option<&OsStr>) -> std::ffi::OsString {
    let mut value = dir.as_os_str().to_owned();
    if let Some(existing) = existing.filter(|existing| !existing.is_empty()) {
        value.push(":");
        value.push(existing);
    }
    value
}

/// Returns the first word that looks like a version with three numbers or, as Chromium's, four.
fn find_version(text: &str) -> Option<String> {
    text.split(|c: char| !c.is_ascii_digit() && c != '.')
        .map(|word| word.trim_matches('.'))
        .find(|word| {
            let parts: Vec<&str> = word.split('.').collect();
            matches!(parts.len(), 3 | 4) && parts.iter().all(|part| part.parse::<u32>().is_ok())
        })
        .map(str::to_owned)
}

/// Whether a version is `(major, minor)` or newer.
pub(super) fn at_least(version: &str, oldest: (u32, u32)) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_version_parses_server_output() {
        assert_eq!(find_version("db version v6.0.5\nBuild Info: {").as_deref(), Some("6.0.5"));
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=8a1";
        assert_eq!(find_version(redis).as_deref(), Some("7.0.15"));
        assert_eq!(find_version("Chromium 156.0.8078.79 built on Debian").as_deref(), Some("156.0.8078.79"));
        assert_eq!(find_version("no version in 1.2"), None);
    }

    #[test]
    fn at_least_compares_versions_numerically() {
        assert!(at_least("7.0.15", (7, 0)));
        assert!(at_least("10.0.0", (7, 0)));
        assert!(!at_least("6.2.14", (7, 0)));
        assert!(!at_least("5.0.31", (6, 0)));
    }

    #[test]
    fn library_path_is_prepended_to_existing_value() {
        let dir = Path::new("/cache/lib");
        assert_eq!(library_path_with(dir, None), "/cache/lib");
        assert_eq!(library_path_with(dir, Some(OsStr::new(""))), "/cache/lib");
        assert_eq!(library_path_with(dir, Some(OsStr::new("/opt/lib"))), "/cache/lib:/opt/lib");
    }
}
