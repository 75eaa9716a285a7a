//! Detects deletions that belong to a move of a document to another shard.
//!
//! A change of the shard key deletes the document on one shard and inserts it on another, at the same cluster time and
//! with the events in either order. The document exists afterwards. The inserted and the deleted document differ in
//! their document key: the `_id` together with the shard key.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Checkpoint, Covered, FeedBatch, PortResult, SourceEvent};
use tidewheel_core::version::ClusterTime;

/// The documents that exist after the events of one cluster time, by namespace and key, with their shard keys.
pub struct Moves<'a> {
    time: ClusterTime,
    alive: HashMap<(Namespace, String), HashSet<String>>,
    /// The time of the last event of the previous batch, and the existing documents of that time.
    before: ClusterTime,
    present: &'a HashSet<(Namespace, String)>,
}

impl<'a> Moves<'a> {
    pub fn new(before: ClusterTime, present: &'a HashSet<(Namespace, String)>) -> Self {
        Self { time: before, alive: HashMap::new(), before, present }
    }

    /// Processes the next event; returns whether it is a deletion after which a document of the same time and `_id`
    /// still exists.
    pub fn supersedes(&mut self, event: &SourceEvent) -> bool {
        if event.time != self.time {
            self.time = event.time;
            self.alive.clear();
        }
        if event.shard.is_empty() {
            return false;
        }
        let document = (event.namespace.clone(), event.key.clone());
        if event.operation == Operation::Delete {
            let outlived = match self.alive.get_mut(&document) {
                Some(shards) => {
                    shards.remove(&event.shard);
                    !shards.is_empty()
                }
                None => false,
            };
            return outlived || (event.time == self.before && self.present.contains(&document));
        }
        self.alive.entry(document).or_default().insert(event.shard.clone());
        false
    }
}

/// Documents deleted at the start of a batch that begins in the middle of a cluster time: earlier events of that time
/// are no longer known. The source has to be queried whether they exist. An existing one has moved, or was inserted
/// again later: that event follows.
pub fn doubtful(checkpoint: &Checkpoint, batch: &FeedBatch) -> BTreeMap<Namespace, BTreeSet<String>> {
    let mut documents: BTreeMap<Namespace, BTreeSet<String>> = BTreeMap::new();
    let (time, count) = checkpoint.last;
    let begins = batch.events.iter().take_while(|event| event.time == time && count > 0);
    for event in begins.filter(|event| event.operation == Operation::Delete && !event.shard.is_empty()) {
        documents.entry(event.namespace.clone()).or_default().insert(event.key.clone());
    }
    documents
}

/// Returns the documents among these that exist at `time` or later.
pub(crate) async fn present(
    source: &Covered,
    documents: BTreeMap<Namespace, BTreeSet<String>>,
    time: ClusterTime,
) -> PortResult<HashSet<(Namespace, String)>> {
    let mut present = HashSet::new();
    for (namespace, keys) in documents {
        let keys: Vec<String> = keys.into_iter().collect();
        let exist = source.existing(&namespace, &keys, time).await?;
        present
            .extend(keys.into_iter().zip(exist).filter(|(_, exists)| *exists).map(|(key, _)| (namespace.clone(), key)));
    }
    Ok(present)
}
