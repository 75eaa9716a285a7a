//! One child process.
//!
//! Guarantees: the child never outlives us, not even when we are killed with SIGKILL; signals are only ever sent to
//! our own child, never to a stranger that got its number later; a child is reaped when it ends.
//!
//! Each child has a thread that starts it, waits for it and reaps it. That thread matters: the kernel sends the
//! parent-death signal when the *thread* that started the child ends, so it has to live as long as the child, which a
//! thread of a worker pool does not promise.
//!
//! The death signal must be set in the child itself, between fork and exec. `setpriv` (of util-linux, which every
//! Debian and Ubuntu has) does that and then becomes the program, so the process id stays; no unsafe code is needed.
//! Where it is missing the child is started without this guard. Each child leads a process group of its own: Ctrl-C in
//! a terminal reaches only us, and we stop the servers in order.

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

/// What to run. The output of the child goes to a log file.
#[derive(Clone)]
pub struct Launch {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables beside those of our own environment.
    pub envs: Vec<(OsString, OsString)>,
    /// Its working directory, which must exist.
    pub dir: PathBuf,
}

impl std::fmt::Debug for Launch {
    /// Values of variables may be secrets.
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

/// A started process. Dropped, it is killed.
#[derive(Debug)]
pub struct Child {
    pid: u32,
    /// `true` until the process is reaped. Its number is ours alone for just as long, so signals are sent under the
    /// lock.
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
        let theirs = Arc::clone(&alive);
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
            let mut alive = lock(&theirs);
            let status = child.wait();
            *alive = false;
            drop(alive);
            ended.send_replace(status.ok());
        })?;
        let pid = start.await.map_err(io::Error::other)??;
        Ok(Self { pid, alive, exit })
    }

    /// The process id. It is this child's alone while [`is_alive`](Self::is_alive).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process has not been reaped yet.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        *lock(&self.alive)
    }

    /// Sends a signal to the process and to what it has started; a process that has ended gets none.
    pub fn signal(&self, signal: Signal) {
        let alive = lock(&self.alive);
        if *alive && let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // The process may have ended already, which is as good.
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Waits for the end; `None` when the system would not tell how it ended.
    pub fn ended(&self) -> impl Future<Output = Option<ExitStatus>> + Send + 'static {
        let mut exit = self.exit.clone();
        async move {
            // An error means that the thread is gone, which only happens after the end.
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

/// The command, wrapped so that the kernel kills it when we die.
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

/// Whether `setpriv` is here and knows about death signals (that of BusyBox does not).
fn has_guard() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "--", "true"]);
        probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}
