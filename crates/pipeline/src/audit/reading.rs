//! The first look: reads both sides, and finds documents that differ.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{IndexedPoint, PortResult, SourceRow};
use tidewheel_core::version::ClusterTime;
use uuid::Uuid;

use super::judge::{Seen, Target};
use super::look;
use super::run::{BATCH, Run, Suspect, Verdict, bytes, off_thread, state};

/// Index points per page.
const PAGE: usize = 1_000;

/// Index points read per position when only a sample is audited.
const SAMPLE: usize = 50;

impl Run<'_> {
    /// Compares the source's documents with their points.
    pub(super) async fn read_source(&self, namespaces: &[Namespace]) -> PortResult<()> {
        let (source, index) = (&self.members, &self.ports.index);
        let (part, whole) = (self.options.scope.filter(), self.options.payload.is_some());
        for namespace in namespaces {
            let after = match &*self.place() {
                Some(place) => place.row_after(namespace).map(|after| after.map(str::to_owned)),
                None => Some(None),
            };
            let Some(after) = after else { continue };
            let now = source.now().await?;
            let mut scan = source.scan(namespace, after.as_deref(), now, part.as_ref()).await?;
            loop {
                let rows = scan.next().await?;
                if rows.is_empty() {
                    break;
                }
                let target = |row: &SourceRow| Target { namespace: namespace.clone(), key: row.key.clone() };
                let targets: Vec<Target> = rows.iter().map(target).collect();
                let refs: Vec<&Target> = targets.iter().collect();
                let mut points = look::points(&**index, &refs, &[], whole, false).await?;
                let sides = targets.iter().zip(rows).map(|(target, row)| {
                    let points = points.remove(target).unwrap_or_default();
                    (Some(row), points)
                });
                let verdicts = self.judge(sides.collect()).await?;
                let differing = targets.iter().zip(verdicts).filter(|(_, verdict)| verdict.difference.is_some());
                let suspects = differing.map(|(target, Verdict { state: source, .. })| Suspect {
                    target: target.clone(),
                    source,
                    points: Vec::new(),
                });
                let suspects: Vec<Suspect> = suspects.collect();
                self.progress().documents += targets.len() as u64;
                self.found().documents += targets.len() as u64;
                self.suspect(suspects).await?;
                if let Some(last) = targets.last() {
                    self.passed(|place| place.pass_row(namespace, &last.key)).await?;
                }
                (self.report)(*self.progress());
                tokio::time::sleep(self.options.pause).await;
            }
        }
        Ok(())
    }

    /// Checks whether the source has the documents of the index's points.
    pub(super) async fn read_index(&self, count: u64) -> PortResult<()> {
        let index = &self.ports.index;
        let Some(share) = self.options.scope.share else {
            let mut after = self.place().as_ref().and_then(|place| place.index);
            loop {
                let page = index.page(after, PAGE, look::fields(false)).await?;
                let Some(last) = page.last() else { return Ok(()) };
                let last = last.id;
                after = Some(last);
                self.compare_page(page).await?;
                self.passed(|place| place.pass_point(last)).await?;
            }
        };
        // Ids are hashes, so any position is a random sample.
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        let places = (count as f64 * share / SAMPLE as f64).ceil() as u64;
        for place in 0..places {
            let name = [seed.to_be_bytes().as_slice(), &place.to_be_bytes()].concat();
            let from = Uuid::new_v5(&Uuid::NAMESPACE_OID, &name);
            self.compare_page(index.page(Some(from), SAMPLE, look::fields(false)).await?).await?;
        }
        Ok(())
    }

    async fn compare_page(&self, page: Vec<IndexedPoint>) -> PortResult<()> {
        let (source, index) = (&self.members, &self.ports.index);
        let (count, scope) = (page.len() as u64, &self.options.scope);
        let seen: Vec<Seen> = page.into_iter().filter_map(Seen::read).collect();
        // A collection of the catalog has no points of other owners.
        let is_own = self.options.target.is_some();
        let ours = |seen: &&Seen| is_own || source.covered().coverage.reaches_database_of(&seen.stamp.namespace);
        let foreign = count - seen.iter().filter(ours).count() as u64;
        let seen: Vec<&Seen> =
            seen.iter().filter(ours).filter(|seen| scope.contains(&seen.stamp.namespace, &seen.stamp.key)).collect();
        // Chunk 0 determines whether a later chunk belongs to its document.
        let later = seen.iter().filter(|seen| seen.stamp.chunk > 0).map(|seen| seen.document().point(0));
        let first: Vec<Uuid> = later.collect::<BTreeSet<_>>().into_iter().collect();
        let first: HashMap<Uuid, Seen> = index
            .points(&first, look::fields(false))
            .await?
            .into_iter()
            .filter_map(|point| Some((point.id, Seen::read(point)?)))
            .collect();
        let mut suspects: BTreeMap<Target, Vec<Uuid>> = BTreeMap::new();
        let mut asked: BTreeMap<Namespace, BTreeSet<String>> = BTreeMap::new();
        for seen in seen {
            let target = Target { namespace: seen.stamp.namespace.clone(), key: seen.stamp.key.clone() };
            let belongs = seen.stamp.chunk == 0
                || first.get(&target.document().point(0)).is_some_and(|first| {
                    first.stamp.version == seen.stamp.version && seen.stamp.chunk < first.stamp.chunks
                });
            if !belongs || seen.is_stray() {
                suspects.entry(target.clone()).or_default().push(seen.point.id);
            }
            asked.entry(target.namespace).or_default().insert(target.key);
        }
        let now = source.now().await?;
        for (namespace, keys) in asked {
            let keys: Vec<String> = keys.into_iter().collect();
            let exist = source.existing(&namespace, &keys, now).await?;
            for (key, _) in keys.into_iter().zip(exist).filter(|(_, exists)| !exists) {
                suspects.entry(Target { namespace: namespace.clone(), key }).or_default();
            }
        }
        let suspects = self.with_source(suspects, now).await?;
        {
            let mut progress = self.progress();
            progress.points += count;
            let mut found = self.found();
            found.points += count;
            found.foreign += foreign;
        }
        self.suspect(suspects).await?;
        (self.report)(*self.progress());
        tokio::time::sleep(self.options.pause).await;
        Ok(())
    }

    /// Adds the current state in the source, to detect later changes.
    async fn with_source(&self, suspects: BTreeMap<Target, Vec<Uuid>>, now: ClusterTime) -> PortResult<Vec<Suspect>> {
        let suspects: Vec<(Target, Vec<Uuid>)> = suspects.into_iter().collect();
        let mut all = Vec::with_capacity(suspects.len());
        for batch in suspects.chunks(BATCH) {
            let targets: Vec<&Target> = batch.iter().map(|(target, _)| target).collect();
            let rows = look::rows(&self.members, &targets, now).await?;
            let bytes = bytes(rows.values());
            let states = move || rows.into_iter().map(|(target, row)| (target, state(&row))).collect();
            let mut states: HashMap<Target, String> = off_thread(bytes, states).await?;
            all.extend(batch.iter().map(|(target, points)| Suspect {
                target: target.clone(),
                source: states.remove(target),
                points: points.clone(),
            }));
        }
        Ok(all)
    }
}
