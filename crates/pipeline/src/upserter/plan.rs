//! Plans the writes for a batch of stage 2, and the clean-up after a write, without I/O.

use serde_json::{Value, json};
use tidewheel_core::catalog::{Fp, Made};
use tidewheel_core::change::Operation;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::excerpt::{Excerpt, OMITTED, excerpt};
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{MADE, RESERVED, Stamp, digest, plain_document};
use tidewheel_core::ports::{DeadLetter, Delivery, DocumentPoints, EntryId, Fence, FenceTarget, Point, Stored};
use tidewheel_core::version::Version;

use super::options::PayloadOptions;
use crate::newest::{Kept, newest};
use crate::parking::{OnDeadLetter, ParkingPlan, park};
use crate::targets::Target;

/// How the documents of a target become points.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// The fields that points carry.
    pub payload: &'a PayloadOptions,
    /// The fingerprint of their declaration, which points carry too; `None` before a catalog is applied.
    pub made: Option<Fp>,
    /// Effect of a parked change on the indexed version of its document.
    pub on_dead_letter: OnDeadLetter,
}

impl<'a> From<&'a Target> for Shape<'a> {
    fn from(target: &'a Target) -> Self {
        Self {
            payload: &target.declaration().payload,
            made: target.made.map(|made| made.payload),
            on_dead_letter: target.on_dead_letter(),
        }
    }
}

/// A document to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Its points.
    pub points: DocumentPoints,
    /// Whether the index already had the vectors when the change was processed.
    pub unchanged: bool,
    /// Its collection: a drop of that collection may be newer.
    pub namespace: Namespace,
    /// Its entry, followed by the entries of older changes of the same document.
    pub entries: Vec<EntryId>,
    /// The version of a deletion among the older changes, applied if this one is parked.
    pub deletion: Option<Version>,
}

/// The removal of a document or a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Removal {
    /// Everything of the target older than this version is deleted.
    pub fence: Fence,
    /// Its entry, and the entries of older changes of the same document.
    pub entries: Vec<EntryId>,
}

/// The plan for a batch. Every entry of the batch is in exactly one place.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Documents to write, at most one for each document.
    pub writes: Vec<Write>,
    /// Documents and collections to remove.
    pub removals: Vec<Removal>,
    /// Entries to park.
    pub letters: Vec<DeadLetter>,
    /// Entries of older changes of documents whose newest change is parked.
    pub superfluous: Vec<EntryId>,
}

/// Reduces a batch of one target to the newest change of each document and builds its points.
pub fn plan(deliveries: Vec<Delivery<Embedded>>, shape: Shape<'_>) -> Plan {
    let policy = shape.on_dead_letter;
    let mut plan = Plan::default();
    for Kept { record: embedded, entries, deletion } in newest(deliveries, &mut plan.letters) {
        let version = embedded.change.version;
        let target = match embedded.change.operation {
            Operation::Drop => FenceTarget::Namespace(embedded.change.namespace),
            Operation::Delete => FenceTarget::Document(embedded.change.document_id()),
            _ => {
                let namespace = embedded.change.namespace.clone();
                let (unchanged, document) = (embedded.unchanged, embedded.change.document_id());
                match points(embedded, shape) {
                    Ok(points) => plan.writes.push(Write { points, unchanged, namespace, entries, deletion }),
                    Err(error) => plan.park(document, park(policy, version, entries, deletion, &error)),
                }
                continue;
            }
        };
        plan.removals.push(Removal { fence: Fence { target, version }, entries });
    }
    plan
}

impl Plan {
    /// Adds a parked change of this document.
    pub(super) fn park(&mut self, document: DocumentId, parked: ParkingPlan) {
        let ParkingPlan { letter, deletion, older: entries } = parked;
        self.letters.push(letter);
        match deletion {
            Some(version) => {
                let fence = Fence { target: FenceTarget::Document(document), version };
                self.removals.push(Removal { fence, entries });
            }
            None => self.superfluous.extend(entries),
        }
    }
}

/// The points of a document: the vector of each chunk with the document's fields, or their excerpt, and the chunk's stamp.
fn points(embedded: Embedded, shape: Shape<'_>) -> Result<DocumentPoints, PortError> {
    let Embedded { change, model, revision, chunks, vectors, prefix, target, .. } = embedded;
    let options = shape.payload;
    // The text was made by the processor's declaration, the payload by the one here.
    let made = target.zip(shape.made).map(|(target, payload)| json!(Made { text: target.made, payload }));
    let document = change.document_id();
    let text = change.document.as_deref().unwrap_or_default();
    let fields = plain_document(text).map_err(|error| PortError::poison(error.to_string()))?;
    let fields = options.select(fields);
    let digest = digest(text);
    let fingerprints = Fingerprints::new(&model, &revision, vectors.dimension()).prefixed(&prefix);
    let stamp = Stamp {
        digest: &digest,
        fingerprints: &fingerprints,
        key: &change.key,
        namespace: change.namespace.as_str(),
        document,
        version: change.version,
        model: &model,
        chunks: u32::try_from(chunks.len()).map_err(|_| PortError::poison("more chunks than can be counted"))?,
    };
    let excerpt = if chunks.len() > 1 && !options.full { excerpt(&fields) } else { None };
    let (excerpt, omitted) = excerpt.map(|Excerpt { fields, omitted }| (fields, Value::from(omitted))).unzip();
    let points = (0..).zip(chunks.iter().zip(vectors.iter())).map(|(chunk, (text, vector))| {
        let mut own = stamp.value(chunk, text);
        if let Some(omitted) = omitted.as_ref().filter(|_| chunk > 0) {
            own[OMITTED] = omitted.clone();
        }
        if let Some(made) = &made {
            own[MADE] = made.clone();
        }
        let payload = [(RESERVED.to_owned(), own)].into_iter().collect();
        Point { id: document.point(chunk), vector: vector.to_vec(), payload }
    });
    let points = points.collect();
    Ok(DocumentPoints { document, version: change.version, fields, excerpt, points })
}

/// The clean-up that a document's write requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aftermath {
    /// None: the document is in sync.
    Clean,
    /// Points older than the fence have to be deleted: surplus chunks of an older version, or the points just written,
    /// because a newer change had already been applied.
    Sweep(Fence),
    /// The points just written are missing without a newer change: write them again.
    Rewrite,
}

/// Compares the written points with the current state: the newest known version of the document decides.
///
/// Qdrant inserts missing points regardless of the condition of an upsert, so a late write can bring back a document
/// that was deleted, or chunks that a newer version no longer has. The check after the write finds both. A document of
/// one chunk needs no version to be read back: a newer version has that chunk too and has kept it, and a deletion has a
/// tombstone.
pub fn aftermath(
    write: &DocumentPoints,
    stored: Stored,
    tombstone: Option<Version>,
    dropped: Option<Version>,
) -> Aftermath {
    let newest = [Some(write.version), stored.version, tombstone, dropped].into_iter().flatten().max();
    let newest = newest.unwrap_or(write.version);
    if newest > write.version || stored.surplus {
        Aftermath::Sweep(Fence { target: FenceTarget::Document(write.document), version: newest })
    } else if stored.version.is_none() && write.points.len() > 1 {
        Aftermath::Rewrite
    } else {
        Aftermath::Clean
    }
}

#[cfg(test)]
mod tests;
