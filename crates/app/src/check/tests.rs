use std::collections::BTreeMap;

use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::HistoryWindow;
use tidewheel_core::version::ClusterTime;
use tidewheel_stores::mongo::{MongoFacts, Topology};
use tidewheel_stores::qdrant::{CollectionFacts, QdrantFacts};
use tidewheel_stores::redis::RedisFacts;

use super::*;

fn good() -> Facts {
    let at = |seconds| ClusterTime { seconds, increment: 1 };
    Facts {
        mongodb_uri: "mongodb://127.0.0.1".into(),
        mongodb: Ok(MongoFacts {
            version: "6.0.5".into(),
            topology: Topology::ReplicaSet("rs0".into()),
            primary: true,
            oplog: Some(HistoryWindow { first: at(1_000), last: at(1_000_000) }),
            watch: Ok(()),
            ignored: Vec::new(),
            collections: vec![(Namespace::new("shop", "tickets"), 12)],
            passed_over: Vec::new(),
        }),
        redis_url: "redis://127.0.0.1".into(),
        redis: Ok(RedisFacts {
            version: "7.0.15".into(),
            role: "master".into(),
            append_only: true,
            append_fsync: Some("everysec".into()),
            max_memory: 100,
            used_memory: 10,
            max_memory_policy: "noeviction".into(),
            config_permitted: true,
            ..RedisFacts::default()
        }),
        embedder_url: "http://127.0.0.1:8080".into(),
        embedder: Ok(running(384)),
        other_embedders: Vec::new(),
        qdrant_url: "http://127.0.0.1:6334".into(),
        collection: "documents".into(),
        qdrant: Ok(QdrantFacts { title: "qdrant".into(), version: "1.19.0".into(), collection: Some(a_collection()) }),
        indexes: None,
        owners: Owners::default(),
        traces: Some(Ok(CollectorFacts { address: "http://127.0.0.1:4318/v1/traces".into(), refused: None })),
    }
}

fn a_collection() -> CollectionFacts {
    CollectionFacts {
        status: "green".into(),
        optimizer_error: None,
        dimension: Some(384),
        distance: Some("Cosine".into()),
        named_vectors: Vec::new(),
        points: 12,
        indexed_vectors: 0,
        segments: 1,
        quantization: None,
        indexes_required: false,
        payload_indexes: BTreeMap::new(),
    }
}

fn verdicts(change: impl FnOnce(&mut Facts)) -> Vec<(CheckVerdict, String)> {
    let mut facts = good();
    change(&mut facts);
    let findings = findings(&facts);
    for finding in &findings {
        assert_eq!(finding.hint.is_some(), finding.verdict != CheckVerdict::Right, "{finding:?}");
    }
    let problems = findings.into_iter().filter(|finding| finding.verdict != CheckVerdict::Right);
    problems.map(|finding| (finding.verdict, finding.message)).collect()
}

#[test]
fn healthy_servers_give_no_problems() {
    assert_eq!(verdicts(|_| ()), []);
    assert_eq!(verdicts(|facts| facts.traces = None), []);
    assert_eq!(verdicts(|facts| facts.qdrant.as_mut().unwrap().collection = None), []);
}

#[test]
fn each_fault_gives_exactly_one_finding() {
    type Change = fn(&mut Facts);
    let cases: &[(Change, CheckVerdict, &str)] = &[
        (|f| f.mongodb.as_mut().unwrap().version = "5.0.1".into(), CheckVerdict::Wrong, "unsupported MongoDB version"),
        (|f| f.mongodb.as_mut().unwrap().primary = false, CheckVerdict::Doubtful, "no reachable primary"),
        (
            |f| f.mongodb.as_mut().unwrap().watch = Err(PortError::fatal("not allowed")),
            CheckVerdict::Wrong,
            "not allowed",
        ),
        (
            |f| f.mongodb.as_mut().unwrap().oplog.as_mut().unwrap().first.seconds = 990_000,
            CheckVerdict::Doubtful,
            "2.8 h",
        ),
        (|f| f.mongodb.as_mut().unwrap().oplog = None, CheckVerdict::Doubtful, "unknown oplog window"),
        (|f| f.mongodb.as_mut().unwrap().collections.clear(), CheckVerdict::Doubtful, "no selected collection"),
        (
            |f| {
                f.mongodb.as_mut().unwrap().collections.clear();
                f.mongodb.as_mut().unwrap().passed_over = vec!["notes".into(), "orders".into()];
            },
            CheckVerdict::Wrong,
            "selects none of the 2 existing collections: notes, orders",
        ),
        (|f| f.mongodb = Err(Failure::new("refused")), CheckVerdict::Wrong, "refused"),
        (|f| f.redis.as_mut().unwrap().version = "6.2.0".into(), CheckVerdict::Wrong, "unsupported Redis version"),
        (|f| f.redis.as_mut().unwrap().cluster = true, CheckVerdict::Wrong, "Cluster"),
        (|f| f.redis.as_mut().unwrap().role = "slave".into(), CheckVerdict::Wrong, "replica"),
        (|f| f.redis.as_mut().unwrap().max_memory_policy = "allkeys-lru".into(), CheckVerdict::Wrong, "allkeys-lru"),
        (|f| f.redis.as_mut().unwrap().append_only = false, CheckVerdict::Doubtful, "appendonly"),
        (|f| f.redis.as_mut().unwrap().append_fsync = Some("no".into()), CheckVerdict::Doubtful, "appendfsync"),
        (|f| f.redis.as_mut().unwrap().used_memory = 90, CheckVerdict::Doubtful, "90%"),
        (|f| f.embedder = Err(Failure::new("refused")), CheckVerdict::Wrong, "refused"),
        (|f| f.embedder = Ok(running(64)), CheckVerdict::Wrong, "384 dimensions, the embedder returns 64"),
        (
            |f| f.embedder = Ok(to_start(Some(384))),
            CheckVerdict::Doubtful,
            "no embedder is running at http://127.0.0.1:8080",
        ),
        (|f| f.qdrant.as_mut().unwrap().version = "1.15.0".into(), CheckVerdict::Wrong, "unsupported Qdrant version"),
        (|f| f.qdrant.as_mut().unwrap().version = "1.17.0".into(), CheckVerdict::Doubtful, "1.17.0"),
        (|f| collection(f).distance = Some("Dot".into()), CheckVerdict::Wrong, "Dot"),
        (|f| collection(f).dimension = None, CheckVerdict::Wrong, "no default vector"),
        (
            |f| collector(f).refused = Some("the collector returned 404".into()),
            CheckVerdict::Doubtful,
            "4318/v1/traces: the collector returned 404",
        ),
        (|f| f.traces = Some(Err(Failure::new("no address"))), CheckVerdict::Wrong, "no address"),
        (|f| collection(f).status = "red".into(), CheckVerdict::Wrong, "status red"),
    ];
    for (change, verdict, part) in cases {
        let found = verdicts(change);
        assert_eq!(found.len(), 1, "{part}: {found:?}");
        assert_eq!(found[0].0, *verdict, "{found:?}");
        assert!(found[0].1.contains(part), "{found:?}");
    }
}

#[test]
fn embedder_to_start_is_a_failure_only_if_its_model_mismatches() {
    let absent = verdicts(|facts| facts.embedder = Ok(to_start(None)));
    assert!(absent.iter().all(|(verdict, _)| *verdict == CheckVerdict::Doubtful), "{absent:?}");
    assert!(absent[0].1.contains("m is not downloaded yet"), "{absent:?}");
    let other = verdicts(|facts| facts.embedder = Ok(to_start(Some(64))));
    assert_eq!(other.last().unwrap().0, CheckVerdict::Wrong, "{other:?}");
}

#[test]
fn every_declared_index_and_its_embedder_are_checked() {
    let index = |name: &str, serving| IndexFacts { name: name.into(), serving };
    let declared = |facts: &mut Facts| {
        let red = CollectionFacts { status: "red".into(), ..a_collection() };
        facts.other_embedders = vec![("http://gpu-box:3000".into(), Err(Failure::new("refused by gpu-box")))];
        facts.indexes = Some(Ok(vec![
            index("tickets", Some(("tickets.g2".into(), Some(a_collection())))),
            index("notes", Some(("notes.g1".into(), Some(red)))),
            index("users", None),
        ]));
    };
    let found = verdicts(declared);
    let expected = [
        (CheckVerdict::Wrong, "refused by gpu-box"),
        (CheckVerdict::Wrong, "collection notes.g1 has status red: no reason given"),
        (CheckVerdict::Doubtful, "index users has no collection yet"),
    ];
    assert_eq!(found, expected.map(|(verdict, message)| (verdict, message.to_owned())));
    let unknown = verdicts(|facts| facts.indexes = Some(Err(Failure::new("no catalog"))));
    assert_eq!(unknown, [(CheckVerdict::Wrong, "no catalog".to_owned())]);
}

fn running(dimension: usize) -> EmbedderFacts {
    EmbedderFacts::Running { model: "m".into(), dimension, latency: Duration::from_millis(5), computes: None }
}

fn to_start(dimension: Option<usize>) -> EmbedderFacts {
    EmbedderFacts::ToStart { model: "m".into(), dimension }
}

fn collector(facts: &mut Facts) -> &mut CollectorFacts {
    facts.traces.as_mut().unwrap().as_mut().unwrap()
}

fn collection(facts: &mut Facts) -> &mut CollectionFacts {
    facts.qdrant.as_mut().unwrap().collection.as_mut().unwrap()
}

#[test]
fn standalone_mongodb_is_a_failure() {
    let found = verdicts(|facts| facts.mongodb.as_mut().unwrap().topology = Topology::Standalone);
    assert_eq!(found[0].0, CheckVerdict::Wrong);
}

#[test]
fn foreign_owners_are_failures_that_name_the_owner() {
    let source = |database: &str| SourceIdentity {
        database: database.into(),
        replica_set: "rs0".into(),
        hosts: vec!["db1:27017".into()],
        cluster: String::new(),
    };
    let installation =
        |database: &str| Installation { collection: "documents".into(), ..Installation::new(source(database), 1) };
    let (own, other) = (installation("shop"), installation("crm"));
    let owners = |redis: &Installation, collection: &Installation| Owners {
        source: Some(source("shop")),
        redis: Some(redis.clone()),
        collection: Some(CollectionMark::Of(collection.clone())),
    };
    assert_eq!(verdicts(|facts| facts.owners = owners(&own, &own)), []);
    for (redis, collection, wrong) in [(&own, &other, "collection"), (&other, &own, "Redis")] {
        let found = verdicts(|facts| facts.owners = owners(redis, collection));
        let (verdict, message) = &found[0];
        assert_eq!(*verdict, CheckVerdict::Wrong);
        assert!(message.contains(wrong) && message.contains("crm"), "{message}");
    }
}
