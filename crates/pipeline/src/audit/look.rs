//! Reads documents from source and index.

use std::collections::{BTreeMap, HashMap};

use tidewheel_core::payload::STAMP;
use tidewheel_core::ports::{IndexReader, PortResult, SourceRow};
use tidewheel_core::version::ClusterTime;
use uuid::Uuid;

use super::judge::{Seen, Target};
use crate::members::Members;

/// Maximum number of points requested in one call.
const POINTS: usize = 1_000;

/// The payload fields to read: those with version and digest, or all.
pub(super) fn fields(whole: bool) -> &'static [&'static str] {
    if whole { &[] } else { STAMP }
}

/// Returns the points of these documents: chunk 0, the further chunks according to it, and the ones in `more`. With
/// `probe`, also the one after the last, where leftover chunks of an older version begin.
pub(super) async fn points(
    index: &dyn IndexReader,
    targets: &[&Target],
    more: &[Uuid],
    whole: bool,
    probe: bool,
) -> PortResult<HashMap<Target, Vec<Seen>>> {
    let mut of: HashMap<Target, Vec<Seen>> = HashMap::with_capacity(targets.len());
    let first: Vec<Uuid> = targets.iter().map(|target| target.document().point(0)).collect();
    read(index, &first, whole, &mut of).await?;
    let mut rest = Vec::new();
    for target in targets {
        let document = target.document();
        let chunks = of.get(*target).and_then(|seen| seen.iter().find(|seen| seen.point.id == document.point(0)));
        let last = chunks.map_or(u32::from(probe), |seen| seen.stamp.chunks.saturating_add(u32::from(probe)));
        rest.extend((1..last).map(|chunk| document.point(chunk)));
    }
    rest.extend(more);
    rest.sort_unstable();
    rest.dedup();
    read(index, &rest, whole, &mut of).await?;
    Ok(of)
}

async fn read(
    index: &dyn IndexReader,
    ids: &[Uuid],
    whole: bool,
    of: &mut HashMap<Target, Vec<Seen>>,
) -> PortResult<()> {
    for ids in ids.chunks(POINTS) {
        for seen in index.points(ids, fields(whole)).await?.into_iter().filter_map(Seen::read) {
            let target = Target { namespace: seen.stamp.namespace.clone(), key: seen.stamp.key.clone() };
            let known = of.entry(target).or_default();
            if known.iter().all(|other| other.point.id != seen.point.id) {
                known.push(seen);
            }
        }
    }
    Ok(())
}

/// Returns the source rows of those of these documents that belong to the target, as of `at_least` or later.
pub(super) async fn rows(
    source: &Members,
    targets: &[&Target],
    at_least: ClusterTime,
) -> PortResult<HashMap<Target, SourceRow>> {
    let mut keys: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for target in targets {
        keys.entry(&target.namespace).or_default().push(target.key.clone());
    }
    let mut rows = HashMap::with_capacity(targets.len());
    for (namespace, keys) in keys {
        for row in source.fetch(namespace, &keys, at_least).await? {
            rows.insert(Target { namespace: namespace.clone(), key: row.key.clone() }, row);
        }
    }
    Ok(rows)
}
