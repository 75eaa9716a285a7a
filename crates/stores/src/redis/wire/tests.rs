use proptest::prelude::*;
use tidewheel_core::catalog::Fp;
use tidewheel_core::change::Operation;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{EntryId, EntryState, ParkedChange};
use tidewheel_core::stage::Stage;
use tidewheel_core::version::{ClusterTime, Version};

use super::letters::decode_parked;
use super::*;

fn as_read(fields: Fields<'_>) -> RawFields {
    fields.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value.into_owned())).collect()
}

fn change(operation: Operation, document: &str) -> Change {
    Change {
        operation,
        namespace: Namespace::new("shop", "tickets"),
        key: r#"{"$numberInt":"7"}"#.into(),
        id: "7".into(),
        version: Version {
            epoch: 0,
            time: ClusterTime { seconds: 1_700_000_000, increment: 3 },
            ordinal: 1,
            replay: 0,
        },
        committed_at: 1_700_000_000_123,
        document: operation.has_document().then(|| document.to_owned()),
        route: Route::Plain,
    }
}

fn targets(names: &[&str]) -> Vec<TargetId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn stamped(change: Change, catalog: u64, to: &[&str], leaves: &[&str]) -> Change {
    Change { route: Stamp { catalog, targets: targets(to), leaves: targets(leaves) }.into(), ..change }
}

/// A record for one target, whose change names only this target.
fn record_of(change: Change, catalog: u64, id: &str) -> Embedded {
    let made: Fp = "0123456789abcdef".parse().unwrap();
    let target = Target { catalog, id: id.parse().unwrap(), made };
    Embedded { target: Some(target), ..Embedded::without_vectors(stamped(change, catalog, &[id], &[])) }
}

/// Fields as text, as `redis-cli` shows them; vectors as numbers.
fn shown(fields: Fields<'_>) -> String {
    let text = |(name, value): (&str, Cow<'_, [u8]>)| match name {
        "vectors" => format!("{name}={:?}", &value[..]),
        _ => format!("{name}={}", String::from_utf8(value.into_owned()).unwrap()),
    };
    fields.into_iter().map(text).collect::<Vec<_>>().join("\n")
}

proptest! {
    #[test]
    fn records_round_trip(
        document in ".*",
        chunks in prop::collection::vec(".*", 1..5),
        seed in any::<f32>(),
        operation in prop::sample::select(&Operation::ALL[..]),
    ) {
        let change = change(operation, &document);
        prop_assert_eq!(Change::decode(as_read(change.encode())), Ok(change.clone()));
        let embedded = if operation.has_document() {
            let values = (0..chunks.len() * 3).map(|i| i as f32 + seed.abs().min(1e6)).collect();
            Embedded {
                change,
                model: "hash:3".into(),
                revision: "1".into(),
                vectors: Vectors::new(3, values).unwrap(),
                unchanged: chunks.len() == 1,
                chunks,
                target: None,
                prefix: String::new(),
            }
        } else {
            Embedded::without_vectors(change)
        };
        prop_assert_eq!(Embedded::decode(as_read(embedded.encode())), Ok(embedded));
    }

    #[test]
    fn records_of_targets_round_trip(
        catalog in 1..u64::MAX,
        index in "[a-z.g0-9-]{1,8}",
        generation in 1..u32::MAX,
        leaves in prop::collection::vec("[a-z]{1,3}\\.g[1-9]", 0..3),
        prefix in ".*",
        operation in prop::sample::select(&Operation::ALL[..]),
    ) {
        let id = format!("{index}.g{generation}");
        let leaves: Vec<&str> = leaves.iter().map(String::as_str).collect();
        let change = stamped(change(operation, "{}"), catalog, &["a.g1", &id], &leaves);
        prop_assert_eq!(Change::decode(as_read(change.encode())), Ok(change.clone()));
        let record = record_of(change, catalog, &id);
        let record = if operation.has_document() {
            let vectors = Vectors::new(2, vec![1.0, 2.0]).unwrap();
            Embedded { model: "hash:2".into(), chunks: vec!["one".into()], vectors, prefix, ..record }
        } else {
            record
        };
        prop_assert_eq!(Embedded::decode(as_read(record.encode())), Ok(record));
    }
}

/// Releases without targets read these bytes, and a fleet may have both.
#[test]
fn entries_without_targets_are_written_as_before_there_were_targets() {
    let insert = change(Operation::Insert, r#"{"subject":"Grüße"}"#);
    let as_before = "format=1\noperation=insert\nnamespace=shop.tickets\nid=7\nkey={\"$numberInt\":\"7\"}\n\
                     version=0.1700000000.3.1\ncommitted_at=1700000000123\ndocument={\"subject\":\"Grüße\"}";
    assert_eq!(shown(insert.encode()), as_before);
    let embedded = Embedded {
        model: "hash:1".into(),
        revision: "1".into(),
        chunks: vec!["a".into(), "\"b".into()],
        vectors: Vectors::new(1, vec![1.0, -0.5]).unwrap(),
        unchanged: true,
        ..Embedded::without_vectors(insert)
    };
    let vectors = "model=hash:1\nrevision=1\ndimension=1\nchunks=[\"a\",\"\\\"b\"]\n\
                   vectors=[0, 0, 128, 63, 0, 0, 0, 191]\nunchanged=1";
    assert_eq!(shown(embedded.encode()), format!("{as_before}\n{vectors}"));
    let deletion = change(Operation::Delete, "");
    let as_before = "format=1\noperation=delete\nnamespace=shop.tickets\nid=7\nkey={\"$numberInt\":\"7\"}\n\
                     version=0.1700000000.3.1\ncommitted_at=1700000000123";
    assert_eq!(shown(deletion.encode()), as_before);
    assert_eq!(shown(Embedded::without_vectors(deletion.clone()).encode()), as_before);
    let parked = ParkedChange { change: deletion, reason: "too large".into() };
    let about = "stream=raw_document_changes\nentry=0-0\nreason=too large\nattempts=1\nparked_at=5";
    assert_eq!(shown(encode_parked(&parked, 5)), format!("{as_before}\n{about}"));
}

#[test]
fn entries_of_targets_are_human_readable() {
    let update = stamped(change(Operation::Update, "{}"), 17, &["a.g1", "b.g2"], &["c.g1"]);
    let common = "namespace=shop.tickets\nid=7\nkey={\"$numberInt\":\"7\"}\n\
                  version=0.1700000000.3.1\ncommitted_at=1700000000123";
    assert_eq!(
        shown(update.encode()),
        format!(
            "format=2\noperation=update\n{common}\ndocument={{}}\ncatalog=17\ntargets=[\"a.g1\",\"b.g2\"]\n\
             leaves=[\"c.g1\"]"
        )
    );
    let record = record_of(change(Operation::Delete, ""), 18, "b.g2");
    assert_eq!(
        shown(record.encode()),
        format!("format=2\noperation=delete\n{common}\ncatalog=18\nindex=b\ngeneration=2\nmade=0123456789abcdef")
    );
}

/// A dead letter of stage 2 belongs to its target, like one of stage 1 to its targets.
#[test]
fn dead_letters_keep_their_targets() {
    let update = stamped(change(Operation::Update, "{}"), 17, &["a.g1", "b.g2"], &["c.g1"]);
    let parked = letter(Stage::Raw, EntryId::zero(), as_read(update.encode()));
    assert_eq!(parked.record.unwrap().change.route, update.route);
    let record = record_of(change(Operation::Delete, ""), 18, "b.g2");
    let parked = letter(Stage::Embedded, EntryId::zero(), as_read(record.encode())).record.unwrap();
    let stamp = parked.change.route.stamp().unwrap();
    assert_eq!((&stamp.targets, &parked.target), (&targets(&["b.g2"]), &record.target));
    // They are not shown as properties of the vectors.
    let found = found(EntryId::zero(), EntryState::Waiting, as_read(update.encode()));
    assert_eq!((found.embedding, found.change), (Vec::new(), Ok(update)));
}

#[test]
fn invalid_targets_are_rejected_by_the_field() {
    let update = stamped(change(Operation::Update, "{}"), 17, &["a.g1"], &["c.g1"]);
    for (field, value) in [("catalog", "-1"), ("targets", "a.g1"), ("targets", r#"["a"]"#), ("leaves", r#"["c.g0"]"#)] {
        let mut fields = as_read(update.encode());
        fields.iter_mut().find(|(name, _)| name == field.as_bytes()).unwrap().1 = value.into();
        let error = Change::decode(fields).unwrap_err();
        assert!(matches!(error, RecordError::Invalid { field: name, .. } if name == field), "{error}");
    }
    let record = record_of(change(Operation::Delete, ""), 18, "b.g2");
    for (field, value) in [("generation", "two"), ("made", "0")] {
        let mut fields = as_read(record.encode());
        let at = fields.iter().position(|(name, _)| name == field.as_bytes()).unwrap();
        fields[at].1 = value.into();
        let error = Embedded::decode(fields.clone()).unwrap_err();
        assert!(matches!(error, RecordError::Invalid { field: name, .. } if name == field), "{error}");
        fields.remove(at);
        assert_eq!(Embedded::decode(fields), Err(RecordError::Missing(field)));
    }
}

#[test]
fn entry_of_an_earlier_release_is_decoded_with_the_current_key() {
    let keys = [(r#"{"$numberLong":"7"}"#, r#"{"$numberInt":"7"}"#), ("\"7\"", "\"7\"")];
    for (former, present) in keys {
        let old = Change { key: former.into(), ..change(Operation::Insert, "{}") };
        assert_eq!(Change::decode(as_read(old.encode())).unwrap().key, present);
        let old = Embedded::without_vectors(Change { key: former.into(), ..change(Operation::Delete, "") });
        assert_eq!(Embedded::decode(as_read(old.encode())).unwrap().change.key, present);
    }
}

#[test]
fn entry_without_format_is_decoded_and_newer_format_is_rejected() {
    let change = change(Operation::Insert, "{}");
    let mut fields = as_read(change.encode());
    let format = fields.iter().position(|(name, _)| name == b"format").unwrap();
    for newer in [FORMAT + 1, u32::MAX] {
        fields[format].1 = newer.to_string().into();
        let error = Change::decode(fields.clone()).unwrap_err();
        assert_eq!(error, RecordError::Newer { found: newer, supported: FORMAT });
        assert_eq!(decode_parked(fields.clone()), Err(error.clone()));
        assert_eq!(Embedded::decode(fields.clone()), Err(error));
    }
    fields.remove(format);
    assert_eq!(Change::decode(fields), Ok(change));
}

#[test]
fn parked_change_decodes_without_document() {
    let parked = Change { document: None, ..change(Operation::Insert, "{}") };
    assert_eq!(decode_parked(as_read(parked.encode())), Ok(parked.clone()));
    assert_eq!(Change::decode(as_read(parked.encode())), Err(RecordError::Missing("document")));
    let embedded = Embedded::without_vectors(parked);
    assert_eq!(Embedded::decode(as_read(embedded.encode())), Err(RecordError::Missing("document")));
}

#[test]
fn invalid_entry_error_names_the_field() {
    let good = as_read(change(Operation::Insert, "{}").encode());
    for (field, value) in
        [("operation", "explode"), ("namespace", "shop"), ("version", "1.2"), ("committed_at", "soon")]
    {
        let mut fields = good.clone();
        fields.iter_mut().find(|(name, _)| name == field.as_bytes()).unwrap().1 = value.into();
        assert!(Change::decode(fields).unwrap_err().to_string().contains(field));
        let without = good.iter().filter(|(name, _)| name != field.as_bytes()).cloned().collect();
        assert!(matches!(Change::decode(without), Err(RecordError::Missing(name)) if name == field));
    }
}

#[test]
fn vectors_that_do_not_match_the_chunks_are_rejected() {
    let embedded = Embedded {
        change: change(Operation::Insert, "{}"),
        model: "hash:2".into(),
        chunks: vec!["a".into(), "b".into()],
        vectors: Vectors::new(2, vec![0.0; 4]).unwrap(),
        ..Embedded::without_vectors(change(Operation::Delete, ""))
    };
    let mut fields = as_read(embedded.encode());
    fields.iter_mut().find(|(name, _)| name == b"vectors").unwrap().1.truncate(12);
    let error = Embedded::decode(fields).unwrap_err().to_string();
    assert!(error.contains("expected 2 vectors of dimension 2, found 12 bytes"), "{error}");
}
