//! Carries out a plan against the index, in the order that the protocol demands.

use std::sync::atomic::{AtomicUsize, Ordering};

use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Alarm, DeadLetter, DocumentPoints, Fence, FenceTarget, Index, Tombstones, Written};

use super::plan::{Aftermath, Write, aftermath};
use super::traced::{Outcome, Outcomes};
use crate::meters;
use crate::newest::letter;
use crate::retry::{GivenUp, Patience};

/// Writes to the index under the fence of versions.
pub(super) struct Applier<'a> {
    pub(super) index: &'a dyn Index,
    pub(super) tombstones: &'a dyn Tombstones,
    pub(super) alarm: &'a dyn Alarm,
    pub(super) patience: &'a Patience,
    /// Dimension for which the collection was prepared; 0 before.
    pub(super) prepared: &'a AtomicUsize,
    /// Where it is noted what became of each document, if somebody follows their traces.
    pub(super) outcomes: Option<&'a Outcomes>,
}

impl Applier<'_> {
    /// Remembers the removals, then deletes what is behind them. First the tombstone: a late write that comes between
    /// the two finds it in its check and deletes itself.
    pub(super) async fn remove(&self, fences: &[Fence]) -> Result<(), GivenUp> {
        if fences.is_empty() {
            return Ok(());
        }
        self.patience.call("remember deletions", || self.tombstones.raise(fences)).await?;
        self.patience.call("delete from Qdrant", || self.index.delete(fences)).await
    }

    /// Writes the documents; gives those back that the index refuses for good. A refused batch is halved until the document is
    /// found that it is refused for.
    pub(super) async fn write(&self, writes: Vec<Write>) -> Result<(Vec<Write>, Vec<DeadLetter>), GivenUp> {
        let (mut done, mut letters) = (Vec::with_capacity(writes.len()), Vec::new());
        let mut todo = vec![writes];
        while let Some(mut writes) = todo.pop() {
            match self.write_all(&writes).await {
                Ok(()) => done.append(&mut writes),
                Err(GivenUp::Failed(error)) if error.class == ErrorClass::Poison && writes.len() > 1 => {
                    let second = writes.split_off(writes.len() / 2);
                    todo.extend([second, writes]);
                }
                Err(GivenUp::Failed(error)) if error.class == ErrorClass::Poison => {
                    meters::rejected("refused", writes.iter().map(|write| write.points.points.len() as u64).sum());
                    let entries = writes.into_iter().flat_map(|write| write.entries);
                    letters.extend(entries.map(|id| letter(id, &error)));
                }
                Err(given_up) => return Err(given_up),
            }
        }
        Ok((done, letters))
    }

    /// Payloads alone where that may be enough, then conditional upsert, check, clean-up; again from the start for documents
    /// that vanished in between.
    async fn write_all(&self, writes: &[Write]) -> Result<(), GivenUp> {
        let (unchanged, mut todo): (Vec<&Write>, _) = writes.iter().partition(|write| write.unchanged);
        todo.extend(self.refresh(unchanged).await?);
        while !todo.is_empty() {
            let documents: Vec<&DocumentPoints> = todo.iter().map(|write| &write.points).collect();
            self.prepare(&documents).await?;
            match self.patience.call("write to Qdrant", || self.index.upsert(&documents)).await? {
                Written::Durably => {
                    self.note(&todo, Outcome::Written);
                    todo = self.check(todo).await?;
                }
                // Somebody has deleted it since: prepare it again, and say so.
                Written::NoCollection => self.prepared.store(0, Ordering::Relaxed),
            }
        }
        Ok(())
    }

    /// Writes the payloads of documents whose vectors the index had when they were processed; gives those back that have to be
    /// written whole: something has happened to their points since then, or the index refuses to write payloads alone.
    async fn refresh<'w>(&self, writes: Vec<&'w Write>) -> Result<Vec<&'w Write>, GivenUp> {
        if writes.is_empty() {
            return Ok(writes);
        }
        let documents: Vec<&DocumentPoints> = writes.iter().map(|write| &write.points).collect();
        let refreshed = match self.patience.call("write payloads to Qdrant", || self.index.refresh(&documents)).await {
            Ok(refreshed) => refreshed,
            // Which document is at fault shows when they are written whole.
            Err(GivenUp::Failed(error)) if error.class == ErrorClass::Poison => return Ok(writes),
            Err(given_up) => return Err(given_up),
        };
        let (mut there, mut rest) = (Vec::new(), Vec::new());
        for (write, refreshed) in writes.into_iter().zip(refreshed) {
            if refreshed { there.push(write) } else { rest.push(write) }
        }
        self.note(&there, Outcome::Refreshed);
        rest.extend(self.check(there).await?);
        Ok(rest)
    }

    /// The check after the write; gives back what has to be written again.
    async fn check<'w>(&self, writes: Vec<&'w Write>) -> Result<Vec<&'w Write>, GivenUp> {
        if writes.is_empty() {
            return Ok(writes);
        }
        let documents: Vec<_> =
            writes.iter().map(|write| (write.points.document, write.points.points.len() as u32)).collect();
        // A batch is of few collections.
        let mut namespaces: Vec<&Namespace> = writes.iter().map(|write| &write.namespace).collect();
        namespaces.sort_unstable();
        namespaces.dedup();
        let targets: Vec<FenceTarget> = writes
            .iter()
            .map(|write| FenceTarget::Document(write.points.document))
            .chain(namespaces.iter().map(|namespace| FenceTarget::Namespace((*namespace).clone())))
            .collect();
        // The tombstones are read after the write, or a delete could slip in between.
        let (stored, tombstones) = tokio::join!(
            self.patience.call("read from Qdrant", || self.index.stored(&documents)),
            self.patience.call("read deletions", || self.tombstones.of(&targets)),
        );
        let (stored, tombstones) = (stored?, tombstones?);
        let (of_documents, of_namespaces) = tombstones.split_at(writes.len());
        let mut fences = Vec::new();
        let mut again = Vec::new();
        let dropped = |namespace| of_namespaces[namespaces.binary_search(&namespace).expect("it was asked for")];
        for ((write, stored), tombstone) in writes.iter().copied().zip(stored).zip(of_documents) {
            match aftermath(&write.points, stored, *tombstone, dropped(&write.namespace)) {
                Aftermath::Clean => {}
                Aftermath::Sweep(fence) => {
                    if fence.version > write.points.version {
                        self.note(&[write], Outcome::Fenced);
                    }
                    fences.push(fence);
                }
                Aftermath::Rewrite => again.push(write),
            }
        }
        if !fences.is_empty() {
            self.patience.call("clean up in Qdrant", || self.index.delete(&fences)).await?;
        }
        Ok(again)
    }

    fn note(&self, writes: &[&Write], outcome: Outcome) {
        if let Some(outcomes) = self.outcomes {
            outcomes.note(writes.iter().map(|write| write.points.document), outcome);
        }
    }

    async fn record(&self, exists: bool) -> Result<(), GivenUp> {
        self.patience.call("record the collection", || self.alarm.collection(self.index.name(), exists)).await
    }

    /// Makes sure of the collection before the first write. A vector of another dimension than the collection has is
    /// no fault of its document: the service stops.
    async fn prepare(&self, documents: &[&DocumentPoints]) -> Result<(), GivenUp> {
        for point in documents.iter().flat_map(|document| &document.points) {
            let dimension = point.vector.len();
            match self.prepared.load(Ordering::Relaxed) {
                prepared if prepared == dimension => {}
                0 => {
                    let exists = self.patience.call("look for the collection", || self.index.exists()).await?;
                    if !exists {
                        // First the record, then the collection: after a crash in between it is still missing.
                        self.record(false).await?;
                    }
                    let created =
                        self.patience.call("prepare the collection", || self.index.prepare(dimension)).await?;
                    if created && exists {
                        // It was deleted in between.
                        self.record(false).await?;
                    }
                    self.record(true).await?;
                    self.prepared.store(dimension, Ordering::Relaxed);
                }
                prepared => {
                    meters::rejected("dimension", 1);
                    return Err(GivenUp::Failed(
                        PortError::fatal(format!(
                            "stage 2 holds vectors of dimension {dimension}, but the collection has dimension {prepared}"
                        ))
                        .with_hint("a new model needs a new collection: set qdrant.collection to a new name"),
                    ));
                }
            }
        }
        Ok(())
    }
}
