//! Schedules the faults of one run, some of them concurrent.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::faults::{Planned, Planner, Target};
use super::inject::inject;
use super::tally::Tally;
use super::world::World;
use super::{SoakError, SoakOptions};

/// Interval of checks for unexpected exits.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Injects faults until the end, then waits until all are undone. Those that are `asked` for come in addition, unless
/// their target has a fault already.
pub(super) async fn storm(
    world: &World,
    options: &SoakOptions,
    tally: &Tally,
    mut asked: mpsc::Receiver<Planned>,
    end: watch::Receiver<bool>,
) -> Result<(), SoakError> {
    let mut planner = Planner::new(options.seed, world.services.iter().map(|service| service.kind));
    let every = Duration::from_secs(60) / options.faults_per_minute.max(1);
    let mut next = Instant::now() + every;
    let mut busy = HashSet::new();
    let mut at_work = FuturesUnordered::new();
    let mut over = end.clone();
    let begin = move |planned: Planned| {
        tally.begins(&planned);
        let end = end.clone();
        async move { (planned, inject(world, planned, tally, end).await) }
    };
    loop {
        tokio::select! {
            _ = over.wait_for(|over| *over) => break,
            Some((planned, happened)) = at_work.next(), if !at_work.is_empty() => {
                let happened = happened?;
                tally.ends(&planned, happened);
                busy.remove(&planned.target);
                if !happened {
                    next = Instant::now();
                }
            }
            () = tokio::time::sleep_until(next) => {
                next += every;
                if let Some(planned) = planner.next(&busy) {
                    busy.insert(planned.target);
                    at_work.push(begin(planned));
                }
            }
            Some(planned) = asked.recv() => {
                if busy.insert(planned.target) {
                    at_work.push(begin(planned));
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {
                for (place, service) in world.services.iter().enumerate() {
                    if !busy.contains(&Target::Service(service.kind, place)) {
                        world.revive(service, tally).await?;
                    }
                }
            }
        }
    }
    while let Some((planned, happened)) = at_work.next().await {
        tally.ends(&planned, happened?);
    }
    Ok(())
}
