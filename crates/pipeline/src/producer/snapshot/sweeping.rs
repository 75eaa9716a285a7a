//! The second half: sweeps orphaned points, target by target.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tidewheel_core::health::Health;
use tidewheel_core::identity::Namespace;
use tidewheel_core::payload::STAMP;
use tidewheel_core::ports::{Covered, PortResult};
use tidewheel_core::retry::Backoff;
use tidewheel_core::version::Version;
use tracing::info;
use uuid::Uuid;

use super::super::plan::{self, PageSwept};
use super::super::{NAME, POINTS};
use super::Page;
use crate::background::{self, Work};
use crate::members::Members;
use crate::metric;
use crate::retry::{report_failure, report_recovery};
use crate::targets::Target;

/// Maximum number of pages between two saves of the sweep's position.
const SAVE_EVERY: u32 = 50;

/// How often an idle source is polled for its time.
const PAUSE: Duration = Duration::from_millis(200);

type Looking = Work<PortResult<Option<PageSwept>>>;

/// The operation in logs and health: completes "failed to …".
const SWEEP: &str = "sweep orphaned points";

pub(super) struct Sweeping {
    version: Version,
    /// The targets to sweep; the first is the current one.
    targets: VecDeque<Swept>,
    /// Limits the log of an outage. Not the producer's own health: the feed continues meanwhile.
    outage: Health,
    /// Maximum points in the next page.
    points: usize,
    /// The read of the current page. Kept across calls: otherwise a busy feed would never let one finish.
    looking: Option<Looking>,
    backoff: Backoff,
    gone: u64,
    /// Pages since the position was saved.
    pages: u32,
}

/// A target that is swept.
struct Swept {
    target: Arc<Target>,
    members: Members,
    /// The last point of its pages so far.
    after: Option<Uuid>,
}

impl Sweeping {
    /// Sweeps these targets, each after a point of its collection.
    pub(super) fn new(
        version: Version,
        targets: Vec<(Arc<Target>, Option<Uuid>)>,
        source: &Covered,
        points: usize,
    ) -> Self {
        let swept = |(target, after): (Arc<Target>, Option<Uuid>)| {
            let members = Members::of(&target, &source.source);
            Swept { target, members, after }
        };
        Self {
            version,
            targets: targets.into_iter().map(swept).collect(),
            outage: Health::of(NAME),
            points: points.clamp(1, POINTS),
            looking: None,
            backoff: Backoff::for_servers(),
            gone: 0,
            pages: 0,
        }
    }

    /// The next page. Waits for an unreachable index or source: the feed continues meanwhile.
    pub(super) async fn next(&mut self) -> Page {
        loop {
            let Some(swept) = self.targets.front_mut() else { return Page::Swept };
            let looking = match &mut self.looking {
                Some(looking) => looking,
                None => self.looking.insert(swept.look(self.version, self.points, Duration::ZERO)),
            };
            let looked = looking.await;
            match looked {
                Ok(page) => {
                    self.looking = None;
                    if self.backoff.attempts() > 0 {
                        report_recovery(&self.outage, SWEEP);
                        self.backoff.reset();
                    }
                    let Some(page) = page else {
                        self.targets.pop_front();
                        continue;
                    };
                    swept.after = Some(page.last);
                    self.gone += page.absent.len() as u64;
                    self.pages += 1;
                    self.points = (2 * self.points).min(POINTS);
                    return Page::Points(page);
                }
                Err(error) => {
                    metric::failed(NAME, &error, true);
                    report_failure(&self.outage, SWEEP, &error);
                    let delay = self.backoff.next_delay(error.retry_after);
                    self.looking = Some(swept.look(self.version, self.points, delay));
                }
            }
        }
    }

    /// Sweeps only those of the targets for which this is true.
    pub(super) fn retain(&mut self, is_swept: impl Fn(&Target) -> bool) {
        let current = self.targets.front().map(|swept| swept.target.id.clone());
        self.targets.retain(|swept| is_swept(&swept.target));
        if self.targets.front().map(|swept| &swept.target.id) != current.as_ref() {
            self.looking = None;
        }
    }

    /// Whether the position is due to be saved although its page has no orphans. A sweep of a billion points must not
    /// start over after every restart.
    pub(super) fn is_to_be_saved(&mut self) -> bool {
        let save = self.pages >= SAVE_EVERY;
        if save {
            self.pages = 0;
        }
        save
    }

    pub(super) fn finish(&self) {
        if self.gone > 0 {
            info!(documents = self.gone, "removed orphaned documents from the index");
        }
    }
}

impl Swept {
    /// Reads the next page after a delay.
    fn look(&self, version: Version, points: usize, delay: Duration) -> Looking {
        let (target, members, after) = (self.target.clone(), self.members.clone(), self.after);
        background::begin(look(target, members, version, (after, points), delay))
    }
}

/// Reads a page of the target of at most this many points after a delay, and determines which of its documents do not
/// belong to it. `None` at the end.
async fn look(
    target: Arc<Target>,
    members: Members,
    version: Version,
    (after, points): (Option<Uuid>, usize),
    delay: Duration,
) -> PortResult<Option<PageSwept>> {
    tokio::time::sleep(delay).await;
    let (index, tombstones) = (&target.ports.index, &target.ports.tombstones);
    let page = index.page(after, points, STAMP).await?;
    let Some(last) = page.last().map(|point| point.id) else { return Ok(None) };
    // Before the source is queried, so that a document inserted after this time wins. And after the time of the
    // snapshot, to be newer than every change that it found: an idle MongoDB advances its time every ten seconds.
    let mut time = members.now().await?;
    while time <= version.time {
        tokio::time::sleep(PAUSE).await;
        time = members.now().await?;
    }
    let mut absent = Vec::new();
    // A collection of the catalog has no points of other owners.
    let owns = |namespace: &Namespace| !target.is_local() || members.covered().coverage.reaches_database_of(namespace);
    for (namespace, keys) in plan::suspects(&page, owns, Version::of_snapshot(version.epoch, time)) {
        let keys: Vec<String> = keys.into_iter().collect();
        let belong = members.existing(&namespace, &keys, time).await?;
        absent.extend(
            keys.into_iter().zip(belong).filter(|(_, belongs)| !belongs).map(|(key, _)| (namespace.clone(), key)),
        );
    }
    let (absent, former) = plan::former(absent, Version::of_snapshot(version.epoch, time));
    if !former.is_empty() {
        // Like an upserter: a write in flight finds the tombstone.
        tombstones.raise(&former).await?;
        index.delete(&former).await?;
        info!(documents = former.len(), "removed points with keys of an earlier release");
    }
    let target = (!target.is_local()).then(|| target.id.clone());
    Ok(Some(PageSwept { target, last, time, absent }))
}
