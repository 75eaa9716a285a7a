//! Detection of every kind of drift, and repair under writes.

use mongodb::bson::{Document, doc};
use serde_json::{Value, json};

use super::clients::put;
use super::dead_letters::snapshot_is_over;
use super::world::{AUDIT_LOG, World, audit_log, recorded, ticket};
use super::writer::Writer;

/// Returns the JSON output of `tidewheel verify`, and its exit code.
pub(super) fn verify(world: &World, arguments: &[&str]) -> (Value, Option<i32>) {
    let ran = world.command(&[&["verify"], arguments, &["--output", "json"]].concat()).output().unwrap();
    let json = serde_json::from_slice(&ran.stdout);
    (json.unwrap_or_else(|error| panic!("{error}: {ran:?}")), ran.status.code())
}

pub(super) fn counts(found: &Value) -> [u64; 4] {
    ["missing", "stale", "extra", "surplus"].map(|kind| found[kind].as_u64().unwrap_or_else(|| panic!("{found}")))
}

async fn post(url: String, body: Value) -> Value {
    let answer = super::clients::http().post(url).json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    answer.json().await.unwrap()
}

/// Returns the points of a document of `notes` with payloads and vectors, in chunk order.
async fn points(qdrant: &str, id: &str) -> Vec<Value> {
    let of = |key: &str, value: &str| json!({"key": key, "match": {"value": value}});
    let must = [of("_id", id), of("_tidewheel.namespace", "shop.notes")];
    let body = json!({"filter": {"must": must}, "with_payload": true, "with_vector": true, "limit": 100});
    let answer = post(format!("{qdrant}/collections/documents/points/scroll"), body).await;
    let mut points = answer["result"]["points"].as_array().unwrap().clone();
    points.sort_by_key(|point| point["payload"]["_tidewheel"]["chunk"].as_u64());
    assert!(!points.is_empty(), "{id} is not in the index");
    points
}

async fn upsert(qdrant: &str, point: &Value) {
    let (id, payload, vector) = (&point["id"], &point["payload"], &point["vector"]);
    let body = json!({"points": [{"id": id, "payload": payload, "vector": vector}]});
    put(&format!("{qdrant}/collections/documents/points?wait=true"), &body).await;
}

async fn delete(qdrant: &str, point: &Value) {
    post(format!("{qdrant}/collections/documents/points/delete?wait=true"), json!({"points": [point["id"]]})).await;
}

pub(super) fn note(name: &str) -> Document {
    let content = "It is long enough for several chunks, one after the other. ".repeat(120);
    doc! {"_id": name, "subject": name, "content": content, "number": 7}
}

pub(super) const NAMES: [&str; 8] = ["whole", "gone", "headless", "torn", "old", "edited", "long", "twice"];

/// Causes drift by writing to the index directly. Returns the expected counts of an audit.
pub(super) async fn damage(qdrant: &str) -> [u64; 4] {
    // All points of a document; the first one; one in the middle.
    for point in points(qdrant, "gone").await {
        delete(qdrant, &point).await;
    }
    delete(qdrant, &points(qdrant, "headless").await[0]).await;
    delete(qdrant, &points(qdrant, "torn").await[1]).await;
    // Another digest, as in an older version; another field value with the same digest.
    for mut point in points(qdrant, "old").await {
        point["payload"]["_tidewheel"]["digest"] = "00000000000000000000000000000000".into();
        upsert(qdrant, &point).await;
    }
    let mut edited = points(qdrant, "edited").await.remove(0);
    edited["payload"]["number"] = 8.into();
    upsert(qdrant, &edited).await;
    // A chunk far after the last; a copy with another id; a document that the source does not have.
    let long = points(qdrant, "long").await;
    let mut far = long.last().unwrap().clone();
    let document = uuid::Uuid::parse_str(far["payload"]["_tidewheel"]["document"].as_str().unwrap()).unwrap();
    far["payload"]["_tidewheel"]["chunk"] = 90.into();
    far["id"] = uuid::Uuid::new_v5(&document, &90_u32.to_be_bytes()).to_string().into();
    upsert(qdrant, &far).await;
    let mut copy = points(qdrant, "twice").await.remove(0);
    copy["id"] = "11111111-2222-3333-4444-555555555555".into();
    upsert(qdrant, &copy).await;
    let namespace = tidewheel_core::identity::Namespace::new("shop", "notes");
    let nobody = tidewheel_core::identity::DocumentId::new(&namespace, r#""nobody""#);
    let mut extra = points(qdrant, "whole").await.remove(0);
    extra["id"] = nobody.point(0).to_string().into();
    let stamp = &mut extra["payload"]["_tidewheel"];
    stamp["key"] = r#""nobody""#.into();
    stamp["document"] = nobody.to_string().into();
    upsert(qdrant, &extra).await;
    // gone and headless are missing; torn, old and edited are stale; nobody is extra; long and twice have surplus
    // points.
    [2, 3, 1, 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_detects_and_repairs_every_kind_of_drift_under_writes() {
    let mut world = World::running().await;
    world.collection("notes").insert_many(NAMES.map(note)).await.unwrap();
    world.collection("tickets").insert_many((0..900).map(ticket)).await.unwrap();
    snapshot_is_over(&mut world).await;
    world.equal().await;
    let (found, code) = verify(&world, &[]);
    assert_eq!((code, counts(&found), &found["documents"]), (Some(0), [0; 4], &908.into()), "{found}");
    assert_eq!((&found["settled"], &found["unsettled"]), (&true.into(), &0.into()));

    let qdrant = world.stack.qdrant_http_url().unwrap();
    // A foreign point, which is only counted.
    let mut foreign = points(&qdrant, "whole").await.remove(0);
    foreign["id"] = "99999999-8888-7777-6666-555555555555".into();
    foreign["payload"] = json!({"mine": true});
    upsert(&qdrant, &foreign).await;
    let planted = damage(&qdrant).await;
    let (found, code) = verify(&world, &[]);
    assert_eq!((code, counts(&found), &found["foreign"]), (Some(1), planted, &1.into()), "{found}");
    // By digest, the changed field is not detected.
    let (quick, _) = verify(&world, &["--quick"]);
    assert_eq!(counts(&quick), [2, 2, 1, 2], "{quick}");
    let (part, code) = verify(&world, &["--namespace", "tickets"]);
    assert_eq!((code, &part["documents"]), (Some(0), &900.into()), "{part}");
    let (part, _) = verify(&world, &["--namespace", "tickets", "--from", "100", "--to", "299"]);
    assert_eq!(part["documents"], 200);
    let (part, code) = verify(&world, &["--namespace", "notes", "--from", "n", "--to", "o"]);
    assert_eq!((code, counts(&part)), (Some(1), [0, 0, 1, 0]), "only `nobody` is between n and o: {part}");
    let (sample, code) = verify(&world, &["--namespace", "tickets", "--sample", "25%"]);
    let documents = sample["documents"].as_u64().unwrap();
    assert!(code == Some(0) && (140..320).contains(&documents), "{sample}");

    let load = Writer::start(world.collection("tickets"));
    let (found, _) = verify(&world, &["--namespace", "notes"]);
    assert_eq!(counts(&found), planted, "changes in flight are not drift: {found}");
    assert_eq!(audit_log(world.command(&AUDIT_LOG)), [Value::Null; 0], "a comparison changes nothing");
    let (found, code) = verify(&world, &["--repair"]);
    assert_eq!((code, counts(&found), &found["repaired"]["left"]), (Some(0), planted, &0.into()), "{found}");
    assert_eq!((&found["repaired"]["sent"], &found["repaired"]["deleted"]), (&7.into(), &1.into()), "{found}");
    recorded(&audit_log(world.command(&AUDIT_LOG)), "verify --repair", "namespaces");
    let (found, code) = verify(&world, &[]);
    assert_eq!((code, counts(&found)), (Some(0), [0; 4]), "{found}");
    load.finish().await;
    delete(&qdrant, &foreign).await;
    world.equal().await;

    // Text output.
    damage(&qdrant).await;
    let ran = world.command(&["verify"]).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(text.contains("✖ the index differs from MongoDB: 2 missing, 3 stale, 1 extra, 2 surplus"), "{text}");
    let ran = world.command(&["verify", "--repair"]).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(text.contains("no differences left"), "{text}");
    world.equal().await;
}

/// Deletions select by `_tidewheel.document`, audits by `_tidewheel.key`, and both by ids derived from them.
#[tokio::test(flavor = "multi_thread")]
async fn inconsistent_points_are_detected_and_repaired() {
    let mut world = World::running().await;
    world.collection("notes").insert_many(["whole", "torn", "twice"].map(note)).await.unwrap();
    snapshot_is_over(&mut world).await;
    let before = world.equal().await.points;
    let qdrant = world.stack.qdrant_http_url().unwrap();
    let stranger = "77777777-2222-3333-4444-555555555555";

    // The right id with another document: a deletion of its document would not remove it.
    let mut foreign = points(&qdrant, "whole").await.remove(0);
    foreign["payload"]["_tidewheel"]["document"] = stranger.into();
    upsert(&qdrant, &foreign).await;
    // The id of a chunk, with the key of an unknown document.
    let mut renamed = points(&qdrant, "torn").await.remove(1);
    renamed["payload"]["_tidewheel"]["key"] = r#""nobody""#.into();
    upsert(&qdrant, &renamed).await;
    // An id and document of no document, with the key of an existing one, and with that of an unknown one.
    let mut stray = points(&qdrant, "twice").await.remove(0);
    stray["payload"]["_tidewheel"]["document"] = stranger.into();
    stray["id"] = "11111111-2222-3333-4444-555555555555".into();
    upsert(&qdrant, &stray).await;
    stray["payload"]["_tidewheel"]["key"] = r#""gone""#.into();
    stray["id"] = "22222222-2222-3333-4444-555555555555".into();
    upsert(&qdrant, &stray).await;

    for arguments in [&[][..], &["--quick"]] {
        let (found, code) = verify(&world, arguments);
        assert_eq!((code, counts(&found)), (Some(1), [0, 2, 2, 1]), "{found}");
    }
    let (found, code) = verify(&world, &["--repair"]);
    assert_eq!((code, &found["repaired"]["left"]), (Some(0), &0.into()), "{found}");
    let (found, code) = verify(&world, &[]);
    assert_eq!((code, counts(&found), found["points"].as_u64()), (Some(0), [0; 4], Some(before)), "{found}");
    world.collection("notes").delete_many(doc! {}).await.unwrap();
    world.equal().await;
    assert!(super::clients::points(&qdrant).await.is_empty(), "deletions remove all points");
}
