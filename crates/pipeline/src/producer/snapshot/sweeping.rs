//! The second half: the points of the index.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tidewheel_core::identity::Namespace;
use tidewheel_core::payload::STAMP;
use tidewheel_core::ports::PortResult;
use tidewheel_core::retry::Backoff;
use tidewheel_core::version::{ClusterTime, Version};
use tracing::{info, warn};
use uuid::Uuid;

use super::super::{ProducerPorts, plan};
use super::Page;

/// Points of the index in a page.
const POINTS: usize = 1_000;

/// A page that was looked at.
struct Looked {
    /// The last point of the page; `None` if there was none.
    last: Option<Uuid>,
    /// When the source was asked.
    time: ClusterTime,
    absent: Vec<(Namespace, String)>,
}

type Looking<'a> = Pin<Box<dyn Future<Output = PortResult<Looked>> + Send + 'a>>;

pub(super) struct Sweeping<'a> {
    version: Version,
    ports: &'a ProducerPorts,
    after: Option<Uuid>,
    /// The page that is being looked at. Kept from call to call: a feed that never rests would else never let one finish.
    looking: Option<Looking<'a>>,
    backoff: Backoff,
    gone: u64,
}

impl<'a> Sweeping<'a> {
    pub(super) fn new(version: Version, ports: &'a ProducerPorts) -> Self {
        Self { version, ports, after: None, looking: None, backoff: Backoff::for_servers(), gone: 0 }
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
                Ok(Looked { last: None, .. }) => {
                    self.looking = None;
                    return Page::Swept;
                }
                Ok(Looked { last, time, absent }) => {
                    self.looking = None;
                    self.backoff.reset();
                    self.after = last;
                    self.gone += absent.len() as u64;
                    return Page::Gone(time, absent);
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

    pub(super) fn finish(&self) {
        if self.gone > 0 {
            info!(documents = self.gone, "removed what was in the index but no longer in MongoDB");
        }
    }
}

/// Looks at a page of the index after a while: which of its documents did not exist in the source?
async fn look(ports: &ProducerPorts, version: Version, after: Option<Uuid>, delay: Duration) -> PortResult<Looked> {
    tokio::time::sleep(delay).await;
    let ProducerPorts { source, index, .. } = ports;
    let page = index.page(after, POINTS, STAMP).await?;
    let mut looked = Looked { last: page.last().map(|point| point.id), time: version.time, absent: Vec::new() };
    let suspects = plan::suspects(&page, source.database(), version);
    if suspects.is_empty() {
        return Ok(looked);
    }
    // Before the source is asked: whoever inserts a document after this time wins.
    looked.time = source.now().await?;
    for (namespace, keys) in suspects {
        let keys: Vec<String> = keys.into_iter().collect();
        let exist = source.existing(&namespace, &keys, looked.time).await?;
        let absent = keys.into_iter().zip(exist).filter(|(_, exists)| !exists);
        looked.absent.extend(absent.map(|(key, _)| (namespace.clone(), key)));
    }
    Ok(looked)
}
