//! One session of a producer: from acquiring the lease to its end.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tidewheel_core::health::Health;
use tidewheel_core::time::now_ms;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tracing::info;

use super::FOLLOW;
use super::admission::Limits;
use super::auditing::Auditing;
use super::collecting::Collecting;
use super::context::{Ended, Session};
use super::controller::{self, Controller, Moment};
use super::keeper::{Keeper, Looked};
use super::metric;
use super::narrowing::Part;
use super::opening::{Opened, lost};
use super::plan;
use super::snapshot::{Page, Snapshot};
use super::writer::Writer;
use crate::retry::report_recovery;

/// How often the positions of both stages are read: bounds how soon damage is detected and how long a snapshot waits at
/// least.
const LOOK: Duration = Duration::from_millis(500);

/// The same while changes are in flight: a client that waits until they are searchable waits at most this much longer.
const LOOK_CLOSELY: Duration = Duration::from_millis(100);

/// The same while nothing is read, because an alias is about to move.
const LOOK_AT_REST: Duration = Duration::from_millis(20);

impl Session<'_> {
    /// Runs until the session ends; also returns whether it made progress, so that the caller can reset its backoff.
    pub(super) async fn run(&self) -> (Ended, bool) {
        let Err(ended) = self.work().await;
        (ended, self.progressed.load(Ordering::Relaxed))
    }

    async fn work(&self) -> Result<Infallible, Ended> {
        self.renew().await?;
        let limits = Limits::of(self.ports.journal.most_bytes().await?);
        let _ = self.limits.set(limits);
        controller::prepare(self.options, self.ports).await?;
        let Opened { mut feed, checkpoint, adopted } = self.open().await?;
        self.health.started();
        metric::leads(true);
        // While the session is active, the feed has to return batches, even if empty ones.
        let _busy = Busy::new(self.health);
        info!(at = checkpoint.last.0.seconds, snapshot = ?checkpoint.snapshot, "ready");

        let mut writer = Writer::new(self, checkpoint, adopted.clone());
        writer.adopt(adopted).await?;
        let mut keeper = Keeper::new(self);
        let mut snapshot = self.snapshot(&writer, &keeper).await?;
        let mut renew = every(self.options.lease / 3);
        let mut auditing = Auditing::new(self.options.audit_interval, self.ports, &writer.adopted);
        let mut collecting = Collecting::new(self.options.tombstone_grace);
        let mut controller = Controller::new(self.ports);
        let mut look = std::pin::pin!(tokio::time::sleep(LOOK));
        loop {
            let is_resting = controller.is_resting();
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(Ended::Shutdown),
                _ = renew.tick() => self.renew().await?,
                () = &mut look => {
                    let looked = keeper.look(&mut writer).await?;
                    let followed = self.follow_catalog(&mut writer, looked.catalog, &looked.lost).await?;
                    if followed.has_adopted {
                        snapshot.adopt(&writer.adopted);
                        auditing.adopt(&writer.adopted);
                    }
                    if followed.has_other_snapshot {
                        snapshot = self.snapshot(&writer, &keeper).await?;
                    }
                    snapshot.leave_out(&looked.lost);
                    snapshot.passed(keeper.barrier.passed());
                    collecting.settle(keeper.settled(), keeper.undisturbed(&writer));
                    controller.look(&moment(&writer, &keeper, &looked));
                    let pause = match looked.is_settled {
                        _ if controller.is_resting() => LOOK_AT_REST,
                        true => LOOK,
                        false => LOOK_CLOSELY,
                    };
                    look.as_mut().reset(Instant::now() + pause);
                }
                () = controller.next() => look.as_mut().reset(Instant::now()),
                () = auditing.next() => {}
                () = collecting.next() => {}
                batch = feed.next(), if !is_resting => match batch {
                    Ok(batch) => {
                        self.health.progresses();
                        let read_again = writer.follow(batch).await?;
                        report_recovery(self.health, FOLLOW);
                        if read_again {
                            snapshot = self.snapshot(&writer, &keeper).await?;
                        }
                    }
                    Err(error) => return Err(lost(error)),
                },
                page = snapshot.next(), if !is_resting => match page? {
                    Page::Rows(page) => {
                        let page = snapshot.compare(page).await;
                        let most = self.narrowings().most(Part::Snapshot);
                        for part in plan::parts(page, most) {
                            let rules = self.rules(&writer.adopted);
                            let step = plan::read(&writer.checkpoint, part, now_ms(), rules);
                            writer.append(step).await?;
                        }
                        snapshot.report(&writer.checkpoint);
                    }
                    Page::CollectionRead => snapshot.next_collection(),
                    Page::AllRead => {
                        writer.append(plan::read_all(&writer.checkpoint)).await?;
                        snapshot.sweep(keeper.barrier.next());
                    }
                    Page::Points(page) if page.absent.is_empty() && !snapshot.is_to_be_saved() => {}
                    Page::Points(page) => {
                        writer.append(plan::gone(&writer.checkpoint, page, now_ms())).await?;
                    }
                    Page::Swept => {
                        writer.append(plan::swept(&writer.checkpoint)).await?;
                        snapshot.finish();
                    }
                },
            }
        }
    }

    async fn snapshot(&self, writer: &Writer<'_>, keeper: &Keeper<'_>) -> Result<Snapshot, Ended> {
        let most = self.narrowings().most(Part::Snapshot);
        Ok(Snapshot::of(&writer.checkpoint, &writer.adopted, keeper.barrier.next(), most).await?)
    }
}

/// What a look has found, for the controller.
fn moment<'m>(writer: &'m Writer<'_>, keeper: &'m Keeper<'_>, looked: &'m Looked) -> Moment<'m> {
    Moment {
        adopted: &writer.adopted.applied,
        revision: looked.catalog,
        now_ms: looked.at,
        current: &writer.checkpoint,
        applied: keeper.applied(),
        lost: &looked.lost,
        passed: keeper.barrier.passed(),
        next: keeper.barrier.next(),
    }
}

/// Marks the service as busy while it lives: progress is expected.
struct Busy<'a>(&'a Health);

impl<'a> Busy<'a> {
    fn new(health: &'a Health) -> Self {
        health.begins();
        Self(health)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.ends();
    }
}

/// First tick after one period: at the start there is nothing to do.
fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
