//! One child process.
//!
//! Guarantees: the child never outlives this process, not even after SIGKILL; signals are only ever sent to the child
//! itself, never to another process that reuses its pid; a child is reaped when it ends.
//!
//! Each child has a thread that starts it, waits for it and reaps it. The kernel sends the parent-death signal when the
//! *thread* that started the child ends, so that thread has to live as long as the child, which a thread of a worker
//! pool does not guarantee.
//!
//! The death signal must be set in the child itself, between fork and exec. `setpriv` (of util-linux, which every
//! Debian and Ubuntu has) does that and then execs the program, so the pid stays; no unsafe code is needed. Where
//! `setpriv` is missing, the child is started without this protection. Each child leads its own process group: Ctrl-C
//! in a terminal reaches only this process, which stops the servers in order.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    thread,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use tokio::sync::{oneshot, watch};

use crate::provision::{self, Program};

/// A command to run. The output of the child goes to a log file.
#[derive(Clone)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables in addition to the inherited environment.
    pub envs: Vec<(OsString, OsString)>,
    /// Its working directory; must exist.
    pub dir: PathBuf,
}

impl Launch {
    /// A launch of a provisioned program, without arguments.
    pub(super) fn of(program: &Program, dir: PathBuf) -> Self {
        let existing = std::env::var_os("LD_LIBRARY_PATH");
        let libraries = |path: &PathBuf| provision::library_path_with(path, existing.as_deref());
        let envs = program.library_path.as_ref().map(|path| ("LD_LIBRARY_PATH".into(), libraries(path)));
        Self { program: program.path.clone(), args: Vec::new(), envs: envs.into_iter().collect(), dir }
    }
}

impl std::fmt::Debug for Launch {
    /// Omits the values of variables, which may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.envs.iter().map(|(name, _)| name).collect();
        let Self { program, args, dir, .. } = self;
        f.debug_struct("Launch")
            .field("program", program)
            .field("args", args)
            .field("envs", &names)
            .field("dir", dir)
            .finish()
    }
}

/// A started process. Killed on drop.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    /// `true` until the process is reaped. Its pid cannot be reused before that, so signals are sent under the lock.
    alive: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Child {
    /// Starts a process whose output goes to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn spawn(launch: Launch, log: File) -> io::Result<Self> {
        let mut command = guarded(&launch);
        command
            .envs(launch.envs)
            .current_dir(launch.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let alive = Arc::new(Mutex::new(true));
        let (started, start) = oneshot::channel();
        let (ended, exit) = watch::channel(None);
        let reaped = Arc::clone(&alive);
        thread::Builder::new().name("server-child".into()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return;
                }
            };
            let _ = started.send(Ok(child.id()));
            // Wait without reaping, then reap under the lock: see `alive`.
            let id = WaitId::Pid(Pid::from_child(&child));
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while matches!(waitid(id.clone(), options), Err(Errno::INTR)) {}
            let mut alive = lock(&reaped);
            let status = child.wait();
            *alive = false;
            drop(alive);
            ended.send_replace(status.ok());
        })?;
        let pid = start.await.map_err(io::Error::other)??;
        Ok(Self { pid, alive, exit })
    }

    /// Returns the process id. Not reused while [`is_alive`](Self::is_alive).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process has not been reaped yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        *lock(&self.alive)
    }

    /// Sends a signal to the process group. Does nothing if the process has ended.
    pub fn signal(&self, signal: Signal) {
        let alive = lock(&self.alive);
        if *alive && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // The process may have ended already.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Waits for the process to end. `None`: unknown exit status.
    pub fn ended(&self) -> impl Future<Output = Option<ExitStatus>> + Send + 'static {
        let mut exit = self.exit.clone();
        async move {
            // An error means that the thread has ended, which only happens after the process.
            exit.wait_for(Option::is_some).await.ok().and_then(|status| *status)
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

fn lock(alive: &Mutex<bool>) -> MutexGuard<'_, bool> {
    alive.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the command, wrapped so that the kernel kills it when this process dies.
fn guarded(launch: &Launch) -> Command {
    let mut command = if has_guard() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(&launch.program);
        command
    } else {
        Command::new(&launch.program)
    };
    command.args(&launch.args);
    command
}

/// Whether `setpriv` is installed and supports death signals (BusyBox' does not).
fn has_guard() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "--", "true"]);
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}
