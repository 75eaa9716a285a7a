//! The judgement on each fact.

use tidewheel_core::installation::{CollectionMark, Installation};
use tidewheel_pipeline::ownership::{Ownership, Registration, Serves, ownership, registration};
use tidewheel_stores::mongo::{MongoFacts, Topology};
use tidewheel_stores::qdrant::{CollectionFacts, QdrantFacts};
use tidewheel_stores::redis::RedisFacts;

use super::{CollectorFacts, EmbedderFacts, Facts, Finding, Owners, Told, Verdict};
use crate::overview::{duration, none_of};

/// A producer that was away for longer than the oplog reaches back has to read everything again; a day covers a night
/// and a slow morning.
const OPLOG_SECONDS: u64 = 24 * 3600;

/// From this version on change streams have what tidewheel uses.
const MONGODB: (u32, u32) = (6, 0);
/// The oldest with the claims of dead entries that tidewheel relies on.
const REDIS: (u32, u32) = (7, 0);
/// The oldest with conditional writes.
const QDRANT: (u32, u32) = (1, 16);
/// From here on a restart evaluates conditional writes only once.
const QDRANT_GOOD: (u32, u32) = (1, 19);

/// Above this share of its memory limit Redis is nearly full.
const MEMORY_SHARE: f64 = 0.8;

/// What follows from the facts, in the order of the pipeline.
pub(crate) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut report = Vec::new();
    heard(&mut report, "mongodb", &facts.mongodb_uri, &facts.mongodb, mongodb);
    heard(&mut report, "redis", &facts.redis_url, &facts.redis, redis);
    owner_of_redis(&mut report, &facts.owners);
    heard(&mut report, "embedder", &facts.embedder_url, &facts.embedder, embedder);
    heard(&mut report, "qdrant", &facts.qdrant_url, &facts.qdrant, |report, _, qdrant| {
        server(report, qdrant);
        let dimension = facts.embedder.as_ref().ok().and_then(EmbedderFacts::dimension).map(|count| count as u64);
        collection(report, &facts.collection, qdrant.collection.as_ref(), dimension);
    });
    owner_of_collection(&mut report, &facts.collection, &facts.owners);
    if let Some(told) = &facts.traces {
        heard(&mut report, "traces", "in traces.endpoint", told, traces);
    }
    report
}

type Report = Vec<Finding>;

fn right(report: &mut Report, part: &'static str, message: impl Into<String>) {
    report.push(Finding { part, verdict: Verdict::Right, message: message.into(), hint: None });
}

fn doubtful(report: &mut Report, part: &'static str, message: impl Into<String>, hint: impl Into<String>) {
    report.push(Finding { part, verdict: Verdict::Doubtful, message: message.into(), hint: Some(hint.into()) });
}

fn wrong(report: &mut Report, part: &'static str, message: impl Into<String>, hint: impl Into<String>) {
    report.push(Finding { part, verdict: Verdict::Wrong, message: message.into(), hint: Some(hint.into()) });
}

/// Judges the answer of a server, or its silence.
fn heard<T>(
    report: &mut Report,
    part: &'static str,
    address: &str,
    told: &Told<T>,
    judge: impl FnOnce(&mut Report, &str, &T),
) {
    match told {
        Ok(facts) => judge(report, address, facts),
        Err(failure) => {
            let hint = failure
                .hint
                .clone()
                .unwrap_or_else(|| format!("see whether it runs, and whether {address} is its address"));
            wrong(report, part, &failure.message, hint);
        }
    }
}

fn owner_of_redis(report: &mut Report, owners: &Owners) {
    const PART: &str = "redis";
    let (Some(found), Some(source)) = (&owners.redis, &owners.source) else { return };
    match registration(Some(found), None, &Serves { source: Some(source.clone()), database: None }) {
        Registration::Refuse(error) => wrong(report, PART, error.message, error.hint.unwrap_or_default()),
        _ => right(report, PART, format!("it belongs to installation {} of {}", found.id, found.source)),
    }
}

fn owner_of_collection(report: &mut Report, collection: &str, owners: &Owners) {
    const PART: &str = "qdrant";
    let (Some(mark @ CollectionMark::Of(owner)), Some(source)) = (&owners.collection, &owners.source) else { return };
    // Without an installation in Redis the next producer registers a new one.
    let new = || Installation { id: String::new(), source: source.clone(), created_at: 0, collection: String::new() };
    let own = owners.redis.clone().filter(|found| found.source.is_same(source)).unwrap_or_else(new);
    match ownership(&own, collection, mark) {
        Ownership::Refuse(error) => wrong(report, PART, error.message, error.hint.unwrap_or_default()),
        Ownership::Inherit => {
            let message = format!("the collection belongs to an earlier installation of {}", owner.source);
            doubtful(
                report,
                PART,
                message,
                "the next upserter takes it over: stop the other installation if it still runs",
            );
        }
        _ => right(report, PART, format!("the collection belongs to installation {}", owner.id)),
    }
}

fn traces(report: &mut Report, _: &str, facts: &CollectorFacts) {
    const PART: &str = "traces";
    let address = &facts.address;
    match &facts.refused {
        None => right(report, PART, format!("a collector takes traces at {address}")),
        Some(cause) => doubtful(
            report,
            PART,
            format!("no collector takes traces at {address}: {cause}"),
            "changes go on without; check traces.endpoint and traces.headers, and that it takes OTLP over HTTP",
        ),
    }
}

fn mongodb(report: &mut Report, address: &str, facts: &MongoFacts) {
    const PART: &str = "mongodb";
    let version = &facts.version;
    if at_least(version, MONGODB) {
        right(report, PART, format!("MongoDB {version} answers at {address}"));
    } else {
        wrong(report, PART, format!("MongoDB {version} is too old"), "MongoDB 6.0 or newer is needed");
    }
    match &facts.topology {
        Topology::ReplicaSet(name) => right(report, PART, format!("it is the replica set {name}")),
        Topology::Sharded => right(report, PART, "it is a sharded cluster"),
        Topology::Standalone => wrong(
            report,
            PART,
            "it is a single server, which has no change streams",
            "start it with --replSet rs0 and run rs.initiate() once; a replica set of one node is enough",
        ),
    }
    if !facts.primary && facts.topology != Topology::Sharded {
        doubtful(report, PART, "no primary answers", "wait for an election, or look at rs.status()");
    }
    for option in &facts.ignored {
        let hint = "remove it from mongodb.uri";
        doubtful(report, PART, format!("the option {option} of mongodb.uri is not supported and has no effect"), hint);
    }
    match &facts.watch {
        Ok(()) => right(report, PART, "a change stream can be opened"),
        Err(error) => {
            let hint = "the user needs the actions find and changeStream on the database";
            wrong(report, PART, &error.message, error.hint.as_deref().unwrap_or(hint));
        }
    }
    match facts.oplog {
        Some(window) if window.seconds() >= OPLOG_SECONDS => {
            right(report, PART, format!("the oplog reaches back {} hours", window.seconds() / 3600));
        }
        Some(window) => doubtful(
            report,
            PART,
            format!("the oplog reaches back only {}", duration(window.seconds() as f64)),
            "fine on a young server; otherwise enlarge it with replSetResizeOplog, so that a producer may be away for a day",
        ),
        None if matches!(facts.topology, Topology::ReplicaSet(_)) => doubtful(
            report,
            PART,
            "how far the oplog reaches back is not known",
            "let the user read local.oplog.rs to have it watched",
        ),
        None => {}
    }
    let documents: u64 = facts.collections.iter().map(|(_, count)| count).sum();
    if !facts.passed_over.is_empty() {
        let message = format!("mongodb.collection selects {}", none_of(&facts.passed_over));
        wrong(report, PART, message, "correct mongodb.collection: a name, or a pattern such as \"tickets_*\"");
    } else if facts.collections.is_empty() {
        let hint = "fine if they are yet to come; otherwise look at mongodb.database and mongodb.collection";
        doubtful(report, PART, "no collection is selected that exists", hint);
    } else {
        right(
            report,
            PART,
            format!("selected collections: {}, with about {documents} documents", facts.collections.len()),
        );
    }
}

fn redis(report: &mut Report, address: &str, facts: &RedisFacts) {
    const PART: &str = "redis";
    let version = &facts.version;
    if at_least(version, REDIS) {
        right(report, PART, format!("Redis {version} answers at {address}"));
    } else {
        wrong(report, PART, format!("Redis {version} is too old"), "Redis 7.0 or newer is needed");
    }
    if facts.cluster {
        let hint = "use a server that is not in cluster mode: one step of the pipeline touches two streams at once";
        wrong(report, PART, "it is a node of Redis Cluster", hint);
    }
    if facts.role == "slave" {
        wrong(report, PART, "it is a replica, which takes no writes", "let redis.url point to the primary");
    }
    match facts.max_memory_policy.as_str() {
        "noeviction" => right(report, PART, "it deletes nothing when its memory is full (noeviction)"),
        "" => {
            doubtful(report, PART, "its eviction policy is not known", "make sure that maxmemory-policy is noeviction");
        }
        policy => wrong(
            report,
            PART,
            format!("maxmemory-policy is {policy}: it deletes data when its memory is full"),
            "redis-cli CONFIG SET maxmemory-policy noeviction, and the same line in redis.conf",
        ),
    }
    if facts.append_only {
        match facts.append_fsync.as_deref() {
            Some("no") => doubtful(
                report,
                PART,
                "appendfsync is no: the system decides when data reaches the disk",
                "set appendfsync everysec; what a power cut takes is then at most a second, and is read again",
            ),
            Some(fsync) => right(report, PART, format!("it writes an append-only file (appendfsync {fsync})")),
            None => right(report, PART, "it writes an append-only file"),
        }
    } else {
        doubtful(
            report,
            PART,
            "appendonly is no: a restart of Redis loses both streams, and everything is read again",
            "redis-cli CONFIG SET appendonly yes, and the same line in redis.conf",
        );
    }
    if facts.max_memory > 0 {
        let share = facts.used_memory as f64 / facts.max_memory as f64;
        let message = format!("{:.0} % of its memory limit are in use", share * 100.0);
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
                format!("{model} at {address} gave {dimension} dimensions in {millis:.1} ms{computes}"),
            );
        }
        EmbedderFacts::ToStart { model, dimension } => {
            match dimension {
                Some(dimension) => right(report, PART, format!("{model} can be loaded: {dimension} dimensions")),
                None => doubtful(
                    report,
                    PART,
                    format!("{model} is not on this machine yet"),
                    "`tidewheel run` fetches it when it starts, which takes a while and needs the network",
                ),
            }
            doubtful(
                report,
                PART,
                format!("no embedder runs at {address} yet"),
                "`tidewheel run` starts it; for an embedder elsewhere set embedding.url",
            );
        }
    }
}

fn server(report: &mut Report, facts: &QdrantFacts) {
    const PART: &str = "qdrant";
    let QdrantFacts { title, version, .. } = facts;
    if !at_least(version, QDRANT) {
        wrong(report, PART, format!("Qdrant {version} is too old"), "1.16 or newer is needed, 1.19 is best");
    } else if at_least(version, QDRANT_GOOD) {
        right(report, PART, format!("{title} {version} answers"));
    } else {
        let hint = "from 1.19 on a crash cannot apply a conditional write twice";
        doubtful(report, PART, format!("Qdrant {version} works"), hint);
    }
}

fn collection(report: &mut Report, name: &str, facts: Option<&CollectionFacts>, embedder: Option<u64>) {
    const PART: &str = "qdrant";
    let Some(facts) = facts else {
        return right(report, PART, format!("collection {name} is not there yet; the upserter creates it"));
    };
    let elsewhere = "delete it, or choose another qdrant.collection";
    match (facts.dimension, facts.distance.as_deref()) {
        (None, _) => {
            return wrong(report, PART, format!("collection {name} has no default vector"), elsewhere);
        }
        (_, Some(distance)) if distance != "Cosine" => {
            return wrong(
                report,
                PART,
                format!("collection {name} compares by {distance} instead of Cosine"),
                elsewhere,
            );
        }
        (Some(found), _) if embedder.is_some_and(|embedder| embedder != found) => {
            let expected = embedder.unwrap_or_default();
            let message = format!("collection {name} has {found} dimensions, the embedder gives {expected}");
            return wrong(report, PART, message, "use the model that it was made with, or another qdrant.collection");
        }
        _ => {}
    }
    let points = facts.points;
    match facts.status.as_str() {
        "red" => {
            let cause = facts.optimizer_error.as_deref().unwrap_or("no reason given");
            wrong(report, PART, format!("collection {name} is broken: {cause}"), "look at Qdrant's log");
        }
        status => right(report, PART, format!("collection {name} has {points} points and is {status}")),
    }
}

/// Whether `version`, such as `7.0.15` or `v1.19.0-dev`, is at least this. What cannot be read is taken to be new.
fn at_least(version: &str, (major, minor): (u32, u32)) -> bool {
    let mut parts = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
    match (parts.next(), parts.next()) {
        (Some(Ok(found_major)), Some(Ok(found_minor))) => (found_major, found_minor) >= (major, minor),
        _ => true,
    }
}
