//! The second half: sweeps orphaned points of the index.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tidewheel_core::health::Health;
use tidewheel_core::payload::STAMP;
use tidewheel_core::ports::PortResult;
use tidewheel_core::retry::Backoff;
use tidewheel_core::version::Version;
use tracing::info;
use uuid::Uuid;

use super::super::plan::{self, PageSwept};
use super::super::{NAME, POINTS, ProducerPorts};
use super::Page;
use crate::metric;
use crate::retry::{report_failure, report_recovery};

/// Maximum number of pages between two saves of the sweep's position.
const SAVE_EVERY: u32 = 50;

/// How often an idle source is polled for its time.
const PAUSE: Duration = Duration::from_millis(200);

type Looking<'a> = Pin<Box<dyn Future<Output = PortResult<Option<PageSwept>>> + Send + 'a>>;

/// The operation in logs and health: completes "failed to …".
const SWEEP: &str = "sweep orphaned points";

pub(super) struct Sweeping<'a> {
    version: Version,
    ports: &'a ProducerPorts,
    /// Limits the log of an outage. Not the producer's own health: the feed continues meanwhile.
    outage: Health,
    after: Option<Uuid>,
    /// Maximum points in the next page.
    points: usize,
    /// The read of the current page. Kept across calls: otherwise a busy feed would never let one finish.
    looking: Option<Looking<'a>>,
    backoff: Backoff,
    gone: u64,
    /// Pages since the position was saved.
    pages: u32,
}

impl<'a> Sweeping<'a> {
    pub(super) fn new(version: Version, after: Option<Uuid>, ports: &'a ProducerPorts, points: usize) -> Self {
        let (points, backoff) = (points.clamp(1, POINTS), Backoff::for_servers());
        Self { version, ports, outage: Health::of(NAME), after, points, looking: None, backoff, gone: 0, pages: 0 }
    }

    /// The next page. Waits for an unreachable index or source: the feed continues meanwhile.
    pub(super) async fn next(&mut self) -> Page {
        loop {
            let looking = match &mut self.looking {
                Some(looking) => looking,
                None => {
                    let look = look(self.ports, self.version, (self.after, self.points), Duration::ZERO);
                    self.looking.insert(Box::pin(look))
                }
            };
            let looked = looking.await;
            match looked {
                Ok(page) => {
                    self.looking = None;
                    if self.backoff.attempts() > 0 {
                        report_recovery(&self.outage, SWEEP);
                        self.backoff.reset();
                    }
                    let Some(page) = page else { return Page::Swept };
                    self.after = Some(page.last);
                    self.gone += page.absent.len() as u64;
                    self.pages += 1;
                    self.points = (2 * self.points).min(POINTS);
                    return Page::Points(page);
                }
                Err(error) => {
                    metric::failed(NAME, &error, true);
                    report_failure(&self.outage, SWEEP, &error);
                    let delay = self.backoff.next_delay(error.retry_after);
                    let look = look(self.ports, self.version, (self.after, self.points), delay);
                    self.looking = Some(Box::pin(look));
                }
            }
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

/// Reads a page of the index of at most this many points after a delay, and determines which of its documents are missing in the source. `None` at
/// the end.
async fn look(
    ports: &ProducerPorts,
    version: Version,
    (after, points): (Option<Uuid>, usize),
    delay: Duration,
) -> PortResult<Option<PageSwept>> {
    tokio::time::sleep(delay).await;
    let ProducerPorts { source, index, tombstones, .. } = ports;
    let page = index.page(after, points, STAMP).await?;
    let Some(last) = page.last().map(|point| point.id) else { return Ok(None) };
    // Before the source is queried, so that a document inserted after this time wins. And after the time of the
    // snapshot, to be newer than every change that it found: an idle MongoDB advances its time every ten seconds.
    let mut time = source.now().await?;
    while time <= version.time {
        tokio::time::sleep(PAUSE).await;
        time = source.now().await?;
    }
    let mut absent = Vec::new();
    for (namespace, keys) in plan::suspects(&page, &source.coverage, Version::of_snapshot(version.epoch, time)) {
        let keys: Vec<String> = keys.into_iter().collect();
        let exist = source.existing(&namespace, &keys, time).await?;
        absent
            .extend(keys.into_iter().zip(exist).filter(|(_, exists)| !exists).map(|(key, _)| (namespace.clone(), key)));
    }
    let (absent, former) = plan::former(absent, Version::of_snapshot(version.epoch, time));
    if !former.is_empty() {
        // Like an upserter: a write in flight finds the tombstone.
        tombstones.raise(&former).await?;
        index.delete(&former).await?;
        info!(documents = former.len(), "removed points with keys of an earlier release");
    }
    Ok(Some(PageSwept { last, time, absent }))
}
