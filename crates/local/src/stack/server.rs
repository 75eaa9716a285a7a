//! The life cycle of one server: start, readiness, stop, kill, pause, restart.
//!
//! Guarantees: a started server has answered a request, and the answer came from the started process; a restart keeps
//! port and data; a stopped or killed server stays down; a supervised server that exits unexpectedly is restarted with
//! exponential backoff; dropping the last handle kills the process.

use std::{
    fmt, fs,
    future::Future,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Mutex as StdMutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use tokio::sync::{Mutex, MutexGuard, watch};

use super::{
    child::Child,
    error::StackError,
    log, port,
    spec::{Ports, Spec},
};
use crate::{Event, Report, ServerKind};

/// After a crash a server first recovers or reloads its data, which can take a while.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two readiness checks. Redis starts within about 100 ms.
const READY_INTERVAL: Duration = Duration::from_millis(10);
/// A server that is still running this long after SIGTERM is killed. That loses no acknowledged write.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Another process can take a picked port before the server listens.
const PORT_ATTEMPTS: usize = 3;

const FIRST_BACKOFF: Duration = Duration::from_millis(200);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
/// A server that ran this long is healthy again: its backoff is reset.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// A cheap handle to a server: clones refer to the same server, and dropping the last one kills it.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("kind", &self.kind())
            .field("url", &self.url())
            .field("pid", &self.pid())
            .finish()
    }
}

struct Inner {
    spec: Spec,
    ports: StdMutex<Ports>,
    report: Report,
    /// Whether the server should run. Supervision checks it, and a start in progress aborts when it changes.
    wanted: watch::Sender<bool>,
    /// Held while the server is started or stopped, so that these never overlap.
    state: Mutex<State>,
    /// The process, for signals that must not wait for `state`.
    child: StdMutex<Option<Arc<Child>>>,
}

struct State {
    /// Counts started processes, so that a watcher recognises its own.
    generation: u64,
    begun: Instant,
    backoff: Duration,
}

impl Server {
    pub(super) async fn start_new(spec: Spec, report: Report) -> Result<Self, StackError> {
        let requested = spec.requested_ports();
        let automatic = requested.each().any(|port| port == 0);
        let state = State { generation: 0, begun: Instant::now(), backoff: FIRST_BACKOFF };
        let server = Self(Arc::new(Inner {
            spec,
            ports: StdMutex::new(requested),
            report,
            wanted: watch::Sender::new(false),
            state: Mutex::new(state),
            child: StdMutex::new(None),
        }));
        for attempt in 1.. {
            server.0.pick_ports(requested)?;
            match server.start().await {
                Err(StackError::Exited { .. } | StackError::PortTaken { .. })
                    if automatic && attempt < PORT_ATTEMPTS && server.0.ports().each().any(port::is_taken) => {}
                result => return result.map(|()| server),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Returns the kind of server.
    #[must_use]
    pub fn kind(&self) -> ServerKind {
        self.0.spec.kind()
    }

    /// Returns the port on 127.0.0.1; for Qdrant that of the REST API.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.ports().main
    }

    /// Returns Qdrant's gRPC port on 127.0.0.1.
    #[must_use]
    pub fn grpc_port(&self) -> Option<u16> {
        self.0.ports().grpc
    }

    /// Returns the URL for clients: `mongodb://…`, `redis://…`, or `http://…` for Qdrant's REST API.
    #[must_use]
    pub fn url(&self) -> String {
        self.0.spec.url(self.0.ports())
    }

    /// Returns the URL of Qdrant's gRPC API.
    #[must_use]
    pub fn grpc_url(&self) -> Option<String> {
        Spec::grpc_url(self.0.ports())
    }

    /// Returns the process id while the process runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.0.child().filter(|child| child.is_alive()).map(|child| child.pid())
    }

    /// Returns the log file, which includes stdout and stderr.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.spec.log()
    }

    /// Starts the server and waits until it is ready. Does nothing if it runs.
    ///
    /// # Errors
    /// When a port is in use, the process exits during startup, or it is not ready within two minutes.
    pub async fn start(&self) -> Result<(), StackError> {
        let mut state = self.0.state.lock().await;
        if self.pid().is_some() {
            return Ok(());
        }
        state.backoff = FIRST_BACKOFF;
        launch(&self.0, &mut state).await
    }

    /// Sends SIGTERM, waits for the process, and kills it after a grace period. Resumes a paused process first.
    /// Supervision does not restart it.
    pub async fn stop(&self) {
        let _state = self.0.unwanted().await;
        if let Some(child) = self.0.child().filter(|child| child.is_alive()) {
            let ended = child.ended();
            child.signal(Signal::TERM);
            child.signal(Signal::CONT);
            if tokio::time::timeout(STOP_GRACE, ended).await.is_err() {
                child.signal(Signal::KILL);
                child.ended().await;
            }
            (self.0.report)(Event::Stopped { server: self.kind() });
        }
    }

    /// Kills the process (SIGKILL) and waits until it has exited. Supervision does not restart it.
    pub async fn kill(&self) {
        let _state = self.0.unwanted().await;
        if let Some(child) = self.0.child().filter(|child| child.is_alive()) {
            child.signal(Signal::KILL);
            child.ended().await;
            (self.0.report)(Event::Stopped { server: self.kind() });
        }
    }

    /// Pauses the process (SIGSTOP): it keeps its port and its connections, but does not respond.
    pub fn pause(&self) {
        if let Some(child) = self.0.child() {
            child.signal(Signal::STOP);
        }
    }

    /// Resumes a paused process (SIGCONT).
    pub fn resume(&self) {
        if let Some(child) = self.0.child() {
            child.signal(Signal::CONT);
        }
    }

    /// Restarts the server with the same port and data.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn restart(&self) -> Result<(), StackError> {
        self.stop().await;
        self.start().await
    }

    /// Checks once whether the server is ready.
    ///
    /// # Errors
    /// When it does not run or is not ready.
    pub async fn ready(&self) -> Result<(), StackError> {
        let server = self.kind();
        let pid = self.pid().ok_or(StackError::NotRunning { server })?;
        let answer = self.0.spec.ready(self.0.ports(), pid).await;
        answer.map_err(|reason| StackError::NotReady { server, seconds: 0, reason, log: self.log() })
    }
}

impl Inner {
    fn ports(&self) -> Ports {
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn child(&self) -> Option<Arc<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_child(&self, child: Option<Arc<Child>>) {
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
    }

    /// Marks the server as not wanted. Set twice: first to abort a start in progress, which holds the lock, then to
    /// override one that was waiting for the lock.
    async fn unwanted(&self) -> MutexGuard<'_, State> {
        self.wanted.send_replace(false);
        let state = self.state.lock().await;
        self.wanted.send_replace(false);
        state
    }

    /// Completes when the server is no longer wanted.
    async fn not_wanted(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.wanted.subscribe().wait_for(|wanted| !wanted).await;
    }

    /// Replaces each `0` by a free port.
    fn pick_ports(&self, requested: Ports) -> Result<(), StackError> {
        let pick = |port| match port {
            0 => port::free().map_err(StackError::io("find a free port on", "127.0.0.1")),
            port => Ok(port),
        };
        let picked = Ports { main: pick(requested.main)?, grpc: requested.grpc.map(pick).transpose()? };
        *self.ports.lock().unwrap_or_else(PoisonError::into_inner) = picked;
        Ok(())
    }

    /// Kills a process that did not become ready; its port and its data are free afterwards.
    async fn give_up(&self, child: &Child) {
        child.signal(Signal::KILL);
        child.ended().await;
        self.set_child(None);
    }

    /// Starts the process and waits until it is ready; kills it otherwise.
    async fn bring_up(&self) -> Result<Arc<Child>, StackError> {
        let (server, ports, log) = (self.spec.kind(), self.ports(), self.spec.log());
        for port in ports.each() {
            port::expect_free(server, port).await?;
        }
        let dir = self.spec.dir();
        fs::create_dir_all(&dir).map_err(StackError::io("create", &dir))?;
        let file = log::open(&log).map_err(StackError::io("open", &log))?;
        let launch = self.spec.launch(ports)?;
        let program = launch.program.clone();
        (self.report)(Event::Starting { server, port: ports.main });
        let begun = Instant::now();
        let child = Child::spawn(launch, file).await.map_err(|source| StackError::Spawn { server, program, source })?;
        let child = Arc::new(child);
        self.set_child(Some(Arc::clone(&child)));
        let mut last = String::from("no attempt was made");
        let answers = async {
            loop {
                match self.spec.ready(ports, child.pid()).await {
                    Ok(()) => return,
                    Err(reason) => last = reason,
                }
                tokio::time::sleep(READY_INTERVAL).await;
            }
        };
        tokio::select! {
            // The exit first: another process may answer on a port that this one could not bind.
            biased;
            status = child.ended() => {
                self.set_child(None);
                let status = status.map_or_else(|| "unknown status".into(), |status| status.to_string());
                Err(StackError::Exited { server, status, tail: log::tail(&log), log })
            }
            () = answers => {
                (self.report)(Event::Ready { server, port: ports.main, took: begun.elapsed() });
                Ok(child)
            }
            () = self.not_wanted() => {
                self.give_up(&child).await;
                Err(StackError::Interrupted { server })
            }
            () = tokio::time::sleep(START_TIMEOUT) => {
                self.give_up(&child).await;
                Err(StackError::NotReady { server, seconds: START_TIMEOUT.as_secs(), reason: last, log })
            }
        }
    }
}

/// Starts the server and its watcher, if supervised.
async fn launch(inner: &Arc<Inner>, state: &mut State) -> Result<(), StackError> {
    inner.wanted.send_replace(true);
    state.generation += 1;
    let child = inner.bring_up().await?;
    state.begun = Instant::now();
    if inner.spec.supervise() {
        let ended = child.ended();
        tokio::spawn(keep_alive(Arc::downgrade(inner), state.generation, ended));
    }
    Ok(())
}

/// Waits for a process to exit and restarts it, unless it was stopped on purpose.
///
/// Boxed because it calls [`launch`], which calls it again.
fn keep_alive(
    inner: Weak<Inner>,
    generation: u64,
    ended: impl Future<Output = Option<std::process::ExitStatus>> + Send + 'static,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let status = ended.await;
        let mut first = true;
        loop {
            let Some(server) = inner.upgrade() else { return };
            let kind = server.spec.kind();
            let mut state = server.state.lock().await;
            if !*server.wanted.borrow() || (first && state.generation != generation) {
                return;
            }
            if first {
                first = false;
                let status = status.map_or_else(|| "unknown status".into(), |status| status.to_string());
                (server.report)(Event::Died { server: kind, status });
                if state.begun.elapsed() > HEALTHY_AFTER {
                    state.backoff = FIRST_BACKOFF;
                }
            } else if server.child().is_some_and(|child| child.is_alive()) {
                // Started meanwhile; that process has its own watcher.
                return;
            } else {
                match launch(&server, &mut state).await {
                    Ok(()) | Err(StackError::Interrupted { .. }) => return,
                    Err(error) => {
                        (server.report)(Event::RestartFailed { server: kind, reason: error.to_string() });
                    }
                }
            }
            let after = state.backoff;
            state.backoff = (after * 2).min(LONGEST_BACKOFF);
            (server.report)(Event::Restarting { server: kind, after });
            // Do not hold the lock or the server during the backoff.
            drop(state);
            drop(server);
            tokio::time::sleep(after).await;
        }
    })
}
