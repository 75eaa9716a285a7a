//! A private terminal: a tmux server with one window, on its own socket, without user settings.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidewheel_local::provision::Program;
use tidewheel_testkit::programs;

use super::super::world::{BINARY, World};

/// Timeout on a machine that runs other tests in parallel.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A terminal in which a command runs.
pub(super) struct Terminal {
    tmux: Program,
    /// The directory of the socket.
    dir: TempDir,
}

impl Terminal {
    /// Runs `tidewheel` with these arguments in a terminal of this size. Afterwards the terminal shows `ended` with the
    /// exit code, and the terminal modes.
    pub(super) async fn run(world: &World, (width, height): (u16, u16), environment: &str, arguments: &str) -> Self {
        let tmux = programs::tmux().await.expect("tmux");
        let terminal = Self { tmux, dir: tempfile::tempdir().expect("a temporary directory") };
        let settings = world.settings();
        let directory = settings.parent().expect("a parent directory");
        let script = format!(
            "{environment} {BINARY} --config {} {arguments}; echo \"ended $?\"; stty -a | tr ' ;' '\\n\\n' | \
             grep -xE -e '-?(icanon|echo)' | xargs; exec sleep 1000",
            settings.display()
        );
        let (width, height) = (width.to_string(), height.to_string());
        let mut command = terminal.command(&["new-session", "-d", "-x", &width, "-y", &height, "sh", "-c", &script]);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("TIDEWHEEL") || ["NO_COLOR", "CLICOLOR_FORCE", "RUST_LOG"].contains(&&*name) {
                command.env_remove(&*name);
            }
        }
        let output = command.current_dir(directory).output().expect("tmux starts");
        assert!(output.status.success(), "{output:?}");
        terminal
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.tmux.path);
        if let Some(libraries) = &self.tmux.library_path {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.env("TMUX_TMPDIR", self.dir.path()).env_remove("TMUX").env("LC_ALL", "C.UTF-8");
        command.args(["-u", "-L", "test", "-f", "/dev/null"]).args(arguments);
        command
    }

    fn run_tmux(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("tmux runs");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// Returns the visible text.
    pub(super) fn picture(&self) -> String {
        self.run_tmux(&["capture-pane", "-p"]).trim_end().to_owned()
    }

    /// Returns the visible text with colours.
    pub(super) fn painted(&self) -> String {
        self.run_tmux(&["capture-pane", "-p", "-e"]).trim_end().to_owned()
    }

    /// Returns the printed lines, with wrapped lines joined.
    pub(super) fn unbroken(&self) -> String {
        self.run_tmux(&["capture-pane", "-p", "-J"]).trim_end().to_owned()
    }

    /// Presses a key, by its tmux name.
    pub(super) fn press(&self, key: &str) {
        self.run_tmux(&["send-keys", key]);
    }

    pub(super) fn resize(&self, width: u16, height: u16) {
        self.run_tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Whether the alternate screen is active, and whether the cursor is visible.
    pub(super) fn modes(&self) -> (bool, bool) {
        let modes = self.run_tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        (modes.starts_with('1'), modes.trim_end().ends_with('1'))
    }

    /// Returns the pid of the command.
    pub(super) fn process(&self) -> u32 {
        let shell = self.run_tmux(&["display-message", "-p", "#{pane_pid}"]);
        let children: PathBuf = ["/proc", shell.trim(), "task", shell.trim(), "children"].iter().collect();
        let children = std::fs::read_to_string(children).expect("the children of the shell");
        children.split_whitespace().next().and_then(|pid| pid.parse().ok()).expect("the command runs")
    }

    /// Waits until the visible text satisfies a condition.
    pub(super) async fn until(&self, condition: impl Fn(&str) -> bool, name: &str) -> String {
        let begun = Instant::now();
        loop {
            let picture = self.picture();
            if condition(&picture) {
                return picture;
            }
            assert!(begun.elapsed() < TIMEOUT, "timed out waiting for: {name}\n{self}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the command has ended, and asserts that it restored the terminal.
    pub(super) async fn ended(&self, code: i32) {
        let sane = format!("ended {code}");
        self.until(|picture| picture.contains(&sane) && picture.contains("icanon"), &sane).await;
        let picture = self.picture();
        assert!(picture.contains("\nicanon echo"), "echo is off:\n{picture}");
        assert_eq!(self.modes(), (false, true), "the alternate screen is active, or the cursor is hidden:\n{picture}");
    }
}

impl fmt::Display for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.picture())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.command(&["kill-server"]).output();
    }
}
