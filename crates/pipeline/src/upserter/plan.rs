//! Plans the writes for a batch of stage 2, and the clean-up after a write, without I/O.

use serde_json::Value;
use tidewheel_core::change::Operation;
use tidewheel_core::embedded::Embedded;
use tidewheel_core::error::PortError;
use tidewheel_core::excerpt::{Excerpt, OMITTED, excerpt};
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, Stamp, digest, plain_document};
use tidewheel_core::ports::{DeadLetter, Delivery, DocumentPoints, EntryId, Fence, FenceTarget, Point, Stored};
use tidewheel_core::version::Version;

use super::options::PayloadOptions;
use crate::newest::{Kept, newest};
use crate::parking::{OnDeadLetter, ParkingPlan, park};

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

/// Reduces the batch to the newest change of each document and builds its points.
pub fn plan(deliveries: Vec<Delivery<Embedded>>, payload: &PayloadOptions, policy: OnDeadLetter) -> Plan {
    let mut plan = Plan::default();
    for Kept { record: embedded, entries, deletion } in newest(deliveries, &mut plan.letters) {
        let version = embedded.change.version;
        let target = match embedded.change.operation {
            Operation::Drop => FenceTarget::Namespace(embedded.change.namespace),
            Operation::Delete => FenceTarget::Document(embedded.change.document_id()),
            _ => {
                let namespace = embedded.change.namespace.clone();
                let (unchanged, document) = (embedded.unchanged, embedded.change.document_id());
                match points(embedded, payload) {
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
fn points(embedded: Embedded, options: &PayloadOptions) -> Result<DocumentPoints, PortError> {
    let Embedded { change, model, revision, chunks, vectors, prefix, .. } = embedded;
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
mod tests {
    use proptest::prelude::*;
    use serde_json::Map;
    use tidewheel_core::change::{Change, Route};
    use tidewheel_core::embedded::Vectors;
    use tidewheel_core::ports::RecordError;
    use tidewheel_core::version::ClusterTime;
    use tidewheel_testkit::contracts::index::payload_of;

    use super::*;

    fn version(seconds: u32) -> Version {
        Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 }
    }

    fn embedded(operation: Operation, key: u8, time: u32, chunks: usize) -> Embedded {
        let change = Change {
            operation,
            namespace: Namespace::new("shop", "tickets"),
            key: if operation.is_of_collection() { String::new() } else { key.to_string() },
            id: key.to_string(),
            version: version(time),
            committed_at: 0,
            document: operation.has_document().then(|| format!(r#"{{"_id":{key},"text":"at {time}","secret":1}}"#)),
            route: Route::Plain,
        };
        if !operation.has_document() {
            return Embedded::without_vectors(change);
        }
        let vectors = Vectors::new(2, (0..chunks * 2).map(|i| i as f32).collect()).unwrap();
        Embedded {
            change,
            model: "hash:2".into(),
            revision: "1".into(),
            unchanged: false,
            chunks: (0..chunks).map(|i| format!("chunk {i}")).collect(),
            vectors,
            target: None,
            prefix: String::new(),
        }
    }

    proptest! {
        #[test]
        fn newest_change_decides_and_newer_delete_wins_in_any_order(
            changes in prop::collection::vec((prop::sample::select(&Operation::ALL[..]), 0u8..3, 0u32..50), 0..20),
        ) {
            // Versions of one document are distinct in the real pipeline.
            let mut seen = std::collections::HashSet::new();
            let changes: Vec<_> = changes.into_iter().filter(|(_, key, time)| seen.insert((*key, *time))).collect();
            let deliveries = changes.iter().enumerate().map(|(i, (operation, key, time))| Delivery {
                id: EntryId(format!("{i}-0")),
                record: Ok(embedded(*operation, *key, *time, 1)),
            });
            let plan = plan(deliveries.collect(), &PayloadOptions::default(), OnDeadLetter::Keep);
            let settled = plan.writes.iter().map(|write| write.entries.len()).sum::<usize>()
                + plan.removals.iter().map(|removal| removal.entries.len()).sum::<usize>();
            prop_assert_eq!(settled, changes.len());
            for key in 0..3u8 {
                let document = DocumentId::new(&Namespace::new("shop", "tickets"), &key.to_string());
                let newest = changes.iter()
                    .filter(|(operation, k, _)| *k == key && !operation.is_of_collection())
                    .max_by_key(|(_, _, time)| *time);
                let written = plan.writes.iter().find(|write| write.points.document == document);
                let removed = plan.removals.iter().find(|r| r.fence.target == FenceTarget::Document(document));
                match newest {
                    None => prop_assert!(written.is_none() && removed.is_none()),
                    Some((Operation::Delete, _, time)) => {
                        prop_assert!(written.is_none());
                        prop_assert_eq!(removed.unwrap().fence.version, version(*time));
                    }
                    Some((_, _, time)) => {
                        prop_assert!(removed.is_none());
                        prop_assert_eq!(written.unwrap().points.version, version(*time));
                    }
                }
            }
        }
    }

    #[test]
    fn points_carry_the_document_and_one_stamp_per_chunk() {
        let delivery = Delivery { id: EntryId("1-0".into()), record: Ok(embedded(Operation::Insert, 7, 3, 2)) };
        let payload = PayloadOptions { exclude: vec!["secret".into()], ..PayloadOptions::default() };
        let plan = plan(vec![delivery], &payload, OnDeadLetter::Keep);
        let document = DocumentId::new(&Namespace::new("shop", "tickets"), "7");
        let written = &plan.writes[0].points;
        let points = &written.points;
        assert_eq!(points.iter().map(|point| point.id).collect::<Vec<_>>(), [document.point(0), document.point(1)]);
        assert_eq!(points[1].vector, [2.0, 3.0]);
        assert_eq!(
            Value::Object(payload_of(written, &points[1])),
            serde_json::json!({
                "_id": 7,
                "text": "at 3",
                "_tidewheel": {
                    "key": "7",
                    "namespace": "shop.tickets",
                    "document": document.to_string(),
                    "version": {"high": 3, "low": (1u64 << 21) + 1},
                    "digest": digest(r#"{"_id":7,"text":"at 3","secret":1}"#),
                    "model": "hash:2",
                    "fingerprint": Fingerprints::new("hash:2", "1", 2).of("chunk 1"),
                    "chunk": 1,
                    "chunks": 2,
                    "text": "chunk 1",
                },
            })
        );
    }

    #[test]
    fn large_values_are_on_the_first_point_and_named_on_the_others() {
        let mut long = embedded(Operation::Insert, 7, 3, 3);
        let content = "x".repeat(50_000);
        long.change.document = Some(serde_json::json!({"_id": 7, "state": "open", "content": content}).to_string());
        let mut short = long.clone();
        short.change.key = "8".to_owned();
        short.chunks.truncate(1);
        short.vectors = Vectors::new(2, vec![0.0; 2]).unwrap();
        let deliveries = [long, short].into_iter().enumerate();
        let deliveries = deliveries.map(|(i, record)| Delivery { id: EntryId(format!("{i}-0")), record: Ok(record) });
        let plan = plan(deliveries.collect(), &PayloadOptions::default(), OnDeadLetter::Keep);
        let written = &plan.writes[0].points;
        for (chunk, point) in written.points.iter().enumerate() {
            let payload = payload_of(written, point);
            assert_eq!(payload["state"], "open");
            assert_eq!(payload.contains_key("content"), chunk == 0);
            let omitted = payload[RESERVED].get(OMITTED);
            assert_eq!(omitted, (chunk > 0).then_some(&serde_json::json!(["content"])));
        }
        let short = &plan.writes[1].points;
        assert!(short.excerpt.is_none() && short.points[0].payload[RESERVED].get(OMITTED).is_none());
    }

    #[test]
    fn full_payload_is_on_every_point() {
        let mut long = embedded(Operation::Insert, 7, 3, 2);
        let content = "x".repeat(50_000);
        long.change.document = Some(serde_json::json!({"_id": 7, "content": content}).to_string());
        let payload = PayloadOptions { full: true, ..PayloadOptions::default() };
        let plan = plan(vec![Delivery { id: EntryId("1-0".into()), record: Ok(long) }], &payload, OnDeadLetter::Keep);
        let written = &plan.writes[0].points;
        for point in &written.points {
            let payload = payload_of(written, point);
            assert_eq!(payload["content"], content);
            assert_eq!(payload[RESERVED].get(OMITTED), None);
        }
    }

    #[test]
    fn fingerprint_covers_the_prefix_and_the_text_does_not_contain_it() {
        let prefixed = Embedded { prefix: "Late".to_owned(), ..embedded(Operation::Insert, 7, 3, 1) };
        let delivery = Delivery { id: EntryId("1-0".into()), record: Ok(prefixed) };
        let plan = plan(vec![delivery], &PayloadOptions::default(), OnDeadLetter::Keep);
        let stamp = &plan.writes[0].points.points[0].payload[RESERVED];
        assert_eq!(stamp["fingerprint"], Fingerprints::new("hash:2", "1", 2).of("Late\nchunk 0"));
        assert_eq!(stamp["text"], "chunk 0");
    }

    #[test]
    fn unreadable_entries_are_parked() {
        let mut broken = embedded(Operation::Insert, 1, 1, 1);
        broken.change.document = Some("[]".into());
        let plan = plan(
            vec![
                Delivery { id: EntryId("1-0".into()), record: Err(RecordError::Missing("vectors")) },
                Delivery { id: EntryId("2-0".into()), record: Ok(broken) },
                Delivery { id: EntryId("3-0".into()), record: Ok(embedded(Operation::Insert, 2, 1, 1)) },
            ],
            &PayloadOptions::default(),
            OnDeadLetter::Keep,
        );
        assert_eq!(plan.letters.iter().map(|letter| letter.id.0.as_str()).collect::<Vec<_>>(), ["1-0", "2-0"]);
        assert_eq!(plan.writes.len(), 1);
    }

    #[test]
    fn retried_change_wins_over_the_removal_left_by_its_parking() {
        let removal = embedded(Operation::Delete, 1, 5, 0);
        let retried = embedded(Operation::Insert, 1, 5, 1);
        for order in [[removal.clone(), retried.clone()], [retried, removal]] {
            let deliveries = order.into_iter().enumerate();
            let deliveries =
                deliveries.map(|(i, record)| Delivery { id: EntryId(format!("{i}-0")), record: Ok(record) });
            let plan = plan(deliveries.collect(), &PayloadOptions::default(), OnDeadLetter::Remove);
            assert_eq!((plan.writes.len(), plan.removals.len()), (1, 0));
            let (write, tombstone) = (&plan.writes[0].points, Some(version(5)));
            assert_eq!(aftermath(write, Stored { version: None, surplus: false }, tombstone, None), Aftermath::Clean);
        }
    }

    #[test]
    fn newest_known_version_decides_the_aftermath_of_a_write() {
        let document = DocumentId::new(&Namespace::new("shop", "tickets"), "7");
        let point = |chunk| Point { id: document.point(chunk), vector: vec![1.0], payload: Map::new() };
        let points = vec![point(0), point(1)];
        let mut write = DocumentPoints { document, version: version(5), fields: Map::new(), excerpt: None, points };
        let long = write.clone();
        let after = |stored: Option<u32>, surplus, tombstone: Option<u32>, dropped: Option<u32>| {
            let stored = Stored { version: stored.map(version), surplus };
            aftermath(&long, stored, tombstone.map(version), dropped.map(version))
        };
        let sweep = |time| Aftermath::Sweep(Fence { target: FenceTarget::Document(document), version: version(time) });
        assert_eq!(after(Some(5), false, None, None), Aftermath::Clean);
        assert_eq!(after(Some(5), false, Some(4), Some(3)), Aftermath::Clean);
        assert_eq!(after(Some(5), true, None, None), sweep(5));
        assert_eq!(after(Some(6), false, None, None), sweep(6));
        assert_eq!(after(Some(5), false, Some(7), None), sweep(7));
        assert_eq!(after(Some(5), false, None, Some(8)), sweep(8));
        assert_eq!(after(None, false, Some(7), None), sweep(7));
        assert_eq!(after(None, false, None, None), Aftermath::Rewrite);
        write.points.truncate(1);
        let single = |surplus, tombstone: Option<u32>| {
            aftermath(&write, Stored { version: None, surplus }, tombstone.map(version), None)
        };
        assert_eq!(single(false, Some(4)), Aftermath::Clean);
        assert_eq!(single(true, None), sweep(5));
        assert_eq!(single(false, Some(7)), sweep(7));
    }
}
