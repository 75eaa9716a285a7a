//! Injects one fault, undoes it, and reports whether it took effect.

use std::time::Duration;

use tokio::sync::watch;

use super::SoakError;
use super::faults::{Fault, Link, Planned, Target};
use super::service::{Service, Stopped, is_stopped};
use super::tally::Tally;
use super::world::{self, World};
use crate::proxy::{Proxy, Weather};

/// Maximum time for a signal to take effect, even on a busy machine.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Time for cut connections to break.
const SETTLE: Duration = Duration::from_millis(100);

/// Injects a fault and undoes it after its duration, or at the end of the run. Returns whether it took effect.
pub(super) async fn inject(
    world: &World,
    planned: Planned,
    tally: &Tally,
    end: watch::Receiver<bool>,
) -> Result<bool, SoakError> {
    let Planned { target, fault, lasts } = planned;
    let hold = Hold { lasts, end };
    match target {
        Target::Service(_, place) => service(world, &world.services[place], fault, tally, hold).await,
        Target::Server(server) => self::server(world.server(server.kind()), fault, hold).await,
        Target::Link(link) => Ok(self::link(world, link, fault, hold).await),
    }
}

/// The duration of a fault.
struct Hold {
    lasts: Duration,
    end: watch::Receiver<bool>,
}

impl Hold {
    async fn pass(mut self) {
        let _ = tokio::time::timeout(self.lasts, self.end.wait_for(|over| *over)).await;
    }
}

async fn service(world: &World, service: &Service, fault: Fault, tally: &Tally, hold: Hold) -> Result<bool, SoakError> {
    // A service that has just exited on its own must not count as killed.
    world.revive(service, tally).await?;
    let happened = match fault {
        Fault::Kill => service.kill().await,
        Fault::Pause => {
            service.pause();
            let paused = stopped(service.pid()).await;
            hold.pass().await;
            let still = service.pid().is_some_and(is_stopped);
            service.resume();
            return Ok(paused && still);
        }
        _ => match service.stop().await {
            Stopped::WasDead => false,
            Stopped::Well => true,
            Stopped::Badly(how) => {
                tally.finding(how);
                true
            }
        },
    };
    hold.pass().await;
    world::start(service).await?;
    Ok(happened)
}

async fn server(server: &tidewheel_local::stack::Server, fault: Fault, hold: Hold) -> Result<bool, SoakError> {
    let before = server.pid();
    match fault {
        Fault::Kill => server.kill().await,
        Fault::Pause => {
            server.pause();
            let paused = stopped(before).await;
            hold.pass().await;
            let still = server.pid().is_some_and(is_stopped);
            server.resume();
            return Ok(paused && still);
        }
        _ => server.stop().await,
    }
    let died = before.is_some() && server.pid().is_none();
    hold.pass().await;
    server.start().await?;
    Ok(died && server.pid() != before)
}

async fn link(world: &World, link: Link, fault: Fault, hold: Hold) -> bool {
    let proxy = world.link(link);
    let before = Counters::of(proxy);
    match fault {
        Fault::Cut => {
            proxy.cut();
            tokio::time::sleep(SETTLE).await;
        }
        Fault::Slow(delay) => {
            proxy.set(Weather::Slow(delay));
            hold.pass().await;
        }
        Fault::Freeze => {
            proxy.set(Weather::Frozen);
            hold.pass().await;
        }
        Fault::Swallow => {
            proxy.set(Weather::SwallowAnswers);
            hold.pass().await;
            // A connection with missing bytes must end: TCP never delivers data after a gap. Frozen first, so that
            // nothing more passes until then.
            proxy.set(Weather::Frozen);
            proxy.cut();
            tokio::time::sleep(SETTLE).await;
        }
        Fault::CutAnswers(times) => {
            proxy.set(Weather::CutInsteadOfAnswer(times));
            hold.pass().await;
        }
        _ => {
            proxy.set(Weather::Refuse);
            hold.pass().await;
        }
    }
    proxy.set(Weather::Fair);
    let after = Counters::of(proxy);
    match fault {
        Fault::Slow(_) => after.delayed > before.delayed,
        Fault::Freeze => after.held > before.held,
        Fault::Swallow => after.swallowed > before.swallowed,
        Fault::CutAnswers(_) => after.swallowed > before.swallowed && after.broken > before.broken,
        _ => after.broken > before.broken,
    }
}

/// Counters of a proxy.
struct Counters {
    broken: u64,
    swallowed: u64,
    delayed: u64,
    held: u64,
}

impl Counters {
    fn of(proxy: &Proxy) -> Self {
        Self { broken: proxy.broken(), swallowed: proxy.swallowed(), delayed: proxy.delayed(), held: proxy.held() }
    }
}

/// Waits until the process is stopped.
async fn stopped(pid: Option<u32>) -> bool {
    let Some(pid) = pid else { return false };
    let seen = async {
        while !is_stopped(pid) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SIGNAL_TIMEOUT, seen).await.is_ok()
}
