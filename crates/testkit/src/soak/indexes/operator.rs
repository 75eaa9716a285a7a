//! Makes the planned changes: writes the settings and runs commands, some of which are killed.

use std::time::Duration;

use tidewheel_local::stack::Child;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use super::changes::{Change, Planner};
use super::declarations::Declarations;
use crate::soak::SoakError;
use crate::soak::faults::{Fault, Planned, Target};
use crate::soak::service::Kind;
use crate::soak::tally::Tally;
use crate::soak::world::World;

/// Changes the declarations during a run.
pub(in crate::soak) struct Operator<'a> {
    world: &'a World,
    planner: Planner,
    /// Receives the faults to inject.
    faults: mpsc::Sender<Planned>,
}

impl<'a> Operator<'a> {
    pub(in crate::soak) fn new(world: &'a World, seed: u64, faults: mpsc::Sender<Planned>) -> Self {
        Self { world, planner: Planner::new(seed), faults }
    }

    /// Makes changes until the end; returns what is declared then.
    pub(in crate::soak) async fn operate(
        mut self,
        tally: &Tally,
        mut end: watch::Receiver<bool>,
    ) -> Result<Declarations, SoakError> {
        let mut declared = Declarations::first();
        loop {
            let change = self.planner.next();
            tokio::select! {
                _ = end.wait_for(|over| *over) => return Ok(declared),
                () = sleep(change.pause) => {}
            }
            declared = change.declarations;
            self.world.declare(&declared)?;
            let ended = async {
                tokio::select! {
                    ended = run(self.world, &change.arguments, change.is_through_proxies, change.lasts) => ended,
                    _ = end.wait_for(|over| *over) => Ok(false),
                }
            };
            let (is_confirmed, ()) = tokio::join!(ended, self.kill_producers(&change));
            tally.change(change.kind, is_confirmed?);
        }
    }

    /// Kills the controller at some moment of the change. All producers, because any of them may be the active one.
    async fn kill_producers(&self, change: &Change) {
        let Some((after, lasts)) = change.kill else { return };
        sleep(after).await;
        for (place, service) in self.world.services.iter().enumerate() {
            if service.kind == Kind::Producer {
                let target = Target::Service(Kind::Producer, place);
                // Nothing receives it any more at the end.
                let _ = self.faults.send(Planned { target, fault: Fault::Kill, lasts }).await;
            }
        }
    }
}

/// Runs a command; returns whether it was successful. Killed after this time.
pub(super) async fn run(
    world: &World,
    arguments: &[String],
    is_through_proxies: bool,
    lasts: Duration,
) -> Result<bool, SoakError> {
    let (launch, log) = world.command(arguments, is_through_proxies)?;
    let child = Child::spawn(launch, log).await.map_err(SoakError::io(format!("run {arguments:?}")))?;
    let status = tokio::time::timeout(lasts, child.ended()).await;
    // Dropping a running process kills it.
    Ok(status.ok().flatten().is_some_and(|status| status.success()))
}
