//! One instance of a service, as a process that can be killed, stopped, paused and started again.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use tidewheel_local::stack::{Child, Launch};

/// A service may take ten seconds to stop; a machine with two busy cores adds some.
const STOP_PATIENCE: Duration = Duration::from_secs(15);

/// Which service.
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

/// How a service met SIGTERM.
pub(super) enum Stopped {
    /// It did not run.
    WasDead,
    /// It ended well.
    Well,
    /// It did not: what it did instead.
    Badly(String),
}

/// An instance. Dropped, its process is killed.
pub(super) struct Service {
    pub(super) kind: Kind,
    /// `processor-2`.
    pub(super) name: String,
    /// What all its processes have said, one after the other.
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

    /// The process id while the process lives.
    pub(super) fn pid(&self) -> Option<u32> {
        self.alive().map(|child| child.pid())
    }

    /// Starts the process, unless it runs.
    pub(super) async fn start(&self) -> io::Result<()> {
        if self.alive().is_none() {
            let log = File::options().create(true).append(true).open(&self.log)?;
            let child = Child::spawn(self.launch.clone(), log).await?;
            *self.child.lock().expect("no holder panics") = Some(Arc::new(child));
        }
        Ok(())
    }

    /// Kills the process (SIGKILL); says whether that is what it died of.
    pub(super) async fn kill(&self) -> bool {
        let Some(child) = self.alive() else { return false };
        child.signal(Signal::KILL);
        let status = child.ended().await;
        self.forget();
        status.is_some_and(|status| status.signal() == Some(Signal::KILL.as_raw()))
    }

    /// Asks the process to end (SIGTERM) and waits; kills it when it takes too long.
    pub(super) async fn stop(&self) -> Stopped {
        let Some(child) = self.alive() else { return Stopped::WasDead };
        child.signal(Signal::TERM);
        let ended = tokio::time::timeout(STOP_PATIENCE, child.ended()).await;
        let outcome = match ended {
            Ok(Some(status)) if status.success() => Stopped::Well,
            Ok(status) => {
                let status = status.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
                Stopped::Badly(format!("{} ended with {status} when asked to stop", self.name))
            }
            Err(_) => {
                child.signal(Signal::KILL);
                child.ended().await;
                Stopped::Badly(format!("{} did not stop within {} s", self.name, STOP_PATIENCE.as_secs()))
            }
        };
        self.forget();
        outcome
    }

    /// Stops the process as a debugger would (SIGSTOP).
    pub(super) fn pause(&self) {
        if let Some(child) = self.child() {
            child.signal(Signal::STOP);
        }
    }

    /// Lets it go on (SIGCONT).
    pub(super) fn resume(&self) {
        if let Some(child) = self.child() {
            child.signal(Signal::CONT);
        }
    }

    /// How the process ended, if nobody here ended it. Told once.
    pub(super) async fn ended_by_itself(&self) -> Option<String> {
        let child = self.child().filter(|child| !child.is_alive())?;
        let status = child.ended().await.map_or_else(|| "an unknown status".to_owned(), |status| status.to_string());
        self.forget();
        let last = tail(&self.log, 3).join(" / ");
        Some(format!("{} ended by itself with {status}: {last}", self.name))
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
    async fn each_end_is_told_from_the_others() {
        let dir = std::env::temp_dir();
        let service = sleeper(&dir, "sleep", &["60"]).await;
        let pid = service.pid().unwrap();
        assert!(!is_stopped(pid));
        service.pause();
        while !is_stopped(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        service.resume();
        assert!(service.ended_by_itself().await.is_none());
        assert!(service.kill().await);
        assert!(!service.kill().await && service.pid().is_none());
        assert!(service.ended_by_itself().await.is_none());
        assert!(matches!(service.stop().await, Stopped::WasDead));

        service.start().await.unwrap();
        // `sleep` knows no better way to stop than to die of the signal.
        assert!(matches!(service.stop().await, Stopped::Badly(_)));

        let service = sleeper(&dir, "false", &[]).await;
        while service.pid().is_some() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(service.ended_by_itself().await.is_some_and(|told| told.contains("exit status: 1")));
        assert!(service.ended_by_itself().await.is_none());
        let _ = std::fs::remove_file(&service.log);
    }
}
