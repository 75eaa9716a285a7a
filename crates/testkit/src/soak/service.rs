//! One instance of a service, as a process that can be killed, stopped, paused and restarted.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tidewheel_local::stack::{Child, Launch};

/// A service may take ten seconds to stop; a busy machine adds some.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A kind of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Producer,
    Processor,
    Upserter,
    Embedder,
}

impl Kind {
    /// The subcommand.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Processor => "processor",
            Self::Upserter => "upserter",
            Self::Embedder => "embedder",
        }
    }
}

/// Outcome of SIGTERM.
pub(super) enum Stopped {
    /// It was not running.
    WasDead,
    /// It exited cleanly.
    Well,
    /// It did not exit cleanly; holds the description.
    Badly(String),
}

/// An instance. Dropping it kills its process.
pub(super) struct Service {
    pub(super) kind: Kind,
    /// The name, such as `processor-2`.
    pub(super) name: String,
    /// The log of all its processes, in order.
    pub(super) log: PathBuf,
    launch: Launch,
    child: Mutex<Option<Arc<Child>>>,
}

impl Service {
    pub(super) fn new(kind: Kind, number: usize, launch: Launch, logs: &std::path::Path) -> Self {
        let name = format!("{}-{number}", kind.name());
        Self { kind, log: logs.join(format!("{name}.log")), name, launch, child: Mutex::default() }
    }

    fn child(&self) -> Option<Arc<Child>> {
        self.child.lock().expect("no holder panics").clone()
    }

    fn alive(&self) -> Option<Arc<Child>> {
        self.child().filter(|child| child.is_alive())
    }

    /// The process id of a running process.
    pub(super) fn pid(&self) -> Option<u32> {
        self.alive().map(|child| child.pid())
    }

    /// Starts the process unless it is running.
    pub(super) async fn start(&self) -> io::Result<()> {
        if self.alive().is_none() {
            let log = File::options().create(true).append(true).open(&self.log)?;
            let child = Child::spawn(self.launch.clone(), log).await?;
            *self.child.lock().expect("no holder panics") = Some(Arc::new(child));
        }
        Ok(())
    }

    /// Kills the process (SIGKILL); returns whether it died of the signal.
    pub(super) async fn kill(&self) -> bool {
        let Some(child) = self.alive() else { return false };
        child.signal(Signal::KILL);
        let status = child.ended().await;
        self.forget();
        status.is_some_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
    }

    /// Sends SIGTERM and waits; kills the process on timeout.
    pub(super) async fn stop(&self) -> Stopped {
        let Some(child) = self.alive() else { return Stopped::WasDead };
        child.signal(Signal::TERM);
        let ended = tokio::time::timeout(STOP_TIMEOUT, child.ended()).await;
        let outcome = match ended {
            Ok(Some(status)) if status.success() => Stopped::Well,
            Ok(status) => {
                let status = status.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
                Stopped::Badly(format!("{} exited with {status} on SIGTERM", self.name))
            }
            Err(_) => {
                child.signal(Signal::KILL);
                child.ended().await;
                Stopped::Badly(format!("{} did not stop within {} s", self.name, STOP_TIMEOUT.as_secs()))
            }
        };
        self.forget();
        outcome
    }

    /// Pauses the process (SIGSTOP).
    pub(super) fn pause(&self) {
        if let Some(child) = self.child() {
            child.signal(Signal::STOP);
        }
    }

    /// Resumes the process (SIGCONT).
    pub(super) fn resume(&self) {
        if let Some(child) = self.child() {
            child.signal(Signal::CONT);
        }
    }

    /// Describes the exit of a process that was not stopped here. Reported once.
    pub(super) async fn unexpected_exit(&self) -> Option<String> {
        let child = self.child().filter(|child| !child.is_alive())?;
        let status = child.ended().await.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
        self.forget();
        let last = tail(&self.log, 3).join(" / ");
        Some(format!("{} exited unexpectedly with {status}: {last}", self.name))
    }

    fn forget(&self) {
        *self.child.lock().expect("no holder panics") = None;
    }
}

/// Whether a process is stopped by a signal: its state, the first field after the name in `/proc/PID/stat`, is `T`.
pub(super) fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// The last lines of a log.
pub(super) fn tail(log: &std::path::Path, lines: usize) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    all[all.len().saturating_sub(lines)..].iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn sleeper(dir: &std::path::Path, program: &str, args: &[&str]) -> Service {
        let launch = Launch {
            program: program.into(),
            args: args.iter().map(Into::into).collect(),
            envs: Vec::new(),
            dir: dir.to_owned(),
        };
        let service = Service::new(Kind::Producer, 1, launch, dir);
        service.start().await.unwrap();
        service
    }

    #[tokio::test]
    async fn kill_stop_and_unexpected_exit_are_distinguished() {
        let dir = std::env::temp_dir();
        let service = sleeper(&dir, "sleep", &["60"]).await;
        let pid = service.pid().unwrap();
        assert!(!is_stopped(pid));
        service.pause();
        while !is_stopped(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        service.resume();
        assert!(service.unexpected_exit().await.is_none());
        assert!(service.kill().await);
        assert!(!service.kill().await && service.pid().is_none());
        assert!(service.unexpected_exit().await.is_none());
        assert!(matches!(service.stop().await, Stopped::WasDead));

        service.start().await.unwrap();
        // `sleep` does not handle SIGTERM and dies of it.
        assert!(matches!(service.stop().await, Stopped::Badly(_)));

        let service = sleeper(&dir, "false", &[]).await;
        while service.pid().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(service.unexpected_exit().await.is_some_and(|exit| exit.contains("exit status: 1")));
        assert!(service.unexpected_exit().await.is_none());
        let _ = std::fs::remove_file(&service.log);
    }
}
