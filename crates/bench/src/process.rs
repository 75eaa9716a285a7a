//! Measured processes.

use std::process::{Child, Command, Stdio};

/// A service of one side. Killed on drop.
pub struct Service {
    pub name: &'static str,
    child: Child,
}

impl Service {
    /// Starts the command; its output goes to `log`.
    pub fn start(name: &'static str, mut command: Command, log: &std::path::Path) -> std::io::Result<Self> {
        let output = std::fs::File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).spawn()?;
        Ok(Self { name, child })
    }

    /// Returns the CPU time so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.child.id())
    }

    /// Returns the peak resident memory, in MB.
    pub fn peak_megabytes(&self) -> f64 {
        self.megabytes("VmHWM:")
    }

    /// Returns the resident memory now, in MB.
    pub fn resident_megabytes(&self) -> f64 {
        self.megabytes("VmRSS:")
    }

    fn megabytes(&self, field: &str) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes.unwrap_or(f64::NAN) / 1_000.0
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the CPU time of a process so far, user and system, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    /// Linux reports in clock ticks of 10 ms on every common architecture.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may contain spaces; the fields after it are fixed. utime and stime are fields 14 and 15.
    let ticks = stat
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>());
    ticks.unwrap_or(f64::NAN) / TICKS_PER_SECOND
}
