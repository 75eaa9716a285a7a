//! Replays of the entries that a stage still holds.

use std::sync::Arc;

use tidewheel_core::catalog::TargetId;
use tidewheel_core::change::Change;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::ports::{Delivery, EntryId, Extent, PortResult, StreamLog};

use super::Destinations;
use super::destinations::Routing;
use super::pages::Read;
use crate::carries::Carries;
use crate::newest::{newest, refuse_newer};

/// A record that can be replayed.
pub(super) trait Replayed: Carries + Sized {
    /// Marks its change as replayed.
    fn mark(&mut self, replay: u32);

    /// The record for the selected targets; `None` if none is left.
    fn restricted(self, routing: &Routing) -> Option<Self>;

    /// The targets for which its change supersedes older ones, beside [`Carries::target`]. Sorted.
    fn concerned(&self) -> Vec<TargetId>;
}

impl Replayed for Change {
    fn mark(&mut self, replay: u32) {
        self.version.replay = self.version.replay.max(replay);
    }

    fn restricted(self, routing: &Routing) -> Option<Self> {
        routing.restricted(self)
    }

    fn concerned(&self) -> Vec<TargetId> {
        let stamp = self.route.stamp();
        let mut concerned: Vec<TargetId> =
            stamp.into_iter().flat_map(|stamp| stamp.targets.iter().chain(&stamp.leaves)).cloned().collect();
        concerned.sort_unstable();
        concerned
    }
}

impl Replayed for Embedded {
    fn mark(&mut self, replay: u32) {
        self.change.mark(replay);
    }

    fn restricted(self, routing: &Routing) -> Option<Self> {
        routing.selects(&self).then_some(self)
    }

    fn concerned(&self) -> Vec<TargetId> {
        Vec::new()
    }
}

/// The entries of a stage after a position, up to its newest entry at the start: the newest record of each document per
/// page, marked as replayed, for the selected targets.
pub(super) struct Entries<T> {
    stream_log: Arc<dyn StreamLog<T>>,
    destinations: Destinations,
    after: EntryId,
    extent: Extent,
    from_the_first: bool,
    replay: u32,
}

impl<T: Replayed> Entries<T> {
    pub(super) async fn begin(
        stream_log: Arc<dyn StreamLog<T>>,
        destinations: Destinations,
        after: EntryId,
        replay: u32,
    ) -> PortResult<Self> {
        let extent = stream_log.extent().await?;
        let from_the_first = after == EntryId::zero();
        Ok(Self { stream_log, destinations, from_the_first, after, extent, replay })
    }

    /// The number of entries, if known.
    pub(super) fn of(&self) -> Option<u64> {
        self.from_the_first.then_some(self.extent.entries)
    }

    /// The next page. A failed call may be retried.
    pub(super) async fn next(&mut self, max: usize) -> PortResult<Read<T>> {
        let mut page = self.stream_log.page(&self.after, max).await?;
        page.retain(|delivery| delivery.id <= self.extent.last);
        refuse_newer(&page)?;
        let Some(last) = page.last().map(|delivery| delivery.id.clone()) else { return Ok(None) };
        let routing = self.destinations.now().await?;
        self.after = last;
        let (read, mut letters, mut records) = (page.len() as u64, Vec::new(), Vec::new());
        for group in groups(page, &routing) {
            records.extend(newest(group, &mut letters).into_iter().map(|kept| kept.record));
        }
        records.iter_mut().for_each(|record: &mut T| record.mark(self.replay));
        Ok(Some((read, records, letters.len() as u64)))
    }
}

/// The records for the selected targets, divided by the targets for which one supersedes another, in the order in which
/// they first occur. Unreadable entries stay.
fn groups<T: Replayed>(page: Vec<Delivery<T>>, routing: &Routing) -> Vec<Vec<Delivery<T>>> {
    let mut groups: Vec<(Vec<TargetId>, Vec<Delivery<T>>)> = Vec::new();
    for Delivery { id, record } in page {
        let record = match record.map(|record| record.restricted(routing)) {
            Ok(Some(record)) => Ok(record),
            Ok(None) => continue,
            Err(error) => Err(error),
        };
        let concerned = record.as_ref().map(T::concerned).unwrap_or_default();
        let delivery = Delivery { id, record };
        match groups.iter_mut().find(|(known, _)| *known == concerned) {
            Some((_, group)) => group.push(delivery),
            None => groups.push((concerned, vec![delivery])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
