use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::Map;
use tidewheel_core::catalog::IndexName;
use tidewheel_core::change::{Change, Route};
use tidewheel_core::embedded::{Target, Vectors};
use tidewheel_core::ports::RecordError;
use tidewheel_core::version::ClusterTime;
use tidewheel_testkit::contracts::index::payload_of;

use super::*;

/// The default payload.
static WHOLE: LazyLock<PayloadOptions> = LazyLock::new(PayloadOptions::default);

fn shape(payload: &PayloadOptions) -> Shape<'_> {
    Shape { payload, made: None, on_dead_letter: OnDeadLetter::Keep }
}

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
        let plan = plan(deliveries.collect(), shape(&WHOLE));
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
    let plan = plan(vec![delivery], shape(&payload));
    let document = DocumentId::new(&Namespace::new("shop", "tickets"), "7");
    let written = &plan.writes[0].points;
    let points = &written.points;
    assert_eq!(points.iter().map(|point| point.id).collect::<Vec<_>>(), [document.point(0), document.point(1)]);
    assert_eq!(points[1].vector, [2.0, 3.0]);
    assert_eq!(
        Value::Object(payload_of(written, &points[1])),
        json!({
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
    long.change.document = Some(json!({"_id": 7, "state": "open", "content": content}).to_string());
    let mut short = long.clone();
    short.change.key = "8".to_owned();
    short.chunks.truncate(1);
    short.vectors = Vectors::new(2, vec![0.0; 2]).unwrap();
    let deliveries = [long, short].into_iter().enumerate();
    let deliveries = deliveries.map(|(i, record)| Delivery { id: EntryId(format!("{i}-0")), record: Ok(record) });
    let plan = plan(deliveries.collect(), shape(&WHOLE));
    let written = &plan.writes[0].points;
    for (chunk, point) in written.points.iter().enumerate() {
        let payload = payload_of(written, point);
        assert_eq!(payload["state"], "open");
        assert_eq!(payload.contains_key("content"), chunk == 0);
        let omitted = payload[RESERVED].get(OMITTED);
        assert_eq!(omitted, (chunk > 0).then_some(&json!(["content"])));
    }
    let short = &plan.writes[1].points;
    assert!(short.excerpt.is_none() && short.points[0].payload[RESERVED].get(OMITTED).is_none());
}

#[test]
fn full_payload_is_on_every_point() {
    let mut long = embedded(Operation::Insert, 7, 3, 2);
    let content = "x".repeat(50_000);
    long.change.document = Some(json!({"_id": 7, "content": content}).to_string());
    let payload = PayloadOptions { full: true, ..PayloadOptions::default() };
    let plan = plan(vec![Delivery { id: EntryId("1-0".into()), record: Ok(long) }], shape(&payload));
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
    let plan = plan(vec![delivery], shape(&WHOLE));
    let stamp = &plan.writes[0].points.points[0].payload[RESERVED];
    assert_eq!(stamp["fingerprint"], Fingerprints::new("hash:2", "1", 2).of("Late\nchunk 0"));
    assert_eq!(stamp["text"], "chunk 0");
}

#[test]
fn points_carry_what_their_text_and_payload_were_made_by() {
    let (text, payload): (Fp, Fp) = ("0000000000000001".parse().unwrap(), "0000000000000002".parse().unwrap());
    let id = IndexName::new("tickets").unwrap().target(2);
    let target = Some(Target { catalog: 7, id, made: text });
    let made = |target: Option<Target>, made: Option<Fp>| {
        let record = Embedded { target, ..embedded(Operation::Insert, 7, 3, 2) };
        let delivery = Delivery { id: EntryId("1-0".into()), record: Ok(record) };
        let plan = plan(vec![delivery], Shape { made, ..shape(&WHOLE) });
        let stamps = plan.writes[0].points.points.iter().map(|point| point.payload[RESERVED].get(MADE).cloned());
        stamps.collect::<Vec<_>>()
    };
    let expected = json!({"text": "0000000000000001", "payload": "0000000000000002"});
    assert_eq!(made(target.clone(), Some(payload)), vec![Some(expected); 2]);
    assert_eq!(made(None, Some(payload)), [None, None], "the processor knew no catalog");
    assert_eq!(made(target, None), [None, None]);
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
        shape(&WHOLE),
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
        let deliveries = deliveries.map(|(i, record)| Delivery { id: EntryId(format!("{i}-0")), record: Ok(record) });
        let removing = Shape { on_dead_letter: OnDeadLetter::Remove, ..shape(&WHOLE) };
        let plan = plan(deliveries.collect(), removing);
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
