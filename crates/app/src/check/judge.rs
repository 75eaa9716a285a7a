//! Turns facts into findings.

use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_ops::text::{documents, duration, none_of, thousands};
use tidewheel_pipeline::ownership::{Ownership, Registration, Serves, ownership, registration};
use tidewheel_stores::mongo::{MongoFacts, Topology};
use tidewheel_stores::qdrant::{CollectionFacts, QdrantFacts};
use tidewheel_stores::redis::RedisFacts;

use super::{CheckVerdict, CollectorFacts, EmbedderFacts, Facts, Finding, IndexFacts, Owners};
use crate::exit::Failure;

/// Minimum oplog window. A producer that is offline for longer has to take a new snapshot; a day covers a night and a slow
/// morning.
const OPLOG_SECONDS: u64 = 24 * 3600;

/// First version with the change stream features that tidewheel uses.
const MONGODB: (u32, u32) = (6, 0);
/// First version whose `XAUTOCLAIM` reports deleted entries.
const REDIS: (u32, u32) = (7, 0);
/// First version with conditional writes.
const QDRANT: (u32, u32) = (1, 16);
/// First version that evaluates a conditional write only once across a restart.
const QDRANT_GOOD: (u32, u32) = (1, 19);

/// Memory usage, relative to the limit, from which Redis counts as nearly full.
const MEMORY_SHARE: f64 = 0.8;

/// Returns the findings, in pipeline order.
pub(crate) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut report = Vec::new();
    let selected_by = if facts.indexes.is_some() { "index.source" } else { "mongodb.collection" };
    reached(&mut report, "mongodb", &facts.mongodb_uri, &facts.mongodb, |report, address, facts| {
        mongodb(report, address, facts, selected_by);
    });
    reached(&mut report, "redis", &facts.redis_url, &facts.redis, redis);
    owner_of_redis(&mut report, &facts.owners);
    reached(&mut report, "embedder", &facts.embedder_url, &facts.embedder, embedder);
    for (address, probed) in &facts.other_embedders {
        reached(&mut report, "embedder", address, probed, embedder);
    }
    reached(&mut report, "qdrant", &facts.qdrant_url, &facts.qdrant, |report, address, qdrant| {
        server(report, address, qdrant);
        let dimension = facts.embedder.as_ref().ok().and_then(EmbedderFacts::dimension).map(|count| count as u64);
        match &facts.indexes {
            None => {
                let elsewhere = "delete it, or set qdrant.collection to another name";
                collection(report, &facts.collection, qdrant.collection.as_ref(), dimension, elsewhere);
            }
            Some(probed) => reached(report, "redis", &facts.redis_url, probed, |report, _, indexes| {
                indexes.iter().for_each(|facts| index(report, facts));
            }),
        }
    });
    owner_of_collection(&mut report, &facts.collection, &facts.owners);
    if let Some(probed) = &facts.traces {
        reached(&mut report, "traces", "in traces.endpoint", probed, traces);
    }
    report
}

type Report = Vec<Finding>;

fn right(report: &mut Report, part: &'static str, message: impl Into<String>) {
    report.push(Finding { part, verdict: CheckVerdict::Right, message: message.into(), hint: None });
}

fn doubtful(report: &mut Report, part: &'static str, message: impl Into<String>, hint: impl Into<String>) {
    report.push(Finding { part, verdict: CheckVerdict::Doubtful, message: message.into(), hint: Some(hint.into()) });
}

fn wrong(report: &mut Report, part: &'static str, message: impl Into<String>, hint: impl Into<String>) {
    report.push(Finding { part, verdict: CheckVerdict::Wrong, message: message.into(), hint: Some(hint.into()) });
}

/// Judges the facts of a server, or reports why there are none.
fn reached<T>(
    report: &mut Report,
    part: &'static str,
    address: &str,
    probed: &Result<T, Failure>,
    judge: impl FnOnce(&mut Report, &str, &T),
) {
    match probed {
        Ok(facts) => judge(report, address, facts),
        Err(failure) => {
            let hint = failure.hint.clone().unwrap_or_else(|| {
                format!("check that the server is running and that the address {address} is correct")
            });
            wrong(report, part, &failure.message, hint);
        }
    }
}

fn owner_of_redis(report: &mut Report, owners: &Owners) {
    const PART: &str = "redis";
    let (Some(found), Some(source)) = (&owners.redis, &owners.source) else { return };
    match registration(Some(found), None, &Serves { source: Some(source.clone()), database: None }) {
        Registration::Refuse(error) => wrong(report, PART, error.message, error.hint.unwrap_or_default()),
        _ => right(report, PART, format!("owned by installation {} of {}", found.id, found.source)),
    }
}

fn owner_of_collection(report: &mut Report, collection: &str, owners: &Owners) {
    const PART: &str = "qdrant";
    let (Some(mark @ CollectionMark::Of(owner)), Some(source)) = (&owners.collection, &owners.source) else { return };
    // If Redis has no installation, the next producer registers one.
    let new = || Installation { id: String::new(), source: source.clone(), created_at: 0, collection: String::new() };
    let own = owners.redis.clone().filter(|found| found.source.may_become(source)).unwrap_or_else(new);
    match ownership(&own, collection, mark) {
        Ownership::Refuse(error) => wrong(report, PART, error.message, error.hint.unwrap_or_default()),
        Ownership::Inherit => {
            let message = format!("collection owned by an earlier installation of {}", owner.source);
            doubtful(
                report,
                PART,
                message,
                "the next upserter takes it over; stop the other installation if it is still running",
            );
        }
        _ => right(report, PART, format!("collection owned by installation {}", owner.id)),
    }
}

fn traces(report: &mut Report, _: &str, facts: &CollectorFacts) {
    const PART: &str = "traces";
    let address = &facts.address;
    match &facts.refused {
        None => right(report, PART, format!("collector accepts traces at {address}")),
        Some(cause) => doubtful(
            report,
            PART,
            format!("no collector accepts traces at {address}: {cause}"),
            "changes are processed without traces; check traces.endpoint and traces.headers, and that the collector accepts \
             OTLP over HTTP",
        ),
    }
}

/// `selected_by` is the setting that selects collections.
fn mongodb(report: &mut Report, address: &str, facts: &MongoFacts, selected_by: &str) {
    const PART: &str = "mongodb";
    let version = &facts.version;
    if at_least(version, MONGODB) {
        right(report, PART, format!("MongoDB {version} reachable at {address}"));
    } else {
        wrong(report, PART, format!("unsupported MongoDB version {version}"), "upgrade to MongoDB 6.0 or newer");
    }
    match &facts.topology {
        Topology::ReplicaSet(name) => right(report, PART, format!("replica set {name}")),
        Topology::Sharded => right(report, PART, "sharded cluster"),
        Topology::Standalone => wrong(
            report,
            PART,
            "standalone server without change streams",
            "start it with --replSet rs0 and run rs.initiate() once; a single-node replica set is enough",
        ),
    }
    if !facts.primary && facts.topology != Topology::Sharded {
        doubtful(report, PART, "no reachable primary", "wait for the election to finish, or check rs.status()");
    }
    for option in &facts.ignored {
        let hint = "remove it from mongodb.uri";
        doubtful(report, PART, format!("unsupported option {option} in mongodb.uri has no effect"), hint);
    }
    match &facts.watch {
        Ok(()) => right(report, PART, "change stream opened"),
        Err(error) => {
            let hint = "grant the user the actions find and changeStream on the database";
            wrong(report, PART, &error.message, error.hint.as_deref().unwrap_or(hint));
        }
    }
    match facts.oplog {
        Some(window) if window.seconds() >= OPLOG_SECONDS => {
            right(report, PART, format!("oplog window {} h", window.seconds() / 3600));
        }
        Some(window) => doubtful(
            report,
            PART,
            format!("oplog window only {}", duration(window.seconds() as f64)),
            "expected on a new server; otherwise enlarge the oplog with replSetResizeOplog, so that a producer can be offline \
             for a day",
        ),
        None if matches!(facts.topology, Topology::ReplicaSet(_)) => doubtful(
            report,
            PART,
            "unknown oplog window",
            "to monitor the oplog window, grant the user read access to local.oplog.rs",
        ),
        None => {}
    }
    let count: u64 = facts.collections.iter().map(|(_, count)| count).sum();
    if !facts.passed_over.is_empty() {
        let message = format!("{selected_by} selects {}", none_of(&facts.passed_over));
        let hint = format!("correct {selected_by}: a name, or a pattern such as \"tickets_*\"");
        wrong(report, PART, message, hint);
    } else if facts.collections.is_empty() {
        let hint =
            format!("expected if they will be created later; otherwise check mongodb.database and {selected_by}");
        doubtful(report, PART, "no selected collection exists", hint);
    } else {
        right(report, PART, format!("selected collections: {}, about {}", facts.collections.len(), documents(count)));
    }
}

fn redis(report: &mut Report, address: &str, facts: &RedisFacts) {
    const PART: &str = "redis";
    let version = &facts.version;
    if at_least(version, REDIS) {
        right(report, PART, format!("Redis {version} reachable at {address}"));
    } else {
        wrong(report, PART, format!("unsupported Redis version {version}"), "upgrade to Redis 7.0 or newer");
    }
    if facts.cluster {
        let hint = "use a server without cluster mode: one pipeline step updates both streams in one script";
        wrong(report, PART, "Redis Cluster is not supported", hint);
    }
    if facts.role == "slave" {
        wrong(report, PART, "read-only replica", "set redis.url to the primary");
    }
    match facts.max_memory_policy.as_str() {
        "noeviction" => right(report, PART, "eviction disabled (maxmemory-policy noeviction)"),
        "" => {
            doubtful(report, PART, "unknown eviction policy", "make sure that maxmemory-policy is noeviction");
        }
        policy => wrong(
            report,
            PART,
            format!("maxmemory-policy is {policy}: Redis evicts data when its memory is full"),
            "run `redis-cli CONFIG SET maxmemory-policy noeviction`, and set it in redis.conf",
        ),
    }
    if facts.append_only {
        match facts.append_fsync.as_deref() {
            Some("no") => doubtful(
                report,
                PART,
                "appendfsync is no: the operating system decides when data reaches the disk",
                "set appendfsync to everysec: a power failure then loses about one second, which the producer reads again",
            ),
            Some(fsync) => right(report, PART, format!("append-only file enabled (appendfsync {fsync})")),
            None => right(report, PART, "append-only file enabled"),
        }
    } else {
        doubtful(
            report,
            PART,
            "appendonly is no: a Redis restart loses changes in both streams, and the producer reads them again",
            "run `redis-cli CONFIG SET appendonly yes`, and set it in redis.conf",
        );
    }
    if facts.max_memory > 0 {
        let share = facts.used_memory as f64 / facts.max_memory as f64;
        let message = format!("memory usage at {:.0}% of the limit", share * 100.0);
        if share < MEMORY_SHARE {
            right(report, PART, message);
        } else {
            doubtful(report, PART, message, "raise maxmemory, or lower producer.high_water");
        }
    }
}

fn embedder(report: &mut Report, address: &str, facts: &EmbedderFacts) {
    const PART: &str = "embedder";
    match facts {
        EmbedderFacts::Running { model, dimension, latency, computes } => {
            let millis = latency.as_secs_f64() * 1e3;
            let computes = computes.as_ref().map(|computes| format!(" with {computes}")).unwrap_or_default();
            right(
                report,
                PART,
                format!("{model} at {address} returned {dimension} dimensions in {millis:.1} ms{computes}"),
            );
        }
        EmbedderFacts::ToStart { model, dimension } => {
            match dimension {
                Some(dimension) => right(report, PART, format!("{model} can be loaded: {dimension} dimensions")),
                None => doubtful(
                    report,
                    PART,
                    format!("{model} is not downloaded yet"),
                    "`tidewheel run` downloads it on startup, which takes time and network access",
                ),
            }
            doubtful(
                report,
                PART,
                format!("no embedder is running at {address}"),
                "`tidewheel run` starts it; to use another embedder, set embedding.url",
            );
        }
    }
}

fn server(report: &mut Report, address: &str, facts: &QdrantFacts) {
    const PART: &str = "qdrant";
    let QdrantFacts { title, version, .. } = facts;
    if !at_least(version, QDRANT) {
        wrong(report, PART, format!("unsupported Qdrant version {version}"), "upgrade to 1.16 or newer, ideally 1.19");
    } else if at_least(version, QDRANT_GOOD) {
        // Names another implementation of the API, such as the local Qdrant.
        let detail = title.strip_prefix("qdrant - vector search engine").unwrap_or_default();
        right(report, PART, format!("Qdrant {version} reachable at {address}{detail}"));
    } else {
        let hint = "upgrade to 1.19 or newer, where a crash cannot apply a conditional write twice";
        doubtful(report, PART, format!("Qdrant {version} is supported, but outdated"), hint);
    }
}

fn index(report: &mut Report, facts: &IndexFacts) {
    const PART: &str = "qdrant";
    match &facts.serving {
        // Its model may differ from the declared one: that is a new generation.
        Some((name, found)) => {
            collection(report, name, found.as_ref(), None, "delete it, or give the index another name");
        }
        None => {
            let hint = "`tidewheel run` applies the indexes of a new installation; otherwise run `tidewheel apply`";
            doubtful(report, PART, format!("index {} has no collection yet", facts.name), hint);
        }
    }
}

/// `elsewhere` is the hint for a collection that cannot be used.
fn collection(
    report: &mut Report,
    name: &str,
    facts: Option<&CollectionFacts>,
    embedder: Option<u64>,
    elsewhere: &str,
) {
    const PART: &str = "qdrant";
    let Some(facts) = facts else {
        return right(report, PART, format!("collection {name} does not exist yet; the upserter creates it"));
    };
    match (facts.dimension, facts.distance.as_deref()) {
        (None, _) => {
            return wrong(report, PART, format!("collection {name} has no default vector"), elsewhere);
        }
        (_, Some(distance)) if distance != "Cosine" => {
            return wrong(
                report,
                PART,
                format!("collection {name} uses {distance} distance instead of Cosine"),
                elsewhere,
            );
        }
        (Some(found), _) if embedder.is_some_and(|embedder| embedder != found) => {
            let expected = embedder.unwrap_or_default();
            let message = format!("collection {name} has {found} dimensions, the embedder returns {expected}");
            let hint = "use the model that the collection was built with, or set qdrant.collection to another name";
            return wrong(report, PART, message, hint);
        }
        _ => {}
    }
    let points = thousands(facts.points);
    match facts.status.as_str() {
        "red" => {
            let cause = facts.optimizer_error.as_deref().unwrap_or("no reason given");
            wrong(report, PART, format!("collection {name} has status red: {cause}"), "check Qdrant's log");
        }
        status => right(report, PART, format!("collection {name}: {points} points, status {status}")),
    }
}

/// Whether `version`, such as `7.0.15` or `v1.19.0-dev`, is at least `major.minor`. An unparsable version counts as new.
fn at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(found_major)), Some(Ok(found_minor))) => (found_major, found_minor) >= (major, minor),
        _ => true,
    }
}
