//! The second half: the points of the index.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tidewheel_core::payload::STAMP;
use tidewheel_core::ports::PortResult;
use tidewheel_core::retry::Backoff;
use tidewheel_core::version::Version;
use tracing::{info, warn};
use uuid::Uuid;

use super::super::plan::{self, PageSwept};
use super::super::{POINTS, ProducerPorts};
use super::Page;

/// After how many pages the place of a sweep is saved at the latest.
const SAVE_EVERY: u32 = 50;

/// How often a source whose time stands still is asked again.
const PAUSE: Duration = Duration::from_millis(200);

type Looking<'a> = Pin<Box<dyn Future<Output = PortResult<Option<PageSwept>>> + Send + 'a>>;

pub(super) struct Sweeping<'a> {
    version: Version,
    ports: &'a ProducerPorts,
    after: Option<Uuid>,
    /// The page that is being looked at. Kept from call to call: a feed that never rests would else never let one finish.
    looking: Option<Looking<'a>>,
    backoff: Backoff,
    gone: u64,
    /// Pages since the place was saved.
    pages: u32,
}

impl<'a> Sweeping<'a> {
    pub(super) fn new(version: Version, after: Option<Uuid>, ports: &'a ProducerPorts) -> Self {
        Self { version, ports, after, looking: None, backoff: Backoff::for_servers(), gone: 0, pages: 0 }
    }

    /// The next page. Waits for an index or a source that is away: the feed goes on meanwhile.
    pub(super) async fn next(&mut self) -> Page {
        loop {
            let looking = match &mut self.looking {
                Some(looking) => looking,
                None => {
                    let look = look(self.ports, self.version, self.after, Duration::ZERO);
                    self.looking.insert(Box::pin(look))
                }
            };
            let looked = looking.await;
            match looked {
                Ok(page) => {
                    self.looking = None;
                    let Some(page) = page else { return Page::Swept };
                    self.backoff.reset();
                    self.after = Some(page.last);
                    self.gone += page.absent.len() as u64;
                    self.pages += 1;
                    return Page::Points(page);
                }
                Err(error) => {
                    if self.backoff.attempts() == 0 {
                        warn!("cannot look for what is no longer in MongoDB, will keep trying: {error}");
                    }
                    let delay = self.backoff.next_delay(error.retry_after);
                    let look = look(self.ports, self.version, self.after, delay);
                    self.looking = Some(Box::pin(look));
                }
            }
        }
    }

    /// Whether the place is to be saved although its page holds nothing to remove. A sweep of a billion points must not begin again
    /// after every restart.
    pub(super) fn is_to_be_saved(&mut self) -> bool {
        let save = self.pages >= SAVE_EVERY;
        if save {
            self.pages = 0;
        }
        save
    }

    pub(super) fn finish(&self) {
        if self.gone > 0 {
            info!(documents = self.gone, "removed what was in the index but no longer in MongoDB");
        }
    }
}

/// Looks at a page of the index after a while: which of its documents does the source not have? `None` at the end.
async fn look(
    ports: &ProducerPorts,
    version: Version,
    after: Option<Uuid>,
    delay: Duration,
) -> PortResult<Option<PageSwept>> {
    tokio::time::sleep(delay).await;
    let ProducerPorts { source, index, tombstones, .. } = ports;
    let page = index.page(after, POINTS, STAMP).await?;
    let Some(last) = page.last().map(|point| point.id) else { return Ok(None) };
    // Before the source is asked: whoever inserts a document after this time wins. And after the time of the snapshot,
    // to be newer than every change that it found: an idle MongoDB moves its time forward every ten seconds.
    let mut time = source.now().await?;
    while time <= version.time {
        tokio::time::sleep(PAUSE).await;
        time = source.now().await?;
    }
    let mut absent = Vec::new();
    for (namespace, keys) in plan::suspects(&page, source.database(), Version::of_snapshot(version.epoch, time)) {
        let keys: Vec<String> = keys.into_iter().collect();
        let exist = source.existing(&namespace, &keys, time).await?;
        absent
            .extend(keys.into_iter().zip(exist).filter(|(_, exists)| !exists).map(|(key, _)| (namespace.clone(), key)));
    }
    let (absent, former) = plan::former(absent, Version::of_snapshot(version.epoch, time));
    if !former.is_empty() {
        // As an upserter removes a document: a write that is still on its way meets the tombstone.
        tombstones.raise(&former).await?;
        index.delete(&former).await?;
        info!(documents = former.len(), "removed points with keys of an earlier release");
    }
    Ok(Some(PageSwept { last, time, absent }))
}
