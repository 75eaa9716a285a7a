//! Every operation, every kind of `_id`, every kind of text.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, DateTime, Decimal128, Document, Uuid, UuidRepresentation, doc};
use serde_json::{Value, json};

use super::world::{World, ticket};

#[tokio::test(flavor = "multi_thread")]
async fn initial_snapshot_and_every_operation_reach_index() {
    let mut world = World::new().await;
    let tickets = world.collection("tickets");
    tickets.insert_many((0..500).map(ticket)).await.unwrap();
    for service in super::world::SERVICES {
        world.start(service);
    }
    assert_eq!(world.equal().await.documents, 500);

    tickets.insert_one(ticket(1000)).await.unwrap();
    tickets.update_one(doc! {"_id": 1}, doc! {"$set": {"content": "It was found in the cellar."}}).await.unwrap();
    tickets.update_many(doc! {"product": "Atlas"}, doc! {"$set": {"owner": "grace@example.com"}}).await.unwrap();
    tickets.replace_one(doc! {"_id": 2}, doc! {"subject": "Replaced"}).await.unwrap();
    tickets.delete_one(doc! {"_id": 3}).await.unwrap();
    tickets.delete_many(doc! {"product": "Cirrus", "customer.tier": 2}).await.unwrap();
    tickets.insert_many((2000..2300).map(ticket)).await.unwrap();
    tickets.delete_one(doc! {"_id": 4}).await.unwrap();
    tickets.insert_one(ticket(4)).await.unwrap();
    world.collection("notes").insert_one(doc! {"subject": "From another collection"}).await.unwrap();
    let report = world.equal().await;
    assert!(report.documents > 700, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bson_type_of_id_is_indexed_separately() {
    let mut world = World::running().await;
    let things = world.collection("things");
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
    let ids: Vec<Bson> = vec![
        ObjectId::parse_str("65f000000000000000000001").unwrap().into(),
        "65f000000000000000000001".into(),
        "with \"quotes\", ünïcode and a\0zero".into(),
        "".into(),
        1_i32.into(),
        (1_i64 << 60).into(),
        2.5.into(),
        Bson::Double(f64::INFINITY),
        Bson::Decimal128("123.4500".parse::<Decimal128>().unwrap()),
        Uuid::parse_str("00112233-4455-6677-8899-aabbccddeeff").unwrap().into(),
        binary(BinarySubtype::Generic, b"\x00\x01\xff"),
        // The same UUID in the three legacy byte orders.
        legacy_uuid(UuidRepresentation::CSharpLegacy),
        legacy_uuid(UuidRepresentation::JavaLegacy),
        legacy_uuid(UuidRepresentation::PythonLegacy),
        true.into(),
        Bson::Null,
        DateTime::from_millis(-1).into(),
        doc! {"tenant": "a", "number": 7}.into(),
        doc! {"number": 7, "tenant": "a"}.into(),
    ];
    let count = ids.len() as u64;
    for (i, id) in ids.iter().enumerate() {
        let document = doc! {"_id": id.clone(), "subject": format!("Thing {i}")};
        things.insert_one(document).await.unwrap_or_else(|error| panic!("{id}: {error}"));
    }
    assert_eq!(world.equal().await.documents, count);
    for id in &ids {
        things.update_one(doc! {"_id": id.clone()}, doc! {"$set": {"subject": "Changed"}}).await.unwrap();
    }
    assert_eq!(world.equal().await.documents, count);
    things.delete_many(doc! {}).await.unwrap();
    assert_eq!(world.equal().await.points, 0);
}

const UUID: &str = "00112233-4455-6677-8899-aabbccddeeff";

/// The UUID as a binary of subtype 3, in the byte order of a driver.
fn legacy_uuid(order: UuidRepresentation) -> Bson {
    Bson::Binary(Binary::from_uuid_with_representation(Uuid::parse_str(UUID).unwrap(), order))
}

#[tokio::test(flavor = "multi_thread")]
async fn legacy_uuids_are_found_by_their_text_in_every_byte_order() {
    let mut world = World::running().await;
    let things = world.collection("things");
    let orders = [
        ("legacy UUID (C#)", UuidRepresentation::CSharpLegacy),
        ("legacy UUID (Java)", UuidRepresentation::JavaLegacy),
        ("legacy UUID (Python)", UuidRepresentation::PythonLegacy),
    ];
    for (name, order) in orders {
        let document = doc! {"_id": legacy_uuid(order), "subject": name, "owner": legacy_uuid(order), "order": name};
        things.insert_one(document).await.unwrap();
    }
    let standard = doc! {"_id": Uuid::parse_str(UUID).unwrap(), "subject": "UUID", "order": "UUID"};
    things.insert_one(standard).await.unwrap();
    assert_eq!(world.equal().await.documents, 4);
    let run = |arguments: &[&str]| {
        let ran = world.command(&[arguments, &["--output", "json"]].concat()).output().unwrap();
        let json: Value = serde_json::from_slice(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        (json, ran.status.code())
    };

    let (found, code) = run(&["inspect", UUID, "--namespace", "things"]);
    assert_eq!(code, Some(0), "{found}");
    let mut kinds: Vec<&str> = Vec::new();
    for document in found["documents"].as_array().unwrap() {
        assert_eq!(document["verdict"]["state"], "searchable", "{document}");
        kinds.push(document["kind"].as_str().unwrap());
    }
    kinds.sort_unstable();
    assert_eq!(kinds, ["UUID", "legacy UUID (C#)", "legacy UUID (Java)", "legacy UUID (Python)"]);

    let (found, code) = run(&["verify"]);
    assert_eq!((code, &found["documents"]), (Some(0), &json!(4)), "{found}");
    for (name, order) in orders {
        let key = legacy_uuid(order).into_canonical_extjson().to_string();
        let (found, code) = run(&["verify", "--namespace", "things", "--from", &key, "--to", &key]);
        assert_eq!((code, &found["documents"]), (Some(0), &json!(1)), "{name}: {found}");
        let (found, code) = run(&["inspect", &key, "--namespace", "things"]);
        assert_eq!((code, &found["documents"][0]["kind"]), (Some(0), &json!("legacy UUID")), "{name}: {found}");
        let filter = json!({"must": [{"key": "order", "match": {"value": name}}]}).to_string();
        let (found, code) = run(&["search", "legacy UUID", "--filter", &filter]);
        assert_eq!(code, Some(0), "{name}: {found}");
        assert_eq!(hits(&found), [name], "{found}");
    }
    // By the value of a field, as it is stored in the payload.
    let payload = &super::clients::points(&world.stack.qdrant_http_url().unwrap()).await;
    for (name, _) in orders {
        let point = payload.iter().find(|point| point["payload"]["order"] == name).unwrap();
        let owner = &point["payload"]["owner"];
        let filter = json!({"must": [{"key": "owner", "match": {"value": owner}}]}).to_string();
        assert_eq!(hits(&run(&["search", "legacy UUID", "--filter", &filter]).0), [name], "{filter}");
    }
}

/// The field `order` of each document found.
fn hits(found: &Value) -> Vec<&str> {
    let hits = found.as_array().unwrap_or_else(|| panic!("{found}"));
    hits.iter().map(|hit| hit["document"]["order"].as_str().unwrap_or_else(|| panic!("{found}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_text_is_indexed_and_long_texts_are_chunked() {
    let mut world = World::running().await;
    let texts = world.collection("texts");
    let sentence = "The quick brown fox jumps over the lazy dog, and nobody writes it down. ";
    let long: String = sentence.repeat(100_000 / sentence.len());
    let documents: Vec<Document> = vec![
        doc! {"_id": "long", "subject": "A long one", "content": &long},
        doc! {"_id": "unicode", "subject": "日本語のテキスト 🦀", "content": "Ελληνικά, עברית, हिन्दी, a\u{301}\u{200d}\u{0}"},
        doc! {"_id": "empty", "subject": "", "content": ""},
        doc! {"_id": "missing"},
        doc! {"_id": "null", "subject": Bson::Null, "content": "Only the content"},
        doc! {"_id": "spaces", "subject": "   ", "content": "\n\t"},
        doc! {"_id": "one word", "content": "x".repeat(20_000)},
        doc! {"_id": "types", "subject": "Types", "price": "9.99".parse::<Decimal128>().unwrap(), "nan": f64::NAN,
        "when": DateTime::from_millis(1_700_000_000_123), "big": i64::MAX, "half": 0.5, "whole": 2.0,
        "list": [1, "two", {"three": Bson::Null}], "$odd.name": 1},
    ];
    texts.insert_many(&documents).await.unwrap();
    let report = world.equal().await;
    assert_eq!(report.documents, documents.len() as u64);
    assert!(report.points > 60, "100 KB are about 80 chunks of 256 tokens: {report}");

    // A long text becomes short, and a short one long.
    texts.update_one(doc! {"_id": "long"}, doc! {"$set": {"content": "Short now."}}).await.unwrap();
    texts.update_one(doc! {"_id": "missing"}, doc! {"$set": {"content": &long[..5_000]}}).await.unwrap();
    texts.delete_one(doc! {"_id": "one word"}).await.unwrap();
    let report = world.equal().await;
    assert_eq!(report.documents, documents.len() as u64 - 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_selected_collections_and_fields_are_indexed() {
    let mut world = World::new().await;
    world.write_settings(
        r#"
        mongodb.collection = ["tickets", "notes_*"]
        documents.template = "{{ customer.name }}: {{ content }}"
        documents.payload.exclude = ["owner"]
        "#,
    );
    for service in super::world::SERVICES {
        world.start(service);
    }
    for name in ["tickets", "notes_2024", "secrets"] {
        world.collection(name).insert_one(ticket(1)).await.unwrap();
    }
    let qdrant = world.stack.qdrant_http_url().unwrap();
    world.until("two points", || super::clients::count(&qdrant, 2)).await;
    let points = super::clients::points(&qdrant).await;
    for payload in points.iter().map(|point| &point["payload"]) {
        assert!(payload.get("owner").is_none() && payload["customer"]["name"] == "Customer 1", "{payload}");
        let text = payload["_tidewheel"]["text"].as_str().unwrap();
        assert!(text.starts_with("Customer 1: The parcel"), "{text}");
        assert_ne!(payload["_tidewheel"]["namespace"], "shop.secrets");
    }
}
