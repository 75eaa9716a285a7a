//! Replays of the source's history.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::Change;
use tidewheel_core::error::PortError;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::ports::{Covered, Feed, FeedError, PortResult, Source, SourceFilter, StartAt};
use tidewheel_core::version::ClusterTime;

use super::Destinations;
use super::destinations::Routing;
use super::entries::Replayed as _;
use super::pages::Read;
use crate::producer;

/// Number of consecutive empty batches, each after a wait of a second except the first, after which a feed has caught
/// up.
const IDLE: u32 = 3;

/// The changes of the source's history for the selected targets, marked as replayed.
pub(super) struct History {
    source: Covered,
    destinations: Destinations,
    /// The routing of the feed's coverage.
    routing: Arc<Routing>,
    feed: Option<Box<dyn Feed>>,
    position: producer::Position,
    until: ClusterTime,
    replay: u32,
    idle: u32,
    /// A batch that was read, until the source has reported which of its documents still belong to their targets.
    read: Option<(u64, Vec<Change>, u64)>,
}

impl History {
    pub(super) async fn begin(
        source: Arc<dyn Source>,
        destinations: Destinations,
        epoch: u32,
        since: ClusterTime,
        replay: u32,
    ) -> PortResult<Self> {
        let routing = destinations.now().await?;
        let source = Covered { source, coverage: routing.coverage().clone() };
        let until = source.now().await?;
        let feed = Some(source.open(StartAt::Time(since)).await.map_err(lost)?);
        let position = producer::Position::begin(epoch, since);
        Ok(Self { source, destinations, routing, feed, position, until, replay, idle: 0, read: None })
    }

    /// The next page. A failed call may be retried.
    pub(super) async fn next(&mut self) -> PortResult<Read<Change>> {
        if self.read.is_none() {
            let Some(open) = &mut self.feed else { return Ok(None) };
            let batch = open.next().await.map_err(lost)?;
            self.idle = if batch.events.is_empty() { self.idle + 1 } else { 0 };
            let caught_up = self.idle == IDLE || batch.events.last().is_some_and(|event| event.time > self.until);
            let count = batch.events.len() as u64;
            let doubtful = self.position.doubtful(&batch);
            let time = batch.events.first().map_or_else(ClusterTime::default, |event| event.time);
            let present = match doubtful.is_empty() {
                true => HashSet::new(),
                false => producer::present(&self.source, doubtful, time).await?,
            };
            let (mut changes, skipped) = self.position.follow(batch, &present, self.routing.routes());
            changes.iter_mut().for_each(|change| change.mark(self.replay));
            if caught_up {
                self.feed = None;
            }
            self.read = Some((count, changes, skipped));
        }
        let routing = self.destinations.now().await?;
        let absent = match &self.read {
            Some((_, changes, _)) => absent(&*self.source.source, &routing, changes).await?,
            None => Absent::new(),
        };
        let (count, changes, skipped) = self.read.take().unwrap_or_default();
        let current = |change: Change| {
            let document = change.document.is_some().then(|| change.document_id());
            let is_absent = |target: &TargetId| document.is_some_and(|id| absent.contains(&(id, target.clone())));
            routing.for_targets(change, |target| !is_absent(target))
        };
        Ok(Some((count, changes.into_iter().filter_map(current).collect(), skipped)))
    }
}

/// Documents, each with a target that it does not belong to.
type Absent = HashSet<(DocumentId, TargetId)>;

/// The documents of these changes that no longer exist in the source, or no longer belong to one of their targets. Their
/// older states must not come back: their tombstones may have been collected, and an interrupted replay never reaches
/// the deletion itself.
async fn absent(source: &dyn Source, routing: &Routing, changes: &[Change]) -> PortResult<Absent> {
    // The filter is that of the current catalog, which may differ from the one that has routed the changes.
    let mut asked: BTreeMap<(&Namespace, TargetId), BTreeSet<&str>> = BTreeMap::new();
    for change in changes.iter().filter(|change| change.document.is_some()) {
        let targets = match change.route.stamp() {
            Some(stamp) => stamp.targets.clone(),
            None => routing.plain().into_iter().collect(),
        };
        for target in targets {
            asked.entry((&change.namespace, target)).or_default().insert(&change.key);
        }
    }
    let mut absent = Absent::new();
    if asked.is_empty() {
        return Ok(absent);
    }
    let now = source.now().await?;
    // Targets often have the same documents.
    let mut answered: BTreeMap<Question<'_>, Vec<bool>> = BTreeMap::new();
    for ((namespace, target), keys) in asked {
        let Some(generation) = routing.generation(&target) else { continue };
        let keys: Vec<String> = keys.into_iter().map(str::to_owned).collect();
        let document = |key: &String| (DocumentId::new(namespace, key), target.clone());
        if !generation.declaration.source.covers(namespace) {
            absent.extend(keys.iter().map(document));
            continue;
        }
        let filter = generation.declaration.filter.as_ref();
        let question = (namespace, filter, keys);
        let exist = match answered.remove(&question) {
            Some(exist) => exist,
            None => source.existing(namespace, &question.2, now, filter).await?,
        };
        let gone = question.2.iter().zip(&exist).filter(|(_, exists)| !**exists);
        absent.extend(gone.map(|(key, _)| document(key)));
        answered.insert(question, exist);
    }
    Ok(absent)
}

/// Whether these documents of a collection exist and match the filter.
type Question<'a> = (&'a Namespace, Option<&'a SourceFilter>, Vec<String>);

fn lost(error: FeedError) -> PortError {
    match error {
        FeedError::HistoryLost(why) => {
            PortError::fatal(format!("MongoDB's history does not reach back to the requested time: {why}"))
                .with_hint("run the replay without --since to replay the whole source")
        }
        FeedError::Port(error) => error,
    }
}
