//! The oracle detects every kind of difference between index and source, and reports no false ones.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Binary, Bson, DateTime, Document, doc};
use serde_json::json;
use tidewheel_core::catalog::{Declaration, EmbedderIdentity, EmbeddingSpec, IndexName, Selector, State, TargetRecord};
use tidewheel_core::fingerprint::Fingerprints;
use tidewheel_core::identity::{DocumentId, Namespace};
use tidewheel_core::payload::{RESERVED, Stamp, plain_document};
use tidewheel_core::ports::{CollectionAdmin as _, DocumentPoints, Fence, FenceTarget, IndexWriter, Point, Written};
use tidewheel_core::version::{ClusterTime, Version};
use tidewheel_local::provision::Provisioner;
use tidewheel_local::silent;
use tidewheel_local::stack::Mongod;
use tidewheel_stores::qdrant::QdrantIndex;
use tidewheel_testkit::contracts::index::DIMENSION;
use tidewheel_testkit::fakes::embedder::vector_of;
use tidewheel_testkit::oracle::{Declared, Oracle, OracleOptions, Report};

use super::server::Server;

/// The points that a pipeline writes for this document at this second.
fn points(document: &Document, seconds: u32) -> DocumentPoints {
    let namespace = Namespace::new("shop", "tickets");
    let key = document.get("_id").expect("an _id").clone().into_canonical_extjson().to_string();
    let id = DocumentId::new(&namespace, &key);
    let version = Version { epoch: 0, time: ClusterTime { seconds, increment: 1 }, ordinal: 1, replay: 0 };
    let text = text(document);
    let (first, second) = text.split_at(text.len() / 2);
    let stamp = Stamp {
        key: &key,
        namespace: namespace.as_str(),
        document: id,
        version,
        model: "fake:4",
        fingerprints: &Fingerprints::new("fake:4", "1", DIMENSION),
        chunks: 2,
        digest: "",
    };
    let point = |(chunk, text): (u32, &str)| {
        // The canonical form: the library's relaxed one truncates dates after the year 9999.
        let extended = Bson::Document(document.clone()).into_canonical_extjson().to_string();
        let mut payload = plain_document(&extended).unwrap();
        payload.insert(RESERVED.to_owned(), stamp.value(chunk, text));
        Point { id: id.point(chunk), vector: vector_of(text, DIMENSION), payload }
    };
    DocumentPoints {
        document: id,
        version,
        fields: serde_json::Map::new(),
        excerpt: None,
        points: (0..).zip([first, second]).map(point).collect(),
    }
}

fn text(document: &Document) -> String {
    document.get_str("subject").unwrap_or_default().to_owned()
}

fn counts(report: &Report) -> [usize; 4] {
    [report.missing.len(), report.stale.len(), report.extra.len(), report.surplus_chunks.len()]
}

async fn write(index: &QdrantIndex, documents: &[DocumentPoints]) {
    index.prepare(DIMENSION).await.unwrap();
    let written = index.upsert(&documents.iter().collect::<Vec<_>>()).await.unwrap();
    assert_eq!(written, Written::Durably);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oracle_detects_every_difference() {
    let data = tempfile::tempdir().unwrap();
    let program = Provisioner::new(silent()).unwrap().mongod().await.unwrap();
    let mongod = Mongod::new(program, data.path()).start(silent()).await.unwrap();
    let server = Server::any().await;
    let index = server.connect();
    let client = mongodb::Client::with_uri_str(mongod.url()).await.unwrap();
    let tickets = client.database("shop").collection::<Document>("tickets");
    let oracle = Oracle::connect(OracleOptions {
        mongodb_uri: mongod.url(),
        database: "shop".to_owned(),
        collections: vec!["tickets".to_owned()],
        qdrant_url: server.url.clone(),
        qdrant_api_key: None,
        collection: server.collection.clone(),
    })
    .await
    .unwrap()
    .with_text(text)
    .with_vectors(|text| vector_of(text, DIMENSION));
    assert!(oracle.compare().await.unwrap().is_equal(), "both are empty");

    let documents = [
        doc! { "_id": ObjectId::new(), "subject": "one two", "at": DateTime::now(), "price": 1.0 },
        doc! { "_id": 7, "subject": "grüße 日本", "list": [1, 2_i64, f64::NAN, { "a": Bson::Null }] },
        doc! { "_id": 7.5, "subject": "half", "bytes": Binary::from(bson::Uuid::new()) },
        doc! { "_id": { "a": 1, "b": "x" }, "subject": "compound", "at": DateTime::from_millis(253_402_300_800_000) },
    ];
    tickets.insert_many(&documents).await.unwrap();
    let report = oracle.compare().await.unwrap();
    assert_eq!((report.documents, counts(&report)), (4, [4, 0, 0, 0]), "{report}");
    let written: Vec<_> = documents.iter().map(|document| points(document, 1)).collect();
    write(&index, &written).await;
    let report = oracle.wait_until_equal(Duration::from_secs(10)).await.unwrap();
    assert!(report.is_equal() && (report.documents, report.points) == (4, 8), "{report}");

    // A document in the index but not in the source.
    let extra = points(&doc! { "_id": 9, "subject": "extra" }, 1);
    write(&index, std::slice::from_ref(&extra)).await;
    let report = oracle.compare().await.unwrap();
    assert_eq!(counts(&report), [0, 0, 1, 0], "{report}");
    let newer = |second: u32| Version { time: ClusterTime { seconds: second, increment: 1 }, ..Version::default() };
    index.delete(&[Fence { target: FenceTarget::Document(extra.document), version: newer(2) }]).await.unwrap();

    // A chunk after the last.
    let mut surplus = written[0].clone();
    surplus.points = vec![surplus.points.remove(1)];
    surplus.points[0].id = surplus.document.point(2);
    surplus.points[0].payload[RESERVED]["chunk"] = json!(2);
    write(&index, &[surplus]).await;
    let report = oracle.compare().await.unwrap();
    assert_eq!(counts(&report), [0, 0, 0, 1], "{report}");
    index.delete(&[Fence { target: FenceTarget::Document(written[0].document), version: newer(2) }]).await.unwrap();
    write(&index, &written[..1]).await;
    assert!(oracle.compare().await.unwrap().is_equal());

    // Each of these makes the document stale in its own way; the next second's write repairs it.
    let mut second = 1;
    for (what, spoil) in [
        ("payload", (|point| point.payload["subject"] = json!("other")) as fn(&mut Point)),
        ("payload", |point| {
            point.payload.insert("more".to_owned(), json!(1));
        }),
        ("text", |point| {
            point.payload[RESERVED]["text"] = json!("other");
            point.vector = vector_of("other", DIMENSION);
        }),
        ("vector", |point| point.vector[0] += 1.0),
        ("chunk 1", |point| point.payload[RESERVED]["chunks"] = json!(5)),
    ] {
        let mut stale = points(&documents[1], second + 1);
        spoil(&mut stale.points[1]);
        write(&index, &[stale]).await;
        let report = oracle.compare().await.unwrap();
        assert_eq!(counts(&report), [0, 1, 0, 0], "{what}: {report}");
        assert!(report.stale[0].what.contains(what), "{what}: {report}");
        second += 2;
        write(&index, &[points(&documents[1], second)]).await;
        assert!(oracle.compare().await.unwrap().is_equal());
    }

    // Half a document, as after a crash between two requests.
    let mut half = points(&documents[1], second + 1);
    half.points.truncate(1);
    write(&index, &[half]).await;
    let report = oracle.compare().await.unwrap();
    assert_eq!(counts(&report), [0, 1, 0, 0], "{report}");
    assert!(report.stale[0].what.contains("version"), "{report}");
    mongod.stop().await;
}

/// Covers what the test writes, except drafts and notes.
const DECLARED: &str = r#"
    [[index]]
    name = "tickets"
    source = ["shop.*", "!shop.notes"]
    filter = { status = { "$ne" = "draft" } }
    text.template = "{{ subject }}"
    payload.exclude = ["owner"]
"#;

/// What the collection of that index records.
fn record() -> TargetRecord {
    let source = Selector::parse(&["shop.*", "!shop.notes"], None).unwrap();
    let embedding = EmbeddingSpec::new("default", "tidewheel", "fake:4");
    let declaration = Declaration::new(IndexName::new("tickets").unwrap(), source, embedding);
    TargetRecord {
        index: declaration.name.clone(),
        generation: 1,
        plain: false,
        state: State::Serving,
        parts: declaration.parts(),
        embedder: Some(EmbedderIdentity { model: "fake:4".into(), revision: "1".into(), dimension: DIMENSION }),
        declaration,
        revision: 7,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn oracle_judges_a_declared_index() {
    let data = tempfile::tempdir().unwrap();
    let program = Provisioner::new(silent()).unwrap().mongod().await.unwrap();
    let mongod = Mongod::new(program, data.path()).start(silent()).await.unwrap();
    let server = Server::any().await;
    let index = server.connect();
    let client = mongodb::Client::with_uri_str(mongod.url()).await.unwrap();
    let (shop, record) = (client.database("shop"), record());
    let oracle = Oracle::connect(OracleOptions {
        mongodb_uri: mongod.url(),
        database: String::new(),
        collections: Vec::new(),
        qdrant_url: server.url.clone(),
        qdrant_api_key: None,
        collection: server.collection.clone(),
    })
    .await
    .unwrap()
    .with_declaration(Declared::of(DECLARED, "tickets").unwrap())
    .with_vectors(|text| vector_of(text, DIMENSION));
    // The points of a ticket, as the pipeline writes them for this declaration.
    let declared = |document: &Document, second: u32| {
        let mut fields = document.clone();
        fields.remove("owner");
        let mut points = points(&fields, second);
        for point in &mut points.points {
            point.payload[RESERVED]["made"] = json!(record.declaration.made());
        }
        points
    };
    let open = doc! { "_id": 1, "subject": "one two", "status": "open", "owner": "ada" };
    let draft = doc! { "_id": 2, "subject": "three four", "status": "draft" };
    shop.collection::<Document>("tickets").insert_many([&open, &draft]).await.unwrap();
    shop.collection::<Document>("notes").insert_one(&open).await.unwrap();
    client.database("crm").collection::<Document>("tickets").insert_one(&open).await.unwrap();
    let report = oracle.compare().await.unwrap();
    assert_eq!((report.documents, counts(&report)), (1, [1, 0, 0, 0]), "{report}");

    write(&index, &[declared(&open, 1)]).await;
    let report = oracle.compare().await.unwrap();
    assert_eq!(counts(&report), [0, 0, 1, 0], "the collection has no record: {report}");
    index.set_record(&record).await.unwrap();
    let report = oracle.compare().await.unwrap();
    assert!(report.is_equal() && (report.documents, report.points) == (1, 2), "{report}");

    let mut second = 1;
    for (what, spoil) in [
        ("made by", (|point| point.payload[RESERVED]["made"] = json!({})) as fn(&mut Point)),
        ("fingerprint", |point| point.payload[RESERVED]["fingerprint"] = json!("0")),
        ("owner", |point| {
            point.payload.insert("owner".to_owned(), json!("ada"));
        }),
    ] {
        let mut stale = declared(&open, second + 1);
        spoil(&mut stale.points[1]);
        write(&index, &[stale]).await;
        let report = oracle.compare().await.unwrap();
        assert_eq!(counts(&report), [0, 1, 0, 0], "{what}: {report}");
        assert!(report.stale[0].what.contains(what), "{what}: {report}");
        second += 2;
        write(&index, &[declared(&open, second)]).await;
    }
    // A document of the collection that the filter leaves out.
    write(&index, &[declared(&draft, 1)]).await;
    let report = oracle.compare().await.unwrap();
    assert_eq!(counts(&report), [0, 0, 1, 0], "{report}");
    let opened = doc! {"$set": {"status": "open"}};
    shop.collection::<Document>("tickets").update_one(doc! {"_id": 2}, opened).await.unwrap();
    write(&index, &[declared(&doc! { "_id": 2, "subject": "three four", "status": "open" }, 2)]).await;
    let report = oracle.compare().await.unwrap();
    assert!(report.is_equal() && report.documents == 2, "{report}");
    mongod.stop().await;
}
